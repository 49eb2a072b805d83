"""consumer.state: v2 messages as they come in."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from consumer_doubles import KEY, START_MS, STEP_MS, numbers, rows
from hypothesis import given
from hypothesis import strategies as st

from consumer import recent
from consumer.data import ProducerData
from consumer.errors import ConnectionFailed, HubRefused, Unauthorized
from consumer.state import HubState
from consumer.step import Step
from hub.frames import v2
from hub.frames.columns import Columns
from hub.protocol.envelope import Position
from hub.protocol.known import Known
from hub.protocol.localbot import Advanced, CandleComplete, Connected, Delivery, Lost, Repeated
from hub.protocol.messages import AnalyzedDf, EntryFill, FrameKey, GenericMessage, NewCandle, Whitelist

WANT = [{"topics": ["entry_fill"], "bots": "*"}]
FILL = {"trade_id": 7, "pair": "BTC/USDT:USDT", "amount": 0.5, "colour": "red"}


class Peer:
    """A HubState and what it did."""

    def __init__(self, *, remove_signals: bool = False, start: Known | None = None) -> None:
        self.data = ProducerData(remove_signals=remove_signals)
        self.state = HubState("p", self.data.book("p"), WANT, start=start)
        self.now = 0.0

    def give(self, message: dict[str, Any]) -> Step:
        return self.state.receive(message, 100, self.now)

    def connect(
        self, offset: int = 40, epoch: str = "e7", recovered: bool | None = None, **more: Any
    ) -> Step:
        requests = self.state.start(self.now).requests
        data = {"epoch": epoch, "offset": offset, "recovered": recovered, **more}
        schema = rows(0).schema
        step = self.give({"type": "hub.reply", "id": requests[-1]["id"], "ok": True, "data": data})
        self.give({"type": "hub.schema", "schema": schema.id, "data": schema.data()})
        return step

    def frame(self, rev: list[Any], columns: Columns, part: list[int] | None = None, **more: Any) -> Step:
        data: dict[str, Any] = {"schema": columns.schema.id, "la_ms": START_MS, **more}
        if part is None:
            data["rows"] = v2.to_rows(columns, "msgpack")
        else:
            data |= {"n": columns.n, "cols": v2.to_columns(columns, "msgpack")}
        message = {"type": "analyzed_df", "bot": "alpha", "ts": 5, "key": list(KEY), "rev": rev, "data": data}
        return self.give(message | ({} if part is None else {"part": part}))


def fill(offset: int, prev: int, **more: Any) -> dict[str, Any]:
    head = {
        "type": "entry_fill",
        "bot": "alpha",
        "ts": 5,
        "epoch": "e7",
        "offset": offset,
        "prev": prev,
        "mid": "m",
    }
    return head | {"data": FILL} | more


@pytest.fixture
def peer() -> Peer:
    made = Peer()
    made.connect()
    return made


def only(step: Step) -> Delivery:
    (delivery,) = told(step)
    return delivery


def told(step: Step) -> list[Delivery]:
    """All deliveries but the positions."""
    return [d for d in step.deliveries if not isinstance(d.message, Advanced)]


def advanced(step: Step) -> Advanced:
    """The position at the end of a step."""
    message = step.deliveries[-1].message
    assert isinstance(message, Advanced)
    return message


def test_start_introduces_subscribes_and_resumes() -> None:
    requests = Peer().state.start(0.0).requests
    assert [r["type"] for r in requests] == ["hello", "subscribe"]
    assert requests[1]["data"] == {"want": WANT}
    resumed = Peer(start=Known("e7", 40, {("alpha", "entry_fill"): 44})).state.start(0.0).requests
    assert resumed[1]["data"]["resume"] == {"epoch": "e7", "offset": 40}


def test_connected_is_told_with_what_became_of_the_resume() -> None:
    peer = Peer()
    assert only(peer.connect()).message == Connected(producer="p", resumed=None)
    assert only(peer.connect(recovered=True)).message == Connected(producer="p", resumed=True)
    connected, lost = told(peer.connect(60, recovered=False, reason="retention", lost=[41, 60]))
    assert connected.message == Connected(producer="p", resumed=False)
    assert lost.message == Lost(producer="p", topics=(), first=41, last=60, reason="retention", epoch="e7")
    assert [d.topic for d in (connected, lost)] == ["connected", "lost"]


def test_a_fill_is_typed_and_has_its_position(peer: Peer) -> None:
    delivery = only(peer.give(fill(42, 40)))
    assert isinstance(delivery.message, EntryFill)
    assert (delivery.message.trade_id, delivery.message.extra) == (7, {"colour": "red"})
    assert (delivery.producer, delivery.bot, delivery.topic) == ("p", "alpha", "entry_fill")
    assert (delivery.position, delivery.ts_ms, delivery.snapshot) == (Position("e7", 42), 5, False)
    assert delivery.base == 40
    assert peer.give(fill(42, 40)).deliveries == []


def test_a_hole_closes_and_the_same_hole_is_lost(peer: Peer) -> None:
    step = peer.give(fill(50, 48))
    assert step.deliveries == []
    assert step.close is not None
    assert step.close[0] == 4510
    peer.connect(40, recovered=True)
    lost, delivery = peer.give(fill(50, 48)).deliveries
    assert isinstance(lost.message, Lost)
    assert (lost.message.topics, lost.message.first, lost.message.last) == (("entry_fill",), 41, 48)
    assert delivery.position == Position("e7", 50)


def test_another_epoch_closes(peer: Peer) -> None:
    step = peer.give(fill(50, 48, epoch="e8"))
    assert step.close is not None
    assert step.deliveries == []


def test_an_unknown_type_is_delivered_and_obeys_the_rules_of_the_ledger(peer: Peer) -> None:
    delivery = only(peer.give(fill(42, 40) | {"type": "margin_call", "data": [1, {"a": None}]}))
    assert delivery.message == GenericMessage(name="margin_call", data=[1, {"a": None}])
    assert delivery.position == Position("e7", 42)
    assert peer.give(fill(43, 42, type="margin_call")).deliveries
    assert peer.give(fill(43, 42, type="margin_call")).deliveries == []
    assert peer.give(fill(50, 45, type="margin_call")).close is not None
    event = only(peer.give({"type": "brand_new", "bot": "alpha", "data": {"x": 1}}))
    assert event.message == GenericMessage(name="brand_new", data={"x": 1})


def test_a_body_that_does_not_fit_is_delivered_as_it_is(peer: Peer) -> None:
    delivery = only(peer.give(fill(42, 40, data={"trade_id": "seven"})))
    assert isinstance(delivery.message, GenericMessage)
    assert delivery.message.data == {"trade_id": "seven"}
    assert "trade_id" in (delivery.message.problem or "")
    assert delivery.position == Position("e7", 42)


def test_an_envelope_that_does_not_fit_is_still_delivered_and_numbered(peer: Peer) -> None:
    delivery = only(peer.give(fill(42, 40, key=7)))
    assert isinstance(delivery.message, GenericMessage)
    assert delivery.position == Position("e7", 42)
    assert peer.give(fill(42, 40, key=7)).deliveries == []
    assert peer.give(fill(50, 48, key=7)).close is not None


def test_a_frame_is_stored_and_delivered(peer: Peer) -> None:
    delivery = only(peer.frame(["r", 0, 5], rows(0, 3), [1, 1], colour="red"))
    assert isinstance(delivery.message, AnalyzedDf)
    assert numbers(delivery.message.df) == [0, 1, 2]
    assert delivery.message.extra == {"colour": "red"}
    assert delivery.message.la is not None
    assert int(delivery.message.la.timestamp() * 1000) == START_MS
    assert (delivery.snapshot, delivery.key) == (True, FrameKey(*KEY))
    assert not only(peer.frame(["r", 5, 6], rows(3))).snapshot
    frame, as_of = peer.data.get_producer_df(KEY[0], producer_name="p")
    assert len(frame) == 4
    assert int(as_of.timestamp() * 1000) == START_MS
    assert (frame.attrs["stale"], frame.attrs["rev"]) == (False, 6)


def test_a_hole_in_a_key_asks_and_serves_the_old_rows_as_stale(peer: Peer) -> None:
    peer.frame(["r", 0, 5], rows(0, 3), [1, 1])
    step = peer.frame(["r", 6, 7], rows(5))
    assert step.deliveries == []
    (request,) = step.requests
    assert request["data"] == {"keys": [["alpha", "analyzed_df", list(KEY)]]}
    assert peer.frame(["r", 7, 8], rows(6)).requests == []
    frame, _ = peer.data.get_producer_df(KEY[0], producer_name="p")
    assert (len(frame), frame.attrs["stale"]) == (3, True)
    assert only(peer.frame(["r", 0, 8], rows(0, 7), [1, 1])).snapshot
    frame, _ = peer.data.get_producer_df(KEY[0], producer_name="p")
    assert (len(frame), frame.attrs["stale"]) == (7, False)


def test_a_refused_resync_is_repeated_when_the_hub_says(peer: Peer) -> None:
    (request,) = peer.frame(["r", 6, 7], rows(5)).requests
    error = {"code": "overloaded", "message": "later", "temporary": True, "retry_after_ms": 2000}
    peer.give({"type": "hub.reply", "id": request["id"], "ok": False, "error": error})
    assert peer.state.deadline == 2.0
    assert peer.state.tick(1.9).requests == []
    (again,) = peer.state.tick(2.0).requests
    assert again["id"] != request["id"]
    reply = {"unknown": [["alpha", "analyzed_df", list(KEY)]]}
    peer.give({"type": "hub.reply", "id": again["id"], "ok": True, "data": reply})
    assert peer.state.deadline is None


def test_after_a_reconnect_rows_are_stale_until_the_hub_confirms_them(peer: Peer) -> None:
    peer.frame(["r", 0, 5], rows(0, 3), [1, 1])
    peer.state.lost()
    assert peer.data.get_producer_df(KEY[0], producer_name="p")[0].attrs["stale"]
    peer.connect(recovered=True)
    assert peer.frame(["r", 0, 5], rows(0, 3), [1, 1]).deliveries == []
    assert not peer.data.get_producer_df(KEY[0], producer_name="p")[0].attrs["stale"]


def test_a_held_key_that_the_hub_does_not_send_again_is_asked_for(peer: Peer) -> None:
    peer.frame(["r", 0, 5], rows(0, 3), [1, 1])
    peer.connect(recovered=True)
    assert peer.state.deadline == 30.0
    (request,) = peer.state.tick(30.0).requests
    assert request["type"] == "resync"


def test_rows_that_cannot_be_stored(peer: Peer) -> None:
    peer.frame(["r", 0, 5], rows(0, 3), [1, 1])
    off_grid = Columns.from_mapping({"date": [START_MS + 3 * STEP_MS + 1], "close": [1.0]})
    step = peer.frame(["r", 5, 6], off_grid)
    assert isinstance(only(step).message, GenericMessage)
    assert [r["type"] for r in step.requests] == ["resync"]
    assert only(peer.frame(["r", 0, 6], rows(0, 4), [1, 1])).snapshot


def test_a_snapshot_that_cannot_be_stored_is_not_asked_for_for_ever(peer: Peer) -> None:
    crooked = Columns.from_mapping({"date": [START_MS, START_MS + 1], "close": [1.0, 2.0]})
    step = peer.frame(["r", 0, 6], crooked, [1, 1])
    assert isinstance(only(step).message, GenericMessage)
    assert step.requests == []
    assert peer.state.deadline is None


def test_signals_are_removed_on_receipt() -> None:
    peer = Peer(remove_signals=True)
    peer.connect()
    columns = rows(0, 2, enter_long=[1, 0], enter_tag=["a", None])
    peer.give({"type": "hub.schema", "schema": columns.schema.id, "data": columns.schema.data()})
    message = only(peer.frame(["r", 0, 1], columns, [1, 1])).message
    assert isinstance(message, AnalyzedDf)
    assert [message.df.row(i)[2:] for i in range(2)] == [[0, None], [0, None]]
    frame, _ = peer.data.get_producer_df(KEY[0], producer_name="p")
    assert frame["enter_long"].tolist() == [0, 0]


def test_values_of_state_are_delivered_once_per_revision(peer: Peer) -> None:
    message = {"type": "whitelist", "bot": "alpha", "key": [], "rev": ["r", 0, 1], "data": ["A/B"]}
    assert only(peer.give(message)).message == Whitelist(data=["A/B"])
    assert peer.give(message).deliveries == []
    assert only(peer.give(message | {"rev": ["r", 0, 2], "data": []})).message == Whitelist(data=[])
    assert peer.data.get_producer_pairs("p") == []
    assert only(peer.give(message | {"rev": ["s", 0, 1]})).message == Whitelist(data=["A/B"])
    candle = {"type": "new_candle", "bot": "alpha", "key": list(KEY), "rev": ["r", 0, 1], "data": list(KEY)}
    delivery = only(peer.give(candle))
    assert delivery.message == NewCandle(data=FrameKey(*KEY))
    assert delivery.key == FrameKey(*KEY)


def test_candle_complete(peer: Peer) -> None:
    data = {
        "bot": "alpha",
        "timeframe": "5m",
        "candle_ms": 5,
        "pairs": ["A"],
        "missing": ["B"],
        "deadline": True,
        "x": 1,
    }
    delivery = only(peer.give({"type": "hub.candle_complete", "bot": "alpha", "ts": 6, "data": data}))
    assert delivery.message == CandleComplete(
        timeframe="5m", candle_ms=5, pairs=("A",), missing=("B",), deadline=True
    )
    broken = peer.give({"type": "hub.candle_complete", "bot": "alpha", "data": {"pairs": 5}})
    assert isinstance(only(broken).message, GenericMessage)


def test_losses_that_the_hub_tells(peer: Peer) -> None:
    gap = {"type": "hub.gap", "epoch": "e7", "from": 40, "to": 60, "reason": "retention"}
    lost = only(peer.give(gap)).message
    assert isinstance(lost, Lost)
    assert (lost.first, lost.last) == (41, 60)
    dropped = only(peer.give({"type": "hub.dropped", "data": {"topics": {"status": 12}}})).message
    assert isinstance(dropped, Lost)
    assert dropped.topics == ("status",)
    assert "12 status" in dropped.reason


def test_a_place_to_resume_from_is_told_where_it_is_sound() -> None:
    peer = Peer()
    assert advanced(peer.connect()) == Advanced(producer="p", position=Position("e7", 40))
    # That the same offset was resumed says nothing new.
    assert peer.connect(recovered=True).deliveries[-1].topic == "connected"
    lost = peer.connect(60, recovered=False, reason="retention", lost=[41, 60])
    assert [d.topic for d in lost.deliveries] == ["connected", "lost", "advanced"]
    assert advanced(lost).position == Position("e7", 60)
    head = {"type": "hub.position", "epoch": "e7", "from": 60, "offset": 65, "heads": []}
    assert advanced(peer.give(head)) == Advanced(producer="p", position=Position("e7", 65))
    assert only(peer.give(fill(67, 60))).base == 65
    assert peer.give(fill(68, 67)).deliveries[-1].topic == "entry_fill"
    gap = {"type": "hub.gap", "epoch": "e7", "from": 68, "to": 69, "reason": "damaged"}
    told_of = peer.give(head | {"from": 65, "offset": 68, "heads": [["alpha", "entry_fill", 68]]})
    assert advanced(told_of).position.offset == 68
    damaged = peer.give(gap)
    assert [d.topic for d in damaged.deliveries] == ["lost", "advanced"]
    assert damaged.deliveries[0].message == Lost(
        producer="p", topics=(), first=69, last=69, reason="damaged", epoch="e7"
    )


@pytest.mark.parametrize(("offset", "epoch", "reason"), [(3, "e8", "epoch"), (3, "e7", "future")])
def test_what_was_known_of_another_ledger_is_void(offset: int, epoch: str, reason: str, peer: Peer) -> None:
    peer.give(fill(42, 40))
    step = peer.connect(offset, epoch, recovered=False, reason=reason)
    assert [d.topic for d in step.deliveries] == ["connected", "lost", "advanced"]
    assert advanced(step) == Advanced(producer="p", position=Position(epoch, offset), anew=True)
    assert only(peer.give(fill(4, 3, epoch=epoch))).position == Position(epoch, 4)


def test_a_message_of_another_epoch_is_not_delivered_again(peer: Peer) -> None:
    given = only(peer.give(fill(42, 40, mid="a")))
    peer.connect(3, "e8", recovered=False, reason="epoch")
    again = only(peer.give(fill(4, 3, epoch="e8", mid="a")))
    assert again.message == Repeated()
    assert (again.position, again.base, again.mid) == (Position("e8", 4), 3, "a")
    assert again.digest == given.digest is not None
    # Its position was taken, and nothing is missed behind it.
    assert only(peer.give(fill(5, 4, epoch="e8", mid="b"))).message == given.message
    assert peer.state.statistics()["repeated"] == 1
    assert peer.state.statistics()["recent"] == 2


@pytest.mark.parametrize(
    "other",
    [{"mid": "b"}, {"data": {**FILL, "amount": 1}}, {"bot": "beta"}, {"type": "exit_fill"}, {"mid": None}],
)
def test_another_message_of_another_epoch_is_delivered(other: dict[str, Any], peer: Peer) -> None:
    peer.give(fill(42, 40, mid="a"))
    peer.connect(3, "e8", recovered=False, reason="epoch")
    assert only(peer.give(fill(4, 3, epoch="e8", mid="a") | other)).message != Repeated()


def test_within_an_epoch_offsets_decide(peer: Peer) -> None:
    for offset in (42, 43):
        assert only(peer.give(fill(offset, offset - 1 if offset > 42 else 40, mid="a"))).message != Repeated()
    peer.connect(3, "e8", recovered=False, reason="epoch")
    assert only(peer.give(fill(4, 3, epoch="e8", mid="a"))).message == Repeated()
    assert only(peer.give(fill(5, 4, epoch="e8", mid="a"))).message != Repeated()


def test_what_an_earlier_run_acted_on_is_known_in_another_epoch(peer: Peer) -> None:
    digest = only(peer.give(fill(42, 40))).digest
    assert digest is not None
    later = Peer(start=Known("e8", 3, {}, {digest: "e7"}))
    later.connect(3, "e8", recovered=True)
    assert only(later.give(fill(4, 3, epoch="e8"))).message == Repeated()


def test_what_is_remembered_is_bounded(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "REMEMBERED", 2)
    for offset in range(41, 45):
        peer.give(fill(offset, offset - 1, mid=f"m{offset}"))
    assert peer.state.statistics()["recent"] == 2
    peer.connect(3, "e8", recovered=False, reason="epoch")
    assert only(peer.give(fill(4, 3, epoch="e8", mid="m42"))).message != Repeated()
    assert only(peer.give(fill(5, 4, epoch="e8", mid="m44"))).message == Repeated()


def test_a_content_that_no_hub_has_stored_is_delivered_and_not_remembered(peer: Peer) -> None:
    odd = only(peer.give(fill(42, 40, data={**FILL, "amount": 1 << 70})))
    assert (odd.mid, odd.digest) == ("m", None)


def test_held_frames_are_resumed_and_stale_until_the_hub_has_said(peer: Peer) -> None:
    only(peer.frame(["r", 0, 7], rows(0, 3), [1, 1]))
    peer.state.lost()
    asked = peer.state.start(0.0).requests[-1]["data"]["resume"]
    assert asked == {"epoch": "e7", "offset": 40, "keys": [["alpha", "analyzed_df", list(KEY), "r", 7]]}
    peer.connect(recovered=True)
    assert peer.data.get_producer_df(KEY[0], producer_name="p")[0].attrs["stale"]
    since = only(peer.frame(["r", 7, 8], rows(3)))
    assert (since.snapshot, numbers(since.message.df)) == (False, [3])  # type: ignore[union-attr]
    frame, _ = peer.data.get_producer_df(KEY[0], producer_name="p")
    assert (len(frame), frame.attrs["stale"]) == (4, False)
    peer.state.lost()
    peer.connect(recovered=True)
    assert told(peer.frame(["r", 8, 8], rows(0, 0))) == []
    assert not peer.data.get_producer_df(KEY[0], producer_name="p")[0].attrs["stale"]
    assert peer.state.deadline is None


def test_a_resume_is_no_larger_than_the_hub_reads(peer: Peer) -> None:
    peer.give({"type": "hub.welcome", "data": {"limits": {"message": 100}}})
    peer.frame(["r", 0, 7], rows(0, 3), [1, 1])
    assert "keys" not in peer.state.start(0.0).requests[-1]["data"]["resume"]


def test_what_an_earlier_run_acted_on_is_a_duplicate() -> None:
    peer = Peer(start=Known("e7", 40, {("alpha", "entry_fill"): 44}))
    peer.connect(40, recovered=True)
    assert peer.give(fill(44, 40)).deliveries == []
    assert only(peer.give(fill(46, 44))).position == Position("e7", 46)


def test_a_hub_that_goes_on_from_below_is_not_believed_to_be_new(peer: Peer) -> None:
    peer.give(fill(42, 40))
    assert only(peer.connect(38, recovered=True)).message == Connected(producer="p", resumed=True)
    assert peer.give(fill(42, 40)).deliveries == []


def test_a_gap_of_another_epoch_closes(peer: Peer) -> None:
    gap = {"type": "hub.gap", "epoch": "e8", "from": 40, "to": 60, "reason": "retention"}
    step = peer.give(gap)
    assert step.close is not None
    assert step.close[0] == 4510


@pytest.mark.parametrize("offset", [-1, 2**53, 2**70])
def test_offsets_that_are_none_move_nothing(offset: int, peer: Peer) -> None:
    assert peer.give(fill(offset, 40)).deliveries == []
    assert peer.give(fill(50, offset)).deliveries == []
    head = {"type": "hub.position", "epoch": "e7", "from": 40, "offset": offset, "heads": []}
    assert peer.give(head).deliveries == []
    assert peer.give(head | {"offset": 50, "heads": [["alpha", "entry_fill", 51]]}).deliveries == []
    assert peer.give({"type": "hub.gap", "epoch": "e7", "from": 0, "to": offset}).deliveries == []
    assert peer.state.positions.standing == Position("e7", 40)
    assert only(peer.give(fill(42, 40))).base == 40


def test_positions(peer: Peer) -> None:
    head = {"type": "hub.position", "epoch": "e7", "from": 40, "offset": 45, "heads": []}
    assert peer.give(head).close is None
    assert peer.state.statistics()["base"] == 45
    assert peer.give(head | {"offset": 50, "heads": [["alpha", "entry_fill", 48, "more"]]}).close is not None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "overlap", "message": "m", "temporary": False}, HubRefused),
        ({"code": "forbidden", "message": "m", "temporary": False}, Unauthorized),
        ({"code": "token_expired", "message": "m"}, Unauthorized),
        ({"code": "overloaded", "message": "m", "temporary": True, "retry_after_ms": 3000}, ConnectionFailed),
        ({"code": "new_code", "message": "m", "temporary": True}, ConnectionFailed),
        ("no map", HubRefused),
    ],
)
def test_a_refused_subscription(error: Any, kind: type[Exception]) -> None:
    peer = Peer()
    number = peer.state.start(0.0).requests[-1]["id"]
    reply = {"type": "hub.reply", "id": number, "ok": False}
    step = peer.give(reply | ({"error": error} if isinstance(error, dict) else {}))
    assert type(step.refused) is kind
    if isinstance(error, dict) and "retry_after_ms" in error:
        assert isinstance(step.refused, ConnectionFailed)
        assert step.refused.retry_after_s == 3.0


def test_the_hubs_words(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    peer.give({"type": "hub.welcome", "data": {"heartbeat_ms": 5000}})
    assert peer.state.heartbeat_s == 5
    peer.give({"type": "hub.drain", "data": {"reconnect_after_ms": 1500}})
    assert peer.state.reconnect_after_s == 1.5
    with caplog.at_level(logging.WARNING):
        peer.give({"type": "hub.error", "data": {"code": "bad_request", "message": "what"}})
    assert "the hub says bad_request: what" in caplog.text
    assert peer.give({"type": "hub.of_the_future", "data": {}}).deliveries == []


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(
    ["analyzed_df", "whitelist", "new_candle", "entry_fill", "status", "hub.reply", "hub.schema", "hub.position",
     "hub.gap", "hub.dropped", "hub.drain", "hub.error", "hub.welcome", "hub.candle_complete", "hub.x", "x"]
)  # fmt: skip
fields = dict.fromkeys(
    (
        "bot",
        "data",
        "ts",
        "epoch",
        "offset",
        "prev",
        "key",
        "rev",
        "part",
        "id",
        "ok",
        "error",
        "from",
        "to",
        "heads",
        "schema",
    ),
    values,
)
hostile = st.fixed_dictionaries({"type": names}, optional=fields)
likely = st.fixed_dictionaries(
    {"type": names, "bot": st.just("alpha"), "data": values},
    optional={
        "epoch": st.just("e7"),
        "offset": st.integers(-1, 99),
        "prev": st.integers(-1, 99),
        "key": st.just(list(KEY)),
        "rev": st.tuples(st.just("r"), st.integers(-1, 5), st.integers(-1, 5)).map(list),
        "part": st.tuples(st.integers(-1, 4), st.integers(-1, 4)).map(list),
    },
)


@given(st.lists(hostile | likely, max_size=8))
def test_whatever_a_peer_sends_raises_nothing(messages: list[dict[str, Any]]) -> None:
    peer = Peer()
    peer.connect()
    for message in messages:
        step = peer.give(message)
        if step.close is not None or step.refused is not None:
            peer.state.lost()
            peer.state.start(peer.now)
    peer.state.tick(100.0)
