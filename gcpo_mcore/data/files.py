"""Rows of jsonl and parquet files, and the checks of their columns.

Every complaint is a `UserError` of one line that names the file and the row: jsonl by its line, from 1, as editors
count; parquet by its row, from 0, as pandas and pyarrow count.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from gcpo_mcore.errors import UserError, nearest

Message = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One row: its number from 0 (blank lines do not count), where it is for messages, and its values by column."""

    number: int
    where: str
    values: dict[str, Any]


def read_rows(path: str, max_rows: int | None = None) -> list[Row]:
    """The first `max_rows` rows of a file (None: all); at least one, or a UserError."""
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file")
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    ending = Path(path).suffix
    if ending not in readers:
        raise UserError(f"{path}: unknown ending '{ending}'; known: {', '.join(readers)}")
    rows = []
    for where, values in readers[ending](path):
        if len(rows) == max_rows:
            break
        rows.append(Row(len(rows), where, values))
    if not rows:
        raise UserError(f"{path}: the file has no rows")
    return rows


def prompt_of(row: Row, column: str) -> str | list[Message]:
    """The prompt: a string that is not blank, or messages of which the last is not the assistant's."""
    value = _required(row, column)
    if isinstance(value, str):
        if not value.strip():
            raise UserError(f"{row.where}: column '{column}' is empty")
        return value
    if not isinstance(value, list):
        raise _wrong_type(row, column, value, "a string or a list of messages {role, content}")
    if not value:
        raise UserError(f"{row.where}: column '{column}' is an empty list")
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise UserError(f"{row.where}: column '{column}': message {i} must have strings 'role' and 'content'")
    if value[-1]["role"] == "assistant":
        raise UserError(
            f"{row.where}: column '{column}': the last message is the assistant's; a prompt must end before"
        )
    return value


def answer_of(row: Row, column: str) -> str:
    """The reference answer; a number becomes text as Python writes it."""
    value = _required(row, column)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{row.where}: column '{column}' is {value}, not a finite number")
        return str(value)
    if not isinstance(value, str):
        raise _wrong_type(row, column, value, "a string or a number")
    if not value.strip():
        raise UserError(f"{row.where}: column '{column}' is empty")
    return value


def golden_of(row: Row, column: str) -> str | None:
    """The golden answer, or None where the row has none (no such column, or null)."""
    value = row.values.get(column)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong_type(row, column, value, "a string or null")
    if not value.strip():
        raise UserError(f"{row.where}: column '{column}' is empty; a row without a golden answer has null")
    return value


def _required(row: Row, column: str) -> Any:
    if column not in row.values:
        raise UserError(
            f"{row.where}: there is no column '{column}'{nearest(column, row.values)}; columns: {', '.join(row.values)}"
        )
    if row.values[column] is None:
        raise UserError(f"{row.where}: column '{column}' is null")
    return row.values[column]


def _wrong_type(row: Row, column: str, value: Any, wanted: str) -> UserError:
    return UserError(f"{row.where}: column '{column}' is of type {type(value).__name__}; it must be {wanted}")


def _read_jsonl(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                values = json.loads(line.decode("utf-8-sig"))
            except json.JSONDecodeError as error:
                raise UserError(f"{where}: not valid JSON: {error.msg} at character {error.pos + 1}") from None
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: not UTF-8 at byte {error.start + 1}") from None
            if not isinstance(values, dict):
                raise UserError(f"{where}: not a JSON object but {type(values).__name__}")
            yield where, values


def _read_parquet(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow  # slow to import, and a run on jsonl does not need it
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    yield f"{path}, row {number}", values
                    number += 1
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file: {' '.join(str(error).split())}") from None
