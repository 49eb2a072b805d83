"""hub.core.intake."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core import intake
from hub.core.intake import FramePublish, Intake, LogPublish, ValuePublish
from hub.protocol.codec import Wire
from hub.protocol.errors import BadFrame, BadMessage, Forbidden, IdExpired, RequestError, UnknownTopic
from hub.protocol.principal import EVERY_BOT, Principal
from tests.protocol.strategies import ANYTHING, PLAIN

NOW = 1_795_357_431_000
BOT = Principal(name="pub", publishes=frozenset({"a"}))
FILL = {"bot": "a", "topic": "entry_fill", "mid": "m1", "data": {"trade_id": 1, "pair": "X"}}
SCHEMA = {"columns": [["date", "ts_ms", "UTC"], ["close", "f8"]], "index": "date"}
FRAME = {
    "bot": "a",
    "topic": "analyzed_df",
    "key": ["X", "5m", "spot"],
    "schema": SCHEMA,
    "data": {"rows": [[300_000, 1.5]]},
}


def parse(item: Any, principal: Principal = BOT, wire: Wire = Wire.JSON) -> Any:
    return Intake(1000).parse(principal, item, wire, NOW)


def test_each_class_of_publish() -> None:
    fill = parse(FILL | {"ts": NOW - 1000})
    assert isinstance(fill, LogPublish)
    assert fill.ledger
    assert (fill.entry.mid, fill.entry.publisher, fill.entry.ts) == ("m1", "pub", NOW - 1000)
    event = parse({"bot": "a", "topic": "future_type", "data": [1]})
    assert isinstance(event, LogPublish)
    assert not event.ledger
    assert event.entry.mid is None
    assert isinstance(parse({"bot": "a", "topic": "whitelist", "data": []}), ValuePublish)
    assert isinstance(parse({"bot": "a", "topic": "new_candle", "data": ["X", "5m", "spot"]}), ValuePublish)
    frame = parse(FRAME)
    assert isinstance(frame, FramePublish)
    assert (frame.replace, frame.rows.n, frame.la_ms) == (False, 1, NOW)
    whole = parse(FRAME | {"data": {"n": 1, "cols": [[300_000], [1.5]], "la_ms": 5}})
    assert (whole.replace, whole.la_ms) == (True, 5)


def test_the_right_to_publish_is_bound_to_bots() -> None:
    with pytest.raises(Forbidden):
        parse(FILL, Principal(name="reader"))
    with pytest.raises(Forbidden):
        parse(FILL | {"bot": "b"})
    parse(FILL | {"bot": "b"}, Principal(name="all", publishes=EVERY_BOT))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"bot": ""}, BadMessage, "bot"),
        ({"topic": "hub.gap"}, UnknownTopic, "hub's own"),
        ({"topic": 5}, UnknownTopic, "topic"),
        ({"mid": None}, BadMessage, "mid"),
        ({"mid": 5}, BadMessage, "mid"),
        ({"mid": "x" * 65}, BadMessage, "mid"),
        ({"mid": "\ud800"}, BadMessage, "mid"),
        ({"topic": "status", "mid": {"x": "y" * 1000}, "data": {"status": "s"}}, BadMessage, "mid"),
        ({"ts": "now"}, BadMessage, "ts"),
        ({"ts": True}, BadMessage, "ts"),
        ({"ts": -1}, BadMessage, "ts"),
        ({"ts": NOW + 2 * 86_400_000}, BadMessage, "ts"),
        ({"ts": NOW - 1001}, IdExpired, "older"),
        ({"data": None}, BadMessage, "entry_fill"),
        ({"data": {"trade_id": "1", "pair": "X"}}, BadMessage, "trade_id"),
        ({"data": {"trade_id": 1, "pair": "X", "x": object()}}, BadMessage, "data.x"),
        ({"topic": "whitelist", "data": "X"}, BadMessage, "whitelist"),
        ({"topic": "new_candle", "data": ["X", "bad", "spot"]}, BadMessage, "timeframe"),
    ],
)
def test_refusals_name_the_field(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        parse(FILL | change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"key": ["X", "5m"]}, "key"),
        ({"key": ["X", "", "spot"]}, "key"),
        ({"key": ["\ud800", "5m", "spot"]}, "key"),
        ({"key": ["X", "5x", "spot"]}, "timeframe"),
        ({"schema": "unknown" * 1000}, "not known here"),
        ({"schema": None}, "schema"),
        ({"data": 5}, "data"),
        ({"data": {"rows": [[1]]}}, "row 0"),
        ({"data": {"rows": [], "la_ms": "x"}}, "la_ms"),
        ({"data": {"n": 5, "cols": []}}, "cols"),
    ],
)
def test_refusals_of_a_frame(change: dict[str, Any], text: str) -> None:
    with pytest.raises(BadMessage, match=text) as caught:
        parse(FRAME | change)
    assert len(str(caught.value)) < 300


def test_a_schema_is_named_by_its_id_once_it_was_seen() -> None:
    door = Intake(1000)
    first = door.parse(BOT, FRAME, Wire.JSON, NOW)
    assert isinstance(first, FramePublish)
    again = door.parse(BOT, FRAME | {"schema": first.rows.schema.id}, Wire.JSON, NOW)
    assert isinstance(again, FramePublish)
    assert again.rows.schema is first.rows.schema


def test_schemas_are_bounded_in_bytes_and_the_least_recently_used_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "SCHEMA_BYTES", 5000)
    door = Intake(1000)
    first = door.parse(BOT, FRAME, Wire.JSON, NOW)
    assert isinstance(first, FramePublish)
    by_id = FRAME | {"schema": first.rows.schema.id}
    for i in range(50):
        more = {"columns": [*SCHEMA["columns"], [f"c{i}", "f8"]], "index": "date"}
        door.parse(BOT, FRAME | {"schema": more, "data": {"rows": []}}, Wire.JSON, NOW)
        if i < 25:
            door.parse(BOT, by_id, Wire.JSON, NOW)
        figures = door.statistics()
        assert figures["schema_bytes"] <= figures["schema_limit_bytes"] == 5000
    with pytest.raises(BadFrame, match="not known here"):
        door.parse(BOT, by_id, Wire.JSON, NOW)


def test_a_relayed_bot_may_be_older_or_newer() -> None:
    door = Intake(1000)
    common: dict[str, Any] = {"mid": "m", "publisher": "relay:a", "ts": NOW, "now_ms": NOW}
    with pytest.raises(BadMessage):
        door.message("a", "status", {"state": "x"}, **common)
    assert isinstance(door.message("a", "status", {"state": "x"}, trusted=True, **common), LogPublish)


SHAPED = st.fixed_dictionaries(
    {"bot": st.just("a")},
    optional={
        "topic": st.sampled_from(["entry_fill", "analyzed_df", "whitelist", "new_candle", "status", "new"])
        | PLAIN,
        "mid": st.text(max_size=3) | ANYTHING,
        "ts": st.integers() | ANYTHING,
        "key": st.lists(st.text(max_size=3), min_size=3, max_size=3) | ANYTHING,
        "schema": st.just(SCHEMA) | ANYTHING,
        "data": st.fixed_dictionaries(
            {}, optional={"rows": ANYTHING, "n": ANYTHING, "cols": ANYTHING, "la_ms": ANYTHING}
        )
        | ANYTHING,
    },
)


@given(ANYTHING | SHAPED, st.sampled_from(list(Wire)))
def test_whatever_is_published_is_taken_or_refused(item: Any, wire: Wire) -> None:
    try:
        parse(item, wire=wire)
    except RequestError:
        pass
