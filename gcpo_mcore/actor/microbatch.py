"""Rows of a batch as model input: a micro-batch.

Padded: every row filled up to one length. Packed: rows behind each other, nothing between them; attention and positions
keep to a row (gcpo_mcore/actor/packed_attention.py). Shared: a pack in which the rows of a group stand behind one copy
of their prompt, which all of them see. Under context parallelism every row is cut over the context ranks
(gcpo_mcore/actor/context.py); those of a pack are filled up one by one so that they can be.
"""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch

from gcpo_mcore.actor import context
from gcpo_mcore.actor.pack import Pack
from gcpo_mcore.actor.packed_attention import AttentionRows
from gcpo_mcore.batch import Batch

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


def first_of_each(batch: Batch, numbers: list[int]) -> list[int]:
    """Those of `numbers` whose group is not their predecessor's."""
    group = batch.table.group[batch.mine[numbers]].tolist()
    return [n for i, n in enumerate(numbers) if i == 0 or group[i] != group[i - 1]]


def padded(batch: Rows, numbers: list[int], sequences: int, length: int, device: torch.device) -> MicroBatch[Rows]:
    """Of the rows `numbers`, at most `sequences`, each filled up to `length` tokens."""
    places = [(row * length, row * length + len(batch.prompt_ids[n])) for row, n in enumerate(numbers)]
    positions = torch.arange(length, device=device).expand(sequences, length)
    return _filled(batch, numbers, places, (sequences, length), positions, None, device)


def packed(batch: Rows, numbers: list[int], rows: list[int], length: int, device: torch.device) -> MicroBatch[Rows]:
    """A pack of `length` tokens of the rows `numbers`, which take up `rows` tokens each."""
    if length > sum(rows):
        rows = [*rows, length - sum(rows)]  # the filling is a row by itself
    starts = np.cumsum([0, *rows])[: len(numbers)].tolist()
    places = [(start, start + len(batch.prompt_ids[n])) for start, n in zip(starts, numbers, strict=True)]
    sizes = np.array([(n, n) for n in rows])
    return _pack(batch, numbers, places, sizes, None, tuple(rows), device)


def shared(batch: Rows, numbers: list[int], length: int, device: torch.device) -> MicroBatch[Rows]:
    """A pack of `length` tokens of the rows `numbers`, neighbours of a group behind one copy of their prompt."""
    firsts = set(first_of_each(batch, numbers))
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
    return _pack(batch, numbers, places, np.array(sizes), np.concatenate(keys), (length,), device)


def _pack(
    batch: Rows,
    numbers: list[int],
    places: list[tuple[int, int]],
    sizes: np.ndarray,
    keys: np.ndarray | None,
    lengths: tuple[int, ...],
    device: torch.device,
) -> MicroBatch[Rows]:
    """`sizes`, `keys` as in AttentionRows, `lengths` as in Pack; a row's last query stands where its last key does."""
    positions = np.concatenate([np.arange(seen - own, seen) for own, seen in sizes.tolist()])
    pack = Pack.of(lengths, AttentionRows(sizes, keys, device), int(sizes[:, 1].max()))
    where = torch.from_numpy(positions).to(device)[None]
    return _filled(batch, numbers, places, (1, len(positions)), where, pack, device)


def _filled(
    batch: Rows,
    numbers: list[int],
    places: list[tuple[int, int]],
    shape: tuple[int, int],
    positions: torch.Tensor,
    pack: Pack | None,
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
        packed=pack,
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
