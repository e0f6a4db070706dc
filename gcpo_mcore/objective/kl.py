"""KL penalty against the reference policy, in the loss or in the reward.

d = log pi - log pi_ref. Estimators (Schulman, "Approximating KL divergence", 2020): k1 = d, k2 = d^2/2,
k3 = exp(-d) - 1 + d. What their gradients are worth, on policy:

                         k1              k2                    k3
    in the loss          zero (refused)  the reverse KL's      the forward KL's
    loss, unbiased       reverse KL's    wrong (refused)       reverse KL's
    in the reward        reverse KL's    wrong (refused)       wrong (refused)

'unbiased' multiplies the estimator by the token's ratio pi / pi_old with its gradient. `force` lets a refused one pass.
"""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, model_validator

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import ScoredBatch, UpdateBatch
from gcpo_mcore.objective.importance import LOG_RATIO_LIMIT
from gcpo_mcore.objective.part import Composition, Part


class KL(Part, kind="kl"):
    """Kind: KL penalty."""

    needs_reference: ClassVar[bool] = False  # True: reference log-probs must be computed
    needs_old_logp: ClassVar[bool] = False  # True: it reads log-probs before the update's forward pass

    def penalty(self, logp: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        """[r, T] what is added to the token loss."""
        return torch.zeros_like(logp)

    def token_reward(self, batch: ScoredBatch) -> torch.Tensor | None:
        """[b, T] what is added to the rewards, token by token, without gradient; None if nothing is."""
        return None


class NoKL(KL, option="off"):
    """No penalty; no reference model is loaded."""


class _Estimated(KL):
    needs_reference: ClassVar[bool] = True
    estimator: Literal["k1", "k2", "k3"]
    coefficient: PositiveFloat
    force: bool

    def estimate(self, logp: torch.Tensor, ref_logp: torch.Tensor) -> torch.Tensor:
        d = (logp - ref_logp).clamp(-20.0, 20.0)
        return {"k1": d, "k2": d**2 / 2, "k3": torch.exp(-d) - 1 + d}[self.estimator]


class LossKL(_Estimated, option="loss"):
    """coefficient * estimator(d) [* pi / pi_old if unbiased], added to the token loss."""

    unbiased: bool

    @model_validator(mode="after")
    def _refuse_wrong_gradient(self):
        if self.estimator == "k1" and not self.unbiased and not self.force:
            raise ValueError("estimator k1 as a loss has an expected gradient of zero; use k2 or k3, or force=true")
        if self.estimator == "k2" and self.unbiased and not self.force:
            raise ValueError("estimator k2 times the ratio has not the KL's gradient; use k3, or force=true")
        return self

    def penalty(self, logp: torch.Tensor, rows: UpdateBatch) -> torch.Tensor:
        value = self.estimate(logp, rows.reference_logp)
        if self.unbiased:
            moved = (logp - rows.old_logp) * rows.mask
            value = value * moved.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
        return self.coefficient * value


class RewardKL(_Estimated, option="reward"):
    """-coefficient * estimator(d) of the old log-probs, added to each token's reward."""

    needs_old_logp: ClassVar[bool] = True

    @model_validator(mode="after")
    def _refuse_wrong_gradient(self):
        if self.estimator != "k1" and not self.force:
            raise ValueError(
                f"estimator {self.estimator} in the reward has not the KL's gradient; use k1, or force=true"
            )
        return self

    def fits(self, algorithm: Composition) -> None:
        if algorithm.surrogate.compares_samples:
            raise UserError(
                f"algorithm.kl=reward adds to a reward that algorithm.surrogate={algorithm.surrogate.name} does not "
                "look at: it goes by right and wrong; use a KL in the loss (algorithm/kl=k3)"
            )

    def token_reward(self, batch: ScoredBatch) -> torch.Tensor:
        return -self.coefficient * self.estimate(batch.old_logp, batch.reference_logp) * batch.mask
