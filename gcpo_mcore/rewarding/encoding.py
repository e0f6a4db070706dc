"""A data row's columns as strict JSON, for rewards that send them elsewhere (docs/rewards.md has the table).

None, bool, int, str, finite float   themselves        nan, NaT                null
datetime, date, time                 ISO 8601          inf, -inf               "inf", "-inf"
timedelta                            seconds, a float  bytes                   base64, a string
Decimal, Fraction, UUID, path        their string      list, tuple, set, array a list (a set is sorted)
numpy scalars                        as Python's       dict                    an object, its keys as strings
"""

import base64
import datetime
import enum
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

MAX_DEPTH = 50
MAX_INTEGER_BITS = 10_000  # Python writes no longer ones as decimals


def encodable(columns: Mapping[str, Any], names: Iterable[str] | None) -> dict[str, Any]:
    """The columns of these names as JSON takes them; None: all that can be encoded, the others left out.

    KeyError for a name that is no column, TypeError for a named column that cannot be encoded.
    """
    if names is not None:
        return {name: _named(columns, name) for name in names}
    encoded = {}
    for name, value in columns.items():
        try:
            encoded[str(name)] = as_json(value)
        except TypeError:
            continue
    return encoded


def as_json(value: Any, depth: int = 0) -> Any:
    """`value` as strict JSON. TypeError for what has no form in the table above."""
    if depth > MAX_DEPTH:
        raise TypeError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, enum.Enum):
        return as_json(value.value, depth + 1)
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        if value.bit_length() > MAX_INTEGER_BITS:
            raise TypeError("an integer of thousands of digits")
        return int(value)
    if isinstance(value, float):
        return _float(float(value))
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Decimal | Fraction | UUID | PurePath):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return _composed(value, depth)


def _composed(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): as_json(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner, depth + 1) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((as_json(inner, depth + 1) for inner in value), key=repr)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return as_json(_from_numpy(value), depth + 1)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _float(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(as_json(key))


def _from_numpy(value: Any) -> Any:
    """An array or scalar as Python's own; times by way of microseconds, which Python has."""
    units = {"M": "datetime64[us]", "m": "timedelta64[us]"}
    kind = value.dtype.kind
    try:
        return (value.astype(units[kind]) if kind in units else value).tolist()
    except ValueError as error:
        raise TypeError(str(error)) from error


def _named(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        raise KeyError(f"no column {name!r}; columns: {', '.join(map(str, columns))}")
    try:
        return as_json(columns[name])
    except TypeError as error:
        raise TypeError(f"column {name!r}: {error}") from error
