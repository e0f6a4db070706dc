"""The core attention and norm of the local layer spec, on torch's own kernels."""

import math

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import MegatronModule
from torch.nn.attention.bias import causal_lower_right

from gcpo_mcore.actor import context


class SdpaAttention(MegatronModule):
    """Causal attention with torch's scaled_dot_product_attention (flash kernels on a GPU).

    Padded sequences are filled on the right, so the causal mask alone keeps real tokens from seeing padding. The rows
    of a pack are attended one by one: nothing is computed between two rows, so nothing has to be masked.
    """

    def __init__(self, config: TransformerConfig, softmax_scale: float | None = None, **_):
        super().__init__(config=config)
        self.scale = softmax_scale or 1.0 / math.sqrt(config.kv_channels)

    def forward(self, query, key, value, attention_mask=None, packed_seq_params=None, **_) -> torch.Tensor:
        """Padded: query [s, b, heads/tp, head_dim], key and value [s, b, kv_heads/tp, head_dim]
        -> [s, b, heads/tp * head_dim]. Packed: the same without b. Under context parallelism s is this rank's part."""
        if self.config.context_parallel_size > 1:
            return self._attend_over_ranks(query, key, value)
        if packed_seq_params is None:
            return self._attend(*(x.permute(1, 2, 0, 3) for x in (query, key, value))).permute(2, 0, 1, 3).flatten(2)
        rows = packed_seq_params.cu_seqlens_q.diff().tolist()
        parts = zip(*(x.transpose(0, 1).split(rows, dim=1) for x in (query, key, value)), strict=True)
        return torch.cat([self._attend(*part) for part in parts], dim=1).transpose(0, 1).flatten(1)

    def _attend_over_ranks(self, query, key, value) -> torch.Tensor:
        """This rank's queries against the keys and values of all ranks; their gradients are summed on the way back."""
        group = parallel_state.get_context_parallel_group()
        order = context.natural_order(group.size() * len(key), group.size()).to(key.device)
        keys_values = torch.stack([key, value], dim=1)  # one message; megatron gathers along the first dimension
        k, v = gather_from_sequence_parallel_region(keys_values, group=group)[order].permute(1, 2, 3, 0, 4)
        piece = len(query) // 2
        first, second = group.rank(), 2 * group.size() - 1 - group.rank()
        parts = []
        for number, q in zip((first, second), query.permute(1, 2, 0, 3).split(piece, dim=2), strict=True):
            seen = (number + 1) * piece  # a piece sees those before it, and itself causally
            mask = causal_lower_right(piece, seen)
            parts.append(
                F.scaled_dot_product_attention(
                    q, k[:, :, :seen], v[:, :, :seen], attn_mask=mask, scale=self.scale, enable_gqa=True
                )
            )
        return torch.cat(parts, dim=2).permute(2, 0, 1, 3).flatten(2)

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """[..., heads, s, head_dim] -> the same shape."""
        if q.dim() == 3:  # a batch of one: without it, grouped queries are refused
            return self._attend(q[None], k[None], v[None])[0]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale, enable_gqa=True)


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm, told megatron-core whether its gradient must be summed over the tensor group."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_):
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel
