"""Small things that all ranks do together."""

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def from_rank_0(value: T) -> T:
    """Rank 0's `value`, on every rank."""
    shared = [value]
    dist.broadcast_object_list(shared)
    return shared[0]


def from_every_rank(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's `value`, in the order of the ranks, on every rank; of `group` where it is not all of them."""
    gathered = [value] * dist.get_world_size(group)
    dist.all_gather_object(gathered, value, group=group)
    return gathered
