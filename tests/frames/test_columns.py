from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.frames.columns import MAX_TEXT_BYTES, Columns
from hub.frames.schema import MAX_ROWS, Field, Schema
from hub.protocol.errors import BadFrame

from .strategies import tables

DATE = Field("date", "ts_ms", "UTC")
CLOSE = Schema((DATE, Field("close", "f8"), Field("tag", "str")))


def table(dates: list[int], close: list[float], tags: list[str | None]) -> Columns:
    text = np.array([tag or "" for tag in tags], object)
    return Columns(
        CLOSE,
        [np.array(dates, "i8"), np.array(close), text],
        [None, None, np.array([t is not None for t in tags])],
    )


def test_rows_and_columns() -> None:
    columns = table([0, 60_000], [1.5, float("inf")], ["a", None])
    assert columns.n == len(columns) == 2
    assert columns.row(0) == [0, 1.5, "a"]
    assert columns.row(1) == [60_000, float("inf"), None]
    assert columns.column("close").tolist() == [1.5, float("inf")]
    assert [None if v is None else v.tolist() for v in columns.valid] == [None, None, [True, False]]
    assert columns.nbytes == 2 * 24 + 1 + 2


def test_nobody_can_change_a_table() -> None:
    close = np.array([1.0])
    columns = Columns(Schema((DATE, Field("close", "f8"))), [np.array([0]), close])
    close[0] = 2.0
    assert columns.row(0) == [0, 1.0]
    for handed_out in (
        columns.column("close"),
        columns.date_ms,
        columns.slice(0, 1).arrays[1],
        columns.take([0]).arrays[1],
    ):
        with pytest.raises(ValueError, match="read-only"):
            handed_out[0] = 2.0


@pytest.mark.parametrize(("dtype", "stamp"), [("ts_ms", -1), ("ts_us", -1_000), ("ts_us", -1), ("ts_ns", -1)])
def test_dates_are_ms_rounded_down(dtype: str, stamp: int) -> None:
    assert Columns(Schema((Field("date", dtype),)), [np.array([stamp])]).date_ms.tolist() == [-1]


@given(tables(), st.data())
def test_slices_takes_and_concat_agree(columns: Columns, data: st.DataObject) -> None:
    rows = [columns.row(i) for i in range(columns.n)]
    a, b = data.draw(st.integers(-10, 10)), data.draw(st.integers(-10, 10))
    sliced = columns.slice(a, b)
    assert repr([sliced.row(i) for i in range(sliced.n)]) == repr(rows[a:b])
    indices = data.draw(st.lists(st.integers(0, columns.n - 1), max_size=5)) if columns.n else []
    taken = columns.take(indices)
    assert repr([taken.row(i) for i in range(taken.n)]) == repr([rows[i] for i in indices])
    cut = data.draw(st.integers(0, columns.n))
    assert Columns.concat([columns.slice(0, cut), columns.slice(cut, columns.n)]).equals(columns)
    assert columns.tail(3).equals(columns.slice(max(columns.n - 3, 0), columns.n))
    assert columns.tail(-1).n == 0


@given(tables())
def test_a_table_equals_its_copy(columns: Columns) -> None:
    copy = Columns(columns.schema, columns.arrays, columns.valid)
    assert columns.equals(copy)
    assert columns.cast(Schema(columns.schema.fields)) is columns


def test_equality_is_by_bits_but_any_nan_is_nan() -> None:
    other_nan = np.array([0x7FF8000000000001], "u8").view("f8")[0]
    assert table([0], [float("nan")], ["a"]).equals(table([0], [float(other_nan)], ["a"]))
    assert not table([0], [0.0], ["a"]).equals(table([0], [-0.0], ["a"]))
    assert not table([0], [0.0], [""]).equals(table([0], [0.0], [None]))


def test_what_stands_in_the_slot_of_a_null_does_not_count() -> None:
    schema = Schema((DATE, Field("x", "i8")))
    nulls = [Columns(schema, [np.array([0]), np.array([x])], [None, np.array([False])]) for x in (7, 8)]
    assert nulls[0].equals(nulls[1])
    assert nulls[0].blocks["i8"].tolist() == [[0]]


def test_select() -> None:
    columns = table([0], [1.0], [None])
    assert columns.select(["t*"]).row(0) == [0, None]
    assert columns.select(["*"]) is columns
    assert columns.select([]).schema.names == ("date",)


def cast_of(values: list[Any], dtype: str) -> Columns:
    return Columns.from_mapping({"date": [0] * len(values), "x": values}).cast(
        Schema((DATE, Field("x", dtype)))
    )


def test_cast_keeps_or_refuses() -> None:
    assert cast_of([1, 2], "f8").row(1) == [0, 2.0]
    assert cast_of([None, None], "str").row(0) == [0, None]
    with pytest.raises(BadFrame, match="'x', row 1"):
        cast_of([1.0, 1.5], "i8")


def test_cast_adds_nulls_and_leaves_out() -> None:
    cast = table([0], [1.5], ["a"]).cast(Schema((Field("new", "i4"), DATE, Field("close", "i8"))), lossy=True)
    assert cast.row(0) == [None, 0, None]


def test_a_date_is_never_lost_in_a_cast() -> None:
    columns = Columns(Schema((Field("date", "ts_us"),)), [np.array([1])])
    with pytest.raises(BadFrame, match="date"):
        columns.cast(Schema((Field("date", "ts_ms"),)), lossy=True)


def test_bad_tables_are_refused_by_name() -> None:
    date, one = np.array([0]), np.array([1.0])
    text = np.array(["a"], object)
    cases: list[tuple[list[Any], list[Any] | None, str]] = [
        ([date, one], None, "expected 3"),
        ([date, np.array([1.0, 2.0]), text], None, "close"),
        ([date, np.array([1]), text], None, "close"),
        ([date, one, np.array([1], object)], None, "tag"),
        ([date, one, np.array(["\ud800"], object)], None, "tag.*UTF-8"),
        ([date, one, np.array(["é" * (MAX_TEXT_BYTES // 2 + 1)], object)], None, "tag.*65538 bytes"),
        ([date, one, text], [np.array([False]), None, None], "date.*null"),
        ([np.array([2**62]), one, text], None, "date.*years"),
        ([np.array([-(2**62)]), one, text], None, "date.*years"),
    ]
    for arrays, valid, named in cases:
        with pytest.raises(BadFrame, match=named):
            Columns(CLOSE, arrays, valid)


def test_bounds_of_rows() -> None:
    with pytest.raises(BadFrame, match="rows"):
        Columns(Schema((DATE,)), [np.zeros(MAX_ROWS + 1, "i8")])
    half = Columns(Schema((DATE,)), [np.zeros(MAX_ROWS // 2 + 1, "i8")])
    with pytest.raises(BadFrame, match="rows"):
        Columns.concat([half, half])


def test_concat_wants_one_schema() -> None:
    with pytest.raises(BadFrame, match="schemas"):
        Columns.concat([table([0], [1.0], ["a"]), Columns.empty(Schema((DATE,)))])
    with pytest.raises(BadFrame, match="at least one"):
        Columns.concat([])
