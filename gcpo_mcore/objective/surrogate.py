"""Surrogates: the policy-gradient loss of a token."""

import torch
from pydantic import PositiveFloat

from gcpo_mcore.batch import Batch
from gcpo_mcore.objective.importance import Importance
from gcpo_mcore.objective.part import Part


class Surrogate(Part):
    """Kind: surrogate objective, to be minimised."""

    def token_loss(self, logp: torch.Tensor, rows: Batch, importance: Importance) -> tuple[torch.Tensor, torch.Tensor]:
        """([r, T] loss of each token, [r, T] bool: where the clip has taken the gradient)."""
        raise TypeError(f"{type(self).__name__} has no loss")


class Clipped(Surrogate, option="clipped"):
    """-min(w A, clip(w, 1 - low, 1 + high) A), the PPO surrogate (arXiv 1707.06347, eq. 7; GRPO; GSPO).

    dual_clip=c bounds the loss by -c A where A < 0 (arXiv 1912.09729, eq. 5); null leaves it out.
    """

    dual_clip: PositiveFloat | None

    def token_loss(self, logp, rows, importance):
        ratio = importance.log_ratio(logp, rows).exp()
        bounded = ratio.clamp(1 - importance.clip_low, 1 + importance.clip_high)
        plain, clipped = -ratio * rows.advantage, -bounded * rows.advantage
        loss, is_clipped = torch.maximum(plain, clipped), clipped > plain
        if self.dual_clip is not None:
            ceiling = -self.dual_clip * rows.advantage
            is_dual = (rows.advantage < 0) & (loss > ceiling)
            loss, is_clipped = torch.where(is_dual, ceiling, loss), is_clipped | is_dual
        return loss, is_clipped


class PolicyGradient(Surrogate, option="policy_gradient"):
    """-A log pi: REINFORCE on policy; with A = 1 the negative log-likelihood (supervised training)."""

    def token_loss(self, logp, rows, importance):
        return -rows.advantage * logp, torch.zeros_like(logp, dtype=torch.bool)
