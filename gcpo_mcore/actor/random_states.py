"""The random-number states of a rank, as plain values in a file of JSON: to read them runs nothing.

torch, cuda   the generator's bytes, as base64
numpy         [name, its numbers, position, has_gauss, gauss]
python        [version, its numbers, gauss]

Older checkpoints have what torch.save wrote, read with numpy's arrays and nothing else allowed beside plain values.
"""

import base64
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray

from gcpo_mcore.base import platform
from gcpo_mcore.base.errors import UserError

OLD_SUFFIX = ".pt"
_ARRAYS = [
    (multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
    (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),  # of numpy 1
    np.ndarray,
    np.dtype,
    type(np.dtype(np.uint32)),
]


def random_states() -> bytes:
    """The states as they are now, as the content of a file."""
    name, numbers, *rest = np.random.get_state(legacy=True)
    states = {
        "torch": _as_text(torch.get_rng_state()),
        "numpy": [name, np.asarray(numbers).tolist(), *rest],
        "python": random.getstate(),
    }
    if platform.HAS_CUDA:
        states["cuda"] = _as_text(torch.cuda.get_rng_state())
    return json.dumps(states).encode()


def set_random_states(file: Path) -> None:
    """Restores what `random_states` gave. UserError, naming the file, if it is something else; OSError as usual."""
    try:
        states = _read(file)
        torch.set_rng_state(states["torch"])
        np.random.set_state(states["numpy"])
        random.setstate(states["python"])
        if platform.HAS_CUDA and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])
    except OSError:
        raise
    except Exception as error:  # of torch, zipfile, json and three generators
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{file} has no random states ({type(error).__name__}: {reason})") from error


def _read(file: Path) -> dict[str, Any]:
    """The states, each as its generator takes it."""
    if file.suffix == OLD_SUFFIX:
        with torch.serialization.safe_globals(_ARRAYS):
            return torch.load(file, map_location="cpu", weights_only=True)
    states = json.loads(file.read_bytes())
    version, numbers, gauss = states["python"]
    tensors = {name: _as_tensor(states[name]) for name in ("torch", "cuda") if name in states}
    return tensors | {"numpy": tuple(states["numpy"]), "python": (version, tuple(numbers), gauss)}


def _as_text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _as_tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
