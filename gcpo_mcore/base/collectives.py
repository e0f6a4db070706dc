"""Small things that all ranks do together."""

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def from_rank_0(value: T) -> T:
    """Rank 0's `value`, on every rank."""
    shared = [value]
    dist.broadcast_object_list(shared)
    return shared[0]
