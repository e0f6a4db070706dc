"""A_i = sign( r_i - (min_j r_j + max_j r_j) / 2 ): better or worse than the group's middle, never by how much."""

import torch

from gcpo_mcore.batch import Table
from gcpo_mcore.objective.advantage import Advantage


class Sign(Advantage, option="sign"):
    """1 above the middle of the group's rewards, -1 below it; 0 in a uniform group."""

    def of_rows(self, reward: torch.Tensor, table: Table) -> torch.Tensor:
        """[B] advantages of the table's rows with `reward` [B]; a golden answer beside its group is no sample of it."""
        lowest, highest = (self._of_groups(reward, table, reduce) for reduce in ("amin", "amax"))
        return torch.sign(reward - ((lowest + highest) / 2)[table.group])

    @staticmethod
    def _of_groups(reward: torch.Tensor, table: Table, reduce: str) -> torch.Tensor:
        """[groups] the least or the largest reward among the samples of each group."""
        ignored = float("inf") if reduce == "amin" else -float("inf")
        found = torch.full((table.groups,), ignored, dtype=reward.dtype)
        return found.scatter_reduce_(0, table.group, reward.masked_fill(table.is_beside, ignored), reduce)
