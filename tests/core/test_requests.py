"""hub.core.requests: what clients of both wires may ask (freqtrade-wire §3 and §15, wire-v2 §3 and §4)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.requests import request_id
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import Wire
from hub.protocol.errors import NotAMessage
from hub.protocol.messages import FrameKey
from tests.core.doubles import KEY, Rig, rows, split_of
from tests.protocol.strategies import PLAIN

ETH = FrameKey("ETH/USDT", "5m", "spot")


def legacy(rig: Rig, *topics: str) -> Any:
    session = rig.session(Wire.FREQTRADE)
    if topics:
        rig.ask(session, "subscribe", list(topics))
    return session


def answers(rig: Rig, session: Any, name: str, data: Any = None) -> list[dict[str, Any]]:
    rig.ask(session, name, data)
    return rig.served(session)


# --- freqtrade's wire, row by row


def test_subscribe_has_no_reply_and_no_snapshot() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    rig.core.publish_value("a", "whitelist", None, ["A/B"], 1)
    assert answers(rig, legacy(rig), "subscribe", ["whitelist", "analyzed_df"]) == []


def test_subscribe_replaces_the_whole_set() -> None:
    rig = Rig()
    session = legacy(rig, "status")
    rig.ask(session, "subscribe", ["entry_fill"])
    rig.event()
    rig.fill()
    assert [m["type"] for m in rig.served(session)] == ["entry_fill"]


@pytest.mark.parametrize("data", [[], None, "status", "", ["unknown"], [5, None]])
def test_subscribe_with_nothing_usable_keeps_the_old_set(data: Any) -> None:
    rig = Rig()
    session = legacy(rig, "status")
    assert answers(rig, session, "subscribe", data) == []
    rig.event()
    assert len(rig.served(session)) == 1


def test_subscribe_applies_the_known_topics_beside_unknown_ones() -> None:
    rig = Rig()
    session = legacy(rig, "status", "future_type", "hub.candle_complete")
    rig.event()
    rig.event(topic="future_type")
    assert [m["type"] for m in rig.served(session)] == ["status", "future_type"]
    assert "hub.candle_complete" not in session.group.subscription.topics


@pytest.mark.parametrize("data", [5, {"a": 1}, True, 1.5])
def test_subscribe_with_a_number_or_map_closes(data: Any) -> None:
    rig = Rig()
    with pytest.raises(NotAMessage):
        rig.ask(legacy(rig), "subscribe", data)


def test_whitelist_is_answered_whether_subscribed_or_not() -> None:
    rig = Rig()
    session = legacy(rig)
    assert answers(rig, session, "whitelist", "") == [{"type": "whitelist", "data": []}]
    rig.core.publish_value("a", "whitelist", None, ["A/B"], 1)
    assert answers(rig, session, "whitelist", {"any": 1}) == [{"type": "whitelist", "data": ["A/B"]}]


def test_analyzed_df_of_a_pair() -> None:
    rig = Rig()
    rig.frame(rows(1, 200))
    (message,) = answers(rig, legacy(rig), "analyzed_df", {"limit": 5, "pair": "BTC/USDT"})
    assert message["data"]["key"] == ["BTC/USDT", "5m", "spot"]
    assert [row[0] for row in split_of(message)] == [i * 300_000 for i in range(196, 201)]


def test_analyzed_df_of_all_is_one_message_per_pair_of_the_whitelist() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    rig.frame(rows(1, 5), key=ETH)
    both = answers(rig, legacy(rig), "analyzed_df", {"limit": 2, "pair": None})
    assert {m["data"]["key"][0] for m in both} == {"BTC/USDT", "ETH/USDT"}
    rig.core.publish_value("a", "whitelist", None, ["ETH/USDT"], 1)
    (one,) = answers(rig, legacy(rig), "analyzed_df", {"limit": 2, "pair": None})
    assert one["data"]["key"][0] == "ETH/USDT"


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ({"pair": "BTC/USDT"}, 1500),
        ({"limit": 0, "pair": "BTC/USDT"}, 1600),
        ({"limit": -5, "pair": "BTC/USDT"}, 1600),
        ({"limit": 9999, "pair": "BTC/USDT"}, 1500),
        (None, 1600),
        ("", 1600),
    ],
)
def test_analyzed_df_limits(data: Any, count: int) -> None:
    rig = Rig(candles=1600)
    rig.frame(rows(1, 1600))
    (message,) = answers(rig, legacy(rig), "analyzed_df", data)
    assert len(split_of(message)) == count


def test_analyzed_df_of_an_unknown_pair_is_an_empty_frame_of_1970_with_a_key_that_freqtrade_reads() -> None:
    rig = Rig()
    for key in (["X/Y", "", "spot"], ["X/Y", "5m", "futures"]):
        (message,) = answers(rig, legacy(rig), "analyzed_df", {"limit": 5, "pair": "X/Y"})
        assert message["data"]["la"] == "1970-01-01T00:00:00+00:00"
        assert message["data"]["key"] == key
        assert split_of(message) == []
        rig.frame(rows(1), key=FrameKey("BTC/USDT", "5m", "futures"))


@pytest.mark.parametrize(
    "data", [{"limit": None}, {"limit": "abc"}, {"limit": True}, {"limit": 1.5}, [], "x", 5, {"pair": 5}]
)
def test_analyzed_df_with_bad_data_closes(data: Any) -> None:
    rig = Rig()
    with pytest.raises(NotAMessage, match="analyzed_df"):
        rig.ask(legacy(rig), "analyzed_df", data)


@pytest.mark.parametrize("name", ["ping", "entry", "hello", "publish", "x" * 500])
def test_anything_else_is_answered_by_an_exception_and_stays(name: str) -> None:
    rig = Rig()
    session = legacy(rig)
    assert answers(rig, session, name) == [
        {"type": "exception", "data": f"Invalid request type: {name[:64]}"}
    ]
    assert session.closing is None


def test_a_young_pair_is_answered_at_most_once_per_candle_after_two_requests() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    session = legacy(rig)
    ask = {"limit": 1500, "pair": "BTC/USDT"}
    counts = [len(answers(rig, session, "analyzed_df", ask)) for _ in range(5)]
    assert counts == [1, 1, 0, 0, 0]
    rig.frame(rows(6))
    assert [len(answers(rig, session, "analyzed_df", ask)) for _ in range(3)] == [1, 0, 0]
    assert len(answers(rig, session, "analyzed_df", {"limit": 5, "pair": None})) == 1
    assert len(answers(rig, legacy(rig), "analyzed_df", ask)) == 1
    rig.frame(rows(7, 100))
    assert [len(answers(rig, session, "analyzed_df", ask)) for _ in range(3)] == [1, 1, 1]


def test_several_live_rows_say_that_they_are_live_and_answers_do_not() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    session = legacy(rig, "analyzed_df")
    rig.served(session)
    rig.frame(rows(6, 1))
    (one,) = rig.served(session)
    rig.frame(rows(7, 2))
    (two,) = rig.served(session)
    assert "live" not in one["data"]
    assert (two["data"]["live"], len(split_of(two))) == (True, 2)
    (answer,) = answers(rig, session, "analyzed_df", {"limit": 2, "pair": KEY.pair})
    assert ("live" in answer["data"], len(split_of(answer))) == (False, 2)


def test_a_token_without_a_bot_sees_nothing() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    session = rig.session(Wire.FREQTRADE, bot=None)
    assert answers(rig, session, "subscribe", ["status"]) == []
    assert session.group is None
    assert answers(rig, session, "analyzed_df", None) == []
    assert answers(rig, session, "whitelist") == [{"type": "whitelist", "data": []}]


# --- tradewire.v2


def asked(rig: Rig, session: Any, name: str, data: Any = None) -> dict[str, Any]:
    rig.ask(session, name, data, number=7)
    (answer,) = [m for m in rig.served(session) if m["type"] == "hub.reply"]
    assert answer["id"] == 7
    return answer


def test_the_reply_of_subscribe() -> None:
    rig = Rig()
    rig.fill()
    session = rig.session(reads=frozenset({"a", "c"}))
    want = [{"topics": ["entry_fill", "future"], "bots": ["a", "b", "c"]}]
    answer = asked(rig, session, "subscribe", {"want": want})
    assert answer["data"] == {
        "epoch": "e",
        "offset": 1,
        "recovered": None,
        "unknown": ["future"],
        "missing": ["b", "c"],
        "missing_keys": [],
        "denied": ["b"],
    }


def test_nothing_left_is_forbidden_and_changes_nothing() -> None:
    rig = Rig()
    session = rig.session(reads=frozenset({"a"}))
    rig.subscribe(session, {"topics": ["status"]})
    rig.served(session)
    answer = asked(rig, session, "subscribe", {"want": [{"topics": ["status"], "bots": ["b"]}]})
    assert answer["error"]["code"] == "forbidden"
    assert answer["error"]["data"] == {"denied": ["b"]}
    assert session.group is not None


def test_a_change_takes_effect_at_the_cursor_and_the_reply_stands_before_the_new() -> None:
    rig = Rig()
    session = rig.subscribed("entry_fill")
    rig.core.fall_behind(session)
    rig.fill()
    rig.pull(session)
    rig.core.fall_behind(session)
    rig.fill(topic="exit_fill")
    rig.fill()
    rig.subscribe(session, {"topics": ["exit_fill"]})
    got = rig.served(session)
    assert [m["type"] for m in got] == ["hub.reply", "exit_fill"]
    assert got[0]["data"]["offset"] == 1


def test_unsubscribe_ends_all() -> None:
    rig = Rig()
    session = rig.subscribed("status")
    assert asked(rig, session, "unsubscribe")["ok"]
    rig.event()
    assert rig.served(session) == []
    assert rig.core.groups == {}


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("nonsense", None, "unknown_request"),
        ("subscribe", None, "bad_filter"),
        ("subscribe", {"want": [{"topics": ["status"]}] * 257}, "bad_filter"),
        ("subscribe", {"want": [], "from": "yesterday"}, "bad_filter"),
        ("subscribe", [1], "bad_request"),
        ("subscribe", {"want": [{"topics": ["entry_fill"], "pairs": ["A/B"]}]}, "bad_filter"),
        ("hello", {"max_message": 5}, "bad_request"),
        ("hello", {"max_message": True}, "bad_request"),
        ("resync", {"keys": 5}, "bad_request"),
        ("resync", {"keys": [["a", "analyzed_df"]]}, "bad_request"),
        ("resync", {"keys": [["a", "analyzed_df", ["x"]]]}, "bad_request"),
        ("resync", {"keys": [[]] * 101}, "bad_request"),
    ],
)
def test_refusals_are_replies_and_the_connection_stays(name: str, data: Any, code: str) -> None:
    rig = Rig()
    session = rig.session()
    answer = asked(rig, session, name, data)
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert session.closing is None
    rig.ask(session, name, data)
    (error,) = rig.served(session)
    assert error == {"type": "hub.error", "data": answer["error"]}


def test_hello_belongs_before_the_first_subscribe() -> None:
    rig = Rig()
    session = rig.session()
    rig.ask(session, "hello", {"client": "c/1", "max_message": 8 << 20})
    assert rig.served(session) == []
    assert session.max_message == 8 << 20
    rig.subscribe(session, {"topics": ["status"]})
    rig.ask(session, "hello", {})
    assert session.closing is not None
    assert session.closing[0] == CloseCode.BAD_REQUEST


def test_ping_keys_and_resync() -> None:
    rig = Rig()
    rig.frame(rows(1, 3))
    rig.frame(rows(1), "b")
    session = rig.session(reads=frozenset({"a"}))
    assert asked(rig, session, "ping", {"t": 1})["data"] == {"t": 1, "now_ms": 5}
    keys = asked(rig, session, "keys", {"topics": ["analyzed_df"]})["data"]["keys"]
    assert keys == [["a", "analyzed_df", ["BTC/USDT", "5m", "spot"], ["date", "close"], 3, 1]]
    rig.subscribe(session, {"topics": ["analyzed_df"]})
    rig.served(session)
    good, bad = (
        ["a", "analyzed_df", ["BTC/USDT", "5m", "spot"]],
        ["b", "analyzed_df", ["BTC/USDT", "5m", "spot"]],
    )
    rig.ask(session, "resync", {"keys": [good, bad]}, number=8)
    got = rig.served(session)
    assert got[0]["data"] == {"unknown": [bad]}
    assert [m["type"] for m in got[1:]] == ["analyzed_df"]
    assert "cols" in got[1]["data"]


@pytest.mark.parametrize("number", [0, -1, 2**53, 1.5, "1", True, [1]])
def test_a_bad_id_closes(number: Any) -> None:
    with pytest.raises(NotAMessage, match="id: expected"):
        request_id({"type": "ping", "id": number})


NAMES = st.sampled_from(
    ["hello", "ping", "subscribe", "unsubscribe", "keys", "resync", "whitelist", "analyzed_df", "x"]
)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "want": st.lists(PLAIN | st.fixed_dictionaries({"topics": PLAIN | st.lists(st.text())}), max_size=3),
        "keys": st.lists(PLAIN, max_size=3),
        "limit": PLAIN,
        "pair": PLAIN,
        "bots": PLAIN,
        "max_message": PLAIN,
        "client": PLAIN,
    },
)


@given(st.sampled_from(list(Wire)), NAMES, PLAIN | SHAPED, PLAIN)
def test_whatever_is_asked_is_answered_or_closes(wire: Wire, name: str, data: Any, number: Any) -> None:
    rig = Rig()
    rig.frame(rows(1, 2))
    rig.core.publish_value("a", "new_candle", KEY, ["BTC/USDT", "5m", "spot"], 1)
    session = rig.session(wire)
    try:
        rig.ask(session, name, data, number=number)
    except NotAMessage:
        pass
    rig.fill()
    rig.served(session)
    rig.core.disconnect(session)
    assert rig.core.groups == {}
