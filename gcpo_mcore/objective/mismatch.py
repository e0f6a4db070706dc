"""Mismatch correction: the engine that sampled and the actor that trains disagree a little on log-probs.

rho_t = exp(old_logp - rollout_logp), both at the weights before the update, without gradient; it multiplies
the surrogate. Golden rows were not sampled, so their rho is 1. The disagreement is always logged.
"""

import torch
from pydantic import PositiveFloat

from gcpo_mcore.batch import Batch
from gcpo_mcore.objective.part import Part


class Mismatch(Part):
    """Kind: correction for engine vs actor log-probs."""

    def weights(self, rho: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, T] factors of the surrogate from rho [B, T]."""
        return torch.ones_like(rho)


class NoCorrection(Mismatch, option="off"):
    """Weight 1; the disagreement is logged all the same."""


class TruncatedImportance(Mismatch, option="tis"):
    """min(rho_t, cap): truncated importance sampling per token."""

    cap: PositiveFloat

    def weights(self, rho: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return rho.clamp(max=self.cap)


def measure(batch: Batch) -> dict[str, float]:
    """Disagreement over the sampled tokens: mean and max absolute difference, k3, largest ratio."""
    sampled = batch.mask * ~batch.is_golden.unsqueeze(1)
    count = sampled.sum().clamp(min=1)
    d = (batch.old_logp - batch.rollout_logp) * sampled
    return {
        "mismatch/logp_abs_diff_mean": float(d.abs().sum() / count),
        "mismatch/logp_abs_diff_max": float(d.abs().max()),
        "mismatch/k3": float(((torch.exp(d) - 1 - d) * sampled).sum() / count),
        "mismatch/ratio_max": float(torch.exp(d).max()),
    }
