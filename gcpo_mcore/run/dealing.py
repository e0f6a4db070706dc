"""Brings a step's rows from the ranks that sampled them to the ranks that train on them. Their tokens move once.

Every rank knows every row's facts, so that all of them work out the same plan: which data-parallel rank gets a row, and
how many bytes go from whom to whom. What travels is one flat buffer for each pair of ranks, without a header.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist

from gcpo_mcore.actor.layout import Layout
from gcpo_mcore.base import platform
from gcpo_mcore.base.collectives import Peers
from gcpo_mcore.batch import Batch, Content, Table
from gcpo_mcore.hf.architecture import Architecture
from gcpo_mcore.samples import Facts, Group, Sample

ID_BYTES = LOGP_BYTES = 4  # int32, float32
EXPERT_BYTES = 2  # int16


def snake(lengths: Sequence[int], ranks: int) -> list[int]:
    """The rank of each row: longest first, in snake order, so that the ranks' tokens balance."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    owner = [0] * len(lengths)
    for place, row in enumerate(order):
        turn, column = divmod(place, ranks)
        owner[row] = column if turn % 2 == 0 else ranks - 1 - column
    return owner


def owners(table: Table, updates: int, ranks: int) -> np.ndarray:
    """[B] the data-parallel rank that trains on each row; every update's rows are dealt out by themselves."""
    lengths, update_of = (table.prompt_tokens + table.tokens).numpy(), table.update_of(updates).numpy()
    owner = np.zeros(len(table), np.int64)
    for update in range(int(update_of.max()) + 1):
        rows = np.flatnonzero(update_of == update)
        owner[rows] = snake(lengths[rows].tolist(), ranks)
    return owner


class Dealer:
    """Deals steps out over the ranks of a layout, of which this is `rank`; `peers` are those that have other rows."""

    def __init__(self, layout: Layout, rank: int, peers: Peers, arch: Architecture):
        self.layout, self.rank, self.peers = layout, rank, peers
        self.data_rank_of = np.array([layout.data_rank(number) for number in range(layout.world)])
        self.routing = (arch.layers, arch.experts_per_token or 0)  # of a token: layers, experts of each

    def deal(self, groups: Sequence[Group[Facts]], store: Sequence[Sample], updates: int) -> Batch:
        """This rank's rows of `groups`. `store` has the samples whose `home` is this rank. A collective."""
        table = Table.of(groups)
        rows = [(group, facts) for group in groups for facts in group.samples]
        owner = owners(table, updates, self.layout.data)
        home = np.array([facts.home[0] for _, facts in rows])
        sizes = np.array([self._bytes(group, facts) for group, facts in rows], np.int64)
        here, mine = np.flatnonzero(home == self.rank), np.flatnonzero(owner == self.data_rank_of[self.rank])
        sent = [here[owner[here] == data_rank] for data_rank in self.data_rank_of]  # to each rank, in the rows' order
        arriving = [mine[home[mine] == source] for source in range(self.layout.world)]
        packed = {row: self._pack(store[rows[row][1].home[1]]) for row in here.tolist()}
        outgoing = [packed[row] for numbers in sent for row in numbers.tolist()]
        incoming = self.exchange(
            np.concatenate(outgoing) if outgoing else np.zeros(0, np.uint8),
            [int(sizes[numbers].sum()) for numbers in sent],
            [int(sizes[numbers].sum()) for numbers in arriving],
        )
        order = np.concatenate(arriving)
        pieces = dict(zip(order.tolist(), np.split(incoming, np.cumsum(sizes[order])[:-1]), strict=False))
        contents = [self._content(*rows[row], pieces[row]) for row in mine.tolist()]
        return Batch.build(table, torch.from_numpy(mine), contents, self.peers)

    def exchange(self, outgoing: np.ndarray, bytes_out: list[int], bytes_in: list[int]) -> np.ndarray:
        """The bytes from every rank, in order, for those of `outgoing` to every rank. A collective over all ranks."""
        if self.layout.world == 1:
            return outgoing
        incoming = torch.empty(sum(bytes_in), dtype=torch.uint8, device=platform.device())
        dist.all_to_all_single(incoming, torch.from_numpy(outgoing).to(incoming.device), bytes_in, bytes_out)
        return incoming.cpu().numpy()

    def _bytes(self, group: Group[Facts], facts: Facts) -> int:
        """How many bytes the row's content has."""
        if facts.is_golden:
            return ID_BYTES * facts.tokens
        read = len(group.prompt.token_ids) + facts.tokens - 1 if facts.has_routing else 0
        return (ID_BYTES + LOGP_BYTES) * facts.tokens + EXPERT_BYTES * math.prod(self.routing) * read

    def _pack(self, sample: Sample) -> np.ndarray:
        pieces = [sample.response_ids, sample.rollout_logp]
        if sample.routed_experts is not None:
            pieces.append(sample.routed_experts)
        return np.concatenate([np.ascontiguousarray(piece).reshape(-1).view(np.uint8) for piece in pieces])

    def _content(self, group: Group[Facts], facts: Facts, raw: np.ndarray) -> Content:
        ids_end = ID_BYTES * facts.tokens
        logp_end = ids_end if facts.is_golden else ids_end + LOGP_BYTES * facts.tokens
        ids, logp = raw[:ids_end].view(np.int32), raw[ids_end:logp_end].view(np.float32)
        experts = raw[logp_end:].view(np.int16).reshape(-1, *self.routing) if facts.has_routing else None
        return Content(group.prompt.token_ids, ids, logp, experts)
