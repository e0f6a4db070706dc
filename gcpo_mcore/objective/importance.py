"""Importance ratios: how far the policy has moved from the one that gave the old log-probs.

The clip range stands here and not with the surrogate, because its scale follows the level: 0.2 for a token's
ratio, a few 1e-4 for a length-normalised sequence ratio.
"""

import torch
from pydantic import NonNegativeFloat

from gcpo_mcore.batch import Batch
from gcpo_mcore.objective.part import Part

LOG_RATIO_LIMIT = 20.0  # exp(20) = 4.9e8: beyond it the clip decides anyway, and fp32 stays finite


class Importance(Part):
    """Kind: importance ratio. Ratios outside [1 - clip_low, 1 + clip_high] are clipped by the surrogate."""

    clip_low: NonNegativeFloat
    clip_high: NonNegativeFloat

    def log_ratio(self, logp: torch.Tensor, rows: Batch) -> torch.Tensor:
        """[r, T] log of the ratio that weighs each token; gradient flows through `logp` [r, T]."""
        raise TypeError(f"{type(self).__name__} has no ratio")


class Token(Importance, option="token"):
    """w_it = pi(o_it) / pi_old(o_it): one ratio per token (GRPO, DAPO)."""

    def log_ratio(self, logp: torch.Tensor, rows: Batch) -> torch.Tensor:
        return ((logp - rows.old_logp) * rows.mask).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


class Sequence(Importance, option="sequence"):
    """s_i = (pi(o_i) / pi_old(o_i))^(1/|o_i|): one ratio per sequence (GSPO, arXiv 2507.18071, eq. 7; GCPO).

    length_normalised=false leaves the exponent out; the raw product is only usable for short responses.
    """

    length_normalised: bool

    def log_ratio(self, logp: torch.Tensor, rows: Batch) -> torch.Tensor:
        total = ((logp - rows.old_logp) * rows.mask).sum(1, keepdim=True)
        if self.length_normalised:
            total = total / rows.lengths.unsqueeze(1).clamp(min=1)
        return total.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).expand_as(logp)
