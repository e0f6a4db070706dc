"""A rank's rows of a batch as model input: cut into micro-batches.

Padded: so many rows each, every row filled up to the longest of the batch. Packed: rows behind each other up to a
number of tokens, nothing between them; attention and positions keep to a row (gcpo_mcore/actor/attention.py).
Under context parallelism every row is cut over the context ranks (gcpo_mcore/actor/context.py); those of a pack are
filled up one by one so that they can be.
"""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from megatron.core.packed_seq_params import PackedSeqParams

from gcpo_mcore.actor import context
from gcpo_mcore.batch import Batch

Rows = TypeVar("Rows", bound=Batch)


@dataclass
class MicroBatch(Generic[Rows]):
    """Input of one forward pass. b sequences of s tokens (a pack: b = 1), n response tokens that are predicted here.

    tokens     [b, s] prompt + response, zeros as filling
    positions  [b, s]
    experts    [b, s, layers, topk] those that the tokens go to, -1 where the routers choose; None: everywhere
    packed     where the (whole) rows of a pack begin; None if padded
    source     [n] flat position (in b*s) whose logits predict each response token, row by row
    targets    [n] the response tokens
    is_mine    [N] bool, which of the rows' N response tokens are predicted here: all, but for context parallelism
    rows       the objective's view of the rows
    numbers    the rows' numbers in the rank's batch
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    experts: torch.Tensor | None
    packed: PackedSeqParams | None
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
        rows = (length,) if self.packed is None else tuple(self.packed.cu_seqlens_q.diff().tolist())
        mine = context.columns(rows, rank, ranks).to(self.tokens.device)
        local = context.local_positions(self.source.cpu() % length, rows, rank, ranks).to(self.source.device)
        is_mine = local >= 0
        source = self.source // length * len(mine) + local
        return replace(
            self,
            tokens=self.tokens[:, mine],
            positions=self.positions[:, mine],
            experts=None if self.experts is None else self.experts[:, mine],
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


def split(
    batch: Rows,
    sequences: int,
    tokens: int | None,
    multiple_of: int,
    row_multiple_of: int,
    count_multiple_of: int,
    is_one_shape: bool,
    device: torch.device,
) -> list[MicroBatch[Rows]]:
    """The micro-batches of this rank's rows: the same number on every rank. A collective over the batch's peers.

    sequences     rows of a padded micro-batch
    tokens        tokens of a pack; None: padded
    count_multiple_of  the number of micro-batches is a multiple of this; what is missing is empty
    multiple_of   the length of a micro-batch is a multiple of this (sequence and context parallelism)
    row_multiple_of  every row of a pack is filled up to a multiple of this (context parallelism)
    is_one_shape  packs are filled up to the longest one (pipeline stages expect one shape)
    """
    lengths = [len(p) + len(r) for p, r in zip(batch.prompt_ids, batch.response_ids, strict=True)]
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))  # those of a length stand together
    if tokens is None:
        length = _round_up(max(lengths, default=1), multiple_of)
        chunks = [order[first : first + sequences] for first in range(0, len(order), sequences)]
        chunks += [[]] * (_count(batch, len(chunks), count_multiple_of) - len(chunks))
        return [_padded(batch, numbers, sequences, length, device) for numbers in chunks]
    lengths = [_round_up(n, row_multiple_of) for n in lengths]
    packs = pack(order, lengths, tokens)
    packs += [[]] * (_count(batch, len(packs), count_multiple_of) - len(packs))
    longest = max(1, *(sum(lengths[i] for i in numbers) for numbers in packs))
    made = []
    for numbers in packs:
        length = longest if is_one_shape else max(sum(lengths[i] for i in numbers), 1)
        rows = [lengths[i] for i in numbers]
        made.append(_packed(batch, numbers, rows, _round_up(length, multiple_of), device))
    return made


def _count(batch: Batch, mine: int, multiple_of: int) -> int:
    """How many micro-batches every rank makes: those of the rank that has most."""
    return _round_up(max(int(batch.peers.max(torch.tensor(mine))), 1), multiple_of)


def _padded(batch: Rows, numbers: list[int], sequences: int, length: int, device: torch.device) -> MicroBatch[Rows]:
    starts = [row * length for row in range(len(numbers))]
    positions = torch.arange(length, device=device).expand(sequences, length)
    return _filled(batch, numbers, starts, (sequences, length), positions, None, device)


def _packed(batch: Rows, numbers: list[int], rows: list[int], length: int, device: torch.device) -> MicroBatch[Rows]:
    if length > sum(rows):
        rows.append(length - sum(rows))  # the filling is a row by itself
    ends = torch.tensor([0, *rows]).cumsum(0)
    positions = torch.cat([torch.arange(n) for n in rows]).to(device).unsqueeze(0)
    ends_on_device = ends.to(device, torch.int32)
    # The longest row must be the true one: megatron reads positions off a table of that many rows.
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=ends_on_device, cu_seqlens_kv=ends_on_device,
        max_seqlen_q=max(rows), max_seqlen_kv=max(rows),
    )  # fmt: skip
    return _filled(batch, numbers, ends[: len(numbers)].tolist(), (1, length), positions, packed, device)


def _filled(
    batch: Rows,
    numbers: list[int],
    starts: list[int],
    shape: tuple[int, int],
    positions: torch.Tensor,
    packed: PackedSeqParams | None,
    device: torch.device,
) -> MicroBatch[Rows]:
    tokens = np.zeros(shape[0] * shape[1], np.int64)
    source, targets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, number in zip(starts, numbers, strict=True):
        prompt, response = batch.prompt_ids[number], batch.response_ids[number]
        middle, end = start + len(prompt), start + len(prompt) + len(response)
        tokens[start:middle], tokens[middle:end] = prompt, response
        source.append(np.arange(middle - 1, end - 1))  # the last prompt token predicts the first response token
        targets.append(response.astype(np.int64))
    flat_targets = torch.from_numpy(np.concatenate(targets)).to(device)
    return MicroBatch(
        tokens=torch.from_numpy(tokens).view(shape).to(device),
        positions=positions,
        experts=_experts(batch, numbers, starts, shape, device),
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
