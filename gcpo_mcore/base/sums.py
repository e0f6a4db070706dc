"""Checksums of files, taken while they are written and again while they are read.

XXH3 finds damage; it is no defence against somebody who means it. It takes several GB a second on one core; SHA-256,
which older checkpoints have, a third of that at best.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from gcpo_mcore.base.files import naming

ALGORITHM = "xxh3_128"
_HASHES: dict[str, Callable[[], Any]] = {ALGORITHM: xxhash.xxh3_128, "sha256": hashlib.sha256}
ALGORITHMS = tuple(_HASHES)


class Sum(NamedTuple):
    """What a file is known by: its `size` in bytes and the `digest` of these, in hexadecimal, by `algorithm`."""

    size: int
    digest: str
    algorithm: str = ALGORITHM


class SummedFile(io.BufferedWriter):
    """A file to be written front to back, as torch.save does, that sums what is written."""

    def __init__(self, raw: io.FileIO):
        super().__init__(raw)
        self._hash, self._size = _HASHES[ALGORITHM](), 0

    def write(self, content) -> int:
        """Appends `content`, any bytes; returns how many. OSError as usual."""
        self._hash.update(content)
        written = super().write(content)
        self._size += written
        return written

    @property
    def sum(self) -> Sum:
        """The sum of what is written so far."""
        return Sum(self._size, self._hash.hexdigest())


@contextmanager
def summed_file(path: Path) -> Iterator[SummedFile]:
    """A new file to write and sum; durable when the block ends well. OSError, which names it."""
    with naming(path), SummedFile(open(path, "wb", buffering=0)) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def sum_of(content: bytes) -> Sum:
    """The sum of `content`."""
    return Sum(len(content), xxhash.xxh3_128_hexdigest(content))


def sum_file(path: Path, algorithm: str = ALGORITHM) -> Sum:
    """The sum of a file, which is read whole. OSError as usual."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, _HASHES[algorithm]).hexdigest()
        return Sum(os.fstat(file.fileno()).st_size, digest, algorithm)


@cache
def code_digest(*places: Path) -> str:
    """16 hex digits that change with the Python files that `places` are or hold: a version stays from commit to commit.

    Read once: the code that runs is that of the process's start.
    """
    digest = xxhash.xxh3_64()
    for place in places:
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.relative_to(place.parent)}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def damage(path: Path, expected: Sum) -> str | None:
    """The words for what is wrong with a file, or None. Reads it whole if it has the right size."""
    return size_damage(path, expected) or (None if sum_file(path, expected.algorithm) == expected else "is damaged")


def size_damage(path: Path, expected: Sum) -> str | None:
    """The words for a file that is missing or of another size, or None. Reads nothing of it."""
    if not path.is_file():
        return "is missing"
    return None if path.stat().st_size == expected.size else "is damaged"
