"""The core attention and norm of the local layer spec, on torch's own kernels."""

import math

import torch
import torch.nn.functional as F
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import MegatronModule


class SdpaAttention(MegatronModule):
    """Causal attention with torch's scaled_dot_product_attention (flash kernels on a GPU).

    Sequences are padded on the right, so the causal mask alone keeps real tokens from seeing padding.
    """

    def __init__(self, config: TransformerConfig, softmax_scale: float | None = None, **_):
        super().__init__(config=config)
        self.scale = softmax_scale or 1.0 / math.sqrt(config.kv_channels)

    def forward(self, query, key, value, attention_mask=None, **_) -> torch.Tensor:
        """query [s, b, heads/tp, head_dim]; key, value [s, b, kv_heads/tp, head_dim] -> [s, b, heads/tp * head_dim]."""
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))  # [b, heads, s, head_dim]
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale, enable_gqa=True)
        return out.permute(2, 0, 1, 3).flatten(2)


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm, told megatron-core whether its gradient must be summed over the tensor group."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_):
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel
