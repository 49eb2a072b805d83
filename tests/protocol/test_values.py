"""hub.protocol.values: the table of its docstring, row by row."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import tracemalloc
import uuid
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from hub.protocol.codec import CODECS, Wire, encode_body
from hub.protocol.errors import BadMessage
from hub.protocol.messages import FrameKey, view
from hub.protocol.values import MAX_DEPTH, canonical, plain
from tests.protocol.strategies import ANYTHING, PLAIN

BERLIN = dt.timezone(dt.timedelta(hours=2))
Point = namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = "red"
    NUMBER = 7


class Order(enum.StrEnum):
    LIMIT = "limit"


class Sub(str):
    pass


@dataclasses.dataclass
class Data:
    a: Any
    b: Any = None


class Struct(msgspec.Struct):
    a: int
    b: float = math.nan


TABLE = [
    (None, None),
    (True, True),
    (False, False),
    ("é€😀", "é€😀"),
    (Sub("s"), "s"),
    (0, 0),
    (-(2**63), -(2**63)),
    (2**64 - 1, 2**64 - 1),
    (4.2e-11, 4.2e-11),
    (-0.0, -0.0),
    (math.nan, None),
    (math.inf, None),
    (-math.inf, None),
    (Decimal("0.1"), 0.1),
    (Decimal("NaN"), None),
    (Decimal("sNaN"), None),
    (Decimal("-Infinity"), None),
    (Decimal("1e400"), None),
    (np.float64(1.5), 1.5),
    (np.float64("nan"), None),
    (np.float32(0.1), float(np.float32(0.1))),
    (np.float16("inf"), None),
    (np.longdouble("1.25"), 1.25),
    (np.int8(-1), -1),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (np.array(3), 3),
    (np.datetime64("2026-11-22T14:00:00.123456789"), "2026-11-22T14:00:00.123456"),
    (np.datetime64("2026-11-22"), "2026-11-22T00:00:00"),
    (np.datetime64("NaT"), None),
    (np.timedelta64(1500, "ms"), 1.5),
    (np.timedelta64(2, "W"), 1_209_600.0),
    (np.timedelta64(3, "ns"), 3e-9),
    (np.timedelta64("NaT"), None),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC), "2026-01-02T03:04:05.000006+00:00"),
    (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=BERLIN), "2026-01-02T03:04:05+02:00"),
    (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
    (pd.Timestamp("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05+00:00"),
    (pd.NaT, None),
    (pd.NA, None),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.time(3, 4), "03:04:00"),
    (dt.timedelta(minutes=1, milliseconds=5), 60.005),
    (pd.Timedelta("1s"), 1.0),
    (Color.RED, "red"),
    (Color.NUMBER, 7),
    (Order.LIMIT, "limit"),
    (enum.IntEnum("E", "ONE").ONE, 1),  # type: ignore[attr-defined]
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ((1, (2, [3])), [1, [2, [3]]]),
    (Point(1, math.nan), [1, None]),
    ({"a": {Color.RED: 1}}, {"a": {"red": 1}}),
    ({Order.LIMIT: 1}, {"limit": 1}),
    (OrderedDict(a=1), {"a": 1}),
    (MappingProxyType({"a": (1,)}), {"a": [1]}),
    (UserDict({"a": 1}), {"a": 1}),
    (Struct(1), {"a": 1, "b": None}),
    (FrameKey("A/B", "5m", "spot"), ["A/B", "5m", "spot"]),
    (Data(Decimal(1)), {"a": 1.0, "b": None}),
]


@pytest.mark.parametrize(
    ("value", "expected"), TABLE, ids=[f"{i}-{type(v).__name__}" for i, (v, _) in enumerate(TABLE)]
)
def test_the_table(value: Any, expected: Any) -> None:
    got = plain(value)
    assert got == expected
    assert type(got) is type(expected)
    assert json.dumps(got) == json.dumps(expected), "the sign of a zero, and the types within"


REFUSED = [
    (b"x", "bytes"),
    (bytearray(b"x"), "bytearray"),
    (1j, "complex"),
    ({1}, "set"),
    (frozenset(), "frozenset"),
    (object(), "object"),
    (Data, "type"),
    (iter([1]), "list_iterator"),
    ({1: 2}.keys(), "dict_keys"),
    (np.array([1, 2]), "ndarray"),
    (np.bytes_(b"x"), "bytes"),
    (np.complex128(1j), "complex"),
    (np.clongdouble(1j), "numpy"),
    (pd.Series([1]), "Series"),
    (2**64, "64 bits"),
    (-(2**63) - 1, "64 bits"),
    (10**5000, "64 bits"),
    ("\ud800", "surrogate"),
    (np.datetime64(20000 - 1970, "Y"), "years 1 to 9999"),
    (np.datetime64(2**62, "s"), "years 1 to 9999"),
    (np.timedelta64(1, "M"), "units of"),
    (np.timedelta64(1), "units of"),
    (msgspec.UNSET, "Unset"),
]


@pytest.mark.parametrize(("value", "text"), REFUSED, ids=[t for _, t in REFUSED])
def test_anything_else_is_refused_by_its_path(value: Any, text: str) -> None:
    with pytest.raises(BadMessage, match=r"^data\.list\[1\]\.x: ") as caught:
        plain({"list": [0, {"x": value}]})
    assert text in str(caught.value)


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), "\ud800", Color.NUMBER])
def test_keys_are_strings(key: Any) -> None:
    with pytest.raises(BadMessage, match=r"^data\.a: expected"):
        plain({"a": {key: 1}})


def test_the_text_is_one_line_and_short_whatever_the_keys_are() -> None:
    with pytest.raises(BadMessage) as caught:
        plain({"a\nb\r\x1b[31m": {"k" * 10_000: object()}})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 400


def test_depth_is_bounded_and_loops_are_refused() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    plain(deep)
    with pytest.raises(BadMessage, match="levels"):
        plain([deep])
    loop: dict[str, Any] = {}
    loop["a"] = [loop]
    with pytest.raises(BadMessage, match="levels"):
        plain(loop)
    zero_dimensional = np.array(None, dtype=object)
    zero_dimensional[()] = zero_dimensional
    with pytest.raises(BadMessage):
        plain(zero_dimensional)


def test_containers_are_copied() -> None:
    inner = [1]
    data = {"a": inner}
    copy = plain(data)
    inner.append(2)
    assert copy == {"a": [1]}


@given(PLAIN)
def test_what_is_plain_stays(value: Any) -> None:
    assert plain(value) == value


@given(ANYTHING)
def test_what_it_returns_every_wire_carries(value: Any) -> None:
    try:
        data = plain(value)
    except BadMessage:
        return
    assert plain(data) == data
    for wire, codec in CODECS.items():
        payload = codec.broadcast("future_type", {"v": data}, {"bot": "a", "ts": 1}, encode_body({"v": data}))
        message = codec.decode(payload.decode() if codec.text else payload)
        got = message["v"] if wire is Wire.FREQTRADE else message["data"]["v"]
        assert got == data
        assert encode_body(got) == encode_body(data)


def test_a_typed_message_is_its_payload() -> None:
    fill = view("entry_fill", {"trade_id": 1, "pair": "BTC/USDT", "novelty": 2})
    data = plain(fill)
    assert (data["trade_id"], data["pair"], data["novelty"]) == (1, "BTC/USDT", 2)
    assert "extra" not in data
    assert view("entry_fill", data) == fill
    assert plain(view("whitelist", ["BTC/USDT"])) == ["BTC/USDT"]
    assert plain(view("new_candle", ["BTC/USDT", "5m", "spot"])) == ["BTC/USDT", "5m", "spot"]


@given(ANYTHING)
def test_the_canonical_value_is_the_plain_one(value: Any) -> None:
    def walked() -> tuple[Any, bytes]:
        data = plain(value)
        return data, encode_body(data)

    assert _outcome(walked) == _outcome(lambda: canonical(value))


@pytest.mark.parametrize(("value", "expected"), TABLE)
def test_the_canonical_table(value: Any, expected: Any) -> None:
    assert canonical({"x": [value]}) == ({"x": [expected]}, encode_body({"x": [expected]}))


def test_what_is_deep_or_large_is_judged_by_the_walk() -> None:
    assert canonical([[] for _ in range(100)])[0] == [[] for _ in range(100)]
    with pytest.raises(BadMessage, match="levels"):
        canonical({"a": _nested(40)})


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def _outcome(make: Callable[[], tuple[Any, bytes]]) -> tuple[str, bytes]:
    try:
        data, body = make()
    except BadMessage as error:
        return str(error), b""
    return repr(data), body


@pytest.mark.parametrize("made", [lambda data: canonical(data)[1], encode_body])
def test_what_is_kept_takes_no_more_room_than_it_is_long(made: Callable[[Any], bytes]) -> None:
    tracemalloc.start()
    kept = [made({"pad": "x" * 400}) for _ in range(100)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(map(len, kept)) < taken < 100 * 600
