"""Weights as a stream of buckets: so many bytes at a time, never the whole model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from gcpo_mcore.base import platform


@dataclass(frozen=True)
class Bucket:
    """Tensors laid end to end, largest items first so that every one is aligned.

    flat: [bytes] uint8. `tensors` are views into it, by Hugging Face name. is_last: nothing comes after it.
    """

    flat: torch.Tensor
    tensors: list[tuple[str, torch.Tensor]]
    is_last: bool


def buckets(weights: Iterable[tuple[str, torch.Tensor]], size: int) -> Iterator[Bucket]:
    """Buckets of at most `size` bytes, or of one larger tensor, in memory of their own."""
    held: list[tuple[str, torch.Tensor]] = []
    held_bytes = 0
    for name, tensor in weights:
        if held and held_bytes + tensor.nbytes > size:
            yield _bucket(held, is_last=False)
            held, held_bytes = [], 0
        held.append((name, tensor))
        held_bytes += tensor.nbytes
    yield _bucket(held, is_last=True)


def _bucket(tensors: list[tuple[str, torch.Tensor]], is_last: bool) -> Bucket:
    tensors = sorted(tensors, key=lambda item: -item[1].itemsize)  # stable; items of 4 bytes stand before those of 2
    flat = torch.cat([tensor.detach().contiguous().flatten().view(torch.uint8) for _, tensor in tensors])
    flat = flat.to(platform.device())  # a folder's come from the host: no transport but disk could hand them over
    views, start = [], 0
    for name, tensor in tensors:
        views.append((name, flat[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)))
        start += tensor.nbytes
    return Bucket(flat, views, is_last)
