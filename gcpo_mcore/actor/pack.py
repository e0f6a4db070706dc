"""Packs: sequences behind each other as one input, in which each attends to itself alone."""

from dataclasses import dataclass

import numpy as np
import torch
from megatron.core.packed_seq_params import PackedSeqParams

from gcpo_mcore.actor import context
from gcpo_mcore.actor.packed_attention import AttentionRows


@dataclass
class Pack(PackedSeqParams):
    """What megatron-core's layers carry to our core attention.

    Its format is that of plain sequences: megatron rotates by the positions that our rotary embedding has, and not row
    by row (gcpo_mcore/actor/policy_model.py).

    lengths  of the whole sequences that lie here
    rows     what attends to what on this rank
    """

    lengths: tuple[int, ...] = ()
    rows: AttentionRows | None = None

    @classmethod
    def of(cls, lengths: tuple[int, ...], rows: AttentionRows, longest: int) -> "Pack":
        """A pack whose largest position is `longest` - 1."""
        return cls(qkv_format="sbhd", max_seqlen_q=longest, max_seqlen_kv=longest, lengths=lengths, rows=rows)

    def context_share(self, rank: int, ranks: int, device: torch.device) -> "Pack":
        """The share of context-parallel `rank` of `ranks`; keys lie as the ranks' shares behind each other."""
        sizes, keys = context.seen(self.lengths, rank, ranks)
        return self.of(self.lengths, AttentionRows(np.array(sizes), keys.numpy(), device), self.max_seqlen_q)
