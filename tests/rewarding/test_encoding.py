"""What a column becomes in JSON."""

import datetime
import json
import uuid
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath

import numpy as np
import pytest

from gcpo_mcore.rewarding.encoding import as_json, encodable

WHEN = datetime.datetime(2024, 5, 1, 12, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("é\ud800", "é\ud800"),
        (3, 3),
        (1.5, 1.5),
        (float("nan"), None),
        (float("inf"), "inf"),
        (-float("inf"), "-inf"),
        (WHEN, "2024-05-01T12:30:00+00:00"),
        (WHEN.date(), "2024-05-01"),
        (datetime.time(1, 2), "01:02:00"),
        (datetime.timedelta(days=3, milliseconds=5), 259200.005),
        (Decimal("1.50"), "1.50"),
        (Fraction(1, 3), "1/3"),
        (b"\x89PNG", "iVBORw=="),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        ({3, 1}, [1, 3]),
        ((1, [2.5, None]), [1, [2.5, None]]),
        ({"a": [None, {"when": WHEN.date()}], 5: 1}, {"a": [None, {"when": "2024-05-01"}], "5": 1}),
        (np.float32(1.5), 1.5),
        (np.float64("nan"), None),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([np.inf, 1.0]), ["inf", 1.0]),
        (np.datetime64("2024-05-01T00:00:00.000000001"), "2024-05-01T00:00:00"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.array(["2024-05-01"], dtype="datetime64[ns]"), ["2024-05-01T00:00:00"]),
        (np.array([{"a": Decimal(1)}], dtype=object), [{"a": "1"}]),
    ],
)
def test_as_json(value, expected):
    made = as_json(value)
    assert made == expected and type(made) is type(expected)
    json.loads(json.dumps(made, allow_nan=False))


def nested(depth):
    return [nested(depth - 1)] if depth else []


LOOP: list = []
LOOP.append(LOOP)


@pytest.mark.parametrize("value", [object(), [10**5000], nested(100), LOOP, 1j, lambda: 0, [object()], np.array([1j])])
def test_what_has_no_form_is_left_out_or_refused_by_its_name(value):
    assert encodable({"a": 1, "odd": value}, None) == {"a": 1}
    with pytest.raises(TypeError, match="column 'odd'"):
        encodable({"a": 1, "odd": value}, ["odd"])


def test_only_the_named_columns():
    columns = {"a": 1, "b": WHEN.date(), "c": object()}
    assert encodable(columns, ["b"]) == {"b": "2024-05-01"}
    assert encodable(columns, []) == {}
    with pytest.raises(KeyError, match="no column 'd'; columns: a, b, c"):
        encodable(columns, ["d"])
