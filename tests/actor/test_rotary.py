"""The actor's rotary embedding against megatron-core's own and against rotation of complex numbers in float64."""

import pytest
import torch
from megatron.core.models.common.embeddings import rope_utils

from gcpo_mcore.actor.rotary import rotate, turned_at_once, turns


def angles(tokens: int, head_dim: int) -> torch.Tensor:
    """[s, 1, 1, d] as megatron-core has them: each half the same."""
    half = torch.outer(torch.arange(tokens) + 3.0, 100.0 ** -(torch.arange(head_dim // 2) / head_dim))
    return torch.cat([half, half], -1)[:, None, None]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-7), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", [(9, 1, 4, 16), (4, 3, 1, 2), (1, 2, 2, 8)])
def test_value_and_gradient(dtype, bound, shape):
    torch.manual_seed(0)
    angle = angles(shape[0], shape[-1])
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    upstream = torch.randn(shape, dtype=dtype)
    found = rotate(x, turns(angle))
    (gradient,) = torch.autograd.grad(found, x, upstream)

    half = shape[-1] // 2
    turn = torch.polar(torch.ones(()), angle[..., :half]).to(torch.complex128)
    first, second = x.detach().double().split(half, -1)
    right = torch.complex(first, second) * turn
    back = torch.complex(*upstream.double().split(half, -1)) * turn.conj()  # the gradient of a rotation is its inverse
    for got, wanted in ((found, right), (gradient, back)):
        assert got.dtype is dtype
        assert (got.double() - torch.cat([wanted.real, wanted.imag], -1)).abs().max() < bound * 8


def test_it_is_what_megatrons_own_gives():
    x, angle = torch.randn(6, 2, 3, 8), angles(6, 8)
    torch.testing.assert_close(rotate(x, turns(angle)), rope_utils._apply_rotary_pos_emb_bshd(x, angle))


def test_the_form_for_a_compiler_is_the_same():
    x, both = torch.randn(6, 2, 3, 8), turns(angles(6, 8))
    torch.testing.assert_close(turned_at_once(x, *both.chunk(2, dim=-1)), rotate(x, both))
