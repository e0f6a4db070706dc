r"""The forms in which data sets of the field come, recognised by their columns.

    shape   prompt     answer                             golden answer
    verl    prompt     reward_model.ground_truth          extra_info.answer, if it is a text of its own
    slime   prompt     label                              -
    plain   prompt     answer                             golden_answer
    trl     prompt     solution: its last \boxed{},       solution, if it is more than the answer
                       or all of it
    math    problem    answer, or else the last \boxed{}  solution
                       of solution
    gsm8k   question   answer: after ####, or all of it   answer, if it has ####, without its <<7*6=42>>

The first whose columns are there, in a source's first row, is taken for all its rows. A key that the config names goes
before the shape's.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.data.config import Keys
from gcpo_mcore.data.files import Row, answers_of, golden_of, value_at
from gcpo_mcore.data.sound import shown
from gcpo_mcore.rewarding.extraction import last_box

GOLDEN = "golden_answer"  # a column of this name, as tools/golden.py writes it, goes before what the shape has
CALCULATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class Place:
    """A column ('extra_info.answer' is inside one), and how its text is read: None if what is wanted is not in it."""

    column: str
    read: Callable[[str], str | None] = str.strip


@dataclass(frozen=True)
class Shape:
    """The places of prompt, reference answer and golden answer. `columns` are those that tell it from others."""

    name: str
    columns: tuple[str, ...]
    prompt: Place
    answer: Place
    golden: Place | None


def _after_hashes(text: str) -> str:
    return text.rpartition("####")[2].strip()


def _with_hashes(text: str) -> str | None:
    return CALCULATION.sub("", text).strip() if "####" in text else None


def _boxed_or_all(text: str) -> str:
    return last_box(text) or text.strip()


SHAPES = (
    Shape(
        "verl",
        ("prompt", "reward_model"),
        Place("prompt"),
        Place("reward_model.ground_truth"),
        Place("extra_info.answer"),
    ),
    Shape("slime", ("prompt", "label"), Place("prompt"), Place("label"), None),
    Shape("plain", ("prompt", "answer"), Place("prompt"), Place("answer", str), Place(GOLDEN, str)),
    Shape("trl", ("prompt", "solution"), Place("prompt"), Place("solution", _boxed_or_all), Place("solution")),
    Shape("math", ("problem", "answer"), Place("problem"), Place("answer"), Place("solution")),
    Shape("math", ("problem", "solution"), Place("problem"), Place("solution", last_box), Place("solution")),
    Shape(
        "gsm8k",
        ("question", "answer"),
        Place("question"),
        Place("answer", _after_hashes),
        Place("answer", _with_hashes),
    ),
)


@dataclass(frozen=True)
class Columns:
    """The places of the three in one source's rows; `shape` is its name, or 'keys' if the config names them all."""

    shape: str
    prompt: str
    answer: Place
    golden: Place | None
    golden_is_strict: bool  # it has to be text or null: named by the config, or written for this framework

    def answers(self, row: Row) -> tuple[str, ...]:
        """The reference answers, at least one. UserError if there is none."""
        return tuple(self._answer(row, text) for text in answers_of(row, self.answer.column))

    def _answer(self, row: Row, text: str) -> str:
        answer = self.answer.read(text)
        if not answer:
            raise UserError(f"{row.where}: column '{self.answer.column}' has no answer in it (shape {self.shape})")
        return answer

    def golden_answer(self, row: Row) -> str | None:
        """The golden answer; None where the row has none. A text that is only the answer again is none either."""
        if self.golden is None:
            return None
        if self.golden_is_strict:
            return golden_of(row, self.golden.column)
        value: Any = value_at(row.values, self.golden.column)
        text = self.golden.read(value) if isinstance(value, str) else None
        if not text or text.strip() in {a for answer in self.answers(row) for a in (answer, rf"\boxed{{{answer}}}")}:
            return None
        return text


def columns_of(row: Row, keys: Keys) -> Columns:
    """The places in a source's rows, by its first row and the config's keys. UserError if they are not known."""
    shape = next((s for s in SHAPES if all(c in row.values for c in s.columns)), None)
    golden_key = GOLDEN if keys.golden_answer is None and GOLDEN in row.values else keys.golden_answer
    golden = Place(golden_key, str) if golden_key is not None else shape.golden if shape else None
    is_strict = golden_key is not None
    if keys.prompt is not None and keys.answer is not None:
        return Columns("keys", keys.prompt, Place(keys.answer, str), golden, is_strict)
    if shape is None:
        known = ", ".join(dict.fromkeys(f"{s.name} ({', '.join(s.columns)})" for s in SHAPES))
        raise UserError(
            f"{row.where}: the columns {', '.join(map(shown, row.values))} are of no known shape; known: {known}; "
            "data.keys.prompt and data.keys.answer can name them"
        )
    prompt = keys.prompt if keys.prompt is not None else shape.prompt.column
    answer = Place(keys.answer, str) if keys.answer is not None else shape.answer
    return Columns(shape.name, prompt, answer, golden, is_strict)
