"""What each token of a golden answer counts, and how that changes over a run."""

import math
from typing import Literal

import torch

from gcpo_mcore.base.errors import UserError

TokenWeight = Literal["one", "p(1-p)", "p", "exp(-H)", "unreachable"]
Schedule = Literal["constant", "linear", "cosine"]


def token_weights(
    kind: TokenWeight, logp: torch.Tensor, entropy: torch.Tensor, old_logp: torch.Tensor, reach_logp: float
) -> torch.Tensor:
    """[r, T] factors without gradient, p the policy's probability of a token and H the entropy where it stands.

    one          1
    p(1-p)       what the policy half knows (CHORD, arXiv 2508.11408, the token-wise weight of its SFT loss)
    p            the gradient of p in place of that of log p (DFT, arXiv 2508.05629)
    exp(-H)      less where the policy is unsure (SRFT, arXiv 2506.19767; by token is our reading)
    unreachable  1 for tokens below `reach_logp` before the update, else 0 (ours)
    """
    if kind == "one":
        return torch.ones_like(logp)
    p = logp.detach().exp()
    if kind == "p(1-p)":
        return p * (1 - p)
    if kind == "p":
        return p
    if kind == "exp(-H)":
        return torch.exp(-entropy.detach())
    return (old_logp < reach_logp).to(logp.dtype)


def scheduled(schedule: Schedule, start: float, end: float | None, progress: float) -> float:
    """The value at `progress` in [0, 1]: `start` all the time, or from there to `end` in a line or as half a cosine."""
    if schedule == "constant" or end is None:
        return start
    done = progress if schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * done


def check_schedule(schedule: Schedule, end: float | None) -> None:
    """UserError if a weight that changes has no end, or one that does not has one."""
    if schedule != "constant" and end is None:
        raise UserError(f"algorithm.golden.schedule={schedule} needs an algorithm.golden.weight_end")
    if schedule == "constant" and end is not None:
        raise UserError(
            f"algorithm.golden.weight_end={end} would do nothing: algorithm.golden.schedule=constant (linear, cosine)"
        )


def low_quantile(logp: torch.Tensor, mask: torch.Tensor, quantile: float) -> torch.Tensor:
    """[b] of each row the token log-prob that a `quantile` of its n tokens lie below: number floor(q (n - 1)) of the
    sorted ones, so 0 is the worst. 0 for a row without tokens."""
    n = mask.sum(1).long()
    if not logp.numel():
        return logp.new_zeros(len(logp))
    rising = logp.masked_fill(mask == 0, torch.inf).sort(dim=1).values
    place = (quantile * (n - 1).clamp(min=0)).floor().long()
    return torch.where(n > 0, rising.gather(1, place.unsqueeze(1)).squeeze(1), 0.0)
