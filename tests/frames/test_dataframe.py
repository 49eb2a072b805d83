from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from hub.frames.columns import Columns
from hub.frames.schema import Field, Schema
from hub.protocol.errors import BadFrame

from .strategies import tables

NAN = float("nan")


def frame(**columns: Any) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"date": pd.date_range("2024-01-01", periods=n, freq="5min", tz="UTC"), **columns})


CASES: dict[str, tuple[Any, str, list[Any]]] = {
    "float64": (np.array([1.5, NAN]), "f8", [1.5, NAN]),
    "float32": (np.array([1.5, NAN], "f4"), "f4", [1.5, NAN]),
    "int8": (np.array([1, -1], "i1"), "i1", [1, -1]),
    "uint64": (np.array([1, 2**64 - 1], "u8"), "u8", [1, 2**64 - 1]),
    "bool": ([True, False], "bool", [True, False]),
    "Int64": (pd.array([2**60 + 1, None], dtype="Int64"), "i8", [2**60 + 1, None]),
    "Float64": (pd.array([1.5, None], dtype="Float64"), "f8", [1.5, None]),
    "boolean": (pd.array([True, None], dtype="boolean"), "bool", [True, None]),
    "string": (pd.array(["a", None], dtype="string"), "str", ["a", None]),
    "object str": (pd.Series(["a", None], dtype=object), "str", ["a", None]),
    "object str nan": (pd.Series(["a", NAN], dtype=object), "str", ["a", None]),
    "object bool": (pd.Series([True, None], dtype=object), "bool", [True, None]),
    "object numbers": (pd.Series([1, None], dtype=object), "f8", [1.0, NAN]),
    "object NA": (pd.Series([pd.NA, "x"], dtype=object), "str", [None, "x"]),
    "object None": (pd.Series([None, None], dtype=object), "f8", [None, None]),
    "category": (pd.Categorical(["a", None]), "str", ["a", None]),
    "category of ints": (pd.Categorical([3, None]), "i8", [3, None]),
    "category of nothing": (pd.Categorical([None, None]), "f8", [None, None]),
    "datetime s": (pd.Series(np.array(["2024-01-01", "NaT"], "M8[s]")), "ts_ms", [1704067200000, None]),
    "datetime ns": (pd.Series(np.array([1, 2], "M8[ns]")), "ts_ns", [1, 2]),
    "datetime tz": (
        pd.to_datetime(["2024-01-01 01:00", None]).tz_localize("Europe/Berlin").as_unit("ms"),
        "ts_ms",
        [1704067200000, None],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_dtype_of_a_frame(case: str) -> None:
    values, dtype, expected = CASES[case]
    columns = Columns.from_pandas(frame(x=values))
    assert columns.schema.fields[1].dtype == dtype
    assert repr([columns.row(i)[1] for i in range(2)]) == repr(expected)


def test_the_frame_is_not_changed_and_nothing_is_shared() -> None:
    given_frame = frame(x=[1.0, 2.0], tag=["a", "b"])
    before = given_frame.copy(deep=True)
    columns = Columns.from_pandas(given_frame)
    pd.testing.assert_frame_equal(given_frame, before)
    given_frame.loc[0, "x"] = 9.0
    assert columns.row(0)[1] == 1.0


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(["a", 1], dtype=object),
        pd.Series([[1], [2]], dtype=object),
        pd.to_timedelta([1, 2], unit="s"),
        pd.period_range("2024", periods=2, freq="D"),
        pd.Series([1j, 2j]),
        pd.arrays.SparseArray([1.0, 2.0]),
    ],
    ids=["mixed", "lists", "timedelta", "period", "complex", "sparse"],
)
def test_what_cannot_be_expressed_is_refused_by_name(values: Any) -> None:
    with pytest.raises(BadFrame, match="'x'"):
        Columns.from_pandas(frame(x=values))


def test_names_are_strings_and_stand_once() -> None:
    twice = frame(x=[1.0], y=[2.0]).set_axis(["date", "x", "x"], axis=1)
    with pytest.raises(BadFrame, match="'x'"):
        Columns.from_pandas(twice)
    with pytest.raises(BadFrame, match="5"):
        Columns.from_pandas(frame(x=[1.0]).set_axis(["date", 5], axis=1))
    with pytest.raises(BadFrame, match="date"):
        Columns.from_pandas(pd.DataFrame({"x": [1.0]}))


def test_a_naive_date_is_utc() -> None:
    naive = pd.DataFrame(
        {"date": pd.date_range("2024-01-01", periods=1), "other": pd.date_range("2024-01-01", periods=1)}
    )
    columns = Columns.from_pandas(naive)
    assert [field.zone for field in columns.schema.fields] == ["UTC", None]
    back = columns.to_pandas()
    assert str(back["date"].dt.tz) == "UTC"
    assert back["other"].dt.tz is None


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "UTC+05:30", "UTC-03:00"])
def test_zones_come_back(zone: str) -> None:
    there = frame(x=[1.0, 2.0])
    there["x"] = there["date"].dt.tz_convert(zone)
    back = Columns.from_pandas(there).to_pandas()
    assert str(back["x"].dt.tz) == str(there["x"].dt.tz)
    assert (back["x"] == there["x"]).all()


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "tzlocal()", "dateutil//etc/localtime", "../../etc/passwd", "UTC+99:00"]
)
def test_a_zone_that_is_none_shows_utc(zone: str) -> None:
    columns = Columns(Schema((Field("date", "ts_ms", zone),)), [np.array([0])])
    assert str(columns.to_pandas()["date"].dt.tz) == "UTC"


def test_nulls_in_pandas() -> None:
    names = {"i": "i8", "b": "bool", "s": "str", "f": "f8", "t": "ts_ns"}
    columns = Columns.from_mapping({"date": [0], **{name: [None] for name in names}}, names)
    row = columns.to_pandas().iloc[0]
    assert row["i"] is pd.NA
    assert row["b"] is None
    assert row["s"] is None
    assert np.isnan(row["f"])
    assert row["t"] is pd.NaT


@given(tables())
def test_pandas_there_and_back(columns: Columns) -> None:
    back = columns.to_pandas()
    assert list(back.columns) == list(columns.schema.names)
    assert len(back) == columns.n
    for field, column, valid in zip(columns.schema.fields, columns.arrays, columns.valid, strict=True):
        present = np.ones(columns.n, bool) if valid is None else valid
        if field.dtype[0] in "iu" or field.dtype == "str":
            assert [v for v, there in zip(back[field.name], present, strict=True) if there] == column[
                present
            ].tolist()
            assert back[field.name].isna().to_numpy().tolist() == (~present).tolist()


def test_a_frame_can_be_changed() -> None:
    columns = Columns.from_mapping({"date": [0, 1], "x": [1.0, 2.0], "s": ["a", "b"]})
    back = columns.to_pandas()
    back.loc[0, "x"] = 5.0
    back.loc[0, "s"] = "z"
    assert columns.row(0) == [0, 1.0, "a"]


def test_pandas_is_imported_only_when_it_is_used() -> None:
    code = (
        "import sys, hub.frames.store, hub.frames.v2, hub.frames.freqtrade; sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
