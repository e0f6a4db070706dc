"""SwiGLU and its gradient against torch's own functions, to the bit, and what it keeps."""

import pytest
import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_swiglu import SwiGLUFunction
from megatron.core.transformer import TransformerConfig

from gcpo_mcore.actor.swiglu import SwiGLU


def swiglu() -> SwiGLU:
    config = TransformerConfig(
        num_layers=1,
        hidden_size=8,
        num_attention_heads=1,
        gated_linear_unit=True,
        activation_func=F.silu,
        cuda_graph_scope=[],
    )
    return SwiGLU(config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 2, 10), (7, 6), (0, 4)])
def test_value_and_gradient_are_torchs(dtype, shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype).mul_(4).requires_grad_()
    gate, up = x.chunk(2, dim=-1)
    expected = F.silu(gate) * up
    upstream = torch.randn_like(expected)
    got = swiglu()(x)
    assert torch.equal(got, expected)
    assert torch.equal(*(torch.autograd.grad(y, x, upstream)[0] for y in (got, expected)))


@pytest.mark.parametrize("shape", [(3, 2, 10), (7, 6), (0, 4)])
def test_megatrons_which_a_gpu_runs_is_the_same(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    own, theirs = swiglu()(x), SwiGLUFunction.apply(x, False, False)
    torch.testing.assert_close(own, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in (own, theirs)))


def test_the_gradient_is_that_of_the_function():
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(swiglu(), x)


def test_only_the_input_is_kept():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        swiglu()(torch.randn(5, 8, requires_grad=True))
    assert kept == [40]
