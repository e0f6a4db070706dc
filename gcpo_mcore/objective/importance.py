"""Importance ratios: how far the policy has moved from the one that gave the old log-probs.

The clip range stands here and not with the surrogate, because its scale follows the level: 0.2 for a token's
ratio, a few 1e-4 for a length-normalised sequence ratio.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat

from gcpo_mcore.batch import UpdateBatch
from gcpo_mcore.objective.part import Part

LOG_RATIO_LIMIT = 20.0  # exp(20) = 4.9e8: beyond it the clip decides anyway, and fp32 stays finite


@dataclass(frozen=True)
class Ratio:
    """The ratio of each token, and the range that the clipped surrogate keeps it in.

    log   [r, T] its logarithm; gradient flows through it
    low   [r, 1] lower end of the range (0: none)
    high  [r, 1] upper end (infinity: none)
    """

    log: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


class Importance(Part, kind="importance"):
    """Kind: importance ratio. Its range is [1 - clip_low, 1 + clip_high]; null leaves an end open."""

    level: ClassVar[str]
    clip_low: NonNegativeFloat | None
    clip_high: NonNegativeFloat | None

    def ratio(self, logp: torch.Tensor, rows: UpdateBatch) -> Ratio:
        """The ratio of `rows` and its range."""
        every = torch.ones_like(logp[:, :1])
        return Ratio(
            log=self.log_ratio(logp, rows),
            low=every * (0.0 if self.clip_low is None else 1 - self.clip_low),
            high=every * (torch.inf if self.clip_high is None else 1 + self.clip_high),
        )

    def log_ratio(self, logp: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        """[r, T] log of the ratio that weighs each token; gradient flows through `logp` [r, T]."""
        raise TypeError(f"{type(self).__name__} has no ratio")


class NoRatio(Importance, option="none"):
    """The ratio is 1 and its gradient that of log pi: every update is taken as on policy (REINFORCE)."""

    level: ClassVar[str] = "none"
    clip_low: None
    clip_high: None

    def log_ratio(self, logp: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        return logp - logp.detach()


class Token(Importance, option="token"):
    """w_it = pi(o_it) / pi_old(o_it): one ratio per token (GRPO, DAPO)."""

    level: ClassVar[str] = "token"

    def log_ratio(self, logp: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        return ((logp - rows.old_logp) * rows.mask).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


class Sequence(Importance, option="sequence"):
    """s_i = (pi(o_i) / pi_old(o_i))^(1/|o_i|): one ratio per sequence (GSPO, arXiv 2507.18071, eq. 7; GCPO).

    length_normalised=false leaves the exponent out; the raw product is only usable for short responses.
    """

    level: ClassVar[str] = "sequence"
    length_normalised: bool

    def log_ratio(self, logp: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        total = ((logp - rows.old_logp) * rows.mask).sum(1, keepdim=True)
        if self.length_normalised:
            total = total / rows.lengths.unsqueeze(1).clamp(min=1)
        return total.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).expand_as(logp)


class SequenceToken(Sequence, option="sequence_token"):
    """s_it = sg[s_i] pi(o_it) / sg[pi(o_it)]: the value of s_i, a gradient per token (GSPO-token, eq. 14).

    With an advantage that is the same for all tokens of a row, value and gradient are those of `sequence` under
    the sequence mean; it is there for advantages that differ by token.
    """

    level: ClassVar[str] = "sequence_token"

    def log_ratio(self, logp: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        return super().log_ratio(logp, rows).detach() + (logp - logp.detach())
