"""Small things that all ranks do together.

A rank by itself exchanges nothing: gloo's own threads would copy what it sends to itself, each with workers of its own
for that, and OpenMP hardly lets the workers of any thread spin while there are more of them than cores (bench/LOG.md).
"""

from typing import Protocol, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def from_rank_0(value: T) -> T:
    """Rank 0's `value`, on every rank."""
    if dist.get_world_size() == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared)
    return shared[0]


def from_every_rank(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's `value`, in the order of the ranks, on every rank; of `group` where it is not all of them."""
    gathered = [value] * dist.get_world_size(group)
    if len(gathered) == 1:
        return gathered
    dist.all_gather_object(gathered, value, group=group)
    return gathered


def to_rank_0(value: T) -> list[T] | None:
    """Every rank's `value`, in the order of the ranks, on rank 0; None elsewhere."""
    if dist.get_world_size() == 1:
        return [value]
    gathered = [value] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, gathered)
    return gathered


class Peers(Protocol):
    """The ranks over which the rows of a batch are shared out, this one among them. Each method is a collective."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks, the same on each."""
        ...

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """The largest over the ranks, element by element."""
        ...


class Alone:
    """Peers of a rank that has every row."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """`values`."""
        return values

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """`values`."""
        return values


class GroupPeers:
    """Peers that are a process group."""

    def __init__(self, group: dist.ProcessGroup, device: torch.device):
        self.group, self.device = group, device

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """See `Peers`."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """See `Peers`."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: torch.Tensor, how: dist.ReduceOp.RedOpType) -> torch.Tensor:
        there = values.detach().to(self.device, copy=True)
        dist.all_reduce(there, op=how, group=self.group)
        return there.to(values.device)
