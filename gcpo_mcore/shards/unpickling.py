"""The index of shards, which is a pickle, read by an allow-list: whoever made the folder runs no code here."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

_DCP = "torch.distributed.checkpoint"
# What an index of ours names, and one of torch.distributed.checkpoint or megatron-core: records without code of theirs,
# and functions that look a constant up.
ALLOWED = {
    *((f"{_DCP}.metadata", name) for name in (
        "Metadata", "MetadataIndex", "StorageMeta", "BytesStorageMetadata", "ChunkStorageMetadata",
        "TensorStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING",
    )),
    *((f"{_DCP}.planner", name) for name in (
        "SavePlan", "WriteItem", "WriteItemType", "TensorWriteData", "BytesIOWriteData",
    )),
    *((f"{_DCP}.filesystem", name) for name in ("_StorageInfo", "_StoragePrefix")),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"), ("pathlib", "PurePosixPath"), ("pathlib._local", "PosixPath"),
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """See pickle.Unpickler. UnpicklingError for what no index names."""
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) not in ALLOWED and not is_dtype:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not read: it could run code")
        return super().find_class(module, name)


def load_index(file: Path) -> Metadata:
    """The index in `file`, whose fields have the types that they should.

    OSError as usual, ValueError for another form, and for what is no pickle anything that pickle raises.
    """
    with open(file, "rb") as opened:
        found = _Unpickler(opened).load()
    if not (isinstance(found, Metadata) and isinstance(found.state_dict_metadata, dict)):
        raise ValueError("it holds something else")
    if not isinstance(found.storage_data, dict):
        raise ValueError("it has no places")
    for place in found.storage_data.values():
        _check_place(place)
    for key, tensor in found.state_dict_metadata.items():
        if isinstance(tensor, TensorStorageMetadata) and not (_is_box(tensor.size) and _are_chunks(tensor)):
            raise ValueError(f"its entry of {key} is none")
    return found


def _check_place(place: Any) -> None:
    """ValueError unless it is some bytes of a file right in the folder: an index of elsewhere could name any other."""
    name = place.relative_path
    if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no file of the folder")
    if not _is_box((place.offset, place.length)):
        raise ValueError(f"it has no place in {name}")


def _are_chunks(tensor: TensorStorageMetadata) -> bool:
    boxes = ((chunk.offsets, chunk.sizes) for chunk in tensor.chunks)
    return all(_is_box(box) and len(box) == len(tensor.size) for both in boxes for box in both)


def _is_box(numbers: Any) -> bool:
    return isinstance(numbers, tuple) and all(isinstance(number, int) and number >= 0 for number in numbers)
