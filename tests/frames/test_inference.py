from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from hub.frames.columns import Columns
from hub.protocol.errors import BadFrame

NAN = float("nan")
NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)


def inferred(values: Any, dtype: str | None = None) -> tuple[str, str]:
    columns = Columns.from_mapping({"date": [0] * len(values), "x": values}, {"x": dtype} if dtype else None)
    rows = [columns.row(i)[1] for i in range(columns.n)]
    return columns.schema.fields[1].dtype, repr(rows)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], ("i8", "[1, 2]")),
        ([1, None], ("f8", "[1.0, nan]")),
        ([1, 2.5], ("f8", "[1.0, 2.5]")),
        ([2**64 - 1], ("u8", "[18446744073709551615]")),
        ([True, None, NAN], ("bool", "[True, None, None]")),
        (["a", None, NAN, ""], ("str", "['a', None, None, '']")),
        ([None, None], ("f8", "[None, None]")),
        ([None, NAN], ("f8", "[nan, nan]")),
        ([NOON, None], ("ts_us", "[1704110400000000, None]")),
        ([np.float32(0.5), np.int8(1)], ("f8", "[0.5, 1.0]")),
        (np.array([1, 2], np.int16), ("i2", "[1, 2]")),
        (np.array([0.5], np.float16), ("f4", "[0.5]")),
        (np.array([1, 2], ">i4"), ("i4", "[1, 2]")),
        (np.array(["a", "bc"]), ("str", "['a', 'bc']")),
        (np.array(["2024-01-01", "NaT"], "M8[s]"), ("ts_ms", "[1704067200000, None]")),
        (np.array([True, False]), ("bool", "[True, False]")),
    ],
)
def test_dtypes_of_values(values: Any, expected: tuple[str, str]) -> None:
    assert inferred(values) == expected


@pytest.mark.parametrize(
    "values",
    [
        [True, 1],
        ["a", 1],
        [1, "a"],
        [[1]],
        [Decimal("1")],
        [2**70],
        np.array([1j]),
        np.array([1], "m8[s]"),
        np.array([1], "M8[D]"),
        np.array([b"a"]),
    ],
)
def test_what_has_no_dtype_is_refused_by_name(values: Any) -> None:
    with pytest.raises(BadFrame, match="'x'"):
        inferred(values)


def test_dtypes_can_be_set() -> None:
    assert inferred([1, 2], "f4") == ("f4", "[1.0, 2.0]")
    assert inferred([0.1], "f4") == ("f4", repr([float(np.float32(0.1))]))
    assert inferred([5, 6], "ts_ns") == ("ts_ns", "[5, 6]")
    assert inferred([None], "str") == ("str", "[None]")
    with pytest.raises(BadFrame, match="'x', row 1"):
        inferred([1, 300], "u1")
    with pytest.raises(BadFrame, match="'y'"):
        Columns.from_mapping({"date": [0]}, {"y": "f8"})


def test_a_date_is_ms_or_a_datetime_in_utc() -> None:
    assert Columns.from_mapping({"date": [5]}).schema.data()["columns"] == [["date", "ts_ms", "UTC"]]
    assert Columns.from_mapping({"date": [NOON.replace(tzinfo=None)]}).date_ms.tolist() == [1704110400000]
    for dates in ([None], [1.5], ["2024"], [True]):
        with pytest.raises(BadFrame, match="date"):
            Columns.from_mapping({"date": dates})
    with pytest.raises(BadFrame, match="date"):
        Columns.from_mapping({"close": [1.0]})
