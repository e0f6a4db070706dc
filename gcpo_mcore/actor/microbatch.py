"""A rank's rows of a batch as model input: cut into micro-batches.

Padded: so many rows each, every row filled up to the longest of the batch. Packed: rows behind each other up to a
number of tokens, nothing between them; attention and positions keep to a row (gcpo_mcore/actor/packed_attention.py).
Shared: a pack in which the rows of a group stand behind one copy of their prompt, which all of them see.
Under context parallelism every row is cut over the context ranks (gcpo_mcore/actor/context.py); those of a pack are
filled up one by one so that they can be.
"""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch

from gcpo_mcore.actor import context
from gcpo_mcore.actor.pack import Pack
from gcpo_mcore.actor.packed_attention import AttentionRows
from gcpo_mcore.batch import Batch

LEAST_SAVING = 0.1  # of the tokens: below it, the attention's copies of the prompt's keys cost more
Rows = TypeVar("Rows", bound=Batch)


@dataclass
class MicroBatch(Generic[Rows]):
    """Input of one forward pass. b sequences of s tokens (a pack: b = 1), n response tokens that are predicted here.

    tokens     [b, s] prompt + response, zeros as filling
    positions  [b, s]
    experts    [b, s, layers, topk] those that the tokens go to, -1 where the routers choose; None: everywhere
    packed     what attends to what in a pack; None if padded
    source     [n] flat position (in b*s) whose logits predict each response token, row by row
    targets    [n] the response tokens
    is_mine    [N] bool, which of the rows' N response tokens are predicted here: all, but for context parallelism
    rows       the objective's view of the rows
    numbers    the rows' numbers in the rank's batch
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    experts: torch.Tensor | None
    packed: Pack | None
    source: torch.Tensor
    targets: torch.Tensor
    is_mine: torch.Tensor
    rows: Rows
    numbers: list[int]

    def to_rows(self, values: torch.Tensor) -> torch.Tensor:
        """[n] values of response tokens -> [r, T], zeros on padding and other ranks' tokens; differentiable."""
        whole = values.new_zeros(len(self.is_mine)).masked_scatter(self.is_mine, values)
        out = torch.zeros_like(self.rows.mask, dtype=values.dtype)
        return out.masked_scatter(self.rows.mask.bool(), whole)

    def context_share(self, rank: int, ranks: int) -> "MicroBatch[Rows]":
        """The share of context-parallel `rank` of `ranks`."""
        length = self.tokens.shape[1]
        rows = (length,) if self.packed is None else self.packed.lengths
        mine = context.columns(rows, rank, ranks).to(self.tokens.device)
        local = context.local_positions(self.source.cpu() % length, rows, rank, ranks).to(self.source.device)
        is_mine = local >= 0
        source = self.source // length * len(mine) + local
        return replace(
            self,
            tokens=self.tokens[:, mine],
            positions=self.positions[:, mine],
            experts=None if self.experts is None else self.experts[:, mine],
            packed=None if self.packed is None else self.packed.context_share(rank, ranks, self.tokens.device),
            source=source[is_mine],
            targets=self.targets[is_mine],
            is_mine=is_mine,
        )


def pack(rows: list[int], lengths: list[int], tokens: int) -> list[list[int]]:
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
        return [_padded(batch, numbers, cut.sequences, length, cut.device) for numbers in chunks]
    lengths = [_round_up(n, cut.row_multiple_of) for n in lengths]
    packs = _with_empty(batch, pack(order, lengths, cut.tokens), cut)
    rows = [[lengths[i] for i in numbers] for numbers in packs]
    longest = max(1, *map(sum, rows))
    return [
        _packed(batch, numbers, own, _round_up(longest if cut.is_one_shape else max(sum(own), 1), cut.multiple_of), cut)
        for numbers, own in zip(packs, rows, strict=True)
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
        packs = [[n for i in chosen for n in families[i]] for chosen in pack(order, sizes, cut.tokens)]
    packs = _with_empty(batch, packs, cut)
    sizes = [_shared_tokens(batch, numbers) for numbers in packs]
    longest = max(1, *sizes)
    return [
        _shared(batch, numbers, _round_up(longest if cut.is_one_shape else max(size, 1), cut.multiple_of), cut)
        for numbers, size in zip(packs, sizes, strict=True)
    ]


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
    prompts = sum(len(batch.prompt_ids[n]) for n in _first_of_each(batch, numbers))
    return prompts + sum(len(batch.response_ids[n]) for n in numbers)


def _first_of_each(batch: Batch, numbers: list[int]) -> list[int]:
    """Those of `numbers` whose group is not their predecessor's."""
    group = batch.table.group[batch.mine[numbers]].tolist()
    return [n for i, n in enumerate(numbers) if i == 0 or group[i] != group[i - 1]]


def _lengths(batch: Batch) -> list[int]:
    return [len(p) + len(r) for p, r in zip(batch.prompt_ids, batch.response_ids, strict=True)]


def _chunks(order: list[int], size: int) -> list[list[int]]:
    return [order[first : first + size] for first in range(0, len(order), size)]


def _with_empty(batch: Batch, mine: list[list[int]], cut: Cut) -> list[list[int]]:
    """`mine` with empty ones behind, as many in all as the rank that has most makes."""
    most = _round_up(max(int(batch.peers.max(torch.tensor(len(mine)))), 1), cut.count_multiple_of)
    return mine + [[]] * (most - len(mine))


def _padded(batch: Rows, numbers: list[int], sequences: int, length: int, device: torch.device) -> MicroBatch[Rows]:
    places = [(row * length, row * length + len(batch.prompt_ids[n])) for row, n in enumerate(numbers)]
    positions = torch.arange(length, device=device).expand(sequences, length)
    return _filled(batch, numbers, places, (sequences, length), positions, None, device)


def _packed(batch: Rows, numbers: list[int], rows: list[int], length: int, cut: Cut) -> MicroBatch[Rows]:
    if length > sum(rows):
        rows = [*rows, length - sum(rows)]  # the filling is a row by itself
    starts = np.cumsum([0, *rows])[: len(numbers)].tolist()
    places = [(start, start + len(batch.prompt_ids[n])) for start, n in zip(starts, numbers, strict=True)]
    sizes = np.array([(n, n) for n in rows])
    return _pack(batch, numbers, places, sizes, None, tuple(rows), cut)


def _shared(batch: Rows, numbers: list[int], length: int, cut: Cut) -> MicroBatch[Rows]:
    firsts = set(_first_of_each(batch, numbers))
    places: list[tuple[int, int]] = []
    sizes: list[tuple[int, int]] = []
    keys: list[np.ndarray] = []
    start = end = 0  # of the present prompt; of what is there
    for number in numbers:
        prompt, own = len(batch.prompt_ids[number]), len(batch.response_ids[number])
        if number in firsts:
            start = end
            sizes.append((prompt, prompt))
            keys.append(np.arange(start, start + prompt))
            end += prompt
        places.append((start, end))
        if own:
            sizes.append((own, prompt + own))
            keys += [np.arange(start, start + prompt), np.arange(end, end + own)]
        end += own
    if length > end:  # the filling is a row by itself
        sizes.append((length - end, length - end))
        keys.append(np.arange(end, length))
    return _pack(batch, numbers, places, np.array(sizes), np.concatenate(keys), (length,), cut)


def _pack(
    batch: Rows,
    numbers: list[int],
    places: list[tuple[int, int]],
    sizes: np.ndarray,
    keys: np.ndarray | None,
    lengths: tuple[int, ...],
    cut: Cut,
) -> MicroBatch[Rows]:
    """`sizes`, `keys` as in AttentionRows, `lengths` as in Pack: a row's last query has the position of its last key."""
    positions = np.concatenate([np.arange(seen - own, seen) for own, seen in sizes.tolist()])
    packed = Pack.of(lengths, AttentionRows(sizes, keys, cut.device), int(sizes[:, 1].max()))
    return _filled(
        batch,
        numbers,
        places,
        (1, len(positions)),
        torch.from_numpy(positions).to(cut.device)[None],
        packed,
        cut.device,
    )


def _filled(
    batch: Rows,
    numbers: list[int],
    places: list[tuple[int, int]],
    shape: tuple[int, int],
    positions: torch.Tensor,
    packed: Pack | None,
    device: torch.device,
) -> MicroBatch[Rows]:
    """`places`: where each row's prompt and response begin, in the flat tokens."""
    tokens = np.zeros(shape[0] * shape[1], np.int64)
    source, targets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for (start, middle), number in zip(places, numbers, strict=True):
        prompt, response = batch.prompt_ids[number], batch.response_ids[number]
        tokens[start : start + len(prompt)], tokens[middle : middle + len(response)] = prompt, response
        if len(response):  # the last prompt token predicts the first response token
            source.append(np.array([start + len(prompt) - 1]))
            source.append(np.arange(middle, middle + len(response) - 1))
        targets.append(response.astype(np.int64))
    flat_targets = torch.from_numpy(np.concatenate(targets)).to(device)
    return MicroBatch(
        tokens=torch.from_numpy(tokens).view(shape).to(device),
        positions=positions,
        experts=_experts(batch, numbers, [start for start, _ in places], shape, device),
        packed=packed,
        source=torch.from_numpy(np.concatenate(source)).to(device),
        targets=flat_targets,
        is_mine=torch.ones(len(flat_targets), dtype=torch.bool, device=device),
        rows=batch.choose(numbers).to(device),
        numbers=numbers,
    )


def _experts(
    batch: Batch, numbers: list[int], starts: list[int], shape: tuple[int, int], device: torch.device
) -> torch.Tensor | None:
    """[b, s, layers, topk] of the rows that have them; not of their last token, which the engine never read."""
    known = [(s, e) for s, n in zip(starts, numbers, strict=True) if (e := batch.routed_experts[n]) is not None]
    if not known:
        return None
    out = torch.full((shape[0] * shape[1], *known[0][1].shape[1:]), -1, dtype=torch.int64)
    for start, experts in known:
        out[start : start + len(experts)] = torch.from_numpy(experts)
    return out.view(*shape, *out.shape[1:]).to(device)


def _round_up(length: int, multiple_of: int) -> int:
    return -(-length // multiple_of) * multiple_of
