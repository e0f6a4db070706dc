"""Advantages: what a row's reward is worth against its group."""

from typing import Literal

import torch

from gcpo_mcore.batch import Batch
from gcpo_mcore.objective.part import Part


class Advantage(Part):
    """Kind: advantage estimator."""

    @property
    def needs_group(self) -> bool:
        """Whether it compares the samples of a prompt with each other."""
        return True

    def __call__(self, batch: Batch) -> torch.Tensor:
        """[B] advantages of the rows."""
        raise TypeError(f"{type(self).__name__} has no advantage")


class GroupMean(Advantage, option="group"):
    """A_i = (r_i - mean) / (std + eps) over the row's group (GRPO, arXiv 2402.03300, sec. 4.1.2).

    std: 'sample' (n-1, as torch.std), 'population' (n) or 'none' (Dr.GRPO, arXiv 2503.20783). A group of one
    row has advantage 0.
    """

    std: Literal["sample", "population", "none"]
    eps: float

    def __call__(self, batch: Batch) -> torch.Tensor:
        centred, count = _centred(batch)
        if self.std == "none":
            return centred
        squares = torch.zeros_like(count).index_add_(0, batch.group, centred**2)
        degrees = count - 1 if self.std == "sample" else count
        std = (squares / degrees.clamp(min=1)).sqrt()
        return centred / (std[batch.group] + self.eps)


class LeaveOneOut(Advantage, option="leave_one_out"):
    """A_i = r_i - mean of the group's other rewards = G/(G-1) (r_i - mean) (RLOO, arXiv 2402.14740)."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        centred, count = _centred(batch)
        return centred * (count / (count - 1).clamp(min=1))[batch.group]


class RawReward(Advantage, option="none"):
    """A_i = r_i: no baseline."""

    @property
    def needs_group(self) -> bool:
        return False

    def __call__(self, batch: Batch) -> torch.Tensor:
        return batch.reward.clone()


def _centred(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """([B] reward minus group mean, [groups] rows of each group)."""
    groups = int(batch.group.max()) + 1
    count = torch.zeros(groups).index_add_(0, batch.group, torch.ones_like(batch.reward))
    # Counted from the group's lowest reward, a uniform group is exactly 0: the rounding of its mean, divided by
    # its next-to-nothing deviation, would else be an advantage.
    lowest = torch.full((groups,), torch.inf).scatter_reduce_(0, batch.group, batch.reward, "amin")
    above = batch.reward - lowest[batch.group]
    total = torch.zeros(groups).index_add_(0, batch.group, above)
    return above - (total / count.clamp(min=1))[batch.group], count
