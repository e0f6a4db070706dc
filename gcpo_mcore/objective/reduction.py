"""Reductions: what each token's loss counts in the update's loss.

A reduction is a weight per token, computed over the whole update before its backward pass; the loss is then
a plain sum. So it is the same for every micro-batch size, packing and parallel layout. Rows that are left out
of the loss (`Table.is_trained`) count in no denominator.
"""

import torch
from pydantic import PositiveInt

from gcpo_mcore.batch import WeighedBatch
from gcpo_mcore.objective.part import Part


class Reduction(Part, kind="reduction"):
    """Kind: loss reduction."""

    def weights(self, batch: WeighedBatch) -> torch.Tensor:
        """[b, T] weights of the tokens of one update; 0 where `loss_mask` is."""
        raise TypeError(f"{type(self).__name__} has no weights")


class TokenMean(Reduction, option="token_mean"):
    """Mean over all tokens of the update (DAPO, arXiv 2503.14476, eq. 12)."""

    def weights(self, batch: WeighedBatch) -> torch.Tensor:
        return batch.loss_mask / batch.table.trained_tokens


class SequenceMean(Reduction, option="sequence_mean"):
    """Mean over sequences of the mean over their tokens (GRPO, eq. 3; with a sequence ratio: GSPO, eq. 5)."""

    def weights(self, batch: WeighedBatch) -> torch.Tensor:
        return batch.loss_mask / batch.lengths.unsqueeze(1).clamp(min=1) / batch.table.trained_rows


class SequenceSum(Reduction, option="sequence_sum"):
    """Mean over sequences of the sum over their tokens."""

    def weights(self, batch: WeighedBatch) -> torch.Tensor:
        return batch.loss_mask / batch.table.trained_rows


class Constant(Reduction, option="constant"):
    """Sum over tokens divided by sequences x a constant length (Dr.GRPO, arXiv 2503.20783): no length bias."""

    tokens: PositiveInt

    def weights(self, batch: WeighedBatch) -> torch.Tensor:
        return batch.loss_mask / (batch.table.trained_rows * self.tokens)


class GroupMean(Reduction, option="group_mean"):
    """Mean over groups of the mean over their sequences of the mean over their tokens."""

    def weights(self, batch: WeighedBatch) -> torch.Tensor:
        table = batch.table
        in_group = torch.zeros(table.groups).index_add_(0, table.group, table.is_trained.float())
        groups = (in_group > 0).sum().clamp(min=1)
        of_row = in_group[table.group[batch.mine]].clamp(min=1) * batch.lengths.clamp(min=1) * groups
        return batch.loss_mask / of_row.unsqueeze(1)
