"""The tensors that transformers' `from_pretrained` reads from a Hugging Face folder, one at a time.

transformers (5.23) takes the first of these that is there, and no other file:

    the file that config.json names (transformers_weights)
    model.safetensors;   the files that model.safetensors.index.json names
    pytorch_model.bin;   the files that pytorch_model.bin.index.json names

and of each file every tensor, whatever the index says of it. What two programs would read differently is refused: a
tensor that two files have with different values, an adapter beside the weights, weights that are quantised.
tests/hf/test_reader.py compares with transformers itself.
"""

import json
import logging
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from gcpo_mcore.base.errors import UserError

log = logging.getLogger(__name__)

CHOICES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
FLOATS = {"F64", "F32", "F16", "BF16", *(torch.float64, torch.float32, torch.float16, torch.bfloat16)}
DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
LFS = b"version https://git-lfs"


class FolderReader:
    """`reader(name)` is the tensor of that name, as it is stored; `shape(name)` its shape, without reading it.

    UserError, naming the file, for a folder that transformers does not read, or that says two things.
    """

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self._files: dict[str, _Tensors] = {}
        for path in weight_files(self.folder):
            file = _TorchFile(path) if path.suffix == ".bin" else _Safetensors(path)
            for name in file.names():
                if file.dtype(name) not in FLOATS:
                    raise UserError(f"{path}: {name} is {file.dtype(name)}: quantised weights are not carried")
                if name in self._files and not same_values(self(name), file.read(name)):
                    raise UserError(
                        f"{folder}: {name} is in {self._files[name].path.name} and in {path.name}, differing"
                    )
                self._files[name] = file

    def names(self) -> list[str]:
        """The names of all tensors."""
        return sorted(self._files)

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor."""
        return self._files[name].shape(name)

    def __call__(self, name: str) -> torch.Tensor:
        return self._files[name].read(name)


def same_values(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal, whatever their types."""
    wider = torch.promote_types(a.dtype, b.dtype)
    return a.shape == b.shape and torch.equal(a.to(wider), b.to(wider))


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads weights from, in its order. Others with weights are named in a warning.

    UserError if there are none, one is missing, or transformers would read something else beside or instead.
    """
    _refuse_other_forms(folder)
    chosen = _chosen(folder)
    files = [folder / name for name in _indexed(chosen)] if chosen.name.endswith(".index.json") else [chosen]
    for path in files:
        if not path.is_file():
            named_by = f"; {chosen.name} names it" if path != chosen else ""
            raise UserError(f"{folder}: {path.name} is missing{named_by}")
    if others := sorted(p.name for p in folder.glob("*.safetensors") if p not in files):
        log.warning(
            "%s: weights are read from %s, as transformers does; left out: %s", folder, chosen.name, _few(others)
        )
    return files


def _refuse_other_forms(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder}: adapter_config.json: merge the adapter into the weights first")
    if shard := next((p.name for p in folder.iterdir() if DISTRIBUTED.fullmatch(p.name)), None):
        raise UserError(f"{folder}: {shard} is of a distributed checkpoint: save it whole, with save_pretrained")


def _chosen(folder: Path) -> Path:
    """The file that has the weights, or the index of those that have."""
    config = json.loads((folder / "config.json").read_text())
    if named := config.get("transformers_weights"):
        return folder / named
    for name in CHOICES:
        if (folder / name).is_file():
            return folder / name
        if (folder / name).is_symlink():
            raise UserError(f"{folder}: {name} is a link to a file that is not there")
    there = sorted(p.name for p in folder.iterdir() if p.name.endswith(WEIGHTS))
    known = f"; what is there transformers does not read: {_few(there)}" if there else ""
    raise UserError(f"model.path: no weights in {folder} ({', '.join(CHOICES)}){known}")


def _indexed(path: Path) -> list[str]:
    """The files that an index names, sorted, as transformers reads them."""
    try:
        index = json.loads(path.read_text())
        names = sorted(set(index["weight_map"].values()))
        dict(index["metadata"])  # transformers reads no index without one
    except KeyError as error:
        raise UserError(f"{path}: not a readable index (it has no {error.args[0]})") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: not a readable index ({error})") from None
    if not names:
        raise UserError(f"{path}: not a readable index (it names no file)")
    return names


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(LFS)) == LFS
    except OSError:
        return False


class _Tensors(ABC):
    """One file of weights."""

    def __init__(self, path: Path, dtypes: Mapping[str, Any]):
        self.path, self._dtypes = path, dtypes

    def names(self) -> list[str]:
        return list(self._dtypes)

    def dtype(self, name: str) -> Any:
        return self._dtypes[name]

    @abstractmethod
    def shape(self, name: str) -> list[int]: ...

    @abstractmethod
    def read(self, name: str) -> torch.Tensor: ...


class _Safetensors(_Tensors):
    """One safetensors file, opened for each access."""

    def __init__(self, path: Path):
        try:
            with safe_open(path, "pt") as file:
                parts = {name: file.get_slice(name) for name in list(file.keys())}
                dtypes = {name: part.get_dtype() for name, part in parts.items()}
                self._shapes = {name: part.get_shape() for name, part in parts.items()}
        except Exception as error:  # safetensors raises its own, undocumented types for a broken file
            why = "it is a Git LFS pointer: git lfs pull" if _is_pointer(path) else error
            raise UserError(f"{path}: cannot be read as safetensors ({why})") from None
        super().__init__(path, dtypes)

    def shape(self, name: str) -> list[int]:
        return self._shapes[name]

    def read(self, name: str) -> torch.Tensor:
        with safe_open(self.path, "pt") as file:
            return file.get_tensor(name)


class _TorchFile(_Tensors):
    """One file of torch.save, mapped into memory."""

    def __init__(self, path: Path):
        try:
            mapped = {"mmap": True} if zipfile.is_zipfile(path) else {}  # else the format of before torch 1.6
            self._tensors: dict[str, torch.Tensor] = torch.load(path, "cpu", weights_only=True, **mapped)
            dtypes = {name: tensor.dtype for name, tensor in self._tensors.items()}
        except Exception as error:  # of pickle, of zipfile, of torch
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: cannot be read as weights that torch saved ({reason})") from None
        super().__init__(path, dtypes)

    def shape(self, name: str) -> list[int]:
        return list(self._tensors[name].shape)

    def read(self, name: str) -> torch.Tensor:
        return self._tensors[name]
