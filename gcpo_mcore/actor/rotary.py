"""Rotary embedding of queries and keys, in place of megatron-core's own, which makes eight tensors of their size.

Su et al. 2021 (arXiv 2104.09864), equation 34, with the partner of an element of a head's first half in its second.
"""

import torch
from megatron.core.jit import jit_fuser
from megatron.core.models.common.embeddings import rope_utils


def turns(angles: torch.Tensor) -> torch.Tensor:
    """Cosines, then sines [s, 1, 1, d] of megatron-core's angles [s, 1, 1, d], whose halves are the same."""
    half = angles[..., : angles.shape[-1] // 2]
    return torch.cat([half.cos(), half.sin()], dim=-1)


def rotate(x: torch.Tensor, turns: torch.Tensor, interleaved: bool = False) -> torch.Tensor:
    """Turns x [s, b, heads, d] by what `turns` made. Only heads that are not interleaved."""
    assert not interleaved and turns.shape[-1] == x.shape[-1]
    return _Rotate.apply(x, *turns.to(x.dtype).chunk(2, dim=-1))


def install() -> None:
    """Makes `rotate` what megatron-core's layers call where `apply_rope_fusion` is set.

    The name is Transformer Engine's kernel, with which those of its own spec are built: they leave the setting off.
    """
    rope_utils.fused_apply_rotary_pos_emb = rotate


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    if x.is_cuda:
        return turned_at_once(x, cos, sin)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (first, second), (to_first, to_second) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin)
    return out


@jit_fuser
def turned_at_once(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The same in a form that torch.compile makes one kernel of on a GPU (on a CPU it is not compiled)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
