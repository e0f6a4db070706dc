"""Advantages: what a row's reward is worth against its group, or against the whole batch."""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat

from gcpo_mcore.batch import ScoredBatch, Table
from gcpo_mcore.objective.part import Part


class Advantage(Part, kind="advantage"):
    """Kind: advantage estimator."""

    by_token: ClassVar[bool] = False  # True: the tokens of a row may differ

    @property
    def needs_group(self) -> bool:
        """Whether it compares the samples of a prompt with each other."""
        return True

    def __call__(self, batch: ScoredBatch, token_reward: torch.Tensor | None) -> torch.Tensor:
        """[b, T] advantages, 0 on padding. A collective over the batch's peers.

        token_reward  [b, T] what each token adds to its row's reward (a KL penalty); None if nothing does
        """
        advantage = self.of_rows(_rewards(batch, token_reward), batch.table).masked_fill(batch.table.is_beside, 0.0)
        return advantage[batch.mine].unsqueeze(1) * batch.mask

    def of_rows(self, reward: torch.Tensor, table: Table) -> torch.Tensor:
        """[B] advantages of the table's rows with `reward` [B]."""
        raise TypeError(f"{type(self).__name__} has no advantage")


class GroupMean(Advantage, option="group"):
    """A_i = (r_i - mean) / (std + eps) over the row's group (GRPO, arXiv 2402.03300, sec. 4.1.2).

    std: 'sample' (n-1, as torch.std), 'population' (n) or 'none' (Dr.GRPO, arXiv 2503.20783). A group of one
    row has advantage 0.
    """

    std: Literal["sample", "population", "none"]
    eps: PositiveFloat

    def of_rows(self, reward: torch.Tensor, table: Table) -> torch.Tensor:
        centred, count = _centred(reward, table)
        if self.std == "none":
            return centred
        squares = torch.zeros_like(count).index_add_(0, table.group, centred**2)
        degrees = count - 1 if self.std == "sample" else count
        std = (squares / degrees.clamp(min=1)).sqrt()
        return centred / (std[table.group] + self.eps)


class LeaveOneOut(Advantage, option="leave_one_out"):
    """A_i = r_i - mean of the group's other rewards = G/(G-1) (r_i - mean) (RLOO, arXiv 2402.14740)."""

    def of_rows(self, reward: torch.Tensor, table: Table) -> torch.Tensor:
        centred, count = _centred(reward, table)
        return centred * (count / (count - 1).clamp(min=1))[table.group]


class Whitened(Advantage, option="whitened"):
    """(a - mean) / (std + eps) over all trained tokens of the step (REINFORCE++, arXiv 2501.03262).

    baseline 'none':  a_it is the sum of the rewards of token t and the later ones; the row's reward comes with its
                      last token, a KL penalty with each
    baseline 'group': a_it = r_i - mean of the group's rewards, the same for every token (REINFORCE++-baseline)
    std with n-1.
    """

    by_token: ClassVar[bool] = True
    baseline: Literal["none", "group"]
    eps: PositiveFloat

    @property
    def needs_group(self) -> bool:
        return self.baseline == "group"

    def __call__(self, batch: ScoredBatch, token_reward: torch.Tensor | None) -> torch.Tensor:
        if self.baseline == "group":
            centred, _ = _centred(_rewards(batch, token_reward), batch.table)
            a = centred[batch.mine].double().unsqueeze(1) * batch.mask
        else:
            a = batch.table.reward[batch.mine].double().unsqueeze(1) * batch.mask
            if token_reward is not None:
                a = a + token_reward.double().flip(1).cumsum(1).flip(1) * batch.mask  # of this token and later ones
        # In float64, the mean of equal fp32 values is that value: equal rewards are exactly 0.
        weight = batch.mask.double() * batch.table.is_trained[batch.mine].unsqueeze(1)
        count = float(batch.table.trained_tokens)
        mean = batch.peers.sum((a * weight).sum()) / count
        std = (batch.peers.sum(((a - mean) ** 2 * weight).sum()) / max(count - 1, 1.0)).sqrt()
        of_samples = batch.mask * ~batch.table.is_beside[batch.mine].unsqueeze(1)
        return ((a - mean) / (std + self.eps) * of_samples).to(batch.mask.dtype)


class RawReward(Advantage, option="none"):
    """A_i = r_i: no baseline."""

    @property
    def needs_group(self) -> bool:
        return False

    def of_rows(self, reward: torch.Tensor, table: Table) -> torch.Tensor:
        return reward.clone()


def _rewards(batch: ScoredBatch, token_reward: torch.Tensor | None) -> torch.Tensor:
    """[B] the rewards of all rows, with what their tokens add."""
    reward = batch.table.reward
    return reward if token_reward is None else reward + batch.everywhere(token_reward.sum(1))


def _centred(reward: torch.Tensor, table: Table) -> tuple[torch.Tensor, torch.Tensor]:
    """([B] reward minus group mean, [groups] samples of each group); 0 for what stands beside a group."""
    group, groups = table.group, table.groups
    is_sample = (~table.is_beside).to(reward.dtype)
    count = torch.zeros(groups, dtype=reward.dtype).index_add_(0, group, is_sample)
    # Counted from the group's lowest reward, a uniform group is exactly 0: the rounding of its mean, divided by
    # its next-to-nothing deviation, would else be an advantage.
    lowest = torch.full((groups,), torch.inf, dtype=reward.dtype)
    lowest.scatter_reduce_(0, group, reward.masked_fill(table.is_beside, torch.inf), "amin")
    above = (reward - lowest[group]).masked_fill(table.is_beside, 0.0)
    total = torch.zeros_like(count).index_add_(0, group, above)
    return (above - (total / count.clamp(min=1))[group]) * is_sample, count
