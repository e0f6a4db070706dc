"""Samples' arrays end to end, as a file has them, and cut apart again: to the bit, numbers only."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gcpo_mcore.samples import Sample

EXPERTS = "routed_experts"
TYPES = {"response_ids": np.int32, "rollout_logp": np.float32, "sampling_logp": np.float32, "token_versions": np.int32}


def joined(pieces: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
    """One flat array of that type."""
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(piece, dtype) for piece in pieces)])


def arrays(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """The arrays of all samples, flat, in their order."""
    experts = (s.routed_experts.reshape(-1) for s in samples if s.routed_experts is not None)
    found = {name: joined((getattr(s, name) for s in samples), dtype) for name, dtype in TYPES.items()}
    return found | {EXPERTS: joined(experts, np.int16)}


def sizes(sample: Sample) -> dict[str, Any]:
    """What `Cutter.fields` needs to know of a sample, in plain json values."""
    experts = sample.routed_experts
    return {
        "lengths": {name: len(getattr(sample, name)) for name in TYPES},
        "experts_shape": None if experts is None else list(experts.shape),
    }


class Cutter:
    """Cuts flat arrays into their pieces, from their beginnings on."""

    def __init__(self, flat: Mapping[str, np.ndarray]):
        self._flat, self._at = flat, dict.fromkeys(flat, 0)

    def take(self, name: str, count: int) -> np.ndarray:
        """The next `count` values of an array, a copy. ValueError if it has fewer."""
        start = self._at[name]
        self._at[name] = end = start + count
        if end > len(self._flat[name]):
            raise ValueError(f"fewer values of {name} than its rows have")
        return self._flat[name][start:end].copy()

    def fields(self, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays of the next sample, by the names of Sample's fields."""
        shape = sizes["experts_shape"]
        own: dict[str, Any] = {name: self.take(name, sizes["lengths"][name]) for name in TYPES}
        return own | {EXPERTS: None if shape is None else self.take(EXPERTS, math.prod(shape)).reshape(shape)}
