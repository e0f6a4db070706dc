"""The core attention of every layer spec, on torch's own kernels."""

import math

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import MegatronModule
from torch.nn.attention.bias import causal_lower_right

from gcpo_mcore.actor import context, groups
from gcpo_mcore.actor.packed_attention import attend_rows
from gcpo_mcore.actor.short_attention import attend


class SdpaAttention(MegatronModule):
    """Causal attention with torch's scaled_dot_product_attention (flash kernels on a GPU).

    Padded sequences are filled on the right, so the causal mask alone keeps real tokens from seeing padding. The rows
    of a pack see what its `rows` say (gcpo_mcore/actor/packed_attention.py).
    """

    def __init__(self, config: TransformerConfig, softmax_scale: float | None = None, **_):
        super().__init__(config=config)
        head_dim = config.kv_channels
        assert head_dim is not None  # megatron fills it in where it is left out
        self.scale = softmax_scale or 1.0 / math.sqrt(head_dim)

    def forward(self, query, key, value, attention_mask=None, packed_seq_params=None, **_) -> torch.Tensor:
        """Attends: query [s, b, heads/tp, head_dim], key and value [s, b, kv_heads/tp, head_dim]
        -> [s, b, heads/tp * head_dim]; b is 1 in a pack. Under context parallelism s is this rank's share."""
        over_ranks = self.config.context_parallel_size > 1
        if packed_seq_params is not None:
            key, value = _gather(key, value) if over_ranks else (key, value)
            q, k, v = (x.squeeze(1) for x in (query, key, value))
            return attend_rows(q, k, v, packed_seq_params.rows, self.scale).flatten(1).unsqueeze(1)
        if over_ranks:
            return self._attend_over_ranks(query, key, value)
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        return attend(q, k, v, self.scale).permute(2, 0, 1, 3).flatten(2)

    def _attend_over_ranks(self, query, key, value) -> torch.Tensor:
        """This rank's queries against the keys and values of all ranks."""
        k, v = _gather(key, value)
        ranks, rank = self._ranks()
        order = context.natural_order((len(k),), ranks, key.device)
        k, v = k[order].permute(1, 2, 0, 3), v[order].permute(1, 2, 0, 3)
        sizes, _ = context.seen((len(order),), rank, ranks)
        attended = []
        for (piece, seen), q in zip(sizes, query.permute(1, 2, 0, 3).chunk(2, dim=2), strict=True):
            mask = causal_lower_right(piece, seen)
            attended.append(
                F.scaled_dot_product_attention(
                    q, k[:, :, :seen], v[:, :, :seen], attn_mask=mask, scale=self.scale, enable_gqa=True
                )
            )
        return torch.cat(attended, dim=2).permute(2, 0, 1, 3).flatten(2)

    def _ranks(self) -> tuple[int, int]:
        group = groups.context_group()
        return group.size(), group.rank()


def _gather(key: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
    """Keys and values of all context ranks behind each other; their gradients are summed on the way back."""
    group = groups.context_group()
    both = torch.stack([key, value], dim=1)  # one message; megatron gathers along the first dimension
    return gather_from_sequence_parallel_region(both, group=group).unbind(1)
