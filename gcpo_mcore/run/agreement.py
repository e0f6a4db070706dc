"""What the ranks of a run agree on before its first step: rank 0 alone decides on files, and all have the same plan."""

import json
import socket
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch.distributed as dist
import xxhash

from gcpo_mcore.base.collectives import from_every_rank, from_rank_0
from gcpo_mcore.base.errors import UserError

T = TypeVar("T")


def decided(decision: Callable[[], T]) -> T:
    """What `decision` gives on rank 0, where alone it is called, on every rank. Its UserError is raised on all."""
    found: list[T] = []
    problem: str | None = None
    if dist.get_rank() == 0:
        try:
            found.append(decision())
        except UserError as error:
            problem = str(error)
    found, problem = from_rank_0((found, problem))
    if problem is not None:
        raise UserError(problem)
    return found[0]


def check_agreement(facts: Mapping[str, str]) -> None:
    """UserError on all ranks, with rank, host and key, if the `facts` of one are not those of rank 0. A collective."""
    digest = xxhash.xxh3_128_hexdigest(json.dumps(facts, sort_keys=True).encode())
    if len(set(from_every_rank(digest))) == 1:  # few bytes a rank, however many there are
        return
    (host_0, first), *others = from_every_rank((socket.gethostname(), dict(facts)))
    for rank, (host, theirs) in enumerate(others, start=1):
        different = [key for key in {**first, **theirs} if first.get(key) != theirs.get(key)]
        if different:
            key = different[0]
            more = f", and {len(different) - 1} more" if len(different) > 1 else ""
            raise UserError(
                f"rank {rank} on {host} has {key}={theirs.get(key)}, rank 0 on {host_0} has {first.get(key)}{more}; "
                "all ranks of a run need the same"
            )
