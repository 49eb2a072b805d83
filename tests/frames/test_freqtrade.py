from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.frames.columns import Columns
from hub.frames.freqtrade import decode_split, encode_split, iter_split
from hub.frames.schema import Field, Schema
from hub.protocol.errors import BadFrame

from .strategies import tables

# One row as a real bot sent it (captured from a dry run).
SAMPLE = (
    '{"columns":["date","open","high","low","close","volume","sma20","sma200","rsi","always_nan","some_inf","is_green",'
    '"enter_tag","enter_long","exit_tag","exit_long"],"index":[999],"data":[[1795356000000,59827.47,59827.47,59534.57,'
    '59534.57,1.076108,60230.065,60143.6753,33.4919461398,null,null,false,"rig_m0",1.0,"",null]]}'
)
DATE = Field("date", "ts_ms", "UTC")


def text(**columns: list[Any]) -> str:
    names = {"date": [60_000 * i for i in range(len(next(iter(columns.values()))))], **columns}
    data = [list(row) for row in zip(*names.values(), strict=True)]
    return orjson.dumps({"columns": list(names), "index": list(range(len(data))), "data": data}).decode()


def dtype_of(decoded: Columns, name: str = "x") -> str:
    return decoded.schema.fields[decoded.schema.positions[name]].dtype


def test_a_row_of_a_real_bot_is_written_as_it_came() -> None:
    assert encode_split(decode_split(SAMPLE), 999) == SAMPLE


def test_the_dtypes_of_a_real_row() -> None:
    decoded = decode_split(SAMPLE)
    by_name = {field.name: field.dtype for field in decoded.schema.fields}
    assert by_name["date"] == "ts_ms"
    assert [by_name[n] for n in ("close", "is_green", "enter_tag", "enter_long", "exit_long")] == [
        "f8",
        "bool",
        "str",
        "f8",
        "f8",
    ]


def test_floats_keep_every_digit() -> None:
    values = [4.2e-11, 1.23456789012e-08, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e16, 1e22]
    assert repr(decode_split(encode_split(decode_split(text(x=values)))).column("x").tolist()) == repr(values)


def test_fractions_reach_pandas_to_the_last_digit_but_one() -> None:
    values = [
        0.1 + 0.2,
        1 / 3,
        -1 / 30,
        1 / 3000,
        1.0000000000000002e-05,
        -0.000123456789012345678,
        2 / 3e9,
        1 / 3e-9,
    ]
    written = encode_split(Columns.from_mapping({"date": [0] * len(values), "x": values}))
    read = pd.read_json(io.StringIO(written), orient="split", dtype=False)["x"].to_numpy()
    assert np.abs(read / np.array(values) - 1).max() <= 1e-15
    assert decode_split(written).column("x").tolist() == values
    single = Columns.from_mapping({"date": [0], "x": [1 / 3000]}, {"x": "f4"})
    read = pd.read_json(io.StringIO(encode_split(single)), orient="split", dtype=False)["x"].to_numpy()
    assert np.abs(read / single.column("x").astype("f8") - 1).max() <= 1e-15


def test_whole_floats_and_integers_stay_apart() -> None:
    columns = Columns.from_mapping(
        {"date": [0], "f": [1.0], "i": [1], "n": [float("nan")], "inf": [float("inf")], "b": [True]}
    )
    assert '"data":[[0,1.0,1,null,null,true]]' in encode_split(columns)


def test_times_are_ms_and_nulls_are_null() -> None:
    columns = Columns.from_mapping(
        {"date": [0], "us": [-1], "null": [None]}, {"us": "ts_us", "null": "ts_ns"}
    )
    assert '"data":[[0,-1,null]]' in encode_split(columns)


def test_pandas_reads_what_is_written() -> None:
    columns = Columns.from_mapping(
        {"date": [1704067200000, 1704067500000], "x": [1.5, 4.2e-11], "t": ["a", None], "b": [True, False]}
    )
    read = pd.read_json(io.StringIO(encode_split(columns)), orient="split", dtype=False)
    assert read["x"].tolist() == pytest.approx([1.5, 4.2e-11], rel=8e-16)
    assert read["date"].tolist() == [1704067200000, 1704067500000]
    assert read["b"].tolist() == [True, False]


@given(tables(), st.integers(1, 4), st.integers(0, 1000))
def test_slices_join_to_the_whole(columns: Columns, rows: int, start: int) -> None:
    whole = encode_split(columns, start)
    assert "".join(iter_split(columns, start, rows=rows)) == whole
    assert orjson.loads(whole)["index"] == list(range(start, start + columns.n))


@given(tables())
def test_a_key_keeps_its_schema(columns: Columns) -> None:
    plain = columns.schema.fields
    decoded = decode_split(encode_split(columns), like=columns.schema)
    assert decoded.schema.names == columns.schema.names
    for field, column, valid in zip(plain, columns.arrays, columns.valid, strict=True):
        if field.dtype in ("f8", "bool", "str") or (field.dtype[0] in "iu" and valid is None):
            assert dtype_of(decoded, field.name) == field.dtype
            finite = column if field.dtype != "f8" else np.where(np.isfinite(column), column, np.nan)
            there = np.ones(columns.n, bool) if valid is None else valid
            assert np.array_equal(
                decoded.column(field.name)[there], finite[there], equal_nan=field.dtype == "f8"
            )


LIKE = Schema(
    (DATE, Field("x", "f8"), Field("i", "i8"), Field("b", "bool"), Field("s", "str"), Field("t", "ts_us"))
)


@pytest.mark.parametrize(
    "row",
    [
        {"x": [1.5], "i": [1], "b": [True], "s": ["a"], "t": [5]},
        {"x": [1], "i": [1], "b": [None], "s": [None], "t": [None]},
        {"x": [None], "i": [1], "b": [False], "s": [""], "t": [5]},
        {"x": [1], "i": [1.0], "b": [True], "s": ["a"], "t": [5]},
        {"x": [1], "i": [1], "b": [True], "s": [0], "t": [5]},
    ],
)
def test_what_one_row_lacks_changes_no_schema(row: dict[str, list[Any]]) -> None:
    decoded = decode_split(text(**row), like=LIKE)
    assert decoded.schema is LIKE
    whole = decode_split(text(**{name: values * 2 for name, values in row.items()}), like=LIKE)
    assert whole.schema is LIKE
    assert repr(whole.row(0)) == repr(decoded.row(0))


def test_a_time_keeps_its_unit() -> None:
    row = decode_split(text(x=[0.5], i=[1], b=[True], s=["a"], t=[7]), like=LIKE).row(0)
    assert row == [0, 0.5, 1, True, "a", 7000]


def test_nat_as_freqtrade_writes_it_is_null() -> None:
    decoded = decode_split(text(x=[0.5], i=[1], b=[True], s=["a"], t=[-(2**63)]), like=LIKE)
    assert decoded.schema is LIKE
    assert decoded.row(0)[-1] is None


def test_an_integer_that_is_null_makes_floats_as_in_pandas() -> None:
    decoded = decode_split(text(x=[1.0], i=[None], b=[True], s=["a"], t=[5]), like=LIKE)
    assert dtype_of(decoded, "i") == "f8"
    assert np.isnan(decoded.column("i")[0])
    assert decoded.valid[2] is None


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2], "i8", [1, 2]),
        ([1, None], "f8", [1.0, float("nan")]),
        ([1, 0.5], "f8", [1.0, 0.5]),
        ([2**64 - 1], "u8", [2**64 - 1]),
        ([-1, 2**64 - 1], "f8", [-1.0, 2.0**64]),
        ([True, None], "bool", [True, None]),
        (["1", None], "str", ["1", None]),
        (["a", 0, 1.5], "str", ["a", "0", "1.5"]),
        ([None], "f8", [None]),
    ],
)
def test_dtypes_without_a_past(values: list[Any], dtype: str, expected: list[Any]) -> None:
    decoded = decode_split(text(x=values))
    assert dtype_of(decoded) == dtype
    assert repr([decoded.row(i)[1] for i in range(decoded.n)]) == repr(expected)


def test_columns_of_one_name_are_numbered() -> None:
    decoded = decode_split('{"columns":["date","a","a","a.1",7],"index":[0],"data":[[0,1,2,3,4]]}')
    assert len(set(decoded.schema.names)) == 5
    assert decoded.schema.names[:3] == ("date", "a", "a.1")


def test_an_empty_frame() -> None:
    assert decode_split('{"columns":[],"index":[],"data":[]}').n == 0
    assert decode_split('{"columns":[],"index":[],"data":[]}', like=LIKE).schema is LIKE
    assert decode_split('{"columns":["date","x"],"index":[],"data":[]}').schema.names == ("date", "x")


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        ("", "JSON"),
        ("[]", "object"),
        ("[" * 100_000, "JSON"),
        ('{"columns":["date"],"data":{}}', "lists"),
        ('{"columns":["date"],"data":[[1,2]]}', "row 0"),
        ('{"columns":["date"],"data":[7]}', "row 0"),
        ('{"columns":["date"],"data":[[null]]}', "'date', row 0"),
        ('{"columns":["date"],"data":[["2024-01-01"]]}', "'date', row 0"),
        ('{"columns":["date"],"data":[[1.5]]}', "'date', row 0"),
        ('{"columns":["date"],"data":[[9999999999999999]]}', "years"),
        ('{"columns":["date"],"data":[[99999999999999999999]]}', "date"),
        ('{"columns":["close"],"data":[[1]]}', "date"),
        ('{"columns":["date","x"],"data":[[0,[1]]]}', "'x', row 0"),
        ('{"columns":["date","x"],"data":[[0,1],[1,{}]]}', "'x', row 1"),
        ('{"columns":[["date"]],"data":[]}', "name"),
        ('{"columns":["date",""],"data":[]}', "name"),
    ],
)
def test_hostile_text_is_refused_by_name(hostile: str, named: str) -> None:
    for like in (None, LIKE):
        with pytest.raises(BadFrame, match=named):
            decode_split(hostile, like=like)


@settings(max_examples=300)
@given(tables(), st.data())
def test_mutated_text_raises_only_badframe(columns: Columns, data: st.DataObject) -> None:
    whole = encode_split(columns)
    at = data.draw(st.integers(0, len(whole)))
    junk = data.draw(
        st.sampled_from(
            ["", "0", "null", '"a"', "[", "]", "{}", ",", "1e999", "-", "99999999999999999999", "NaN"]
        )
    )
    broken = whole[:at] + junk + whole[at + data.draw(st.integers(0, 4)) :]
    try:
        decode_split(broken, like=data.draw(st.sampled_from([None, columns.schema])))
    except BadFrame as error:
        lines = str(error).splitlines()
    else:
        lines = [""]
    assert len(lines) == 1
