from __future__ import annotations

import copy
from typing import Any

import msgpack
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.frames import v2
from hub.frames.columns import Columns
from hub.frames.schema import Field, Schema
from hub.protocol.errors import BadFrame

from .strategies import tables

DATE = Field("date", "ts_ms")
WIRES = st.sampled_from(["json", "msgpack"])


def over(wire: str, value: Any) -> Any:
    """As the peer gets it."""
    return orjson.loads(orjson.dumps(value)) if wire == "json" else msgpack.unpackb(msgpack.packb(value))


@given(tables(), WIRES)
def test_rows_and_columns_come_back(columns: Columns, wire: Any) -> None:
    rows = over(wire, v2.to_rows(columns, wire))
    assert v2.from_rows(columns.schema, rows, wire).equals(columns)
    cols = over(wire, v2.to_columns(columns, wire))
    assert v2.from_columns(columns.schema, columns.n, cols, wire).equals(columns)


@given(tables(), WIRES)
def test_elements_of_a_newer_peer_are_ignored(columns: Columns, wire: Any) -> None:
    rows = [[*row, {"new": 1}] for row in v2.to_rows(columns, wire)]
    assert v2.from_rows(columns.schema, rows, wire).equals(columns)
    cols = [*([*column, "new"] for column in v2.to_columns(columns, wire)), "new"]
    assert v2.from_columns(columns.schema, columns.n, cols, wire).equals(columns)


@given(tables(), WIRES)
def test_what_is_encoded_is_the_encoders_own(columns: Columns, wire: Any) -> None:
    before = copy.deepcopy(columns.blocks)
    for row in v2.to_rows(columns, wire):
        row.clear()
    assert all(
        np.array_equal(block, columns.blocks[d], equal_nan=block.dtype.kind == "f")
        for d, block in before.items()
    )


def test_golden_rows_and_columns() -> None:
    columns = Columns.from_mapping(
        {
            "date": [5, 6],
            "f": [1.5, float("nan")],
            "g": [float("inf"), float("-inf")],
            "i": [2**53 - 1, 2**53],
            "b": [None, True],
            "s": ["é", None],
        }
    )
    assert v2.to_rows(columns, "json") == [
        [5, 1.5, "Infinity", 2**53 - 1, None, "é"],
        [6, "NaN", "-Infinity", "9007199254740992", True, None],
    ]
    assert v2.to_columns(columns, "json")[1:3] == [[1.5, "NaN"], ["Infinity", "-Infinity"]]
    raw = v2.to_columns(columns, "msgpack")
    assert raw[0] == [None, bytes([5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0])]
    assert raw[4] == [b"\x02", b"\x00\x01"]
    assert raw[5] == [b"\x01", bytes([0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0]), b"\xc3\xa9"]


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


def mutated(data: st.DataObject, value: Any) -> Any:
    """`value` with one part of it replaced, dropped, cut or doubled."""
    if isinstance(value, list) and value and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], mutated(data, value[at]), *value[at + 1 :]]
    if isinstance(value, bytes) and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(value)))
        return value[:at] + data.draw(st.binary(max_size=3)) + value[at + data.draw(st.integers(0, 3)) :]
    if isinstance(value, list) and data.draw(st.booleans()):
        return value[: data.draw(st.integers(0, len(value)))]
    return data.draw(HOSTILE)


@settings(max_examples=400)
@given(tables(), WIRES, st.data())
def test_hostile_input_raises_only_badframe(columns: Columns, wire: Any, data: st.DataObject) -> None:
    n = data.draw(st.sampled_from([columns.n, columns.n + 1, -1, True, None, 2**70, 1.0]))
    for read in (
        lambda: v2.from_rows(columns.schema, mutated(data, v2.to_rows(columns, wire)), wire),
        lambda: v2.from_columns(columns.schema, n, mutated(data, v2.to_columns(columns, wire)), wire),
        lambda: v2.from_columns(columns.schema, columns.n, mutated(data, v2.to_columns(columns, wire)), wire),
    ):
        try:
            again = read()
        except BadFrame as error:
            lines = str(error).splitlines()
        else:
            lines = [repr(v2.to_rows(again, wire) and again)]
        assert len(lines) == 1


@pytest.mark.parametrize(
    ("dtype", "value", "wire"),
    [
        ("f8", "NaN", "msgpack"),
        ("f8", "nan", "json"),
        ("f8", "1.5", "json"),
        ("f8", True, "json"),
        ("f8", 10**400, "json"),
        ("f4", 1e300, "msgpack"),
        ("i8", 1.0, "json"),
        ("i8", True, "json"),
        ("i8", "1_0", "json"),
        ("i8", "٥", "json"),
        ("i8", "-", "json"),
        ("i8", "9" * 5000, "json"),
        ("i8", "5", "msgpack"),
        ("u1", 256, "json"),
        ("u1", -1, "json"),
        ("bool", 1, "json"),
        ("str", b"a", "msgpack"),
        ("str", "\ud800", "json"),
        ("ts_ms", None, "json"),
    ],
)
def test_a_value_that_does_not_fit_is_named(dtype: str, value: Any, wire: Any) -> None:
    name = "date" if dtype == "ts_ms" else "x"
    schema = (
        Schema((Field("date", dtype),))
        if name == "date"
        else Schema((Field("y", "f8"), DATE, Field("x", dtype)))
    )
    good: list[Any] = [0] if name == "date" else [0.5, 0, None]
    with pytest.raises(BadFrame, match=f"'{name}', row 1"):
        v2.from_rows(schema, [good, [*good[:-1], value]], wire)
    with pytest.raises(BadFrame, match=f"'{name}', row 0"):
        v2.from_rows(schema, [[*good[:-1], value]], wire)


@pytest.mark.parametrize(
    ("dtype", "column", "named"),
    [
        ("f8", [None, b"\0" * 15], "15 bytes, expected 16"),
        ("f8", [b"\3\3", b"\0" * 16], "bitmap of 1 bytes"),
        ("bool", [None, b"\0\2"], "row 1.*0 or 1"),
        ("str", [None, b"\0" * 8, b""], "8 bytes, expected 12"),
        ("str", [None, np.array([0, 2, 1], "<i4").tobytes(), b"a"], "offsets"),
        ("str", [None, np.array([0, -1, 1], "<i4").tobytes(), b"a"], "offsets"),
        ("str", [None, np.array([0, 1, 2], "<i4").tobytes(), "é".encode()], "UTF-8"),
        ("str", [None, b"\0" * 12], "offsets, text"),
    ],
)
def test_buffers_of_the_wrong_length_are_named(dtype: str, column: Any, named: str) -> None:
    schema = Schema((DATE, Field("x", dtype)))
    with pytest.raises(BadFrame, match=f"'x'.*{named}"):
        v2.from_columns(schema, 2, [[None, b"\0" * 16], column], "msgpack")


def test_lengths_are_checked_before_memory_is_taken() -> None:
    with pytest.raises(BadFrame, match="expected 8000000"):
        v2.from_columns(Schema((DATE,)), 1_000_000, [[None, b""]], "msgpack")


@given(tables(), WIRES, st.integers(1, 400))
def test_parts_cover_all_rows_and_keep_their_size(columns: Columns, wire: Any, size: int) -> None:
    ranges = list(v2.split(columns, size, wire))
    assert [row for a, b in ranges for row in range(a, b)] == list(range(columns.n))
    encode = orjson.dumps if wire == "json" else msgpack.packb
    for a, b in ranges:
        assert b == a + 1 or len(encode(v2.to_columns(columns.slice(a, b), wire))) <= size
