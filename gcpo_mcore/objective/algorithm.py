"""An algorithm: one option of every part. The trainer and the actor know only this interface.

select   groups in  -> golden injection and filter             -> groups to train on
weigh    batch in   -> advantage, mismatch, loss weights set   (after old and ref log-probs are known)
loss     micro-batch log-probs in -> summed loss               (inside the actor's forward pass)
"""

import torch

from gcpo_mcore.batch import Batch
from gcpo_mcore.config.part import Config
from gcpo_mcore.objective import mismatch as mismatch_module
from gcpo_mcore.objective.advantage import Advantage
from gcpo_mcore.objective.filter import Filter
from gcpo_mcore.objective.golden import Golden
from gcpo_mcore.objective.importance import Importance
from gcpo_mcore.objective.kl import KL
from gcpo_mcore.objective.mismatch import Mismatch
from gcpo_mcore.objective.part import of_kind
from gcpo_mcore.objective.reduction import Reduction
from gcpo_mcore.objective.surrogate import Surrogate
from gcpo_mcore.samples import Group

Sums = dict[str, tuple[torch.Tensor, torch.Tensor]]  # name -> (weighted sum, weight), both scalars


class Algorithm(Config):
    """The typed composition. `algorithms/NAME.py` subclasses it; `configs/algorithm/NAME.yaml` picks the parts.

    entropy_coefficient: the mean entropy times this is subtracted from the loss; 0 for no bonus.
    """

    name: str
    golden: of_kind(Golden)
    filter: of_kind(Filter)
    advantage: of_kind(Advantage)
    importance: of_kind(Importance)
    surrogate: of_kind(Surrogate)
    kl: of_kind(KL)
    reduction: of_kind(Reduction)
    mismatch: of_kind(Mismatch)
    entropy_coefficient: float

    def select(self, groups: list[Group], step: int) -> tuple[list[Group], dict[str, float]]:
        """Golden injection, then the filter. Returns the groups to train on and counts over all of `groups`."""
        counts = dict.fromkeys(
            ("all_wrong", "all_right", "golden_injected", "golden_missing", "golden_rejected",
             "dropped_all_wrong", "dropped_all_right", "dropped_other", "kept"), 0.0,
        )  # fmt: skip
        kept = []
        for group in groups:
            accuracy = group.accuracy
            sampled = bool(group.samples)
            counts["all_wrong"] += sampled and accuracy == 0
            counts["all_right"] += sampled and accuracy == 1
            if self.golden.needs_golden and (self.golden.is_due(group) or not sampled):
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

    def weigh(self, batch: Batch) -> dict[str, float]:
        """Sets advantage, mismatch_weight and loss_weight of one update's rows, in place. Returns metrics."""
        golden = batch.is_golden.unsqueeze(1)
        batch.rollout_logp = torch.where(golden, batch.old_logp, batch.rollout_logp)
        rho = torch.exp(batch.old_logp - batch.rollout_logp)
        advantage = self.advantage(batch)
        batch.advantage = advantage.unsqueeze(1) * batch.mask
        batch.mismatch_weight = torch.where(golden, 1.0, self.mismatch.weights(rho, batch.mask))
        batch.loss_weight = self.reduction.weights(batch)
        return {
            **mismatch_module.measure(batch),
            "advantage/mean": float(advantage.mean()),
            "advantage/abs_max": float(advantage.abs().max()),
            "mismatch/weight_mean": float((batch.mismatch_weight * batch.mask).sum() / batch.mask.sum()),
        }

    def loss(self, logp: torch.Tensor, entropy: torch.Tensor, rows: Batch) -> tuple[torch.Tensor, Sums]:
        """The rows' share of the update's loss, and sums for the log.

        logp, entropy [r, T]: the actor's, now; gradient flows through both. The shares of all micro-batches and
        data-parallel ranks add up to the update's loss: `rows.loss_weight` already holds the one denominator.
        """
        token_loss, is_clipped = self.surrogate.token_loss(logp, rows, self.importance)
        kl = self.kl.penalty(logp, rows.ref_logp)
        total = token_loss * rows.mismatch_weight + kl - self.entropy_coefficient * entropy
        loss = (total * rows.loss_weight).sum()

        tokens, golden = rows.mask, rows.mask * rows.is_golden.unsqueeze(1)
        moved = (logp - rows.old_logp).detach()

        def mean(value: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (value.detach() * weight).sum(), weight.sum()

        one = torch.ones((), device=loss.device)
        return loss, {
            "actor/loss": (loss.detach(), one * 0),  # weight 0: a sum, not a mean
            "actor/entropy": mean(entropy, tokens),
            "actor/clip_fraction": mean(is_clipped.float(), tokens),
            "actor/kl_old_k3": mean(torch.exp(moved) - 1 - moved, tokens),
            "actor/kl_ref_loss": mean(kl, tokens),
            "golden/clip_fraction": mean(is_clipped.float(), golden),
            "golden/logp_mean": mean(logp, golden),
        }
