"""Mismatch correction: the engine that sampled and the actor that trains disagree a little on log-probs.

rho_t = exp(old_logp - rollout_logp), both at the weights before the update, without gradient; what comes out
multiplies the surrogate. Golden rows were not sampled, so their weight is 1. The disagreement is always logged.
"""

import math
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from gcpo_mcore.batch import WeighedBatch
from gcpo_mcore.objective.importance import LOG_RATIO_LIMIT
from gcpo_mcore.objective.part import Part


class Mismatch(Part, kind="mismatch"):
    """Kind: correction for engine vs actor log-probs."""

    def weights(self, log_rho: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[b, T] factors of the surrogate from log rho [b, T], which is 0 on padding."""
        return torch.ones_like(log_rho)


class NoCorrection(Mismatch, option="off"):
    """Weight 1; the disagreement is logged all the same."""


class _Corrected(Mismatch):
    """level  whose rho counts: each token's, the product over the row ('sequence'), or its geometric mean
    ('geometric'). veto: rows that have a token with rho below it weigh 0; null for none."""

    level: Literal["token", "sequence", "geometric"]
    veto: NonNegativeFloat | None

    def weights(self, log_rho: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        total = log_rho.sum(1, keepdim=True)
        if self.level == "sequence":
            rho = total.expand_as(log_rho)
        elif self.level == "geometric":
            rho = (total / mask.sum(1, keepdim=True).clamp(min=1)).expand_as(log_rho)
        else:
            rho = log_rho
        weights = self.of_rho(rho.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp())
        if self.veto is not None:
            weights = weights * (log_rho.exp() >= self.veto).all(1, keepdim=True)
        return weights

    def of_rho(self, rho: torch.Tensor) -> torch.Tensor:
        """[b, T] factors from rho at the chosen level."""
        raise TypeError(f"{type(self).__name__} has no weights")


class Truncated(_Corrected, option="tis"):
    """min(rho, cap): truncated importance sampling."""

    cap: PositiveFloat

    def of_rho(self, rho: torch.Tensor) -> torch.Tensor:
        return rho.clamp(max=self.cap)


class Masked(_Corrected, option="mask"):
    """rho where low <= rho <= high, else 0 (MIS, IcePop). weigh=false: 1 in place of rho, rejection only."""

    low: NonNegativeFloat
    high: PositiveFloat
    weigh: bool

    def of_rho(self, rho: torch.Tensor) -> torch.Tensor:
        is_inside = (rho >= self.low) & (rho <= self.high)
        return is_inside * (rho if self.weigh else torch.ones_like(rho))


def measure(batch: WeighedBatch) -> dict[str, float]:
    """Disagreement over the sampled tokens: mean and max absolute difference, k3, largest ratio. A collective."""
    sampled = batch.mask * ~batch.is_golden.unsqueeze(1)
    d = (batch.old_logp - batch.rollout_logp) * sampled
    sums = torch.stack([sampled.sum(), d.abs().sum(), ((torch.exp(d) - 1 - d) * sampled).sum()]).double()
    count, total, k3 = batch.peers.sum(sums).tolist()
    ends = torch.stack([d.abs().max(), d.max()]) if d.numel() else torch.tensor([0.0, -torch.inf])
    largest, highest = batch.peers.max(ends.double()).tolist()
    return {
        "mismatch/logp_abs_diff_mean": total / max(count, 1.0),
        "mismatch/logp_abs_diff_max": largest,
        "mismatch/k3": k3 / max(count, 1.0),
        "mismatch/ratio_max": math.exp(highest),
    }


def measure_correction(batch: WeighedBatch, correction: torch.Tensor) -> dict[str, float]:
    """Over all tokens, the mean of `correction` [b, T] and the share that it leaves out. A collective."""
    sums = torch.stack([(correction * batch.mask).sum(), ((correction == 0) * batch.mask).sum()])
    weight, zeros = batch.peers.sum(sums.double()).tolist()
    tokens = max(int(batch.table.tokens.sum()), 1)
    return {"mismatch/weight_mean": weight / tokens, "mismatch/zero_fraction": zeros / tokens}
