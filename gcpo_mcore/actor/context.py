"""Context parallelism: which part of every sequence a rank holds.

A sequence is cut into 2 x ranks pieces of one size; rank r holds piece r and piece 2 x ranks - 1 - r, so that causal
attention costs every rank the same. megatron-core cuts its rotary embeddings in this way too.
"""

import torch


def columns(length: int, rank: int, ranks: int) -> torch.Tensor:
    """[length / ranks] int64, the positions of a sequence of `length` that `rank` of `ranks` holds, in its order."""
    pieces = torch.arange(length).view(2 * ranks, -1)
    return torch.cat([pieces[rank], pieces[2 * ranks - 1 - rank]]) if ranks > 1 else torch.arange(length)


def natural_order(length: int, ranks: int) -> torch.Tensor:
    """[length] int64: where each position of a sequence lies when the ranks' parts stand behind each other."""
    return torch.cat([columns(length, rank, ranks) for rank in range(ranks)]).argsort()


def local_positions(position: torch.Tensor, length: int, rank: int, ranks: int) -> torch.Tensor:
    """[n] where `position` [n] of a sequence lies in the part of `rank`; -1 if another rank holds it."""
    place = torch.full((length,), -1)
    mine = columns(length, rank, ranks)
    place[mine] = torch.arange(len(mine))
    return place[position]
