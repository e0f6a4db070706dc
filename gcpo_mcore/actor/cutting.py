"""Cutting a rank's rows into micro-batches: so many rows each, or packs of so many tokens."""

from dataclasses import dataclass

import torch

from gcpo_mcore.actor.microbatch import MicroBatch, Rows, first_of_each, packed, padded, shared
from gcpo_mcore.batch import Batch

LEAST_SAVING = 0.1  # of the tokens: below it, the attention's copies of the prompt's keys cost more


@dataclass(frozen=True)
class Cut:
    """How rows become micro-batches.

    sequences          rows of a padded or shared micro-batch
    tokens             tokens of a pack; None: by `sequences`
    shares_prompts     whether rows of a group stand behind one copy of their prompt
    multiple_of        the length of a micro-batch is a multiple of this (sequence and context parallelism)
    row_multiple_of    every row of a pack is filled up to a multiple of this (context parallelism)
    count_multiple_of  the number of micro-batches is a multiple of this; what is missing is empty
    is_one_shape       packs are filled up to the longest one (pipeline stages expect one shape)
    """

    sequences: int
    tokens: int | None
    shares_prompts: bool
    multiple_of: int
    row_multiple_of: int
    count_multiple_of: int
    is_one_shape: bool
    device: torch.device


def split(batch: Rows, cut: Cut) -> list[MicroBatch[Rows]]:
    """The micro-batches of this rank's rows: the same number on every rank. A collective over the batch's peers."""
    if cut.shares_prompts and _sharing_pays(batch):
        return _split_shared(batch, cut)
    lengths = _lengths(batch)
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))  # those of a length stand together
    if cut.tokens is None:
        length = _round_up(max(lengths, default=1), cut.multiple_of)
        chunks = _with_empty(batch, _chunks(order, cut.sequences), cut)
        return [padded(batch, numbers, cut.sequences, length, cut.device) for numbers in chunks]
    lengths = [_round_up(n, cut.row_multiple_of) for n in lengths]
    packs = _with_empty(batch, first_fit(order, lengths, cut.tokens), cut)
    rows = [[lengths[i] for i in numbers] for numbers in packs]
    return [
        packed(batch, numbers, own, length, cut.device)
        for numbers, own, length in zip(packs, rows, _pack_lengths([*map(sum, rows)], cut), strict=True)
    ]


def _sharing_pays(batch: Batch) -> bool:
    """Whether a tenth of the tokens or more would be left out. Not with experts that the engine chose: it may have sent
    a prompt's tokens to others for each of its responses."""
    if any(experts is not None for experts in batch.routed_experts):
        return False
    tokens = sum(_lengths(batch))
    return tokens - _shared_tokens(batch, list(range(len(batch)))) >= LEAST_SAVING * tokens > 0


def _split_shared(batch: Rows, cut: Cut) -> list[MicroBatch[Rows]]:
    families = _families(batch, cut.tokens)
    if cut.tokens is None:
        packs = _chunks([number for family in families for number in family], cut.sequences)
    else:
        sizes = [_shared_tokens(batch, family) for family in families]
        order = sorted(range(len(families)), key=lambda i: (-sizes[i], i))
        packs = [[n for i in chosen for n in families[i]] for chosen in first_fit(order, sizes, cut.tokens)]
    packs = _with_empty(batch, packs, cut)
    lengths = _pack_lengths([_shared_tokens(batch, numbers) for numbers in packs], cut)
    return [shared(batch, numbers, length, cut.device) for numbers, length in zip(packs, lengths, strict=True)]


def _pack_lengths(tokens: list[int], cut: Cut) -> list[int]:
    """The lengths of packs with so many tokens each."""
    least = max(tokens) if cut.is_one_shape else 1
    return [_round_up(max(n, least, 1), cut.multiple_of) for n in tokens]


def _families(batch: Batch, tokens: int | None) -> list[list[int]]:
    """The rows of each group, in as many parts as it takes for each to have at most `tokens` tokens with the prompt."""
    families: list[list[int]] = []
    group = batch.table.group[batch.mine].tolist()
    room = 0
    for number in range(len(batch)):
        own = len(batch.response_ids[number])
        is_new = not families or group[number] != group[families[-1][-1]] or (tokens is not None and own > room)
        if is_new:
            families.append([])
            room = (tokens or 0) - len(batch.prompt_ids[number])
        families[-1].append(number)
        room -= own
    return families


def _shared_tokens(batch: Batch, numbers: list[int]) -> int:
    """Tokens of these rows, neighbours of a group behind one prompt."""
    prompts = sum(len(batch.prompt_ids[n]) for n in first_of_each(batch, numbers))
    return prompts + sum(len(batch.response_ids[n]) for n in numbers)


def _lengths(batch: Batch) -> list[int]:
    return [len(p) + len(r) for p, r in zip(batch.prompt_ids, batch.response_ids, strict=True)]


def _chunks(order: list[int], size: int) -> list[list[int]]:
    return [order[first : first + size] for first in range(0, len(order), size)]


def _with_empty(batch: Batch, mine: list[list[int]], cut: Cut) -> list[list[int]]:
    """`mine` with empty ones behind, as many in all as the rank that has most makes."""
    most = _round_up(max(int(batch.peers.max(torch.tensor(len(mine)))), 1), cut.count_multiple_of)
    return mine + [[]] * (most - len(mine))


def first_fit(rows: list[int], lengths: list[int], tokens: int) -> list[list[int]]:
    """Packs `rows` by at most `tokens` tokens (a longer row is a pack by itself): longest first, into the first pack
    with room."""
    packs: list[list[int]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda i: (-lengths[i], i)):
        place = next((i for i, left in enumerate(room) if left >= lengths[row]), None)
        if place is None:
            packs.append([])
            room.append(tokens)
            place = len(packs) - 1
        packs[place].append(row)
        room[place] -= lengths[row]
    return packs


def _round_up(length: int, multiple_of: int) -> int:
    return -(-length // multiple_of) * multiple_of
