"""Triton kernels over a chunk's logits: each is read once for its softmax, and once more for its gradient.

Triton comes with torch's builds for CUDA. TRITON_INTERPRET=1 runs the kernels on a CPU, slowly.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports] (not with the CPU build of torch)
import triton.language as tl  # pyright: ignore[reportMissingImports]

BLOCK, WARPS = 4096, 8
_NEVER = -1e30  # a logit of probability 0; finite also times the width of a row


def row_sums(logits: torch.Tensor, local: torch.Tensor, real: int, scale: float) -> torch.Tensor:
    """[4, c] fp32 of each row of z = scale * logits [c, v]: its maximum m; the sum of exp(z - m); z of the target; the
    sum of (z - m) exp(z - m).

    local  [c] int64 the target's column; 0 is given for one that is not in this slice
    real   columns from here on are padding
    """
    out = torch.empty(4, len(logits), dtype=torch.float32, device=logits.device)
    _launch(_row_sums, (len(logits),), logits, local, out, len(logits), logits.shape[1], real, scale)
    return out


def to_gradient(
    logits: torch.Tensor,
    local: torch.Tensor,
    log_total: torch.Tensor,
    entropy: torch.Tensor,
    by_logp: torch.Tensor,
    by_entropy: torch.Tensor,
    real: int,
    scale: float,
) -> None:
    """Turns logits [c, v] into their gradient, in place. All others: [c], fp32 but for `local` as above.

    log_total            log of the sum of exp(scale * logits), over all slices
    by_logp, by_entropy  the gradients of each row's log-prob and entropy
    """
    grid = (len(logits), triton.cdiv(logits.shape[1], BLOCK))
    rows = (local, log_total, entropy, by_logp, by_entropy)
    _launch(_to_gradient, grid, logits, *rows, logits.shape[1], real, scale)


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: object) -> None:  # triton's own types know no launch
    if grid[0]:
        kernel[grid](*arguments, block=BLOCK, never=_NEVER, num_warps=WARPS)


@triton.jit
def _row_sums(logits, local, out, rows, width, real, scale, block: tl.constexpr, never: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(local + row)
    top = tl.full((), never, tl.float32)
    total = tl.zeros((), tl.float32)
    weighted = tl.zeros((), tl.float32)
    for start in range(0, width, block):
        column = start + tl.arange(0, block)
        z = tl.load(logits + row * width + column, mask=column < width, other=0.0).to(tl.float32) * scale
        z = tl.where(column < real, z, never)
        higher = tl.maximum(top, tl.max(z, 0))
        shift = top - higher
        e = tl.where(column < width, tl.exp(z - higher), 0.0)
        # sum of (z - m) exp(z - m) with another m: each addend gains m - m', all are scaled.
        weighted = (weighted + total * shift) * tl.exp(shift) + tl.sum((z - higher) * e, 0)
        total = total * tl.exp(shift) + tl.sum(e, 0)
        top = higher
    is_mine = (target >= 0) & (target < width)
    picked = tl.load(logits + row * width + target, mask=is_mine, other=0.0).to(tl.float32) * scale
    tl.store(out + row, top)
    tl.store(out + rows + row, total)
    tl.store(out + 2 * rows + row, picked)
    tl.store(out + 3 * rows + row, weighted)


@triton.jit
def _to_gradient(
    logits, local, log_total, entropy, by_logp, by_entropy, width, real, scale, block: tl.constexpr, never: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    where = logits + row * width + column
    z = tl.load(where, mask=column < width, other=0.0).to(tl.float32) * scale
    log_p = tl.where(column < real, z, never) - tl.load(log_total + row)
    p = tl.exp(log_p)
    upstream = tl.load(by_logp + row)
    # d logp / dz = onehot - p;   d H / dz = -p (log p + H)
    grad = -p * (upstream + tl.load(by_entropy + row) * (log_p + tl.load(entropy + row)))
    grad += tl.where(column == tl.load(local + row), upstream, 0.0)
    tl.store(where, (grad * scale).to(logits.dtype.element_ty), mask=column < width)
