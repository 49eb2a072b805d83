"""What one client or publisher may cost the hub: every request and every block of rows is bounded work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hub.core import candles, engine
from hub.core.candles import MAX_OPEN, CandleClock
from hub.core.entry import Entry
from hub.core.session import REMEMBERED, Session
from hub.frames import freqtrade
from hub.protocol import values
from hub.protocol.codec import CODECS, Wire, encode_body, payload_of
from hub.protocol.errors import BadMessage, Overloaded
from hub.protocol.messages import FrameKey
from hub.protocol.subscription import Subscription
from tests.core.doubles import KEY, STEP_MS, Rig, rows, split_of
from tests.core.model import decode


def test_a_long_block_costs_the_candle_clock_no_more_than_its_newest_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = CandleClock(10.0)
    clock.whitelist("a", ["X", "Y"])
    clock.rows("a", "X", "1s", [0], 0.0)
    told: list[int] = []
    tell = CandleClock._tell

    def counted(self: CandleClock, *args: Any, **more: Any) -> dict[str, Any]:
        told.append(1)
        return tell(self, *args, **more)

    monkeypatch.setattr(candles.CandleClock, "_tell", counted)
    clock.rows("a", "X", "1s", list(range(1, 100_000)), 0.0)
    assert len(clock._tracks["a", "1s"].open) <= MAX_OPEN
    assert len(told) <= MAX_OPEN
    (last,) = [d["candle_ms"] for d in clock.rows("a", "Y", "1s", [99_999], 0.0)][-1:]
    assert last == 99_999


def test_keys_looks_names_up_and_does_not_search_them() -> None:
    rig = Rig()
    session = rig.session()
    rig.ask(session, "keys", {"bots": ["x"] * 10_001}, number=1)
    rig.ask(session, "keys", {"topics": "analyzed_df"}, number=2)
    rig.ask(session, "keys", {"bots": [["x"]]}, number=3)
    answers = rig.pull(session)
    assert [answer["error"]["code"] for answer in answers] == ["bad_filter"] * 3
    assert "keys.bots" in answers[0]["error"]["message"]


def test_a_resync_of_many_keys_orders_what_is_owed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    keys = [FrameKey(f"P{i}/USDT", "5m", "spot") for i in range(50)]
    for key in keys:
        rig.frame(rows(1), key=key)
    session = rig.subscribed("analyzed_df")
    ordered: list[int] = []
    order = engine._markers_last
    monkeypatch.setattr(engine, "_markers_last", lambda cursor: (ordered.append(1), order(cursor)))
    named = [["a", "analyzed_df", [key.pair, "5m", "spot"]] for key in keys]
    rig.ask(
        session,
        "resync",
        {"keys": [*named, *named[:9], ["a", "analyzed_df", ["NO/NE", "5m", "spot"]]]},
        number=1,
    )
    assert len(ordered) == 1
    reply, *rest = rig.served(session)
    assert reply["data"]["unknown"] == [["a", "analyzed_df", ["NO/NE", "5m", "spot"]]]
    assert [m["key"][0] for m in rest if m["type"] == "analyzed_df"] == [key.pair for key in keys]


def test_the_names_of_a_subscription_are_bounded_in_all() -> None:
    rig = Rig()
    session = rig.session()
    want = [{"topics": ["analyzed_df"], "pairs": [f"{i}.{j}" for j in range(9_000)]} for i in range(3)]
    rig.subscribe(session, *want)
    (refused,) = rig.pull(session)
    assert refused["error"]["code"] == "bad_filter"
    assert "20000 names" in refused["error"]["message"]
    assert session.group is None


def test_a_hello_that_is_repeated_leaves_one_name() -> None:
    rig = Rig()
    session = rig.session()
    for i in range(100):
        rig.ask(session, "hello", {"client": f"probe {i} " + "x" * 100})
    assert session.client.startswith("c probe 99 ")
    assert len(session.client) < 80


def test_what_a_group_remembers_does_not_grow_with_the_keys() -> None:
    rig = Rig()
    for i in range(3 * REMEMBERED):
        rig.frame(rows(1), key=FrameKey(f"P{i}/USDT", "5m", "spot"))
        rig.event(bot=f"b{i}", topic="t1")
    session = rig.session()
    rig.subscribe(session, {"topics": ["analyzed_df", "t1"]})
    assert len(rig.served(session)) == 2 + 3 * REMEMBERED
    group = session.group
    assert group is not None
    assert len(group._projections) <= REMEMBERED
    assert len(group._wants) <= REMEMBERED


def test_missing_keys_are_those_that_nobody_whom_i_may_read_has() -> None:
    rig = Rig()
    for bot in ("a", "b"):
        rig.frame(rows(1), bot=bot, key=FrameKey(f"{bot}/USDT", "5m", "spot"))
    session = rig.session(reads=frozenset({"a"}))
    pairs = ["a/USDT", "b/USDT"]
    rig.subscribe(
        session,
        {"topics": ["analyzed_df", "entry"], "bots": ["a"]},
        {"topics": ["analyzed_df"], "pairs": pairs},
    )
    assert rig.pull(session)[0]["data"]["missing_keys"] == [["analyzed_df", "b/USDT"]]
    everything = rig.session()
    rig.subscribe(everything, {"topics": ["analyzed_df", "new_candle"], "pairs": pairs})
    missing = rig.pull(everything)[0]["data"]["missing_keys"]
    assert missing == [["new_candle", "a/USDT"], ["new_candle", "b/USDT"]]


def stalled(rig: Rig, *, wire: Wire = Wire.MSGPACK) -> Session:
    """A client in the middle of an answer that it does not take."""
    session = rig.session(wire)
    if wire is Wire.FREQTRADE:
        rig.ask(session, "analyzed_df", {"limit": 1500, "pair": KEY.pair})
    else:
        rig.subscribe(session, {"topics": ["analyzed_df"]})
    rig.core.pull(session, 1, rig.now)
    rig.core.pull(session, 1, rig.now)
    return session


@pytest.mark.parametrize("wire", [Wire.MSGPACK, Wire.FREQTRADE])
def test_the_windows_of_stalled_clients_are_bounded_in_bytes(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.PART_BYTES, Wire.MSGPACK, 4_000)
    rig = Rig(held_bytes=100_000, cache_bytes=1)
    rig.frame(rows(0, 1500))
    clients = []
    for i in range(40):
        rig.now += 1
        clients.append(stalled(rig, wire=wire))
        rig.frame(rows(1500 + i))
        assert rig.core.cache.held_bytes <= 100_000 + 30_000
    figures = rig.core.statistics()
    assert figures["held_bytes"] > 24_000
    assert figures["abandoned"] > 20
    for client in clients:
        got = [m for m in rig.served(client) if m["type"] == "analyzed_df"]
        assert got, "whoever let go gets all of it later"
    for client in clients:
        rig.core.disconnect(client)
    assert rig.core.statistics()["held_bytes"] == 0


def test_a_window_that_many_send_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.PART_BYTES, Wire.MSGPACK, 4_000)
    rig = Rig()
    rig.frame(rows(0, 1500))
    one = stalled(rig)
    held = rig.core.cache.held_bytes
    assert held > 0
    others = [stalled(rig) for _ in range(20)]
    assert rig.core.cache.held_bytes == held
    for client in (one, *others):
        rig.core.disconnect(client)
    assert rig.core.cache.held_bytes == 0


def test_those_who_ask_for_a_frame_at_once_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    sliced: list[int] = []
    split = freqtrade.iter_split

    def counted(*args: Any, **more: Any) -> Any:
        for piece in split(*args, **more):
            sliced.append(1)
            yield piece

    monkeypatch.setattr(freqtrade, "iter_split", counted)
    rig = Rig()
    rig.frame(rows(0, 1500))
    clients = [rig.session(Wire.FREQTRADE) for _ in range(10)]
    for client in clients:
        rig.ask(client, "analyzed_df", {"limit": 1500, "pair": KEY.pair})
    got: dict[str, bytes] = {}
    for _ in range(100):
        for client in clients:
            got |= (
                {client.id: b"".join(rig.core.pull(client, 1 << 20, 0.0).frames)} if client.requests else {}
            )
    assert len(set(got.values())) == 1
    assert len(sliced) <= 17
    assert split_of(decode(Wire.FREQTRADE, got[clients[0].id]))[-1][0] == 1499 * STEP_MS


def test_small_cached_frames_count_with_what_they_cost() -> None:
    rig = Rig(cache_bytes=100_000)
    session = rig.subscribed("analyzed_df")
    for i in range(500):
        rig.frame(rows(i))
        rig.served(session)
    assert len(rig.core.cache._items) < 200


def first_refusal(publish: Callable[[int], object]) -> str:
    for i in range(1000):
        try:
            publish(i)
        except Overloaded as error:
            return str(error)
    raise AssertionError("nothing was refused")


def test_one_bot_takes_no_event_topics_from_another() -> None:
    rig = Rig(streams=100)
    assert "of one bot" in first_refusal(lambda i: rig.event("a", f"t{i}"))
    rig.event("b", "status")


def test_one_bot_leaves_keys_and_bytes_to_the_others() -> None:
    rig = Rig(keys=100, state_bytes=1 << 20, candles=50)
    keys = [FrameKey(f"P{i}", "5m", "spot") for i in range(1000)]
    said = first_refusal(lambda i: rig.core.publish_value("a", "new_candle", keys[i], list("xyz"), 1))
    assert "for others" in said
    assert rig.core.statistics()["state_keys"] == 80
    rig.frame(rows(0), "b")
    rig.core.publish_value("b", "whitelist", None, ["A/B"], 1)
    other = Rig(state_bytes=1 << 20)
    assert "for others" in first_refusal(lambda i: other.frame(rows(0, 50), "a", keys[i]))
    other.frame(rows(0, 50), "b")
    for i in range(1, 60):
        other.frame(rows(50 * i, 50), "b")


def test_an_event_costs_what_its_takers_are_and_not_what_topics_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    session = rig.subscribed("status")
    for i in range(200):
        rig.event(f"b{i}", "warning")
    rig.event("a", "status")
    rig.served(session)
    looked: list[int] = []
    wants = Subscription.wants
    monkeypatch.setattr(
        Subscription, "wants", lambda self, *stream: (looked.append(1), wants(self, *stream))[1]
    )
    for _ in range(50):
        rig.event("a", "status")
        assert len(rig.served(session)) == 1
    assert len(looked) <= 1


def test_an_entry_keeps_its_bytes_and_not_the_objects_they_were() -> None:
    nested: dict[str, Any] = {"x": [[] for _ in range(10_000)], "n": 2**64 - 1, "f": 1.0, "z": -0.0}
    entry = Entry("a", "status", 1, encode_body(nested))
    assert not any(value is nested for value in (getattr(entry, name) for name in Entry.__slots__))
    assert entry.data == nested
    assert CODECS[Wire.MSGPACK].decode(payload_of(entry.frame(Wire.MSGPACK)))["data"] == nested
    assert str(entry.data["z"]) == "-0.0"
    assert isinstance(entry.data["f"], float)


def test_a_payload_of_a_million_values_is_refused_before_it_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def walked(*_: object) -> None:
        raise AssertionError("it was copied")

    for payload in ([[[]] * 400_000] * 3, {"x": ({"y": [0] * 70_000}, [1] * 70_000)}):
        with monkeypatch.context() as patched:
            patched.setattr(values, "_plain", walked)
            with pytest.raises(BadMessage, match="at most 131072 values"):
                values.plain(payload)
    assert len(values.plain([0] * 131_072)) == 131_072
