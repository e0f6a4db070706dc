"""Attention of rows behind each other, also with more keys than queries, against a softmax with a mask in fp64."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gcpo_mcore.actor.packed_attention import all_at_once, one_by_one

SIZES = [(5, 5), (3, 8), (1, 1), (4, 16)]  # queries and keys of each row
SHAPES = [(13, 4, 8), (30, 2, 8), (30, 2, 8)]
SCALE = 0.3


def textbook(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    done = []
    for own, key, value in zip(*(x.split(n) for x, n in zip((q, k, v), transposed(), strict=True)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", own, key.repeat_interleave(2, 1)) * SCALE
        last = torch.arange(len(own)) + len(key) - len(own)
        scores = scores.masked_fill(torch.arange(len(key)) > last[:, None], float("-inf"))
        done.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value.repeat_interleave(2, 1)))
    return torch.cat(done)


def transposed() -> list[list[int]]:
    rows, keys = (list(n) for n in zip(*SIZES, strict=True))
    return [rows, keys, keys]


def test_row_by_row_is_the_textbook_with_its_gradients():
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in SHAPES]
    upstream = torch.randn(SHAPES[0], dtype=torch.float64)
    found = []
    for result in (one_by_one(*inputs, SIZES, SCALE), textbook(*inputs)):
        found.append([result, *torch.autograd.grad(result, inputs, upstream)])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def test_the_kernel_takes_the_same_shapes():
    """The installed torch's kernel, by its own description of it, without running it: that needs a GPU."""
    with FakeTensorMode():
        inputs = [torch.empty(shape, dtype=torch.bfloat16, requires_grad=True) for shape in SHAPES]
        result = all_at_once(*inputs, SIZES, SCALE)
        assert result.shape == SHAPES[0]
        assert [g.shape for g in torch.autograd.grad(result.sum(), inputs)] == SHAPES
    with pytest.raises(RuntimeError):  # not a kernel for CPUs: attend_rows must not choose it there
        all_at_once(*(torch.zeros(shape, dtype=torch.bfloat16) for shape in SHAPES), SIZES, SCALE)
