"""RMSNorm of the actor's layers against float64 by the formula (Zhang & Sennrich 2019, equation 4)."""

import pytest
import torch
from megatron.core.transformer import TransformerConfig

from gcpo_mcore.actor.norm import RMSNorm

EPS = 1e-5


def norm(hidden: int, dtype: torch.dtype) -> RMSNorm:
    config = TransformerConfig(
        num_layers=1, hidden_size=8, num_attention_heads=1, params_dtype=dtype, cuda_graph_scope=[]
    )
    return RMSNorm(config, hidden, eps=EPS)


def textbook(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", [(7, 2, 24), (5, 3, 2, 16), (1, 1, 4), (0, 2, 8)])
def test_value_and_gradients(dtype, bound, shape):
    torch.manual_seed(0)
    layer = norm(shape[-1], dtype)
    torch.nn.init.normal_(layer.weight)
    wide = torch.randn(*shape[:-1], shape[-1] + 4, dtype=dtype)  # a part of a wider tensor, as queries are
    x = wide[..., : shape[-1]].mul_(3).detach().requires_grad_()
    assert x.is_contiguous() == (x.numel() <= shape[-1])
    exact_x, exact_weight = (t.detach().double().requires_grad_() for t in (x, layer.weight))
    exact = textbook(exact_x, exact_weight)
    upstream = torch.randn_like(exact)
    found = layer(x)
    gradients = torch.autograd.grad(found, (x, layer.weight), upstream.to(dtype))
    wanted = torch.autograd.grad(exact, (exact_x, exact_weight), upstream.to(dtype).double())
    for got, right in zip((found, *gradients), (exact, *wanted), strict=True):
        assert got.dtype is dtype and got.shape == right.shape
        assert (got.detach().double() - right.detach()).abs().sum() <= bound * max(
            float(right.detach().abs().sum()), 1.0
        )


def test_a_frozen_scale_gets_no_gradient():
    layer = norm(6, torch.float32)
    layer.weight.requires_grad_(False)
    x = torch.randn(3, 6, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None


def test_the_gradient_is_that_of_the_function():
    layer, x = norm(5, torch.float64), torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
