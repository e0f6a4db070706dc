"""Writes shards: every rank its own files, at once; then one of them the index of all.

entries, total = write_file(shards / "__3_0.distcp", pieces)   # on rank 3
write_index(shards, entries_of_all_ranks, common)              # on rank 0
"""

import json
import pickle
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, _StorageInfo  # what the index holds
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.sums import Sum, summed_file
from gcpo_mcore.shards.piece import Numbers, Piece

INDEX = ".metadata"
COMMON = "common.pt"
# What dist_checkpointing asks for before it reads anything.
_FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


class Entry(NamedTuple):
    """Where something lies: `length` bytes from `start` on in `file`. An object has no shape and what follows it."""

    key: str
    file: str
    start: int
    length: int
    shape: Numbers | None = None
    dtype: torch.dtype | None = None
    offset: Numbers | None = None
    sizes: Numbers | None = None


def write_file(path: Path, pieces: Iterable[Piece], objects: Iterable[tuple[str, Any]] = ()) -> tuple[list[Entry], Sum]:
    """Writes `pieces`, and (key, value) of `objects`, into a new file. Returns where each lies, and the file's sum.

    Pieces may be made one by one while they are written. On the host there is one at a time. OSError as usual.
    """
    entries = []
    with summed_file(path) as file:
        for key, value in objects:
            start = file.tell()
            torch.save([value], file)
            entries.append(Entry(key, path.name, start, file.tell() - start))
        for piece in pieces:
            start, tensor = file.tell(), _compact(piece.tensor)
            torch.save(tensor, file)
            length, sizes = file.tell() - start, tuple(tensor.shape)
            entries.append(Entry(piece.key, path.name, start, length, piece.shape, tensor.dtype, piece.offset, sizes))
    return entries, file.sum


def write_index(shards: Path, entries: Iterable[Entry], common: dict[str, Any]) -> dict[str, Sum]:
    """Writes what makes the files of `entries` a checkpoint, with `common`, what is no tensor. Returns the sums of what
    it wrote, by name.

    UserError if the pieces of a tensor are not as many elements as it has, or one was written twice. OSError as usual.
    """
    index = _index(entries)
    for key, tensor in index.state_dict_metadata.items():
        if isinstance(tensor, TensorStorageMetadata):
            there = sum(prod(chunk.sizes) for chunk in tensor.chunks)
            if there != prod(tensor.size):
                raise UserError(f"{shards}: {there} elements of {key} were written, it has {prod(tensor.size)}")
    sums = {}
    for name, write in (
        (COMMON, lambda file: torch.save(common, file)),
        ("metadata.json", lambda file: file.write(json.dumps(_FORMAT).encode())),
        (INDEX, lambda file: file.write(pickle.dumps(index))),
    ):
        with summed_file(shards / name) as file:
            write(file)
        sums[name] = file.sum
    return sums


def _index(entries: Iterable[Entry]) -> Metadata:
    """The index in the form that torch.distributed.checkpoint reads."""
    known: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
    places = {}
    for entry in entries:
        place = MetadataIndex(entry.key, entry.offset)
        if place in places:
            raise UserError(
                f"{entry.key} at {entry.offset} was written twice: {places[place].relative_path}, {entry.file}"
            )
        places[place] = _StorageInfo(entry.file, entry.start, entry.length)
        if entry.shape is None or entry.dtype is None or entry.offset is None or entry.sizes is None:
            known[entry.key] = BytesStorageMetadata()
            continue
        empty = TensorStorageMetadata(TensorProperties(entry.dtype), torch.Size(entry.shape), [])
        tensor = known.setdefault(entry.key, empty)
        assert isinstance(tensor, TensorStorageMetadata)  # keys of objects say which shard they are
        tensor.chunks.append(ChunkStorageMetadata(torch.Size(entry.offset), torch.Size(entry.sizes)))
    return Metadata(known, storage_data=places, storage_meta=StorageMeta(), version=CURRENT_DCP_VERSION)


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """The values in host memory, with nothing beside them: torch.save writes the whole storage of a view."""
    tensor = tensor.detach().to("cpu")
    is_whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if is_whole else tensor.clone(memory_format=torch.contiguous_format)
