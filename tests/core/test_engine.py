"""hub.core.engine: the cases that have a name. Arbitrary schedules are in test_machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from hub.core import engine, entry, state
from hub.core.ledger import Appended, Page, Read
from hub.core.session import Session
from hub.core.state import StateKey
from hub.protocol import codec
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import Wire
from hub.protocol.errors import BadFrame, Forbidden, NotDurable, Overloaded, TooLarge
from hub.protocol.messages import FrameKey
from hub.protocol.principal import EVERY_BOT, Principal
from tests.core.doubles import KEY, Rig, rows, split_of
from tests.core.model import decode

FILLS = {"topics": ["entry_fill", "exit_fill"]}
FRAMES = {"topics": ["analyzed_df", "new_candle"]}


def offsets(messages: list[dict[str, Any]]) -> list[int]:
    return [m["offset"] for m in messages if "prev" in m]


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [m["type"] for m in messages]


# --- one encode, the same bytes


@pytest.mark.parametrize("wire", Wire)
def test_a_group_gets_the_same_object_encoded_once(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(with_positions=True)
    topics = ("entry_fill", "status", "whitelist", "analyzed_df")
    sessions = [rig.subscribed(*topics, wire=wire) for _ in range(5)]
    made: list[bytes] = []

    def counting(payload: bytes, *, text: bool) -> bytes:
        made.append(payload)
        return real(payload, text=text)

    real = entry.frame
    for module in (entry, state, codec):
        monkeypatch.setattr(module, "frame", counting)
    rig.fill()
    rig.event()
    rig.core.publish_value("a", "whitelist", None, ["BTC/USDT"], 1)
    rig.frame(rows(1))
    got = rig.flush()
    assert len({id(got[s.id]) for s in sessions}) == 1
    frames = got[sessions[0].id]
    assert len(made) == len(frames) == (6 if wire is not Wire.FREQTRADE else 4)


def test_a_straggler_gets_the_bytes_of_the_group_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    one, other = rig.subscribed("entry_fill"), rig.subscribed("entry_fill")
    rig.core.fall_behind(other)
    rig.fill()
    assert one.group is not None
    pieces, _ = rig.core.collect(one.group, 1 << 20, 0.0)
    assert rig.core.pull(other, 1 << 20, 0.0).frames[0] is pieces[0]


def test_groups_are_of_wire_subscription_and_rights() -> None:
    rig = Rig()
    rig.subscribed("entry_fill")
    rig.subscribed("entry_fill")
    assert len(rig.core.groups) == 1
    rig.subscribed("entry_fill", wire=Wire.MSGPACK)
    rig.subscribed("exit_fill")
    limited = rig.session(reads=frozenset({"a"}))
    rig.subscribe(limited, {"topics": ["entry_fill"]})
    assert len(rig.core.groups) == 4


def test_rights_cut_what_a_wildcard_takes() -> None:
    rig = Rig()
    session = rig.session(reads=frozenset({"a"}))
    rig.subscribe(session, {"topics": ["entry_fill", "status", "whitelist"]})
    for bot in ("a", "b"):
        rig.fill(bot)
        rig.event(bot)
        rig.core.publish_value(bot, "whitelist", None, [bot], 1)
    assert {m["bot"] for m in rig.served(session) if "bot" in m} == {"a"}


# --- slow clients cost the others nothing


def test_a_stalled_client_changes_nothing_for_the_others() -> None:
    rig = Rig()
    quick, slow = (
        rig.subscribed(*FILLS["topics"], "analyzed_df"),
        rig.subscribed(*FILLS["topics"], "analyzed_df"),
    )
    rig.core.fall_behind(slow)
    for i in range(20):
        rig.fill()
        rig.frame(rows(1 + i))
        assert len(rig.flush()[quick.id]) == (3 if i == 0 else 2)
        assert quick.hot
    cursor = slow.cursor
    assert cursor is not None
    assert (cursor.ledger, len(cursor.due)) == (1, 1)
    assert slow.control_bytes == 0
    got = rig.served(slow)
    assert kinds(got) == ["entry_fill"] * 20 + ["hub.schema", "analyzed_df"]
    assert slow.hot


def test_ledger_before_event_before_state() -> None:
    rig = Rig()
    session = rig.subscribed("entry_fill", "status", "analyzed_df")
    rig.frame(rows(1))
    rig.event()
    rig.fill()
    assert kinds(rig.served(session)) == ["entry_fill", "status", "hub.schema", "analyzed_df"]


def test_too_slow_for_too_long_is_closed_with_a_code_that_says_resume() -> None:
    rig = Rig(slow_bytes=2000, slow_grace_s=30.0)
    session = rig.subscribed("entry_fill")
    rig.core.fall_behind(session)
    for _ in range(4):
        rig.fill(pad=300)
    assert rig.core.tick(10.0, 1, 1000.0) == [session]
    told = rig.core.pull(session, 1, 10.0)
    assert b"hub.lagging" in told.frames[0]
    for _ in range(4):
        rig.fill(pad=300)
    rig.core.tick(40.0, 1, 1000.0)
    assert session.closing is None, "it made progress 30 s ago, not longer"
    rig.core.tick(41.0, 1, 1000.0)
    assert session.closing is not None
    assert session.closing[0] == CloseCode.SLOW_CONSUMER == 4508


def test_a_lag_of_state_alone_never_closes() -> None:
    rig = Rig(slow_bytes=1)
    session = rig.subscribed("analyzed_df")
    rig.core.fall_behind(session)
    for i in range(50):
        rig.frame(rows(1 + i))
    rig.core.tick(1e6, 1, 1e9)
    assert session.closing is None


def test_the_unsent_bytes_are_a_subtraction() -> None:
    rig = Rig(tail_bytes=5000)
    for _ in range(10):
        rig.fill(pad=100)
    tail = rig.core.tail
    assert tail.first > 1
    for offset in range(tail.first, tail.next + 1):
        assert tail.bytes_since(offset) == sum(len(e.body) for e in tail.since(offset))
    assert tail.bytes_since(0) == tail.bytes_since(tail.first)


# --- the ledger's two phases


def test_nothing_is_delivered_before_its_commit() -> None:
    rig = Rig()
    session = rig.subscribed("entry_fill")
    append = rig.fill(commit=False)
    assert rig.served(session) == []
    rig.core.committed([rig.log._append(append)])
    assert offsets(rig.served(session)) == [1]


def test_a_repetition_and_a_refusal_are_not_delivered() -> None:
    rig = Rig()
    session = rig.subscribed("entry_fill")
    append = rig.fill()
    rig.core.pending_bytes += 2 * append.entry.size
    rig.core.committed([Appended(append, 1, duplicate=True), Appended(append, refused=NotDurable("no"))])
    assert offsets(rig.served(session)) == [1]
    assert rig.core.pending_bytes == 0


def test_what_waits_for_the_log_is_bounded() -> None:
    rig = Rig(pending_bytes=2000)
    rig.fill(commit=False)
    rig.fill(commit=False)
    with pytest.raises(Overloaded) as caught:
        rig.fill(commit=False)
    assert caught.value.temporary
    assert caught.value.retry_after_ms
    assert rig.core.statistics()["pending_bytes"] <= 2000


def test_a_page_ahead_of_what_was_told_is_not_sent_twice() -> None:
    """The log has committed what core has not heard of: a client that reads it must not get it again as live."""
    rig = Rig(tail_bytes=1000)
    session = rig.subscribed("entry_fill")
    rig.core.fall_behind(session)
    for _ in range(4):
        rig.fill()
    untold = rig.log._append(rig.fill(commit=False))
    assert offsets(rig.served(session)) == [1, 2, 3, 4]
    assert session.hot
    rig.core.committed([untold])
    assert offsets(rig.served(session)) == [5]


def test_a_log_that_stored_what_it_reported_as_failed() -> None:
    rig = Rig()
    session, other = rig.subscribed("entry_fill"), rig.subscribed("exit_fill")
    lost = rig.log._append(rig.fill(commit=False))
    rig.core.committed([Appended(lost.append, refused=NotDurable("disk"))])
    rig.fill()
    assert offsets(rig.served(session)) == [1, 2]
    assert rig.served(other) == []


def test_a_retry_that_was_stored_before_is_delivered_with_its_acknowledgement() -> None:
    rig = Rig()
    session = rig.subscribed("entry_fill")
    append = rig.fill(commit=False)
    stored = rig.log._append(append)
    rig.core.committed([Appended(append, refused=NotDurable("disk"))])
    rig.core.pending_bytes += append.entry.size
    rig.core.committed([Appended(append, stored.offset, duplicate=True)])
    assert offsets(rig.served(session)) == [1]


def test_a_batch_above_the_tail_is_read_from_the_log() -> None:
    rig = Rig(tail_bytes=2000)
    session = rig.subscribed("entry_fill")
    for _ in range(10):
        rig.fill()
    assert offsets(rig.served(session)) == list(range(1, 11))
    assert session.hot


def test_a_group_nobody_publishes_to_reads_nothing_when_the_tail_has_moved_on() -> None:
    rig = Rig(tail_bytes=2000, log_bytes=4000)
    legacy, mine = rig.subscribed("status", wire=Wire.FREQTRADE), rig.subscribed("exit_fill", bots=["b"])
    for _ in range(20):
        rig.fill()
    rig.event()
    rig.fill("b", "exit_fill")
    got = rig.flush()
    assert (len(got[legacy.id]), len(got[mine.id])) == (1, 1)
    assert legacy.hot
    assert mine.hot
    assert rig.core.counters["gaps"] == 0


def test_a_straggler_is_level_though_its_group_has_nothing_to_send() -> None:
    rig = Rig()
    one, other = rig.subscribed("entry_fill", bots=["b"]), rig.subscribed("entry_fill", bots=["b"])
    rig.core.fall_behind(other)
    rig.fill("a")
    assert rig.core.pull(other, 1000, 0.0).level
    assert one.hot
    assert other.hot
    rig.fill("b")
    assert offsets(rig.served(other)) == [2]


# --- replay and retention


def far_behind(rig: Rig, *topics: str, wire: Wire = Wire.JSON) -> Session:
    session = rig.subscribed(*topics, wire=wire)
    rig.core.fall_behind(session)
    return session


def test_retention_that_overtakes_a_client_is_told() -> None:
    rig = Rig(tail_bytes=1000, log_bytes=3000)
    session = far_behind(rig, "entry_fill")
    for _ in range(10):
        rig.fill()
    got = rig.served(session)
    floor = rig.log.floor
    assert got[0] == {"type": "hub.gap", "epoch": "e", "from": 0, "to": floor, "reason": "retention"}
    assert offsets(got) == list(range(floor + 1, 11))


def test_a_legacy_client_that_lost_fills_is_closed_and_gets_nothing_beyond_the_hole() -> None:
    rig = Rig(tail_bytes=1000, log_bytes=3000)
    session = far_behind(rig, "entry_fill", wire=Wire.FREQTRADE)
    for _ in range(10):
        rig.fill()
    assert rig.pull(session) == []
    assert session.closing is not None
    assert session.closing[0] == 4508
    assert not session.page


def test_a_page_read_before_an_unsubscribe_does_not_come_back() -> None:
    rig = Rig(tail_bytes=1000)
    session = far_behind(rig, "entry_fill")
    for _ in range(10):
        rig.fill()
    rig.pull(session, 1)
    assert session.page
    rig.subscribe(session)
    assert not session.page
    rig.subscribe(session, FILLS)
    rig.fill()
    assert offsets(rig.served(session)) == [11]


def test_a_page_that_arrives_after_its_session_moved_on() -> None:
    rig = Rig(tail_bytes=1000)
    session = far_behind(rig, "entry_fill")
    for _ in range(5):
        rig.fill()
    read = rig.core.pull(session, 1, 0.0).read
    assert read == Read(1, 1)
    page = rig.page(read)
    rig.subscribe(session)
    rig.subscribe(session, FILLS)
    rig.core.loaded(session, page)
    rig.fill()
    assert offsets(rig.served(session)) == [6]
    rig.core.disconnect(session)
    rig.core.loaded(session, page)


def test_a_session_that_ends_reads_nothing_more() -> None:
    rig = Rig(tail_bytes=1000)
    session = far_behind(rig, "entry_fill")
    for _ in range(5):
        rig.fill()
    session.close(4508, "slow")
    assert rig.core.pull(session, 1, 0.0).read is None


def test_a_page_that_arrives_after_its_session_began_again_at_the_floor() -> None:
    rig = Rig(tail_bytes=1000)
    session = far_behind(rig, "entry_fill")
    rig.fill()
    rig.pull(session, 1)
    rig.core.fall_behind(session)
    for _ in range(5):
        rig.fill()
    read = rig.core.pull(session, 1, 0.0).read
    assert read == Read(2, 1)
    page = rig.page(read)
    rig.subscribe(session)
    rig.ask(session, "subscribe", {"want": [FILLS], "from": "earliest"}, number=9)
    rig.core.loaded(session, page)
    assert session.closing is None
    assert offsets(rig.served(session)) == list(range(1, 7))


def test_a_page_with_a_hole_closes_instead_of_losing() -> None:
    rig = Rig(tail_bytes=1000)
    session = far_behind(rig, "entry_fill")
    for _ in range(5):
        rig.fill()
    read = rig.core.pull(session, 1, 0.0).read
    assert read is not None
    page = rig.page(read)
    rig.core.loaded(session, Page([page.entries[0], page.entries[2]], 0))
    assert session.closing is not None
    assert session.closing[0] == CloseCode.INTERNAL_ERROR


# --- events


def test_events_are_bounded_per_bot_and_the_lost_ones_counted() -> None:
    rig = Rig(event_bytes_per_bot=3000)
    session = rig.subscribed("status", "warning")
    rig.core.fall_behind(session)
    rig.event("b")
    for _ in range(10):
        rig.event("a")
    assert rig.core.statistics()["event_bytes"] <= 2 * 3000
    got = rig.served(session)
    kept = [m for m in got if m["type"] == "status" and m["bot"] == "a"]
    assert got[0] == {"type": "hub.dropped", "data": {"topics": {"status": 10 - len(kept)}}}
    assert [m["bot"] for m in got[1:]] == ["b"] + ["a"] * len(kept)
    assert rig.core.counters["dropped"] == 10 - len(kept)


# --- state


def test_snapshot_on_subscribe_then_rows() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    rig.core.publish_value("a", "new_candle", KEY, ["BTC/USDT", "5m", "spot"], 1)
    session = rig.session()
    rig.subscribe(session, FRAMES)
    got = rig.served(session)
    assert kinds(got) == ["hub.reply", "hub.schema", "analyzed_df", "new_candle"]
    assert got[2]["part"] == [1, 1]
    rig.frame(rows(6))
    (live,) = rig.served(session)
    assert live["rev"] == ["r", 1, 2]
    assert live["data"]["rows"] == [[6 * 300_000, 1.0]]


def test_rows_conflate_to_one_frame() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    session = rig.subscribed("analyzed_df")
    for i in range(3):
        rig.frame(rows(6, value=float(i)))
    rig.frame(rows(7))
    (live,) = rig.served(session)
    assert live["rev"] == ["r", 1, 5]
    assert [row[1] for row in live["data"]["rows"]] == [2.0, 1.0]


def test_a_new_schema_comes_as_a_snapshot_behind_its_notice() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    session = rig.subscribed("analyzed_df")
    rig.frame(rows(6, extra=np.array([1.0])))
    got = rig.served(session)
    assert kinds(got) == ["hub.schema", "analyzed_df"]
    assert "cols" in got[1]["data"]
    assert got[0]["schema"] == got[1]["data"]["schema"]


def test_a_schema_that_changes_in_the_middle_of_a_snapshot() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    session = rig.session()
    rig.subscribe(session, FRAMES)
    rig.pull(session, 1)
    assert kinds(rig.pull(session, 1)) == ["hub.schema"]
    rig.frame(rows(6, extra=np.array([1.0])))
    told = set()
    for message in rig.served(session):
        if message["type"] == "hub.schema":
            told.add(message["schema"])
    # The parts of the first are of the schema that was announced for them.
    assert len(told) == 1
    assert session.hot


def test_a_resubscribe_in_the_middle_of_a_snapshot_begins_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PART_BYTES", dict.fromkeys(Wire, 400))
    rig = Rig()
    rig.frame(rows(1, 50))
    session = rig.session()
    rig.subscribe(session, FRAMES)
    for _ in range(3):
        got = rig.pull(session, 1)
    assert got[0]["part"][0] == 1
    rig.frame(rows(51))
    rig.subscribe(session, FRAMES, {"topics": ["status"]})
    parts = [m for m in rig.served(session) if m["type"] == "analyzed_df"]
    assert [m["part"][0] for m in parts] == list(range(1, len(parts) + 1))
    assert parts[-1]["part"][1] == len(parts)
    assert sum(m["data"]["n"] for m in parts) == 51


def test_a_hot_client_that_falls_behind_in_the_middle_of_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PART_BYTES", dict.fromkeys(Wire, 400))
    rig = Rig()
    session = rig.subscribed("analyzed_df")
    rig.frame(rows(1, 50))
    sent = [decode(Wire.JSON, frame) for _ in range(3) for frame in rig.flush(1)[session.id]]
    rig.core.fall_behind(session)
    rig.frame(rows(51))
    sent += rig.served(session)
    # It goes on where the group was, and what changed meanwhile comes behind.
    *parts, row = [m for m in sent if m["type"] == "analyzed_df"]
    assert [m["part"] for m in parts] == [[i, len(parts)] for i in range(1, len(parts) + 1)]
    assert len(parts) > 2
    assert sum(m["data"]["n"] for m in parts) == 50
    assert row["rev"][1:] == [1, 2]


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_a_fork_of_parts_goes_on_alone(done: int) -> None:
    cache = state.FrameCache(1 << 20)
    made: list[int] = []

    def begin(start: int) -> Iterator[bytes]:
        for i in range(start, 3):
            yield b""
            made.append(i)
            yield b"%d" % i

    window = rows(1)
    parts = state.Parts(cache, window, begin)
    got = [next(parts) for _ in range(2 * done)]
    fork = parts.fork()
    assert [part for part in got if part] + [part for part in fork if part] == [b"0", b"1", b"2"]
    assert [part for part in parts if part] == [b"0", b"1", b"2"][done:]
    assert cache.held_bytes == 0


def test_more_rows_than_a_frame_should_have_come_as_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PART_BYTES", dict.fromkeys(Wire, 2000))
    rig = Rig()
    rig.frame(rows(1, 5))
    session = rig.subscribed("analyzed_df")
    rig.core.fall_behind(session)
    for i in range(300):
        rig.frame(rows(6 + i))
    got = rig.core.pull(session, 1 << 20, 0.0)
    assert len(got.frames) > 5
    assert max(map(len, got.frames)) < 2500


def test_a_marker_stays_behind_its_rows_through_a_resync() -> None:
    rig = Rig()
    rig.frame(rows(1, 5))
    rig.core.publish_value("a", "new_candle", KEY, ["BTC/USDT", "5m", "spot"], 1)
    session = rig.subscribed(*FRAMES["topics"])
    rig.frame(rows(6))
    rig.core.publish_value("a", "new_candle", KEY, ["BTC/USDT", "5m", "spot"], 1)
    assert rig.core.resync(session, StateKey("a", "new_candle", KEY))
    assert kinds(rig.served(session)) == ["analyzed_df", "new_candle"]


def test_a_resync_of_unknown_keys_leaves_nothing_behind() -> None:
    rig = Rig()
    rig.frame(rows(1))
    session = rig.subscribed("analyzed_df")
    group = session.group
    assert group is not None
    before = len(group._projections)
    for i in range(100):
        assert not rig.core.resync(session, StateKey("a", "analyzed_df", FrameKey(f"{i}", "5m", "spot")))
    assert len(group._projections) == before
    assert session.hot


def test_projections() -> None:
    rig = Rig()
    rig.frame(rows(1, 5, other=np.arange(5)))
    session = rig.session()
    rig.subscribe(session, {"topics": ["analyzed_df"], "columns": ["cl*"], "rows": 2})
    schema, frame = rig.served(session)[1:]
    assert [c[0] for c in schema["data"]["columns"]] == ["date", "close"]
    assert frame["data"]["n"] == 2


def test_the_whitelist_is_sent_when_it_changes_and_empty_is_data() -> None:
    rig = Rig()
    session = rig.subscribed("whitelist")
    assert rig.core.publish_value("a", "whitelist", None, ["A/B"], 1) == 1
    assert rig.core.publish_value("a", "whitelist", None, ["A/B"], 2) == 1
    assert rig.core.publish_value("a", "whitelist", None, [], 3) == 2
    (message,) = rig.served(session)
    assert message["data"] == []


def test_state_keys_are_bounded() -> None:
    rig = Rig(keys=2)
    rig.frame(rows(1))
    rig.core.publish_value("a", "whitelist", None, ["A/B"], 1)
    with pytest.raises(Overloaded):
        rig.core.publish_value("b", "whitelist", None, [], 1)
    with pytest.raises(Overloaded):
        rig.frame(rows(1), "b")
    rig.frame(rows(2))


def test_the_bytes_of_state_are_bounded_however_a_key_grows() -> None:
    rig = Rig(candles=50, state_bytes=30_000)
    rig.frame(rows(1, 50))
    rig.core.publish_value("a", "whitelist", None, ["A/B"], 1)
    wide: dict[str, Any] = {f"c{i}": np.ones(50) for i in range(100)}
    with pytest.raises(Overloaded):
        rig.frame(rows(1, 50, **wide), replace=True)
    with pytest.raises(Overloaded):
        rig.core.publish_value("a", "whitelist", None, ["x" * 30_000], 1)
    for i in range(200):
        rig.frame(rows(51 + i))
    figures = rig.core.statistics()
    assert figures["state_bytes"] <= figures["state_limit_bytes"] == 30_000
    assert rig.core.cells[StateKey("a", "analyzed_df", KEY)].n == 201


@pytest.mark.parametrize("la_ms", [10**18, -(10**18)])
def test_a_time_that_no_date_holds_is_the_publishers_error(la_ms: int) -> None:
    """It was stored, and every later frame for freqtrade's wire raised while it was made."""
    rig = Rig()
    session = rig.subscribed("analyzed_df", wire=Wire.FREQTRADE)
    with pytest.raises(BadFrame, match="la_ms"):
        rig.core.publish_frame("a", KEY, rows(1), replace=False, la_ms=la_ms, ts=1, now=0.0)
    rig.frame(rows(1))
    assert len(rig.served(session)) == 1


def test_a_refused_frame_changes_nothing() -> None:
    rig = Rig()
    with pytest.raises(BadFrame):
        rig.frame(rows(1), key=FrameKey("A", "bad", "spot"))
    assert rig.core.cells == {}
    assert rig.core.state_bytes == 0


def test_large_messages_are_refused() -> None:
    rig = Rig()
    for publish in (rig.fill, rig.event):
        with pytest.raises(TooLarge):
            publish(pad=300_000)  # type: ignore[operator]
    with pytest.raises(TooLarge):
        rig.core.publish_value("a", "whitelist", None, ["x" * 300_000], 1)
    assert rig.core.statistics()["state_keys"] == 0


# --- freqtrade's wire


def test_a_row_that_comes_while_an_answer_is_made_is_behind_it() -> None:
    """freqtrade's consumer drops its rows from the first incoming one on: an old answer behind a new row deletes it."""
    rig = Rig()
    rig.frame(rows(1, 300))
    session = rig.subscribed("analyzed_df", wire=Wire.FREQTRADE)
    rig.ask(session, "analyzed_df", {"limit": 1500, "pair": None})
    assert rig.pull(session) == [], "the answer is made in slices"
    rig.frame(rows(301))
    answer, live = rig.served(session)
    assert len(split_of(answer)) == 300
    assert [row[0] for row in split_of(live)] == [301 * 300_000]


def test_a_late_row_takes_all_later_ones_with_it() -> None:
    rig = Rig()
    rig.frame(rows(1, 10))
    session = rig.subscribed("analyzed_df", wire=Wire.FREQTRADE)
    rig.frame(rows(7, value=5.0))
    (message,) = rig.served(session)
    assert [row[1] for row in split_of(message)] == [5.0, 1.0, 1.0, 1.0]


def test_a_hundred_changed_rows_bring_the_whole_window() -> None:
    rig = Rig()
    rig.frame(rows(1, 250))
    session = rig.subscribed("analyzed_df", wire=Wire.FREQTRADE)
    rig.frame(rows(100, value=5.0))
    (message,) = rig.served(session)
    assert len(split_of(message)) == 250


def test_a_frame_over_freqtrades_limit_is_cut_but_not_below_a_hundred_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit, expected in ((5000, range(101, 300)), (500, range(100, 101))):
        monkeypatch.setattr(state, "LEGACY_LIMIT_BYTES", limit)
        rig = Rig()
        rig.frame(rows(1, 400))
        session = rig.session(Wire.FREQTRADE)
        rig.ask(session, "analyzed_df", {"limit": 1500, "pair": None})
        (message,) = rig.served(session)
        assert len(split_of(message)) in expected
        assert split_of(message)[-1][0] == 400 * 300_000


def test_two_bots_never_mix_on_a_legacy_socket() -> None:
    rig = Rig()
    sessions = {bot: rig.session(Wire.FREQTRADE, bot) for bot in ("a", "b")}
    topics = ["whitelist", "analyzed_df", "new_candle", "entry_fill", "status", "future_type"]
    for session in sessions.values():
        rig.ask(session, "subscribe", topics)
    for bot in ("a", "b", "b", "a"):
        key = FrameKey(f"{bot}/X", "5m", "spot")
        rig.fill(bot)
        rig.event(bot)
        rig.event(bot, "future_type")
        rig.core.publish_value(bot, "whitelist", None, [f"{bot}/X", str(rig.number)], 1)
        rig.frame(rows(1 + rig.number), bot, key)
        rig.core.publish_value(bot, "new_candle", key, [f"{bot}/X", "5m", "spot"], 1)
    for bot, session in sessions.items():
        other = "b" if bot == "a" else "a"
        rig.ask(session, "whitelist")
        rig.ask(session, "analyzed_df", {"limit": 10, "pair": None})
        rig.ask(session, "analyzed_df", {"limit": 10, "pair": f"{other}/X"})
        got = rig.served(session)
        assert {m["type"] for m in got} == set(topics)
        for message in got:
            if message["type"] == "analyzed_df" and split_of(message) == []:
                continue
            assert f"{other}/X" not in str(message)
        assert len([m for m in got if m["type"] == "entry_fill"]) == 2


# --- time


def test_heartbeats_reach_whoever_heard_nothing() -> None:
    rig = Rig(with_positions=True)
    subscribed, publisher, legacy = rig.subscribed("status"), rig.session(), rig.session(Wire.FREQTRADE)
    assert rig.core.tick(19.0, 7, 20.0) == []
    assert rig.core.tick(20.0, 7, 20.0) == [publisher]
    assert not legacy.control
    rig.core.tick(21.0, 7, 20.0)
    rig.now = 22.0
    assert rig.pull(publisher) == [{"type": "hub.heartbeat", "data": {"now_ms": 7}}]
    assert [decode(subscribed.wire, frame) for frame in rig.flush()[subscribed.id]] == [
        {"type": "hub.position", "epoch": "e", "from": 0, "offset": 0, "heads": []}
    ]
    subscribed.sent_at = 22.0
    assert rig.core.tick(41.0, 8, 20.0) == []


def test_a_client_that_reads_nothing_collects_no_heartbeats() -> None:
    rig = Rig()
    session = rig.session()
    for second in range(1000):
        rig.core.tick(float(second), second, 20.0)
    assert len(session.control) == 1


def test_an_expired_credential_ends_the_session() -> None:
    rig = Rig()
    session = rig.session(expires_ms=5000)
    rig.core.tick(1.0, 4999, 20.0)
    assert session.closing is None
    assert rig.core.tick(2.0, 5000, 20.0) == [session]
    assert session.closing is not None
    assert session.closing[0] == 4401


def test_freqtrades_wire_ends_with_its_credential_too_and_hears_no_warning() -> None:
    rig = Rig()
    session = rig.session(Wire.FREQTRADE, expires_ms=100_000)
    assert rig.core.tick(1.0, 99_999, 1000.0) == []
    rig.core.tick(2.0, 100_000, 1000.0)
    assert session.closing == (4401, "the credential expired")


def test_a_v2_session_is_told_a_minute_before_its_credential_ends_and_can_extend_it() -> None:
    rig = Rig()
    session = rig.session(expires_ms=100_000)
    expiring = [{"type": "hub.token_expiring", "data": {"expires_ms": 100_000}}]
    rig.core.tick(1.0, 39_999, 1000.0)
    assert rig.served(session) == []
    for second in range(5):
        rig.core.tick(2.0 + second, 40_000 + second, 1000.0)
    assert rig.served(session) == expiring
    rig.core.reauthenticate(session, structs.replace(session.principal, expires_ms=1_000_000))
    rig.core.tick(9.0, 100_000, 1000.0)
    assert (session.closing, rig.served(session)) == (None, [])
    rig.core.tick(10.0, 940_000, 1000.0)
    assert kinds(rig.served(session)) == ["hub.token_expiring"]
    rig.core.tick(11.0, 1_000_000, 1000.0)
    assert session.closing is not None


def test_another_principals_credential_changes_nothing() -> None:
    rig = Rig()
    session = rig.session(expires_ms=100_000)
    before = session.principal
    with pytest.raises(Forbidden, match="expected a credential of p"):
        rig.core.reauthenticate(session, Principal(name="q"))
    assert (session.principal, session.closing) == (before, None)


@pytest.mark.parametrize(
    ("old", "new", "closed"),
    [
        ({}, {"reads": frozenset({"a"})}, True),
        ({"publishes": frozenset({"a", "b"})}, {"publishes": frozenset({"a"})}, True),
        ({"controls": EVERY_BOT}, {}, True),
        ({"reads": frozenset({"a"})}, {"reads": frozenset({"b"})}, True),
        ({"reads": frozenset({"a"})}, {"reads": frozenset({"a", "b"})}, False),
        ({"publishes": frozenset({"a"})}, {"publishes": EVERY_BOT, "controls": EVERY_BOT}, False),
        ({}, {"expires_ms": 5}, False),
    ],
)
def test_a_session_ends_when_its_rights_shrink(
    old: dict[str, Any], new: dict[str, Any], closed: bool
) -> None:
    rig = Rig()
    session = rig.session(**old)
    rig.core.reauthenticate(session, Principal(name="p", **new))
    assert (session.closing is not None) == closed
    if session.closing is not None:
        assert session.closing[0] == 4403


def test_rights_that_grow_hold_for_what_is_subscribed_already() -> None:
    rig = Rig()
    session = rig.session(reads=frozenset({"a"}))
    rig.core.publish_value("b", "whitelist", None, ["ETH/USDT"], 1)
    rig.subscribe(session, {"topics": ["entry_fill", "whitelist"]})
    rig.fill("b")
    assert kinds(rig.served(session)) == ["hub.reply"]
    rig.core.reauthenticate(session, Principal(name="p"))
    rig.fill("a")
    rig.fill("b")
    got = rig.served(session)
    assert [(m["type"], m["bot"]) for m in got] == [
        ("entry_fill", "a"),
        ("entry_fill", "b"),
        ("whitelist", "b"),
    ]
    rig.core.check_invariants()


def test_candle_complete_is_behind_the_rows_and_tells_who_is_missing() -> None:
    rig = Rig(candle_deadline_s=10.0)
    eth = FrameKey("ETH/USDT", "5m", "spot")
    rig.core.publish_value("a", "whitelist", None, ["BTC/USDT", "ETH/USDT"], 1)
    session = rig.subscribed("analyzed_df", "hub.candle_complete")
    rig.frame(rows(1))
    rig.frame(rows(1), key=eth)
    got = rig.served(session)
    assert kinds(got)[-1] == "hub.candle_complete"
    assert kinds(got).count("analyzed_df") == 2
    assert got[-1]["data"] == {
        "bot": "a",
        "timeframe": "5m",
        "candle_ms": 300_000,
        "pairs": ["BTC/USDT", "ETH/USDT"],
        "missing": [],
        "deadline": False,
    }
    rig.frame(rows(2))
    assert kinds(rig.served(session)) == ["analyzed_df"]
    rig.core.tick(10.0, 1, 1000.0)
    (late,) = rig.served(session)
    assert (late["data"]["missing"], late["data"]["deadline"]) == (["ETH/USDT"], True)


def test_no_room_for_candle_complete_stops_neither_publisher_nor_ticker() -> None:
    rig = Rig(keys=2, candle_deadline_s=1.0)
    rig.core.publish_value("a", "whitelist", None, ["BTC/USDT"], 1)
    assert rig.frame(rows(1)) == 1
    rig.core.publish_value("a", "whitelist", None, ["BTC/USDT", "ETH/USDT"], 1)
    rig.frame(rows(2))
    rig.core.tick(5.0, 1, 1000.0)
    assert rig.core.counters["refused"] == 2


def test_statistics_name_every_buffer_with_its_bound() -> None:
    figures = Rig().core.statistics()
    for buffer in ("tail", "pending", "state", "cache"):
        assert figures[f"{buffer}_bytes"] <= figures[f"{buffer}_limit_bytes"]
    assert figures["event_limit_bytes_per_bot"] > 0
    assert {"control_bytes", "requests_waiting", "dropped", "conflated", "gaps"} <= figures.keys()
