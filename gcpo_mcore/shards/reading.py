"""Reads pieces of tensors from shards, straight into the memory they are for, whatever pieces were written.

reading = Reading(shards, pieces)   # what is read where, and nothing yet
reading.files                       # the files that it needs
reading.fill()
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.shards.piece import Piece, overlap
from gcpo_mcore.shards.unpickling import load_index
from gcpo_mcore.shards.writing import COMMON, INDEX

T = TypeVar("T")


class _Copy(NamedTuple):
    """What of something stored goes where."""

    source: tuple[slice, ...]
    target: torch.Tensor


class Reading:
    """`pieces`, to be read from `shards`. UserError if these do not have them all, or cannot be read.

    index: what `read_index` returned, for many readings of the same shards.
    """

    def __init__(self, shards: Path, pieces: Iterable[Piece], index: Metadata | None = None):
        self.shards = shards
        self._index = index or read_index(shards)
        self._copies: dict[MetadataIndex, list[_Copy]] = defaultdict(list)  # of each stored piece
        self._padded: list[torch.Tensor] = []
        for piece in pieces:
            self._plan(piece)

    @property
    def files(self) -> set[str]:
        """The names of the files that hold something of it."""
        return {self._place(stored).relative_path for stored in self._copies}

    @torch.no_grad()
    def fill(self) -> None:
        """Fills the pieces. One stored piece at a time is in host memory beside them. OSError as usual.

        UserError for bytes that are not the piece that the index says; pieces may be filled by then.
        """
        for tensor in self._padded:
            tensor.zero_()
        for stored in sorted(self._copies, key=self._order):
            values = self._read(stored)
            for source, target in self._copies[stored]:
                if tuple(values[source].shape) != tuple(target.shape):
                    raise UserError(f"{self.shards / self._place(stored).relative_path} has another {stored.fqn}")
                target.copy_(values[source])

    def _plan(self, piece: Piece) -> None:
        """Notes what of the index `piece` is made of."""
        there = self._index.state_dict_metadata.get(piece.key)
        if not isinstance(there, TensorStorageMetadata):
            raise UserError(f"{self.shards} has no {piece.key}")
        if tuple(there.size) != piece.shape:
            if not piece.may_be_of_another_shape or len(there.size) != len(piece.shape):
                raise UserError(f"{self.shards}: {piece.key} has shape {list(there.size)}, not {list(piece.shape)}")
            self._padded.append(piece.tensor.detach())
        sizes = tuple(piece.tensor.shape)
        found = 0
        for chunk in there.chunks:
            if common := overlap(piece.offset, sizes, chunk.offsets, chunk.sizes):
                target = piece.tensor.detach()[_shifted(common, piece.offset)]
                stored = MetadataIndex(piece.key, chunk.offsets)
                if stored not in self._index.storage_data:
                    raise UserError(f"{self.shards}: the index does not say where {piece.key} is")
                self._copies[stored].append(_Copy(_shifted(common, chunk.offsets), target))
                found += target.numel()
        wanted = overlap(piece.offset, sizes, [0] * len(sizes), there.size)
        if found != prod(s.stop - s.start for s in wanted or [slice(0, 0)]):
            raise UserError(f"{self.shards}: the index has elements of {piece.key} twice or not at all")

    def _place(self, stored: MetadataIndex) -> Any:
        return self._index.storage_data[stored]

    def _order(self, stored: MetadataIndex) -> tuple[str, int]:
        return self._place(stored).relative_path, self._place(stored).offset

    def _read(self, stored: MetadataIndex) -> torch.Tensor:
        place = self._place(stored)
        with open(self.shards / place.relative_path, "rb") as file:
            file.seek(place.offset)
            content = file.read(place.length)
        return _loaded(io.BytesIO(content), self.shards / place.relative_path, torch.Tensor)


def read_index(shards: Path) -> Metadata:
    """The index of `shards`, by an allow-list. UserError, with the reason, if it cannot be read."""
    try:
        return load_index(shards / INDEX)
    except Exception as error:  # of pickle, which raises whatever the bytes make it meet
        raise UserError(f"{shards / INDEX} cannot be read ({type(error).__name__}: {error})") from error


def read_common(shards: Path) -> dict[str, Any]:
    """What of `shards` is no tensor. UserError, with the reason, if it cannot be read."""
    return _loaded(shards / COMMON, shards / COMMON, dict)


def _loaded(source: Path | io.BytesIO, file: Path, kind: type[T]) -> T:
    """What torch.save wrote, of tensors and plain values only. UserError, naming the file, for anything else."""
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # of torch, zipfile and pickle
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{file} cannot be read ({type(error).__name__}: {reason})") from error
    if not isinstance(found, kind):
        raise UserError(f"{file} cannot be read (it holds a {type(found).__name__})")
    return found


def _shifted(box: Sequence[slice], by: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(s.start - o, s.stop - o) for s, o in zip(box, by, strict=True))
