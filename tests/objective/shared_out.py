"""A batch shared out over several ranks, each a thread of the test: their sums meet at a barrier."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch

from gcpo_mcore.batch import Batch

Result = TypeVar("Result")


class Meeting:
    """Where `ranks` threads add up; `peers(rank)` is one's way in."""

    def __init__(self, ranks: int):
        self.ranks, self.barrier = ranks, threading.Barrier(ranks, timeout=300)
        self.values: list[torch.Tensor] = [torch.zeros(())] * ranks

    def exchange(self, rank: int, value: torch.Tensor) -> list[torch.Tensor]:
        self.values[rank] = value.detach().clone()
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found


class ThreadPeers:
    def __init__(self, meeting: Meeting, rank: int):
        self.meeting, self.rank = meeting, rank

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.meeting.exchange(self.rank, values)).sum(0)

    def max(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.meeting.exchange(self.rank, values)).amax(0)


def on_every_rank(batch: Batch, owner: list[int], ranks: int, do: Callable[[Batch, list[int]], Result]) -> list[Result]:
    """`do(rows of the rank, their numbers)` on every rank at once; `owner` has the rank of each row of `batch`."""
    meeting = Meeting(ranks)

    def run(rank: int) -> Result:
        rows = [row for row, its_rank in enumerate(owner) if its_rank == rank]
        return do(replace(batch.choose(rows), peers=ThreadPeers(meeting, rank)), rows)

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))
