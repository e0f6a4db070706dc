"""Filters: which groups are trained on, and how often a step samples again to fill up."""

from typing import Literal

from pydantic import PositiveInt

from gcpo_mcore.objective.part import Part
from gcpo_mcore.samples import Group


class Filter(Part):
    """Kind: group filter."""

    @property
    def rounds_per_step(self) -> int:
        """How many times a step may sample to fill its batch; at the cap it trains on what it has, or stops."""
        return 1

    @property
    def keeps_uniform(self) -> bool:
        """Whether a group whose samples all have one reward is trained on."""
        return True

    @property
    def stop_at_cap(self) -> bool:
        """Whether a step that is still short at the cap ends the run."""
        return False

    def keep(self, group: Group) -> bool:
        """Whether the group is trained on."""
        return bool(group.samples)


class Keep(Filter, option="keep"):
    """Every group that has a sample."""


class DropUniform(Filter, option="drop_uniform"):
    """Drops groups whose samples all have the same reward: their group advantage is zero.

    With `max_rounds` above 1 this is DAPO's dynamic sampling (arXiv 2503.14476, eq. 11).
    """

    max_rounds: PositiveInt
    at_cap: Literal["train_on_fewer", "stop"]

    @property
    def keeps_uniform(self) -> bool:
        return False

    @property
    def rounds_per_step(self) -> int:
        return self.max_rounds

    @property
    def stop_at_cap(self) -> bool:
        return self.at_cap == "stop"

    def keep(self, group: Group) -> bool:
        rewards = [s.reward for s in group.samples]
        return len(rewards) > 0 and max(rewards) > min(rewards)
