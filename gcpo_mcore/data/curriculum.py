"""Curricula: in which order the prompts of a source come, and which of them are passed over.

An order is a pure function of prompts, key and epoch. What is passed over depends on the accuracy of a prompt's last
group, which the collector keeps in the checkpoint. Either way a resumed run goes on with the same prompts.
"""

import json
import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from gcpo_mcore.base.choice import Choice
from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.data.cursor import Order, shuffled
from gcpo_mcore.data.files import Row, value_at
from gcpo_mcore.data.prompts import Prompts

Rate = Annotated[float, Field(ge=0, le=1)]


class Curriculum(Choice, kind="curriculum"):
    """Kind: curriculum. The same one for every training source; the mixture's proportions hold under each."""

    section: ClassVar[str] = "data"
    needs_history: ClassVar[bool] = False  # whether the accuracy of every prompt's last group must be kept

    def check(self, row: Row) -> None:
        """UserError, naming file, row and column, if the row has not what this curriculum needs."""

    def number(self, columns: dict[str, Any]) -> float | None:
        """The number that `order` goes by, of a row's columns; it is kept with prepared prompts. None: no number."""
        return None

    def order(self, prompts: Prompts, key: str, epoch: int) -> np.ndarray:
        """[n] the places of `prompts` in the order of an epoch (from 0); `key` is of the seed and the source."""
        return shuffled(prompts, key, epoch)

    def skips(self, last_accuracy: float | None, epoch: int) -> bool:
        """Whether a prompt is passed over in an epoch of its source; None: it was not sampled yet."""
        return False


class Shuffled(Curriculum, option="none"):
    """Every prompt once per epoch, shuffled."""


class EasiestFirst(Curriculum, option="easiest_first"):
    """By a number that every row has; rows of the same number are shuffled.

    column    its name; 'extra_info.level' is inside a column
    easiest   'lowest': it is a difficulty; 'highest': it is a pass rate
    epochs    so many epochs of a source are in this order, later ones are shuffled (null: all are in this order)
    """

    column: str
    easiest: Literal["lowest", "highest"]
    epochs: PositiveInt | None

    def check(self, row: Row) -> None:
        found = value_at(row.values, self.column)
        if found is None and self.column not in row.values:
            close = nearest(self.column, row.values)
            raise UserError(f"{row.where}: there is no column '{self.column}'{close} (data.curriculum.column)")
        if _number(found) is None:
            raise UserError(f"{row.where}: column '{self.column}' is {found!r}, not a number (data.curriculum.column)")

    def number(self, columns: dict[str, Any]) -> float | None:
        """The column's; `check` refuses rows without one."""
        return _number(value_at(columns, self.column))

    def order(self, prompts: Prompts, key: str, epoch: int) -> np.ndarray:
        places = shuffled(prompts, key, epoch)
        if self.epochs is not None and epoch >= self.epochs:
            return places
        sign = {"lowest": 1, "highest": -1}[self.easiest]
        return places[np.argsort(sign * prompts.numbers(self.number)[places], kind="stable")]


class ByPassRate(Curriculum, option="by_pass_rate"):
    """Prompts whose last group was right in less than `low` or more than `high` of its samples are passed over.

    Only sampling measures a rate, so every `revisit_every_epochs`-th epoch of a source shows all its prompts (null:
    what is passed over never comes back).
    """

    needs_history: ClassVar[bool] = True
    low: Rate
    high: Rate
    revisit_every_epochs: PositiveInt | None

    @model_validator(mode="after")
    def _in_order(self):
        if self.low > self.high:
            raise UserError(f"data.curriculum.low={self.low} is above data.curriculum.high={self.high}")
        return self

    def skips(self, last_accuracy: float | None, epoch: int) -> bool:
        is_revisit = self.revisit_every_epochs is not None and epoch % self.revisit_every_epochs == 0
        return last_accuracy is not None and not is_revisit and not self.low <= last_accuracy <= self.high


class DropSolved(Curriculum, option="drop_solved"):
    """Prompts whose last group was right in `solved_at` of its samples or more never come again."""

    needs_history: ClassVar[bool] = True
    solved_at: Rate

    def skips(self, last_accuracy: float | None, epoch: int) -> bool:
        return last_accuracy is not None and last_accuracy >= self.solved_at


def kept_order(curriculum: Curriculum) -> Order:
    """The curriculum's order, worked out once where prompts are prepared."""
    settings = json.dumps(curriculum.plain(), sort_keys=True)

    def order(prompts: Prompts, key: str, epoch: int) -> np.ndarray:
        name = f"{settings}/{key}/{epoch}"
        return prompts.order(name, lambda: np.asarray(curriculum.order(prompts, key, epoch), np.int64))

    return order


def _number(value: Any) -> float | None:
    """A finite number, also one written as text (csv has nothing else); None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None
