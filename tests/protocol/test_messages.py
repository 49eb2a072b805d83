"""hub.protocol.messages."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol.errors import BadMessage, UnknownTopic
from hub.protocol.messages import (
    LEDGER_TOPICS,
    REGISTRY,
    STATE_TOPICS,
    TOPICS,
    AnalyzedDf,
    DeliveryClass,
    EntryFill,
    FrameKey,
    GenericMessage,
    NewCandle,
    Status,
    Whitelist,
    check_name,
    delivery_class,
    view,
)
from tests.protocol.strategies import PLAIN, TEXT

FILL = {"trade_id": 1, "pair": "BTC/USDT"}


def test_the_registry_is_freqtrades_seventeen() -> None:
    assert len(TOPICS) == 17
    assert {"entry", "entry_fill", "entry_cancel", "exit", "exit_fill", "exit_cancel"} < LEDGER_TOPICS
    assert {"protection_trigger", "protection_trigger_global", "liquidation_warning"} < LEDGER_TOPICS
    assert len(LEDGER_TOPICS) == 9
    assert {"whitelist", "analyzed_df", "new_candle"} == STATE_TOPICS
    for topic, cls in REGISTRY.items():
        assert cls.topic == topic
        assert delivery_class(topic) is cls.delivery
    assert delivery_class("a_newer_type") is DeliveryClass.EVENT


def test_a_view_is_typed_and_keeps_what_it_does_not_know() -> None:
    data = FILL | {"open_date": "2026-11-22T14:00:00+00:00", "amount": 1, "later": {"x": [1]}, "extra": 5}
    fill = view("entry_fill", data)
    assert isinstance(fill, EntryFill)
    assert (fill.trade_id, fill.pair, fill.amount) == (1, "BTC/USDT", 1.0)
    assert fill.open_date == dt.datetime(2026, 11, 22, 14, tzinfo=dt.UTC)
    assert fill.leverage is None
    assert fill.extra == {"later": {"x": [1]}, "extra": 5}
    assert data["later"] == {"x": [1]}


def test_naive_dates_stay_naive() -> None:
    message = view("entry_cancel", FILL | {"open_date": "2026-11-22T14:00:00"})
    assert message.open_date == dt.datetime(2026, 11, 22, 14)  # type: ignore[attr-defined]


def test_views_do_not_share_their_extra() -> None:
    one, other = view("status", {"status": "a"}), view("status", {"status": "a"})
    assert one.extra is not other.extra


def test_bare_data() -> None:
    whitelist = view("whitelist", ["A/B"])
    assert isinstance(whitelist, Whitelist)
    assert whitelist.data == ["A/B"]
    assert view("whitelist", []) == Whitelist(data=[])
    candle = view("new_candle", ["A/B:C-1", "5m", "futures"])
    assert isinstance(candle, NewCandle)
    assert candle.data == FrameKey("A/B:C-1", "5m", "futures")
    frame = view("analyzed_df", {"key": ["A/B", "5m", "spot"], "df": {"x": 1}, "la": "2026-11-22T14:00:00Z"})
    assert isinstance(frame, AnalyzedDf)
    assert frame.df == {"x": 1}


@given(st.text(min_size=1).filter(lambda t: t not in TOPICS), PLAIN)
def test_an_unknown_type_is_generic(topic: str, data: Any) -> None:
    message = view(topic, data)
    assert isinstance(message, GenericMessage)
    assert (message.type, message.data, message.problem) == (topic, data, None)


@pytest.mark.parametrize(
    ("topic", "data", "text"),
    [
        ("entry_fill", {"pair": "A/B"}, "trade_id"),
        ("entry_fill", FILL | {"trade_id": "1"}, "trade_id"),
        ("entry_fill", FILL | {"trade_id": True}, "trade_id"),
        ("entry_fill", FILL | {"open_date": "yesterday"}, "open_date"),
        ("entry_fill", FILL | {"amount": "1"}, "amount"),
        ("entry_fill", [1], "a map of fields, got list"),
        ("entry_fill", None, "a map of fields, got NoneType"),
        ("status", {}, "status"),
        ("strategy_msg", {"msg": 5}, "msg"),
        ("whitelist", {"a": 1}, "data"),
        ("whitelist", ["A/B", 5], "data"),
        ("new_candle", ["A/B", "5m"], "data"),
        ("analyzed_df", {"df": 1}, "key"),
    ],
)
def test_a_bad_body_names_type_and_field(topic: str, data: Any, text: str) -> None:
    with pytest.raises(BadMessage, match=f"^{topic}: ") as caught:
        view(topic, data)
    assert text in str(caught.value)


@given(st.sampled_from(sorted(TOPICS)), PLAIN | st.dictionaries(TEXT, PLAIN))
def test_any_body_is_a_view_or_refused(topic: str, data: Any) -> None:
    try:
        message = view(topic, data)
    except BadMessage:
        return
    assert type(message) is REGISTRY[topic]


@given(st.sampled_from(sorted(TOPICS - {"whitelist", "new_candle"})), st.dictionaries(TEXT, PLAIN))
def test_extra_is_exactly_what_has_no_field(topic: str, more: dict[str, Any]) -> None:
    base: dict[str, Any] = {
        **FILL,
        "status": "s",
        "msg": "m",
        "key": ["A/B", "5m", "spot"],
    }
    known = {f.encode_name for f in msgspec.structs.fields(REGISTRY[topic])} - {"(extra)"}
    new = {k: v for k, v in more.items() if k not in known}
    needed = {k: v for k, v in base.items() if k in known}
    assert view(topic, needed | new).extra == new


def test_messages_are_values() -> None:
    assert view("status", {"status": "x"}) == Status(status="x")
    assert Status(status="x").type == "status"
    with pytest.raises(AttributeError):
        Status(status="x").status = "y"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["a", "é" * 32, "x" * 64, "A/B:C-1", "with space", "\n"])
def test_names(name: str) -> None:
    assert check_name("bot", name) == name


def test_a_bot_may_have_a_dot_and_a_topic_not() -> None:
    assert check_name("bot", "a.b") == "a.b"
    with pytest.raises(UnknownTopic, match="hub's own"):
        check_name("topic", "hub.welcome")


@pytest.mark.parametrize("name", ["", "x" * 65, "é" * 33, "\ud800", None, 5, b"a", ["a"]])
def test_bad_names(name: Any) -> None:
    with pytest.raises(UnknownTopic, match=r"^topic: expected"):
        check_name("topic", name)
    with pytest.raises(BadMessage, match=r"^bot: expected"):
        check_name("bot", name)
