"""What no row may hold, whatever its file is: text that is no Unicode, a key twice, a number or a nesting without end.

Python reads some of these without a word and stumbles over them much later: when tokens are made, a record is written,
or a row is sent to a reward.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 64  # of lists and objects inside each other: rows are pickled and written by recursion
MAX_DIGITS = sys.get_int_max_str_digits() or sys.maxsize  # of an integer that Python turns into text and back; 0: any


@dataclass(frozen=True)
class Fault:
    """Stands where a value could not be read; `problem` says why, as the end of 'column x ...' or 'row y: ...'."""

    problem: str


def from_json(text: str) -> Any:
    """The value of a JSON text, with a Fault in the place of what no row may hold. JSONDecodeError if it is not JSON.

    NaN and Infinity, which are not of the standard either but written by Python and pandas, become such floats.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except RecursionError:
        return Fault(TOO_DEEP)


def problem_in(values: dict[str, Any]) -> str | None:
    """The first thing in a row that it may not hold, in words that name the column; None if all is well."""
    for column, value in values.items():
        if _is_no_text(column):
            return f"the name of column {shown(column)} {NO_TEXT}"
        if problem := problem_of(value):
            return f"column '{shown(column)}' {problem}"
    return None


def problem_of(value: Any, depth: int = 0) -> str | None:
    """What is wrong with a value, as the end of a sentence; None if nothing is."""
    if isinstance(value, str):
        return NO_TEXT if _is_no_text(value) else None
    if isinstance(value, Fault):
        return value.problem
    if not isinstance(value, list | tuple | dict):
        return None
    if depth == MAX_DEPTH:
        return TOO_DEEP
    inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return next((problem for one in inside if (problem := problem_of(one, depth + 1))), None)


def shown(text: str) -> str:
    """A name from a file as a message can print it, in one line."""
    return text if text.isprintable() else ascii(text)[1:-1]


def said(error: BaseException) -> str:
    """What another library's error says, in one line that begins with its kind and can be printed."""
    words = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:400]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


NO_TEXT = "holds half of a surrogate pair, which is no Unicode text"
TOO_DEEP = f"has lists and objects nested deeper than {MAX_DEPTH} levels"


def _is_no_text(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _integer(digits: str) -> int | Fault:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        return Fault(f"has an integer of {len(digits.lstrip('-')):,} digits; more than {MAX_DIGITS:,} have to be text")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Fault:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    keys = [key for key, _ in pairs]
    double = next(key for key in keys if keys.count(key) > 1)
    return Fault(f"has the key '{shown(double)}' twice")
