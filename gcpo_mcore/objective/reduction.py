"""Reductions: what each token's loss counts in the update's loss.

A reduction is a weight per token, computed over the whole update before its backward pass; the loss is then
a plain sum. So it is the same for every micro-batch size, packing and parallel layout.
"""

import torch
from pydantic import PositiveInt

from gcpo_mcore.batch import Batch
from gcpo_mcore.objective.part import Part


class Reduction(Part):
    """Kind: loss reduction."""

    def weights(self, batch: Batch) -> torch.Tensor:
        """[B, T] weights of the tokens of one update; 0 on padding."""
        raise TypeError(f"{type(self).__name__} has no weights")


class TokenMean(Reduction, option="token_mean"):
    """Mean over all tokens of the update (DAPO, arXiv 2503.14476, eq. 12)."""

    def weights(self, batch: Batch) -> torch.Tensor:
        return batch.mask / batch.mask.sum()


class SequenceMean(Reduction, option="sequence_mean"):
    """Mean over sequences of the mean over their tokens (GRPO, eq. 3; with a sequence ratio: GSPO, eq. 5)."""

    def weights(self, batch: Batch) -> torch.Tensor:
        return batch.mask / batch.lengths.unsqueeze(1).clamp(min=1) / len(batch)


class SequenceSum(Reduction, option="sequence_sum"):
    """Mean over sequences of the sum over their tokens."""

    def weights(self, batch: Batch) -> torch.Tensor:
        return batch.mask / len(batch)


class Constant(Reduction, option="constant"):
    """Sum over tokens divided by sequences x a constant length (Dr.GRPO, arXiv 2503.20783): no length bias."""

    tokens: PositiveInt

    def weights(self, batch: Batch) -> torch.Tensor:
        return batch.mask / (len(batch) * self.tokens)
