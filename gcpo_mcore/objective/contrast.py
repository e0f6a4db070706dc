"""Surrogates that compare the right and the wrong samples of a group by their sequence scores.

A group may lie in several micro-batches and on several ranks, so its loss cannot be taken there: it is linearised. The
loss L is a function of all log-probs l of the update, and these of the weights w. A scoring pass gives their values c.

    dL/dw = sum_t (dL/dl_t)(c) dl_t/dw                            the chain rule
          = d/dw sum_t g_t l_t(w)         with the constants      g_t = (dL/dl_t)(c)
    so    L_lin(w) = L(c) + sum_t g_t (l_t(w) - sg[l_t(w)])       has the value and the gradient of L at these weights
    and is a sum over tokens, each of which may be anywhere: exact for every layout.

`linearise` takes g_t and L(c) before the backward pass, `loss` adds up the rows' shares.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.batch import ScoredBatch, Table, WeighedBatch
from gcpo_mcore.objective.surrogate import Linear, Surrogate


class Contrast(Surrogate):
    """loss = mean over the groups with right and wrong samples of `contrast`, plus the trust region.

    The trust region is penalty/2 max(0, KL - limit)^2 with KL the mean of old_logp - logp over the sampled tokens
    (DisCO, arXiv 2505.12366, sec. 4.2); null leaves it out. It acts from a step's second update on.

    trust_region_kl       limit, in nats per token
    trust_region_penalty  its factor
    """

    uses_ratio: ClassVar[bool] = False
    compares_samples: ClassVar[bool] = True
    trust_region_kl: NonNegativeFloat | None
    trust_region_penalty: PositiveFloat

    def fits(self, algorithm) -> None:
        wanted = {
            "advantage": (algorithm.advantage, "none"),
            "importance": (algorithm.importance, "none"),
            "reduction": (algorithm.reduction, "group_mean"),
            "mismatch": (algorithm.mismatch, "off"),
        }
        # gcpo_mcore/run/rules.py puts a correction in where samples of older weights are trained on.
        more = {"mismatch": " (with rollout.max_staleness or rollout.partial: rollout.uncorrected=true keeps it off)"}
        for kind, (chosen, option) in wanted.items():
            if chosen.name != option:
                raise UserError(
                    f"algorithm.surrogate={self.name} compares the sequences of a group itself, so "
                    f"algorithm.{kind}={chosen.name} would do nothing: algorithm/{kind}={option}{more.get(kind, '')}"
                )

    def linearise(self, batch: WeighedBatch, logp: torch.Tensor, progress: float) -> tuple[Linear, dict[str, float]]:
        logp, table = logp.detach().double().requires_grad_(), batch.table
        mine = self.scores(logp, batch)
        scores = batch.everywhere(mine.detach()).requires_grad_()
        losses, metrics = [], []
        for rows in _rows_by_group(table):
            trained = rows[table.is_trained[rows]]
            is_accurate = table.is_accurate[trained]
            right, wrong = scores[trained[is_accurate]], scores[trained[~is_accurate]]
            if len(right) and len(wrong):
                losses.append(self.contrast(right, wrong, progress))
                metrics.append(self.measure(right.detach(), wrong.detach(), progress))
        total = torch.stack(losses).mean() if losses else scores.sum() * 0
        (by_score,) = torch.autograd.grad(total, scores)
        # The chain rule, a rank's own half of it: what the loss says of a score goes on to the score's log-probs.
        (gradient,) = torch.autograd.grad(mine, logp, by_score[batch.mine])
        value, kl, by_logp = total.detach(), *self._kl_of_old(logp.detach(), batch)
        if self.trust_region_kl is not None:
            excess = max(kl - self.trust_region_kl, 0.0)
            value = value + self.trust_region_penalty / 2 * excess**2
            gradient = gradient + self.trust_region_penalty * excess * by_logp
        share = (value / len(table)).to(batch.old_logp).expand(len(batch))  # L(c), shared out
        means = {name: sum(m[name] for m in metrics) / len(metrics) for name in (metrics[0] if metrics else ())}
        counts = {"contrast/groups": float(len(losses)), "contrast/kl_old": kl}
        return Linear(gradient.to(batch.old_logp), share), counts | means

    def loss(self, logp, rows, ratio):
        assert rows.logp_gradient is not None and rows.loss_share is not None, "the loss was not linearised"
        gradient_without_value = (rows.logp_gradient * (logp - logp.detach())).sum()
        value_without_gradient = rows.loss_share.sum()
        return gradient_without_value + value_without_gradient, torch.zeros_like(logp, dtype=torch.bool)

    def scores(self, logp: torch.Tensor, batch: ScoredBatch) -> torch.Tensor:
        """[b] what a sequence is compared by: the mean of its log-probs."""
        return (logp * batch.mask).sum(1) / batch.lengths.clamp(min=1)

    def contrast(self, right: torch.Tensor, wrong: torch.Tensor, progress: float) -> torch.Tensor:
        """The loss of a group from the scores of its right and its wrong samples."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def measure(self, right: torch.Tensor, wrong: torch.Tensor, progress: float) -> dict[str, float]:
        """Numbers of a group for the log."""
        return {"contrast/score_gap": float(right.mean() - wrong.mean())}

    def _kl_of_old(self, logp: torch.Tensor, batch: WeighedBatch) -> tuple[float, torch.Tensor]:
        """The mean of old_logp - logp over the sampled tokens of all ranks, and its derivative by `logp` [b, T]."""
        sampled = batch.loss_mask * ~batch.is_golden.unsqueeze(1)
        sums = torch.stack([((batch.old_logp - logp) * sampled).sum(), sampled.sum().double()])
        total, count = batch.peers.sum(sums).tolist()
        return total / max(count, 1.0), -sampled / max(count, 1.0)


def _rows_by_group(table: Table) -> Sequence[torch.Tensor]:
    """The numbers of each group's rows, groups in order."""
    sizes = torch.unique_consecutive(table.group, return_counts=True)[1]
    return torch.arange(len(table)).split(sizes.tolist())


class ConSPO(Contrast, option="conspo"):
    """InfoNCE: mean over right i of log(1 + sum over wrong j of exp((s_j - s_i + m) / tau)) (arXiv 2605.12969).

    Each right sample is held against all wrong ones. The margin m grows from margin_start to margin_end over the first
    margin_rise share of the run.

    temperature, margin_*  in nats per token
    denominator  'wrong': the other right samples are not in it. 'all': they are, as if they were wrong (what others
                 write of the paper disagrees)
    """

    temperature: PositiveFloat
    denominator: Literal["wrong", "all"]
    margin_start: NonNegativeFloat
    margin_end: NonNegativeFloat
    margin_rise: float = Field(gt=0, le=1)
    margin_schedule: Literal["linear", "cosine"]

    def margin(self, progress: float) -> float:
        """m at `progress` in [0, 1]."""
        done = min(progress / self.margin_rise, 1.0)
        if self.margin_schedule == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.margin_start + (self.margin_end - self.margin_start) * done

    def contrast(self, right, wrong, progress):
        others = wrong.expand(len(right), -1)
        if self.denominator == "all":
            itself = torch.eye(len(right), dtype=torch.bool)
            others = torch.cat([others, right.expand(len(right), -1).masked_fill(itself, -torch.inf)], 1)
        gaps = (others - right[:, None] + self.margin(progress)) / self.temperature
        return F.softplus(gaps.logsumexp(1)).mean()

    def measure(self, right, wrong, progress):
        p = (wrong / self.temperature).softmax(0)
        return {
            **super().measure(right, wrong, progress),
            "contrast/margin": self.margin(progress),
            "contrast/wrong_entropy": float(torch.special.entr(p).sum()),  # low: one wrong sample bears it all
        }


class DisCO(Contrast, option="disco"):
    """-(mean s_i - tau log mean_j exp(s_j / tau)) over right i and wrong j (DisCO, arXiv 2505.12366, log-L score).

    temperature  tau, in nats per token
    """

    temperature: PositiveFloat

    def contrast(self, right, wrong, progress):
        hardest = self.temperature * ((wrong / self.temperature).logsumexp(0) - math.log(len(wrong)))
        return hardest - right.mean()


class DPO(Contrast, option="dpo"):
    """-log sigmoid(beta (d_i - d_j)), the mean over pairs of a right i and a wrong j (DPO, arXiv 2305.18290, eq. 7).

    d is the sum over a row's tokens of log pi - log pi_ref.
    """

    needs_reference: ClassVar[bool] = True
    beta: PositiveFloat

    def scores(self, logp, batch):
        return ((logp - batch.reference_logp) * batch.mask).sum(1)

    def contrast(self, right, wrong, progress):
        return -F.logsigmoid(self.beta * (right[:, None] - wrong[None, :])).mean()
