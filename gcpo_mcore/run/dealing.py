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

TOKEN_BYTES = 4  # an int32 id, and as many for a float32 log-prob


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
    """Deals steps out over the ranks of a layout."""

    def __init__(self, layout: Layout, peers: Peers, arch: Architecture):
        self.layout, self.peers = layout, peers
        self.routing = (arch.layers, arch.experts_per_token or 0)  # of a token: layers, experts of each
        self.bytes_received = 0  # in the last step

    def deal(self, groups: Sequence[Group[Facts]], store: Sequence[Sample], updates: int) -> Batch:
        """This rank's rows of `groups`. `store` has the samples whose `home` is this rank. A collective."""
        table = Table.of(groups)
        owner = owners(table, updates, self.layout.data)
        mine = np.flatnonzero(owner == self.layout.data_rank(dist.get_rank()))
        rows = [(group, facts) for group in groups for facts in group.samples]
        home = np.array([facts.home[0] for _, facts in rows])
        sizes = np.array([self._bytes(group, facts) for group, facts in rows], np.int64)
        received = self._exchange(rows, owner, home, sizes, mine, store)
        contents = [self._content(*rows[row], received[row]) for row in mine.tolist()]
        return Batch.build(table, torch.from_numpy(mine), contents, self.peers)

    def _exchange(self, rows, owner, home, sizes, mine, store) -> dict[int, np.ndarray]:
        """The bytes of each of this rank's rows."""
        rank, world = dist.get_rank(), dist.get_world_size()
        here = np.flatnonzero(home == rank)
        packed = {row: self._pack(store[rows[row][1].home[1]]) for row in here.tolist()}
        sent = [[row for row in here.tolist() if owner[row] == self.layout.data_rank(to)] for to in range(world)]
        flat = [packed[row] for rows_to in sent for row in rows_to]
        outgoing = torch.from_numpy(np.concatenate(flat) if flat else np.zeros(0, np.uint8))
        arriving = [mine[home[mine] == source] for source in range(world)]  # in the order in which they were packed
        counts_out = [int(sizes[rows_to].sum()) if rows_to else 0 for rows_to in sent]
        counts_in = [int(sizes[rows_from].sum()) for rows_from in arriving]
        incoming = torch.empty(sum(counts_in), dtype=torch.uint8, device=platform.device())
        if world > 1:
            dist.all_to_all_single(incoming, outgoing.to(incoming.device), counts_in, counts_out)
        else:
            incoming = outgoing
        self.bytes_received = len(incoming)
        order = np.concatenate(arriving)
        cuts = np.split(incoming.cpu().numpy(), np.cumsum(sizes[order])[:-1])
        return dict(zip(order.tolist(), cuts, strict=False))

    def _bytes(self, group: Group[Facts], facts: Facts) -> int:
        """How many bytes the row's content has."""
        if facts.is_golden:
            return TOKEN_BYTES * facts.tokens
        read = len(group.prompt.token_ids) + facts.tokens - 1 if facts.has_routing else 0
        return 2 * TOKEN_BYTES * facts.tokens + 2 * math.prod(self.routing) * read

    def _pack(self, sample: Sample) -> np.ndarray:
        pieces = [sample.response_ids, sample.rollout_logp]
        if sample.routed_experts is not None:
            pieces.append(sample.routed_experts)
        return np.concatenate([np.ascontiguousarray(piece).reshape(-1).view(np.uint8) for piece in pieces])

    def _content(self, group: Group[Facts], facts: Facts, raw: np.ndarray) -> Content:
        ids_end = TOKEN_BYTES * facts.tokens
        logp_end = ids_end if facts.is_golden else 2 * ids_end
        ids, logp = raw[:ids_end].copy().view(np.int32), raw[ids_end:logp_end].copy().view(np.float32)
        experts = raw[logp_end:].copy().view(np.int16).reshape(-1, *self.routing) if facts.has_routing else None
        return Content(group.prompt.token_ids, ids, logp, experts)
