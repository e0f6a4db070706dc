"""An algorithm: one option of every part. The trainer and the actor know only this interface.

select        groups in -> golden injection and filter         -> groups to train on
weigh         a step's ScoredBatch in -> advantages, weights   -> WeighedBatch
settle        log-probs before the update in -> what follows from them; in `weigh` or, if they are the update's own, in
              `loss`
begin_update  an update's WeighedBatch in -> its loss weights  -> UpdateBatch
loss          micro-batch log-probs in -> summed loss     (inside the actor's forward pass)
measure       a step's settled WeighedBatch in -> engine against actor, reach of golden answers, for the log
"""

from dataclasses import replace
from typing import TypeVar

import torch
from pydantic import model_validator

from gcpo_mcore.base.config import Config
from gcpo_mcore.batch import ScoredBatch, UpdateBatch, WeighedBatch
from gcpo_mcore.objective import mismatch as mismatch_module
from gcpo_mcore.objective.advantage import Advantage
from gcpo_mcore.objective.filter import Filter
from gcpo_mcore.objective.golden import Golden
from gcpo_mcore.objective.guide import Guide
from gcpo_mcore.objective.importance import Importance
from gcpo_mcore.objective.kl import KL
from gcpo_mcore.objective.mismatch import Mismatch
from gcpo_mcore.objective.part import Part
from gcpo_mcore.objective.reach import measure_reach
from gcpo_mcore.objective.reduction import Reduction
from gcpo_mcore.objective.surrogate import Surrogate
from gcpo_mcore.samples import AnyFacts, Group

Weighed = TypeVar("Weighed", bound=WeighedBatch)
Sums = dict[str, tuple[torch.Tensor, torch.Tensor]]  # name -> (weighted sum, weight), both scalars


class Algorithm(Config):
    """The typed composition: `configs/algorithm/NAME.yaml` picks the parts. A subclass is for what no part can say.

    entropy_coefficient: the mean entropy times this is subtracted from the loss; 0 for no bonus.
    UserError where two parts make no sense together.
    """

    name: str
    golden: Golden
    guide: Guide
    filter: Filter
    advantage: Advantage
    importance: Importance
    surrogate: Surrogate
    kl: KL
    reduction: Reduction
    mismatch: Mismatch
    entropy_coefficient: float

    @model_validator(mode="after")
    def _parts_fit(self):
        for part in self.parts:
            part.fits(self)
        return self

    @property
    def parts(self) -> list[Part]:
        """The chosen options of all kinds."""
        return [value for _, value in self if isinstance(value, Part)]

    @property
    def title(self) -> str:
        """The name, and the class where it is not this one."""
        own = type(self)
        return self.name if own is Algorithm else f"{self.name} ({own.__module__}.{own.__name__})"

    @property
    def needs_golden(self) -> bool:
        """Whether golden answers are read, verified and counted at all."""
        return self.golden.needs_golden or self.guide.needs_golden

    @property
    def needs_reference(self) -> bool:
        """Whether reference log-probs must be computed."""
        return self.kl.needs_reference or self.surrogate.needs_reference

    @property
    def needs_old_logp(self) -> bool:
        """Whether log-probs before the update must be known before its forward pass."""
        return self.kl.needs_old_logp or self.surrogate.compares_samples

    @property
    def compares_samples(self) -> bool:
        """Whether a group of one sample teaches nothing."""
        return self.advantage.needs_group or self.surrogate.compares_samples

    def select(self, groups: list[Group[AnyFacts]], step: int) -> tuple[list[Group[AnyFacts]], dict[str, float]]:
        """Golden injection, then the filter. Returns the groups to train on and counts over all of `groups`."""
        counts: dict[str, float] = dict.fromkeys(
            ("all_wrong", "all_right", "golden_injected", "golden_missing", "golden_rejected",
             "dropped_all_wrong", "dropped_all_right", "dropped_other", "kept"), 0.0,
        )  # fmt: skip
        kept = []
        for group in groups:
            accuracy = group.accuracy
            sampled = bool(group.samples)
            counts["all_wrong"] += sampled and accuracy == 0
            counts["all_right"] += sampled and accuracy == 1
            if self.golden.needs_golden and self.golden.is_due(group):
                counts["golden_missing"] += group.golden is None
                counts["golden_rejected"] += group.golden is not None and not group.golden.is_accurate
            counts["golden_injected"] += self.golden.inject(group, step)
            if self.filter.keep(group):
                kept.append(group)
            else:
                why = "all_wrong" if accuracy == 0 else "all_right" if accuracy == 1 else "other"
                counts[f"dropped_{why}"] += 1
        counts["kept"] = float(len(kept))
        return kept, counts

    def weigh(self, batch: ScoredBatch) -> tuple[WeighedBatch, dict[str, float]]:
        """A step's rows with loss mask, advantages and the surrogate's weights, and metrics over all ranks.

        A collective over the batch's peers.
        """
        if self.filter.mask_truncated:
            table = batch.table
            batch = replace(batch, table=replace(table, is_trained=table.is_trained & ~table.is_truncated))
        weighed = batch.grown(
            WeighedBatch,
            loss_mask=batch.mask * batch.table.is_trained[batch.mine].unsqueeze(1),
            advantage=self.golden.advantages(batch, self.advantage(batch, self.kl.token_reward(batch))),
            surrogate_weight=torch.full_like(batch.mask, torch.nan),
        )
        return self.settle(weighed, batch.old_logp) if batch.has_old_logp else weighed, _measure_advantage(weighed)

    def settle(self, batch: Weighed, old_logp: torch.Tensor) -> Weighed:
        """The rows with `old_logp` [b, T], the log-probs before the update, and what follows from them."""
        batch = replace(
            batch,
            has_old_logp=True,
            old_logp=old_logp,
            rollout_logp=torch.where(batch.is_golden.unsqueeze(1), old_logp, batch.rollout_logp),
        )
        return replace(batch, surrogate_weight=self._correction(batch))

    def _correction(self, batch: WeighedBatch) -> torch.Tensor:
        """[b, T] the mismatch part's factors, 1 for golden rows."""
        factors = self.mismatch.weights((batch.old_logp - batch.rollout_logp) * batch.mask, batch.mask)
        return torch.where(batch.is_golden.unsqueeze(1), 1.0, factors)

    def measure(self, batch: WeighedBatch) -> dict[str, float]:
        """Engine against actor, and the golden answers' reach, over all ranks, from settled rows.

        A collective over the batch's peers.
        """
        measured = mismatch_module.measure(batch) | mismatch_module.measure_correction(batch, self._correction(batch))
        return measured | measure_reach(batch, self.golden.reach_bound)

    def begin_update(
        self, batch: WeighedBatch, logp: torch.Tensor, progress: float
    ) -> tuple[UpdateBatch, dict[str, float]]:
        """One update's rows with what each token's loss counts, and metrics. A collective over the batch's peers.

        logp      [b, T] log-probs under the present weights (read if `surrogate.compares_samples`)
        progress  share of the stage's updates that are done, in [0, 1)
        """
        linear, metrics = self.surrogate.linearise(batch, logp, progress)
        rest = self.golden.share_of_rest(progress)
        update = batch.grown(
            UpdateBatch,
            loss_weight=rest * self.reduction.weights(batch),
            logp_gradient=rest * linear.gradient if linear else None,
            loss_share=rest * linear.share if linear else None,
            imitation_weight=self.golden.imitation(batch, progress),
            progress=progress,
        )
        return update, metrics

    def loss(self, logp: torch.Tensor, entropy: torch.Tensor, rows: UpdateBatch) -> tuple[torch.Tensor, Sums]:
        """The rows' share of the update's loss, and sums for the log.

        logp, entropy [r, T]: the actor's, now; gradient flows through both. The shares of all micro-batches and
        data-parallel ranks add up to the update's loss: `rows.loss_weight` already holds the one denominator.
        """
        rows = rows if rows.has_old_logp else self.settle(rows, logp.detach())
        ratio = self.golden.adjust(self.importance.ratio(logp, rows), logp, rows)
        factors = self.golden.factors(logp, entropy, rows)
        if factors is not None:
            rows = replace(rows, surrogate_weight=rows.surrogate_weight * factors)
        surrogate, is_clipped = self.surrogate.loss(logp, rows, ratio)
        kl = self.kl.penalty(logp, rows)
        # Without a bonus the entropy has no gradient, and the head computes none.
        bonus = self.entropy_coefficient * entropy if self.entropy_coefficient else 0.0
        loss = surrogate + ((kl - bonus) * rows.loss_weight).sum()
        if rows.imitation_weight is not None and factors is not None:
            loss = loss - (rows.imitation_weight * factors * logp).sum()

        tokens, golden = rows.loss_mask, rows.mask * rows.is_golden.unsqueeze(1)
        moved = ((logp - rows.old_logp) * rows.mask).detach()

        def mean(value: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (value.detach() * weight).sum(), weight.sum()

        one = torch.ones((), device=loss.device)
        has_golden = bool(rows.table.is_golden.any())  # of the whole update: the same in every micro-batch
        of_golden = {"golden/clip_fraction": mean(is_clipped.float(), golden), "golden/logp_mean": mean(logp, golden)}
        return loss, {
            "actor/loss": (loss.detach(), one * 0),  # weight 0: a sum, not a mean
            "actor/entropy": mean(entropy, tokens),
            "actor/clip_fraction": mean(is_clipped.float(), tokens),
            "actor/kl_old_k3": mean(torch.exp(moved) - 1 - moved, tokens),
            "actor/kl_ref_loss": mean(kl, tokens),
            **(of_golden if has_golden else {}),
        }


def _measure_advantage(batch: WeighedBatch) -> dict[str, float]:
    """Its mean over all tokens, and the largest."""
    advantage = batch.advantage
    total = float(batch.peers.sum((advantage * batch.mask).sum().double()))
    tokens = max(int(batch.table.tokens.sum()), 1)
    largest = advantage.abs().max() if advantage.numel() else torch.zeros(())
    return {
        "advantage/mean": total / tokens,
        "advantage/abs_max": float(batch.peers.max(largest.double())),
    }
