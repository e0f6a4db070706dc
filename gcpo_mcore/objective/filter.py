"""Filters: which prompts are sampled, which groups and rows are trained on, how often a step samples again."""

from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

from gcpo_mcore.objective.part import Part
from gcpo_mcore.samples import Group


class Filter(Part, kind="filter"):
    """Kind: group filter.

    mask_truncated  rows cut at the length limit stay in their group's advantage but out of the loss and its
                    denominators (overlong filtering; DAPO, arXiv 2503.14476, sec. 3.4)
    """

    keeps_uniform: ClassVar[bool] = True  # whether a group whose samples are all worth the same is trained on
    needs_history: ClassVar[bool] = False  # whether the accuracy of every prompt's last group must be kept
    mask_truncated: bool

    @property
    def rounds_per_step(self) -> int:
        """How many times a step may sample to fill its batch; at the cap it trains on what it has, or stops."""
        return 1

    @property
    def stop_at_cap(self) -> bool:
        """Whether a step that is still short at the cap ends the run."""
        return False

    def keep(self, group: Group[Any]) -> bool:
        """Whether the group is trained on."""
        return bool(group.samples)

    def skips(self, last_accuracy: float | None) -> bool:
        """Whether a prompt is passed over without sampling; None: it was not sampled yet."""
        return False


class Keep(Filter, option="keep"):
    """Every group that has a sample."""


class DropUniform(Filter, option="drop_uniform"):
    """Drops groups whose samples are all worth the same: their group advantage is zero.

    With `max_rounds` above 1 this is DAPO's dynamic sampling (arXiv 2503.14476, eq. 11).

    by  'accuracy': all right or all wrong, whatever their rewards (DAPO); 'reward': all of one reward
    """

    keeps_uniform: ClassVar[bool] = False
    by: Literal["accuracy", "reward"]
    max_rounds: PositiveInt
    at_cap: Literal["train_on_fewer", "stop"]

    @property
    def rounds_per_step(self) -> int:
        return self.max_rounds

    @property
    def stop_at_cap(self) -> bool:
        return self.at_cap == "stop"

    def keep(self, group: Group[Any]) -> bool:
        if self.by == "accuracy":
            return 0 < group.accuracy < 1
        rewards = [s.reward for s in group.samples]
        return len(rewards) > 0 and max(rewards) > min(rewards)


class HistoryResampling(Filter, option="history"):
    """Prompts whose samples were all right the last time are passed over in later epochs; all-wrong ones stay
    (SRPO, arXiv 2504.14286, sec. 3.3)."""

    needs_history: ClassVar[bool] = True

    def skips(self, last_accuracy: float | None) -> bool:
        return last_accuracy == 1.0
