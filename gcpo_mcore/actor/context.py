"""Context parallelism: which share of every sequence a rank holds.

A sequence is cut into 2 x ranks pieces of one size; rank r holds piece r and piece 2 x ranks - 1 - r, so that causal
attention costs every rank the same. megatron-core cuts its rotary embeddings in this way too. Every row of a pack is
cut by itself: a rank holds its share of the first row, then its share of the second, and so on.
"""

from functools import lru_cache

import torch

CPU = torch.device("cpu")
Lengths = tuple[int, ...]  # of the sequences that stand behind each other, each a multiple of 2 x ranks


@lru_cache(maxsize=64)
def columns(lengths: Lengths, rank: int, ranks: int) -> torch.Tensor:
    """[sum / ranks] int64, the positions in sequences of `lengths` that `rank` of `ranks` holds, in its order."""
    if ranks == 1:
        return torch.arange(sum(lengths))
    mine, start = [], 0
    for length in lengths:
        pieces = torch.arange(start, start + length).view(2 * ranks, -1)
        mine += [pieces[rank], pieces[2 * ranks - 1 - rank]]
        start += length
    return torch.cat(mine)


@lru_cache(maxsize=64)
def natural_order(lengths: Lengths, ranks: int, device: torch.device = CPU) -> torch.Tensor:
    """[sum] int64 on `device`: where each position lies when the ranks' shares stand behind each other.

    Kept there: a copy in every layer would make the host wait for the GPU.
    """
    return torch.cat([columns(lengths, rank, ranks) for rank in range(ranks)]).argsort().to(device)


def local_positions(position: torch.Tensor, lengths: Lengths, rank: int, ranks: int) -> torch.Tensor:
    """[n] where `position` [n] in sequences of `lengths` lies in the share of `rank`; -1 if another rank holds it."""
    place = torch.full((sum(lengths),), -1)
    mine = columns(lengths, rank, ranks)
    place[mine] = torch.arange(len(mine))
    return place[position]


@lru_cache(maxsize=64)
def seen(lengths: Lengths, rank: int, ranks: int) -> tuple[tuple[tuple[int, int], ...], torch.Tensor]:
    """What the queries of `rank` attend to, piece by piece in its order.

    Returns for each piece the number of its queries and of the keys it sees, the last of which are its own causally;
    and [sum of those keys] int64, where the keys lie when the ranks' shares stand behind each other.
    """
    order = natural_order(lengths, ranks)
    sizes, keys, start = [], [], 0
    for length in lengths:
        piece = length // (2 * ranks)
        for number in (rank, 2 * ranks - 1 - rank):
            until = (number + 1) * piece  # a piece sees those before it, and itself
            sizes.append((piece, until))
            keys.append(order[start : start + until])
        start += length
    return tuple(sizes), torch.cat(keys)
