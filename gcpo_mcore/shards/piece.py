"""A piece of a tensor, and flat ranges cut into such pieces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """A box of the tensor named `key`.

    shape   the whole tensor's
    offset  where the box begins in it
    tensor  the box's values, to be written or to be filled: a view of any memory, of as many axes as `shape`
    may_be_of_another_shape  whether what is read may be smaller or larger than `shape`: padding is not the same at
            every layout. What is not there is then 0.
    """

    key: str
    shape: Numbers
    offset: Numbers
    tensor: torch.Tensor
    may_be_of_another_shape: bool = False


def overlap(offset: Sequence[int], sizes: Sequence[int], other: Sequence[int], of: Sequence[int]) -> list[slice] | None:
    """What the box at `offset` of `sizes` shares with the one at `other`, `of` that size; None for nothing."""
    both = [
        slice(max(a, b), min(a + n, b + m)) for a, n, b, m in zip(offset, sizes, other, of, strict=True)
    ]  # fmt: skip
    return both if all(s.start < s.stop for s in both) else None


def boxes(shape: Numbers, start: int, stop: int) -> Iterator[tuple[Numbers, Numbers]]:
    """(offset, sizes) of the boxes that make up the elements [start, stop) of a tensor, row by row, in their order.

    At most 2 * axes - 1 of them: part of a row, whole rows, part of a row.
    """
    if start >= stop:
        return
    if len(shape) <= 1:
        yield (start,)[: len(shape)], (stop - start,)[: len(shape)]
        return
    row = prod(shape[1:])
    first, last = -(-start // row), stop // row  # the whole rows are [first, last)
    if last < first:
        yield from _in_row(shape, last, start, stop)
        return
    yield from _in_row(shape, first - 1, start, first * row)
    if first < last:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    yield from _in_row(shape, last, last * row, stop)


def _in_row(shape: Numbers, row: int, start: int, stop: int) -> Iterator[tuple[Numbers, Numbers]]:
    """The boxes of [start, stop), which lies in that row."""
    before = row * prod(shape[1:])
    for offset, sizes in boxes(shape[1:], start - before, stop - before):
        yield (row, *offset), (1, *sizes)
