from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.frames.schema import DTYPES, Field, Schema, UnknownDtype, name_matches, widen_dtype
from hub.protocol.errors import BadFrame

from .strategies import schemas

DATE = Field("date", "ts_ms", "UTC")


def test_the_id_is_that_of_the_canonical_json() -> None:
    schema = Schema((DATE, Field("прибыль", "f8")))
    text = '{"columns":[["date","ts_ms","UTC"],["прибыль","f8"]],"index":"date"}'
    assert schema.id == hashlib.sha256(text.encode()).hexdigest()[:16]


@given(schemas())
def test_data_reads_back(schema: Schema) -> None:
    again = Schema.from_data(schema.data())
    assert again == schema
    assert hash(again) == hash(schema)
    assert again.id == schema.id


def test_more_than_this_version_knows_is_ignored() -> None:
    data = {
        "columns": [["date", "ts_ms", None, {"new": 1}], ["a", "f8", None, 7]],
        "index": "date",
        "later": True,
    }
    assert Schema.from_data(data).data() == {"columns": [["date", "ts_ms"], ["a", "f8"]], "index": "date"}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (None, "schema"),
        ({"columns": "date"}, "schema"),
        ({"columns": [["a", "f8"]]}, "date"),
        ({"columns": [["date", "f8"]]}, "date"),
        ({"columns": [["date", "ts_ms"], ["a", "f8"], ["a", "f8"]]}, "'a'"),
        ({"columns": [["date", "ts_ms"], ["a"]]}, "column"),
        ({"columns": [["date", "ts_ms"], ["", "f8"]]}, "name"),
        ({"columns": [["date", "ts_ms"], ["x" * 257, "f8"]]}, "256"),
        ({"columns": [["date", "ts_ms"], ["\ud800", "f8"]]}, "UTF-8"),
        ({"columns": [["date", "ts_ms"], [5, "f8"]]}, "string"),
        ({"columns": [["date", "ts_ms"], ["a", 8]]}, "'a'"),
        ({"columns": [["date", "ts_ms"], ["a", "f8", "UTC"]]}, "zone"),
        ({"columns": [["date", "ts_ms", "x" * 65]]}, "zone"),
        ({"columns": [["date", "ts_ms"]], "index": "close"}, "index"),
        ({"columns": [["date", "ts_ms"], *([f"c{i}", "f8"] for i in range(4096))]}, "4096"),
    ],
)
def test_what_is_no_schema_is_named(data: Any, named: str) -> None:
    with pytest.raises(BadFrame, match=named):
        Schema.from_data(data)


def test_a_dtype_of_a_newer_peer_has_its_own_error() -> None:
    with pytest.raises(UnknownDtype, match="'a': unknown dtype 'f16'"):
        Schema.from_data({"columns": [["date", "ts_ms"], ["a", "f16"]], "index": "date"})


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("close", "close", True),
        ("close", "closed", False),
        ("*", "anything", True),
        ("&-*", "&-target", True),
        ("a*b*c", "aXbYc", True),
        ("a*a", "a", False),
        ("a*ba*ba", "aba", False),
        (r"a\*b", "a*b", True),
        (r"a\*b", "aXb", False),
        (r"a\b", r"a\b", True),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("", "a", False),
    ],
)
def test_patterns_know_only_the_star(pattern: str, name: str, matches: bool) -> None:
    assert name_matches(pattern, name) is matches


def test_a_pattern_of_many_stars_is_no_attack() -> None:
    assert not name_matches("*a" * 120 + "b", "a" * 256)


def test_select_keeps_the_index_and_the_order() -> None:
    schema = Schema((Field("close", "f8"), DATE, Field("open", "f8")))
    assert schema.select(["open", "nothing*"]).names == ("date", "open")
    assert schema.select(["*"]) is schema


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("f4", "f8", "f8"),
        ("i8", "f8", "f8"),
        ("i1", "u1", "i2"),
        ("i8", "u8", "f8"),
        ("bool", "i4", "i4"),
        ("ts_ms", "ts_ns", "ts_ns"),
        ("str", "str", "str"),
        ("str", "f8", None),
        ("ts_ms", "i8", None),
    ],
)
def test_the_narrowest_dtype_for_both(a: str, b: str, expected: str | None) -> None:
    assert widen_dtype(a, b) == widen_dtype(b, a) == expected


@given(schemas(), st.data())
def test_a_schema_is_as_wide_as_itself(schema: Schema, data: st.DataObject) -> None:
    assert schema.widen(schema) is schema
    shuffled = Schema(tuple(data.draw(st.permutations(schema.fields))))
    assert schema.widen(shuffled) is schema


def test_widen_takes_the_names_of_the_newer() -> None:
    old = Schema((DATE, Field("gone", "f8"), Field("kept", "i8"), Field("text", "f8")))
    new = Schema((DATE, Field("text", "str"), Field("kept", "f8"), Field("born", "bool")))
    assert [f.data() for f in old.widen(new).fields] == [
        ["date", "ts_ms", "UTC"],
        ["text", "str"],
        ["kept", "f8"],
        ["born", "bool"],
    ]


def test_every_dtype_of_the_wire_is_little_endian() -> None:
    assert all(dtype.str[0] in "<|" for dtype in DTYPES.values())
