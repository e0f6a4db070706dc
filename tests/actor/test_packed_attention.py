"""Attention of rows behind each other, also with more keys than queries, against a softmax with a mask in fp64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from gcpo_mcore.actor.packed_attention import SCORES_PER_BATCH, AttentionRows, all_at_once, in_batches, one_by_one
from gcpo_mcore.actor.short_attention import LONGEST

CPU = torch.device("cpu")
SIZES = np.array([(5, 5), (3, 8), (1, 1), (4, 16)])  # queries and keys of each row
SHAPES = [(13, 4, 8), (30, 2, 8), (30, 2, 8)]
SCALE = 0.3


def textbook(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: AttentionRows) -> torch.Tensor:
    done, first_q, first_k = [], 0, 0
    lie = torch.arange(len(k)) if rows.keys is None else torch.from_numpy(rows.keys)
    for queries, keys in rows.sizes.tolist():
        own, seen = q[first_q : first_q + queries], lie[first_k : first_k + keys]
        scores = torch.einsum("qhd,khd->hqk", own, k[seen].repeat_interleave(2, 1)) * SCALE
        last = torch.arange(queries) + keys - queries
        scores = scores.masked_fill(torch.arange(keys) > last[:, None], float("-inf"))
        done.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[seen].repeat_interleave(2, 1)))
        first_q, first_k = first_q + queries, first_k + keys
    return torch.cat(done)


def assert_textbook(rows: AttentionRows, positions: int) -> None:
    """Result and gradients of both ways; keys and values have `positions`."""
    torch.manual_seed(0)
    queries = int(rows.sizes[:, 0].sum())
    shapes = [(queries, 4, 8), (positions, 2, 8), (positions, 2, 8)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    upstream = torch.randn(shapes[0], dtype=torch.float64)
    expected, *found = (
        [result, *torch.autograd.grad(result, inputs, upstream)]
        for result in (
            textbook(*inputs, rows), one_by_one(*inputs, rows, SCALE), in_batches(*inputs, rows, SCALE)
        )
    )  # fmt: skip
    for mine in found:
        for got, wanted in zip(mine, expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_rows_behind_each_other():
    assert_textbook(AttentionRows(SIZES, None, CPU), 30)


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=4)), min_size=1, max_size=5))
def test_rows_that_share_a_prompt(groups):
    """Each response sees its group's one prompt, and itself; the prompt sees nothing of them."""
    sizes, keys, end = [], [], 0
    for prompt, responses in groups:
        shared = np.arange(end, end + prompt)
        for own in (0, *responses):
            new = np.arange(end, end + (own or prompt))
            sizes.append((len(new), len(new) + (prompt if own else 0)))
            keys += [shared, new] if own else [new]
            end += len(new)
    assert_textbook(AttentionRows(np.array(sizes), np.concatenate(keys), CPU), end)


def test_rows_of_either_kind():
    """Those short enough for two products, and longer ones."""
    sizes = np.array([(LONGEST, LONGEST), (9, LONGEST), (LONGEST + 1, LONGEST + 1), (9, LONGEST + 40)])
    assert_textbook(AttentionRows(sizes, None, CPU), int(sizes[:, 1].sum()))


def test_long_rows_stand_alone():
    """A batch of rows never has more scores than is allowed, but for one row by itself."""
    long = int(SCORES_PER_BATCH**0.5)
    rows = AttentionRows(np.array([(long, long), (2, 2), (long, long), (3, 3), (long // 2, long // 2)]), None, CPU)
    batches, _ = rows.side_by_side
    assert [batch.rows for batch in batches] == [1, 1, 1, 2]
    assert all(batch.mask is None for batch in batches[:3])


def test_the_kernel_takes_the_same_shapes():
    """The installed torch's kernel, by its own description of it, without running it: that needs a GPU."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        inputs = [torch.empty(shape, dtype=torch.bfloat16, requires_grad=True) for shape in SHAPES]
        result = all_at_once(*inputs, AttentionRows(SIZES, None, CPU), SCALE)
        assert result.shape == SHAPES[0]
        assert [g.shape for g in torch.autograd.grad(result.sum(), inputs)] == SHAPES
    with pytest.raises(RuntimeError):  # not a kernel for CPUs: attend_rows must not choose it there
        halves = (torch.zeros(shape, dtype=torch.bfloat16) for shape in SHAPES)
        all_at_once(*halves, AttentionRows(SIZES, None, CPU), SCALE)
