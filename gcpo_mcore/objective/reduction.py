"""Reductions: what each token's loss counts in the update's loss.

A reduction is a weight per token, computed over the whole update before its backward pass; the loss is then
a plain sum. So it is the same for every micro-batch size, packing and parallel layout. Rows that are left out
of the loss (`Batch.loss_mask`) count in no denominator.
"""

import torch
from pydantic import PositiveInt

from gcpo_mcore.batch import Batch
from gcpo_mcore.objective.part import Part


class Reduction(Part, kind="reduction"):
    """Kind: loss reduction."""

    def weights(self, batch: Batch) -> torch.Tensor:
        """[B, T] weights of the tokens of one update; 0 where `loss_mask` is."""
        raise TypeError(f"{type(self).__name__} has no weights")


class TokenMean(Reduction, option="token_mean"):
    """Mean over all tokens of the update (DAPO, arXiv 2503.14476, eq. 12)."""

    def weights(self, batch: Batch) -> torch.Tensor:
        return batch.loss_mask / batch.loss_mask.sum().clamp(min=1)


class SequenceMean(Reduction, option="sequence_mean"):
    """Mean over sequences of the mean over their tokens (GRPO, eq. 3; with a sequence ratio: GSPO, eq. 5)."""

    def weights(self, batch: Batch) -> torch.Tensor:
        return batch.loss_mask / batch.lengths.unsqueeze(1).clamp(min=1) / batch.trained_rows


class SequenceSum(Reduction, option="sequence_sum"):
    """Mean over sequences of the sum over their tokens."""

    def weights(self, batch: Batch) -> torch.Tensor:
        return batch.loss_mask / batch.trained_rows


class Constant(Reduction, option="constant"):
    """Sum over tokens divided by sequences x a constant length (Dr.GRPO, arXiv 2503.20783): no length bias."""

    tokens: PositiveInt

    def weights(self, batch: Batch) -> torch.Tensor:
        return batch.loss_mask / (batch.trained_rows * self.tokens)


class GroupMean(Reduction, option="group_mean"):
    """Mean over groups of the mean over their sequences of the mean over their tokens."""

    def weights(self, batch: Batch) -> torch.Tensor:
        is_trained = batch.loss_mask.any(1).to(batch.loss_mask.dtype)
        in_group = torch.zeros(int(batch.group.max()) + 1, dtype=is_trained.dtype, device=is_trained.device)
        in_group = in_group.index_add_(0, batch.group, is_trained)
        groups = (in_group > 0).sum().clamp(min=1)
        of_row = in_group[batch.group].clamp(min=1) * batch.lengths.clamp(min=1) * groups
        return batch.loss_mask / of_row.unsqueeze(1)
