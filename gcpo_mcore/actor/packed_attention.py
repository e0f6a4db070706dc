"""Causal attention of rows that stand behind each other: one kernel for all of them, or row by row.

A row has so many queries and at least as many keys; its last query sees all of its keys, the one before all but the
last, and so on. Nothing is computed between two rows.
"""

import inspect
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

Sizes = Sequence[tuple[int, int]]  # queries and keys of each row
LARGEST_HEAD = 256  # of torch's flash attention


def attend_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: Sizes, scale: float) -> torch.Tensor:
    """Attends: q [t, heads, head_dim], k and v [u, kv_heads, head_dim] -> [t, heads, head_dim].

    `sizes` sum up to t and u.
    """
    has_kernel = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and q.shape[2] <= LARGEST_HEAD
    return (all_at_once if has_kernel else one_by_one)(q, k, v, sizes, scale)


def one_by_one(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: Sizes, scale: float) -> torch.Tensor:
    """Does `attend_rows` with a call of torch's scaled_dot_product_attention for each row: any device and dtype."""
    rows, keys = [n for n, _ in sizes], [n for _, n in sizes]
    done = []
    # A batch of one: without it, grouped queries are refused.
    by_row = (x.transpose(0, 1)[None].split(n, dim=2) for x, n in ((q, rows), (k, keys), (v, keys)))
    for own, key, value in zip(*by_row, strict=True):
        is_square = own.shape[2] == key.shape[2]
        mask = None if is_square else causal_lower_right(own.shape[2], key.shape[2])
        done.append(
            F.scaled_dot_product_attention(
                own, key, value, attn_mask=mask, is_causal=is_square, scale=scale, enable_gqa=True
            )[0]
        )
    return torch.cat(done, dim=1).transpose(0, 1)


def all_at_once(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: Sizes, scale: float) -> torch.Tensor:
    """Does `attend_rows` with torch's flash attention for rows of different lengths: CUDA, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    rows, keys = (torch.tensor([0, *n]).cumsum(0).to(q.device, torch.int32) for n in zip(*sizes, strict=True))
    # torch 2.11 takes fewer heads of keys than of queries without being told.
    is_told = "enable_gqa" in inspect.signature(varlen_attn).parameters
    attend = partial(varlen_attn, enable_gqa=True) if is_told else varlen_attn
    longest_q, longest_k = max(n for n, _ in sizes), max(n for _, n in sizes)
    # (-1, 0): everything to the left and nothing to the right of the diagonal that ends in the lower right corner.
    found = attend(q, k, v, rows, keys, longest_q, longest_k, scale=scale, window_size=(-1, 0))
    assert isinstance(found, torch.Tensor)  # more comes only if it is asked for
    return found
