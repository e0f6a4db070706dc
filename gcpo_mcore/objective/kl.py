"""KL penalty against the reference policy, in the loss.

d = log pi - log pi_ref. Estimators (Schulman, "Approximating KL divergence", 2020): k1 = d, k2 = d^2/2,
k3 = exp(-d) - 1 + d. As a loss, k1's expected gradient is zero, so it is refused unless `force` is set;
k2's is the reverse KL's on policy; k3's is that of the forward KL.
"""

from typing import Literal

import torch
from pydantic import PositiveFloat, model_validator

from gcpo_mcore.objective.part import Part


class KL(Part):
    """Kind: KL penalty."""

    @property
    def needs_reference(self) -> bool:
        """Whether reference log-probs must be computed."""
        return False

    def penalty(self, logp: torch.Tensor, ref_logp: torch.Tensor) -> torch.Tensor:
        """[r, T] what is added to the token loss."""
        return torch.zeros_like(logp)


class NoKL(KL, option="off"):
    """No penalty; no reference model is loaded."""


class LossKL(KL, option="loss"):
    """coefficient * estimator(d), added to the token loss."""

    estimator: Literal["k1", "k2", "k3"]
    coefficient: PositiveFloat
    force: bool

    @model_validator(mode="after")
    def _refuse_useless_gradient(self):
        if self.estimator == "k1" and not self.force:
            raise ValueError("estimator k1 as a loss has an expected gradient of zero; use k2 or k3, or force=true")
        return self

    @property
    def needs_reference(self) -> bool:
        return True

    def penalty(self, logp: torch.Tensor, ref_logp: torch.Tensor) -> torch.Tensor:
        d = (logp - ref_logp).clamp(-20.0, 20.0)
        value = {"k1": d, "k2": d**2 / 2, "k3": torch.exp(-d) - 1 + d}[self.estimator]
        return self.coefficient * value
