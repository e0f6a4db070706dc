"""A layer of the embedded engine's decoder, and where the tensors of a Hugging Face folder go in it.

Weights lie fused and as [in, out], because x @ w is quicker than x @ w.T for few rows on a CPU (bench/LOG.md). The two
numbers that the rotary embedding turns together lie side by side, so that a turn is one complex product.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

from gcpo_mcore.hf.tensors import tensors_on_disk


class Target(NamedTuple):
    """Where a tensor of a Hugging Face folder goes: it has `shape` there, and `view`'s number of elements."""

    view: torch.Tensor
    shape: torch.Size

    @torch.no_grad()
    def fill(self, tensor: torch.Tensor) -> None:
        """Copies the tensor in."""
        self.view.copy_(tensor.reshape(self.view.shape))


def whole(view: torch.Tensor) -> Target:
    """For a tensor that lies as on disk."""
    return Target(view, view.shape)


class Layer:
    """Weights of a layer, shaped as transformers' `layer` is."""

    def __init__(self, layer, empty, device: torch.device):
        attention = layer.self_attn
        self.head_dim = attention.head_dim
        self.heads = attention.q_proj.out_features // self.head_dim
        self.kv_heads = attention.k_proj.out_features // self.head_dim
        hidden, width = attention.q_proj.in_features, (self.heads + 2 * self.kv_heads) * self.head_dim
        self.eps = layer.input_layernorm.variance_epsilon
        self.input_norm, self.mlp_norm = empty(hidden), empty(hidden)
        self.qkv, self.out = empty(hidden, width), empty(self.heads * self.head_dim, hidden)
        self.qkv_bias = empty(width) if attention.q_proj.bias is not None else None
        has_qk_norm = hasattr(attention, "q_norm")
        self.q_norm, self.k_norm = (empty(self.head_dim) if has_qk_norm else None for _ in "qk")
        self.experts = layer.mlp.to_empty(device=device) if hasattr(layer.mlp, "experts") else None
        if self.experts is None:
            wide = layer.mlp.gate_proj.out_features
            self.gate_up, self.down = empty(hidden, 2 * wide), empty(wide, hidden)

    def targets(self) -> Iterator[tuple[str, Target]]:
        """(name within the layer, where the tensor goes) of every tensor."""
        rows = [n * self.head_dim for n in (self.heads, self.kv_heads, self.kv_heads)]
        for x, part in zip("qkv", self.qkv.t().split(rows), strict=True):
            yield f"self_attn.{x}_proj.weight", whole(part) if x == "v" else self._turned(part)
        if self.qkv_bias is not None:
            for x, part in zip("qkv", self.qkv_bias.split(rows), strict=True):
                yield f"self_attn.{x}_proj.bias", whole(part) if x == "v" else self._turned(part)
        for x, norm in (("q", self.q_norm), ("k", self.k_norm)):
            if norm is not None:
                yield f"self_attn.{x}_norm.weight", self._turned(norm)
        yield "self_attn.o_proj.weight", whole(self.out.t())
        yield "input_layernorm.weight", whole(self.input_norm)
        yield "post_attention_layernorm.weight", whole(self.mlp_norm)
        if self.experts is not None:
            yield from ((f"mlp.{name}", whole(t)) for name, t in tensors_on_disk(self.experts).items())
            return
        gate, up = self.gate_up.t().chunk(2)
        for name, part in (("gate", gate), ("up", up), ("down", self.down.t())):
            yield f"mlp.{name}_proj.weight", whole(part)

    def _turned(self, part: torch.Tensor) -> Target:
        """For rows of heads that are turned: on disk, the partner of one in a head's first half is in its second."""
        return Target(part.unflatten(0, (-1, self.head_dim // 2, 2)).transpose(1, 2), part.shape)

    def queries_keys_values(self, x: torch.Tensor, rotation: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of hidden states [n, hidden] at positions whose `rotation` [n, 1, head dimension / 2] is given: [n, heads or
        kv heads, head dimension] each."""
        x = F.rms_norm(x, self.input_norm.shape, self.input_norm, self.eps)
        mixed = x @ self.qkv if self.qkv_bias is None else torch.addmm(self.qkv_bias, x, self.qkv)
        heads = mixed.unflatten(1, (-1, self.head_dim)).split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        for part, norm in zip(heads, (self.q_norm, self.k_norm), strict=False):
            normed = part if norm is None else F.rms_norm(part, norm.shape, norm, self.eps)
            pairs = torch.view_as_complex(normed.float().unflatten(2, (-1, 2)))
            yield torch.view_as_real(pairs * rotation).flatten(2).to(x.dtype)
        yield heads[2]

    def add_mlp(self, x: torch.Tensor) -> None:
        """Adds the MLP's output to hidden states [n, hidden]."""
        normed = F.rms_norm(x, self.mlp_norm.shape, self.mlp_norm, self.eps)
        if self.experts is not None:
            x += self.experts(normed.unsqueeze(0)).squeeze(0)
            return
        gate, up = (normed @ self.gate_up).chunk(2, dim=1)
        x.addmm_(F.silu(gate, inplace=True).mul_(up), self.down)
