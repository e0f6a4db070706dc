"""Surrogates of single tokens: the policy-gradient loss, to be minimised. Those that compare the samples of a group
stand in contrast.py."""

from typing import ClassVar, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import UpdateBatch, WeighedBatch
from gcpo_mcore.objective.importance import Ratio
from gcpo_mcore.objective.part import Composition, Part


class Linear(NamedTuple):
    """A loss that compares rows, at fixed weights: `gradient` [b, T] by each log-prob, `share` [b] of its value."""

    gradient: torch.Tensor
    share: torch.Tensor


class Surrogate(Part, kind="surrogate"):
    """Kind: surrogate objective, to be minimised."""

    uses_ratio: ClassVar[bool] = True  # False: an importance part would do nothing
    uses_clip_range: ClassVar[bool] = False  # True: the ratio's range matters
    by_token: ClassVar[bool] = True  # False: one loss for all tokens of a row, whatever their ratios
    compares_samples: ClassVar[bool] = False  # True: it needs right and wrong samples of one prompt
    needs_reference: ClassVar[bool] = False  # True: it needs reference log-probs

    def fits(self, algorithm: Composition) -> None:
        if not self.uses_ratio and algorithm.importance.level != "none":
            raise UserError(
                f"algorithm.surrogate={self.name} has no importance ratio, so "
                f"algorithm.importance={algorithm.importance.name} would do nothing: algorithm/importance=none"
            )

    def linearise(
        self, batch: WeighedBatch, logp: torch.Tensor, progress: float
    ) -> tuple[Linear | None, dict[str, float]]:
        """What a loss that compares samples needs in every micro-batch, and metrics; None for one of single tokens.

        Called with an update's rows before the backward pass; a collective over the batch's peers.
        logp      [b, T] log-probs under the weights that the update starts from
        progress  share of the run's updates that are done, in [0, 1)
        """
        return None, {}

    def loss(self, logp: torch.Tensor, rows: UpdateBatch, ratio: Ratio) -> tuple[torch.Tensor, torch.Tensor]:
        """(the rows' share of the update's loss, [r, T] bool: where a bound has changed the gradient)."""
        token_loss, is_clipped = self.token_loss(logp, rows, ratio)
        return (token_loss * rows.surrogate_weight * rows.loss_weight).sum(), is_clipped

    def token_loss(self, logp: torch.Tensor, rows: UpdateBatch, ratio: Ratio) -> tuple[torch.Tensor, torch.Tensor]:
        """([r, T] loss of each token, [r, T] bool: where a bound has changed the gradient)."""
        raise TypeError(f"{type(self).__name__} has no loss")


class Clipped(Surrogate, option="clipped"):
    """-min(w A, clip(w, low, high) A), the PPO surrogate (arXiv 1707.06347, eq. 7; GRPO; GSPO).

    dual_clip=c bounds the loss by -c A where A < 0 (arXiv 1912.09729, eq. 5); null leaves it out.
    """

    uses_clip_range: ClassVar[bool] = True
    dual_clip: PositiveFloat | None

    def token_loss(self, logp, rows, ratio):
        w = ratio.log.exp()
        bounded = torch.minimum(torch.maximum(w, ratio.low), ratio.high)
        plain, clipped = -w * rows.advantage, -bounded * rows.advantage
        loss, is_clipped = torch.maximum(plain, clipped), clipped > plain
        if self.dual_clip is not None:
            ceiling = -self.dual_clip * rows.advantage
            is_dual = (rows.advantage < 0) & (loss > ceiling)
            loss, is_clipped = torch.where(is_dual, ceiling, loss), is_clipped | is_dual
        return loss, is_clipped


class PolicyGradient(Surrogate, option="policy_gradient"):
    """-A log pi: REINFORCE on policy; with A = 1 the negative log-likelihood (supervised training)."""

    uses_ratio: ClassVar[bool] = False

    def token_loss(self, logp, rows, ratio):
        return -rows.advantage * logp, torch.zeros_like(logp, dtype=torch.bool)


class Cispo(Surrogate, option="cispo"):
    """-sg(clip(w, floor, cap)) A log pi: every token keeps its gradient (CISPO, arXiv 2506.13585, eq. 4 and 5).

    floor, cap  bounds of the ratio itself, not distances from 1 (public codes differ here)
    """

    floor: NonNegativeFloat
    cap: PositiveFloat

    def token_loss(self, logp, rows, ratio):
        w = ratio.log.detach().exp()
        return -w.clamp(self.floor, self.cap) * rows.advantage * logp, (w > self.cap) | (w < self.floor)


class Sapo(Surrogate, option="sapo"):
    """-f(w) A with the soft gate f(w) = 4/tau sigmoid(tau (w - 1)), f'(1) = 1 (SAPO, arXiv 2511.20347).

    tau_positive where A > 0, tau_negative elsewhere: the larger, the sooner the gradient fades.
    """

    tau_positive: PositiveFloat
    tau_negative: PositiveFloat

    def token_loss(self, logp, rows, ratio):
        tau = torch.where(rows.advantage > 0, self.tau_positive, self.tau_negative)
        gate = torch.sigmoid(tau * (ratio.log.exp() - 1)) * 4 / tau
        return -gate * rows.advantage, torch.zeros_like(logp, dtype=torch.bool)


class Gmpo(Surrogate, option="gmpo"):
    """-A_i (prod_t w_it)^(1/|o_i|) with each token's ratio clipped before the mean (GMPO, arXiv 2507.20673, eq. 4).

    log_clip  bound of each token's log-ratio: w in [exp(-log_clip), exp(log_clip)], pessimistic by the sign of A
    """

    by_token: ClassVar[bool] = False
    log_clip: PositiveFloat

    def fits(self, algorithm: Composition) -> None:
        if algorithm.importance.level not in ("token", "none"):
            raise UserError(
                f"algorithm.surrogate={self.name} clips every token's ratio before its geometric mean, so "
                f"algorithm.importance={algorithm.importance.name} leaves nothing to clip: algorithm/importance=token"
            )
        if algorithm.advantage.by_token:
            raise UserError(
                f"algorithm.surrogate={self.name} has one loss per sequence, but algorithm.advantage="
                f"{algorithm.advantage.name} differs by token"
            )

    def token_loss(self, logp, rows, ratio):
        sign = rows.advantage.sign()
        bounded = torch.minimum(sign * ratio.log, sign * ratio.log.clamp(-self.log_clip, self.log_clip)) * sign
        mean = (bounded * rows.mask).sum(1, keepdim=True) / rows.lengths.unsqueeze(1).clamp(min=1)
        return -rows.advantage * mean.exp(), sign * ratio.log > self.log_clip
