"""SwiGLU of the local layer spec: silu(gate) * up, with nothing kept for the backward pass but its input."""

import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_swiglu import SwiGLUFunction
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import MegatronModule


class SwiGLU(MegatronModule):
    """Maps what the first linear layer projected, [..., 2 m] with the gate before the up, to [..., m]."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config=config)
        assert config.gated_linear_unit and config.activation_func is F.silu

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        """The product; on a CPU bitwise that of torch's own functions, and so is the gradient.

        On a GPU it is megatron-core's, which torch.compile makes one kernel each way.
        """
        if projected.is_cuda:
            return SwiGLUFunction.apply(projected, False, False)
        return _SwiGLU.apply(projected)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, projected):
        ctx.save_for_backward(projected)
        gate, up = projected.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        (projected,) = ctx.saved_tensors
        gate, up = projected.chunk(2, dim=-1)
        out = torch.empty_like(projected)
        by_gate, by_up = out.chunk(2, dim=-1)
        torch.mul(grad, F.silu(gate), out=by_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=by_gate)
        return out
