"""RMSNorm of the local layer spec: torch's own kernel on a GPU, few passes over memory on a CPU."""

import torch
from megatron.core.transformer import TransformerConfig


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm, told megatron-core whether its gradient must be summed over the tensor group."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_):
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        setattr(self.weight, "sequence_parallel", config.sequence_parallel)  # noqa: B010 (torch's type has no such field)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norms [..., hidden]: x / sqrt(mean(x^2) + eps) * weight."""
        # On a CPU torch's own is made of a dozen passes; in half precision those are in fp32, which is kept.
        if x.is_cuda or x.dtype not in (torch.float32, torch.float64):
            return super().forward(x)
        return _RMSNorm.apply(x, self.weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        rows = x.reshape(-1, x.shape[-1])
        square = torch.linalg.vector_norm(rows, dim=1, keepdim=True).square_()
        scale = square.div_(rows.shape[1]).add_(eps).rsqrt_()  # [n, 1]
        ctx.save_for_backward(x, weight, scale)
        return (rows * scale).mul_(weight).view(x.shape)

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        rows, upstream = x.reshape(-1, x.shape[-1]), grad.reshape(-1, x.shape[-1])
        both = rows * upstream
        by_weight = torch.mv(both.t(), scale.squeeze(1)) if ctx.needs_input_grad[1] else None
        # With s = (mean(x^2) + eps)^(-1/2) and g = upstream * weight: d/dx = s g - s^3 x mean(x g).
        share = torch.mv(both, weight).unsqueeze(1).mul_(scale.pow(3)).div_(-rows.shape[1])
        by_rows = torch.mul(upstream, weight, out=both).mul_(scale).addcmul_(rows, share)
        return by_rows.view(x.shape), by_weight, None
