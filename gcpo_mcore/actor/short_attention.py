"""Attention of short rows on a CPU, as two products: torch's fused kernel there is made for long ones.

Up to 64 keys, a forward and backward pass takes a third less time, and half as much on two threads, which the fused
kernel hardly uses (bench/LOG.md). The scores of all queries are in memory at once, which is little for so few keys.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

LONGEST = 64  # keys


def is_short(device: str, dtype: torch.dtype, keys: int) -> bool:
    """Whether rows of so many keys are for two products."""
    return device == "cpu" and dtype in (torch.float32, torch.float64) and keys <= LONGEST


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attends: q [R, heads, Q, head_dim], k and v [R, kv_heads, K, head_dim] -> [R, heads, Q, head_dim].

    mask [R or 1, 1, Q, K] bool, what is seen, something by each query; None: causal, Q = K.
    """
    if not is_short(q.device.type, q.dtype, k.shape[2]):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
        )
    if mask is None:
        mask = torch.ones(1, 1, q.shape[2], k.shape[2], dtype=torch.bool).tril()
    heads = (len(q), k.shape[1], q.shape[1] // k.shape[1])
    queries = q.reshape(heads[0] * heads[1], -1, q.shape[3])  # of heads that share keys behind each other
    return _Products.apply(queries, k.flatten(0, 1), v.flatten(0, 1), ~mask.unsqueeze(2), heads, scale).view(q.shape)


class _Products(torch.autograd.Function):
    """softmax(scale q k') v of q [n, H Q, d], k and v [n, K, d], without what is unseen [R or 1, 1, 1, Q, K].

    heads: R, kv heads (n is their product), and H, those that share the keys of one.
    """

    @staticmethod
    def forward(ctx, q, k, v, unseen, heads, scale):
        q = q * scale
        weights = torch.bmm(q, k.transpose(1, 2))
        weights.view(*heads, *unseen.shape[3:]).masked_fill_(unseen, -torch.inf)
        torch.softmax(weights, 2, out=weights)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return torch.bmm(weights, v)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        q, k, v, weights = ctx.saved_tensors
        of_weights = torch.bmm(gradient, v.transpose(1, 2))
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, 2, weights.dtype)
        of_q = torch.bmm(of_scores, k).mul_(ctx.scale)
        of_k = torch.bmm(of_scores.transpose(1, 2), q)
        return of_q, of_k, torch.bmm(weights.transpose(1, 2), gradient), None, None, None
