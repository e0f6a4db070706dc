"""What the ranks of a run agree on before its first step: rank 0 alone decides on files."""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from gcpo_mcore.base.collectives import from_rank_0
from gcpo_mcore.base.errors import UserError

T = TypeVar("T")


def decided(decision: Callable[[], T]) -> T:
    """What `decision` gives on rank 0, where alone it is called, on every rank. Its UserError is raised on all."""
    found, problem = None, None
    if dist.get_rank() == 0:
        try:
            found = decision()
        except UserError as error:
            problem = str(error)
    told = from_rank_0((found, problem))
    if told[1] is not None:
        raise UserError(told[1])
    return told[0]
