"""Rows, and the checks of their columns: every complaint is a `UserError` of one line that names the file and the row.

A column is named as it is; 'extra_info.answer' is also the key 'answer' of the object in column 'extra_info'.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from gcpo_mcore.base.errors import UserError, nearest
from gcpo_mcore.data.messages import Message, messages_in, problem_in_messages
from gcpo_mcore.data.readers import Located, Values, located_rows
from gcpo_mcore.data.sound import Fault, problem_in, shown


@dataclass(frozen=True)
class Row:
    """One row: its number from 0 (blank lines do not count), where it is for messages, and its values by column."""

    number: int
    where: str
    values: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used at all: where it is, why, and its values if it has some."""

    where: str
    problem: str
    values: dict[str, Any] | None


def read_rows(path: str, max_rows: int | None = None) -> list[Row]:
    """The first `max_rows` rows (None: all) of a file, a folder or hf:NAME; at least one, all good, or a UserError."""
    return [read() for read in unread_rows(path, max_rows)]


def unread_rows(path: str, max_rows: int | None = None) -> Iterator[Callable[[], Row]]:
    """For each of the rows of `read_rows`, in order, what reads it; passing one over costs little."""
    return unread(located_rows(path), path, max_rows)


def unread(located: Iterable[Located], path: str, max_rows: int | None = None) -> Iterator[Callable[[], Row]]:
    """The same of rows that are located elsewhere."""
    number = -1
    for number, (where, read) in enumerate(itertools.islice(located, max_rows)):
        yield partial(_good_row, number, where, read)
    if number < 0:
        raise UserError(f"{path}: there are no rows")


def _good_row(number: int, where: str, read: Callable[[], Values]) -> Row:
    row = _row(number, where, read())
    if isinstance(row, BadRow):
        raise UserError(f"{row.where}: {row.problem}")
    return row


def sift_rows(path: str) -> tuple[list[Row], list[BadRow]]:
    """All rows, the good and the bad. UserError for what makes (the rest of) a file unreadable is a bad row too."""
    good: list[Row] = []
    bad: list[BadRow] = []
    try:
        for number, (where, read) in enumerate(located_rows(path)):
            row = _row(number, where, read())
            if isinstance(row, Row):
                good.append(row)
            else:
                bad.append(row)
    except UserError as error:
        bad.append(BadRow(path, str(error).removeprefix(f"{path}: "), None))
    return good, bad


def _row(number: int, where: str, values: Values) -> Row | BadRow:
    if isinstance(values, Fault):
        return BadRow(where, values.problem, None)
    if problem := problem_in(values):
        return BadRow(where, problem, values)
    return Row(number, where, values)


def prompt_of(row: Row, column: str) -> str | list[Message]:
    """The prompt: a string that is not blank, or messages of which the last is not the assistant's.

    Messages may be stored as the text of a JSON list.
    """
    value = _required(row, column)
    if isinstance(value, str):
        if not value.strip():
            raise UserError(f"{row.where}: column '{column}' is empty")
        messages = messages_in(value)
        if messages is None:
            return value
        if isinstance(messages, Fault):
            raise UserError(f"{row.where}: column '{column}' {messages.problem}")
        value = messages
    if not isinstance(value, list):
        raise _wrong_type(row, column, value, "a string or a list of messages {role, content}")
    if not value:
        raise UserError(f"{row.where}: column '{column}' is an empty list")
    if problem := problem_in_messages(value):
        raise UserError(f"{row.where}: column '{column}': {problem}")
    return value


def answers_of(row: Row, column: str) -> tuple[str, ...]:
    """The reference answers: a text or number, or a list of some, each as good as the first."""
    value = _required(row, column)
    if not isinstance(value, list):
        return (_answer(row, column, value),)
    if not value:
        raise UserError(f"{row.where}: column '{column}' is an empty list")
    return tuple(_answer(row, column, one) for one in value)


def _answer(row: Row, column: str, value: Any) -> str:
    """One reference answer; a number becomes text as Python writes it."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if not _is_finite(value):
            raise UserError(f"{row.where}: column '{column}' is {value}, not a finite number")
        return str(value)
    if not isinstance(value, str):
        raise _wrong_type(row, column, value, "a string or a number, or a list of them")
    if not value.strip():
        raise UserError(f"{row.where}: column '{column}' is empty")
    return value


def _is_finite(value: int | float | Decimal) -> bool:
    """math.isfinite would make a float of it first, and fail for 10**400."""
    return value.is_finite() if isinstance(value, Decimal) else isinstance(value, int) or math.isfinite(value)


def golden_of(row: Row, column: str) -> str | None:
    """The golden answer, or None where the row has none (no such column, or null)."""
    value = value_at(row.values, column)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong_type(row, column, value, "a string or null")
    if not value.strip():
        raise UserError(f"{row.where}: column '{column}' is empty; a row without a golden answer has null")
    return value


def value_at(values: dict[str, Any], column: str) -> Any:
    """The value of a column, or of a key inside one ('extra_info.answer'); None if it is not there."""
    if column in values:
        return values[column]
    first, _, rest = column.partition(".")
    inside = values.get(first) if rest else None
    return value_at(inside, rest) if isinstance(inside, dict) else None


def _required(row: Row, column: str) -> Any:
    value = value_at(row.values, column)
    if value is None and column in row.values:
        raise UserError(f"{row.where}: column '{column}' is null")
    if value is None:
        raise UserError(
            f"{row.where}: there is no column '{column}'{nearest(column, map(shown, row.values))}; "
            f"columns: {', '.join(map(shown, row.values))}"
        )
    return value


def _wrong_type(row: Row, column: str, value: Any, wanted: str) -> UserError:
    return UserError(f"{row.where}: column '{column}' is of type {type(value).__name__}; it must be {wanted}")
