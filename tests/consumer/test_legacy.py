"""consumer.legacy: freqtrade's wire as it comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from consumer_doubles import KEY, START_MS, numbers, rows
from hypothesis import given
from hypothesis import strategies as st

from consumer.data import ProducerData
from consumer.legacy import LegacyState
from consumer.step import Step
from hub.frames.columns import Columns
from hub.frames.freqtrade import encode_split
from hub.protocol.localbot import Connected, Delivery
from hub.protocol.messages import (
    REGISTRY,
    TOPICS,
    AnalyzedDf,
    EntryFill,
    ExceptionMessage,
    FrameKey,
    GenericMessage,
    NewCandle,
    Whitelist,
)

SAMPLES = Path(__file__).parent.parent / "wire" / "freqtrade"
LA = "2026-11-22T14:01:01.620363+00:00"


def frame(columns: Columns, key: Any = KEY, la: str = LA) -> dict[str, Any]:
    df = {"__type__": "dataframe", "__value__": encode_split(columns)}
    return {"type": "analyzed_df", "data": {"key": list(key), "df": df, "la": la}}


def empty(pair: str = KEY[0]) -> dict[str, Any]:
    df = {"__type__": "dataframe", "__value__": '{"columns":[],"index":[],"data":[]}'}
    data = {"key": [pair, "5m", "spot"], "df": df, "la": "1970-01-01T00:00:00+00:00"}
    return {"type": "analyzed_df", "data": data}


class Peer:
    """A LegacyState and what it did."""

    def __init__(self, **options: Any) -> None:
        self.data = ProducerData(remove_signals=options.pop("remove_signals", False))
        self.state = LegacyState("p", self.data.book("p"), **options)
        self.now = 0.0

    def give(self, message: dict[str, Any]) -> Step:
        return self.state.receive(message, 100, self.now)

    def live(self, first: int, n: int = 1, **more: Any) -> Step:
        return self.give(frame(rows(first, n, **more)))

    def at(self, now: float) -> Step:
        self.now = now
        return self.state.tick(now)

    def held(self) -> list[int]:
        window = self.data.book("p").window("p", FrameKey(*KEY))
        return [] if window is None else numbers(window)

    def attrs(self) -> dict[Any, Any]:
        return dict(self.data.get_producer_df(KEY[0], producer_name="p")[0].attrs)


@pytest.fixture
def peer() -> Peer:
    """Connected, with candles 0..4."""
    made = Peer()
    made.state.start(0.0)
    made.live(0, 5)
    return made


def only(step: Step) -> Delivery:
    (delivery,) = step.deliveries
    return delivery


def told(step: Step) -> list[int]:
    """Candles that a step delivered, in order."""
    found: list[int] = []
    for delivery in step.deliveries:
        assert isinstance(delivery.message, AnalyzedDf)
        found += numbers(delivery.message.df)
    return found


def asked(step: Step) -> list[tuple[int, str | None]]:
    return [(r["data"]["limit"], r["data"]["pair"]) for r in step.requests if r["type"] == "analyzed_df"]


def test_start_subscribes_so_that_an_older_bot_understands() -> None:
    step = Peer().state.start(0.0)
    assert only(step).message == Connected(producer="p")
    subscriptions = [set(r["data"]) for r in step.requests if r["type"] == "subscribe"]
    assert subscriptions[0] == {"whitelist", "analyzed_df"}
    assert subscriptions[1] == TOPICS - {"liquidation_warning"}
    assert subscriptions[2] == TOPICS
    assert [r["type"] for r in step.requests][3:] == ["whitelist", "analyzed_df"]
    assert asked(step) == [(1500, None)]


def test_start_asks_for_what_is_wanted_only() -> None:
    step = Peer(topics=["entry_fill", "of_the_future"]).state.start(0.0)
    assert step.requests == [{"type": "subscribe", "data": ["entry_fill"]}]
    assert asked(Peer(limit=300).state.start(0.0)) == [(300, None)]
    assert asked(Peer(limit=0).state.start(0.0)) == []


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_message_of_a_real_bot_is_typed(path: Path) -> None:
    peer = Peer()
    peer.state.start(0.0)
    message = json.loads(path.read_text())
    step = peer.give(message)
    if message["type"] == "analyzed_df":
        # A first live row waits for the candles before it; then it comes.
        assert step.deliveries == []
        (step,) = [s for s in (peer.at(t) for t in (5.0, 30.0, 100.0, 200.0)) if s.deliveries]
    delivery = only(step)
    assert type(delivery.message) is REGISTRY[message["type"]]
    assert (delivery.topic, delivery.bot, delivery.producer) == (message["type"], "p", "p")
    assert not delivery.message.extra
    assert delivery.position is None


def test_the_two_shapes_of_exception() -> None:
    peer = Peer()
    assert only(peer.give({"type": "exception", "data": "Invalid"})).message == ExceptionMessage(
        data="Invalid"
    )
    assert only(peer.give({"type": "exception", "status": "dead"})).message == ExceptionMessage(status="dead")


def test_unknown_types_and_unknown_fields_survive() -> None:
    peer = Peer()
    assert only(peer.give({"type": "x", "a": 1})).message == GenericMessage(name="x", data={"a": 1})
    assert only(peer.give({"type": "x", "data": [1]})).message == GenericMessage(name="x", data=[1])
    fill = only(peer.give({"type": "entry_fill", "trade_id": 1, "pair": "A/B", "colour": "red"})).message
    assert isinstance(fill, EntryFill)
    assert fill.extra == {"colour": "red"}
    broken = only(peer.give({"type": "entry_fill", "trade_id": "one"})).message
    assert isinstance(broken, GenericMessage)
    assert broken.data == {"trade_id": "one"}


def test_an_empty_whitelist_is_data() -> None:
    peer = Peer()
    peer.give({"type": "whitelist", "data": ["A/B"]})
    assert peer.data.get_producer_pairs("p") == ["A/B"]
    assert only(peer.give({"type": "whitelist", "data": []})).message == Whitelist(data=[])
    assert peer.data.get_producer_pairs("p") == []


def test_a_new_candle_has_its_key() -> None:
    delivery = only(Peer().give({"type": "new_candle", "data": list(KEY)}))
    assert (delivery.message, delivery.key) == (NewCandle(data=FrameKey(*KEY)), FrameKey(*KEY))


def test_the_first_answer_is_a_snapshot_and_live_rows_follow(peer: Peer) -> None:
    assert peer.held() == [0, 1, 2, 3, 4]
    step = peer.live(5)
    assert told(step) == [5]
    assert not only(step).snapshot
    assert told(peer.live(5, value=9.0)) == [5]
    other = peer.give(frame(rows(0, 3), key=("ETH/USDT", "5m", "spot")))
    assert only(other).snapshot


def test_a_live_row_before_the_first_answer_waits_for_it() -> None:
    peer = Peer()
    peer.state.start(0.0)
    assert peer.live(7).deliveries == []
    assert told(peer.live(0, 7)) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert peer.held() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert peer.state.deadline is None


def test_a_live_block_of_a_hub_before_the_first_answer_waits_for_it() -> None:
    peer = Peer()
    peer.state.start(0.0)
    block = frame(rows(6, 2))
    block["data"]["live"] = True
    assert peer.give(block).deliveries == []
    assert told(peer.live(0, 7)) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert told(peer.live(8, 2)) == [8, 9]
    block = frame(rows(9, 3))
    block["data"]["live"] = True
    assert told(peer.give(block)) == [10, 11]
    assert peer.state.deadline is None


def test_a_pair_with_a_single_row_does_not_wait_for_others() -> None:
    peer = Peer()
    peer.state.start(0.0)
    assert peer.live(7).deliveries == []
    assert asked(peer.at(5.0)) == [(1500, KEY[0])]
    assert told(peer.live(7)) == [7]
    assert told(peer.live(8)) == [8]
    assert peer.state.deadline is None


def test_the_first_row_of_a_producer_that_had_none_is_the_end_of_its_first_analysis() -> None:
    """A bot that starts answers before it has analysed anything, and then broadcasts the last row only."""
    peer = Peer()
    peer.state.start(0.0)
    peer.give(empty())
    step = peer.live(7)
    assert (step.deliveries, asked(step)) == ([], [(1500, KEY[0])])
    assert asked(peer.live(8)) == []
    assert told(peer.live(0, 9)) == list(range(9))
    assert peer.state.deadline is None


def test_an_answer_from_before_the_row_that_waits_asks_for_the_rest() -> None:
    peer = Peer()
    peer.state.start(0.0)
    assert peer.live(7).requests == []
    assert asked(peer.give(empty())) == [(1500, KEY[0])]
    assert told(peer.live(0, 8)) == list(range(8))


def test_a_producer_that_has_one_row_or_none_when_asked_is_believed() -> None:
    for answer in (frame(rows(7)), empty()):
        peer = Peer()
        peer.state.start(0.0)
        peer.give(empty())
        assert peer.live(7).deliveries == []
        assert told(peer.give(answer)) == [7]
        assert told(peer.live(8)) == [8]


def test_rows_that_wait_survive_a_reconnect_to_a_producer_that_forgot_them() -> None:
    peer = Peer()
    peer.state.start(0.0)
    peer.live(0, 3)
    peer.live(6)
    peer.live(7)
    peer.state.lost()
    assert peer.state.deadline is None
    peer.state.start(100.0)
    assert peer.state.deadline == 105.0
    assert told(peer.live(20, 3)) == [6, 7, 20, 21, 22]
    assert peer.held() == [0, 1, 2, 6, 7, 20, 21, 22]


def test_a_new_pair_is_asked_for_alone() -> None:
    peer = Peer()
    peer.state.start(0.0)
    peer.now = 500.0
    step = peer.live(7)
    assert (asked(step), step.deliveries) == ([(1500, KEY[0])], [])
    assert told(peer.live(0, 8)) == list(range(8))


def test_a_young_pair_is_accepted() -> None:
    peer = Peer()
    peer.state.start(0.0)
    assert told(peer.live(0, 3)) == [0, 1, 2]
    assert peer.state.deadline is None


def test_without_initial_candles_what_comes_live_is_all() -> None:
    peer = Peer(limit=0)
    peer.state.start(0.0)
    assert told(peer.live(7)) == [7]
    assert asked(peer.live(10)) == [(3, KEY[0])]


def test_a_hole_is_filled_before_the_row_behind_it(peer: Peer) -> None:
    step = peer.live(8)
    assert (step.deliveries, asked(step)) == ([], [(4, KEY[0])])
    assert peer.held() == [0, 1, 2, 3, 4]
    assert (peer.attrs()["stale"], peer.attrs()["missing"]) == (True, 3)
    assert told(peer.live(5, 4)) == [5, 6, 7, 8]
    assert (peer.attrs()["stale"], peer.attrs()["missing"]) == (False, 0)


def test_rows_that_come_meanwhile_wait_in_order_and_ask_for_nothing(peer: Peer) -> None:
    peer.live(8)
    assert peer.live(9).requests == []
    assert peer.live(9, value=1.5).requests == []
    step = peer.live(5, 4)
    assert told(step) == [5, 6, 7, 8, 9]
    last = step.deliveries[-1].message
    assert isinstance(last, AnalyzedDf)
    assert last.df.column("close").tolist() == [1.5]


def test_an_answer_counts_for_the_rows_that_it_has(peer: Peer) -> None:
    peer.live(8, value=1.0)
    assert told(peer.live(5, 5, value=2.0)) == [5, 6, 7, 8, 9]
    window = peer.data.book("p").window("p", FrameKey(*KEY))
    assert window is not None
    assert window.column("close").tolist()[-5:] == [2.0] * 5


def test_a_hole_that_comes_back_is_an_outage(peer: Peer) -> None:
    peer.live(8)
    assert told(peer.live(7, 2)) == [7, 8]
    assert peer.held() == [0, 1, 2, 3, 4, 7, 8]
    assert peer.state.deadline is None
    assert peer.live(9).requests == []


def test_an_answer_delivers_only_what_changed(peer: Peer) -> None:
    peer.live(7)
    step = peer.live(0, 8)
    assert told(step) == [5, 6, 7]
    assert not only(step).snapshot


def test_no_answer_is_waited_for_three_times(peer: Peer) -> None:
    peer.live(8)
    assert peer.state.deadline == 10.0
    assert asked(peer.at(9.9)) == []
    assert asked(peer.at(10.0)) == [(4, KEY[0])]
    assert asked(peer.at(30.0)) == [(4, KEY[0])]
    assert told(peer.at(70.0)) == [8]
    assert peer.held() == [0, 1, 2, 3, 4, 8]
    assert peer.state.deadline is None


def test_requests_ask_for_as_far_back_as_it_takes_by_then(peer: Peer) -> None:
    peer.live(8)
    peer.live(12)
    assert asked(peer.at(10.0)) == [(8, KEY[0])]


def test_an_empty_answer_ends_the_waiting(peer: Peer) -> None:
    peer.live(8)
    assert told(peer.give(empty())) == [8]
    assert peer.give(empty("X/Y")).deliveries == []
    assert peer.give(empty("X/Y")).requests == []


def test_a_hole_wider_than_the_window_is_replaced(peer: Peer) -> None:
    assert asked(peer.live(5000)) == [(1500, KEY[0])]
    assert told(peer.live(3501, 1500)) == list(range(3501, 5001))
    assert peer.held() == list(range(3501, 5001))


def test_after_a_reconnect_the_first_answer_counts_whatever_its_size(peer: Peer) -> None:
    peer.state.lost()
    assert peer.attrs()["stale"]
    assert asked(peer.state.start(100.0)) == [(1500, None)]
    assert told(peer.live(3, 5)) == [5, 6, 7]
    assert not peer.attrs()["stale"]
    peer.state.lost()
    peer.state.start(200.0)
    assert told(peer.live(90, 5)) == [90, 91, 92, 93, 94]


def test_late_candles_are_patched(peer: Peer) -> None:
    assert told(peer.live(2, value=7.0)) == [2]
    assert peer.held() == [0, 1, 2, 3, 4]


def test_too_big_a_frame_lowers_what_is_asked_for() -> None:
    peer = Peer()
    limits = []
    while peer.state.shrink():
        requests = asked(peer.state.start(0.0))
        limits.append(requests[0][0] if requests else 0)
    assert limits == [750, 375, 187, 100, 0]
    peer.live(0, 3)
    assert told(peer.live(9)) == [9]


def test_garbage_in_a_frame_is_delivered_as_a_problem(peer: Peer) -> None:
    for value in ("", "[]", '{"columns":["date"],"index":[0],"data":[["x"]]}', 5, None):
        message = frame(rows(5))
        message["data"]["df"]["__value__"] = value
        delivery = only(peer.give(message))
        assert isinstance(delivery.message, GenericMessage)
        assert delivery.message.problem
    assert peer.held() == [0, 1, 2, 3, 4]
    assert told(peer.live(5)) == [5]


def test_rows_off_the_grid_are_refused(peer: Peer) -> None:
    off_grid = Columns.from_mapping({"date": [START_MS + 5 * 300_000 + 1], "close": [1.0]})
    assert isinstance(only(peer.give(frame(off_grid))).message, GenericMessage)
    assert peer.held() == [0, 1, 2, 3, 4]


def test_signals_are_removed_on_receipt() -> None:
    peer = Peer(remove_signals=True)
    peer.state.start(0.0)
    message = only(peer.live(0, 2, enter_long=[1.0, 0.0], enter_tag=["a", "b"])).message
    assert isinstance(message, AnalyzedDf)
    assert [message.df.row(i)[2:] for i in range(2)] == [[0.0, None], [0.0, None]]


def test_dtypes_do_not_drift_from_row_to_row() -> None:
    peer = Peer()
    peer.state.start(0.0)
    peer.live(0, 3, enter_long=[1.0, None, None], enter_tag=["a", None, None], ok=[True, False, True])
    for i in range(3, 9):
        peer.live(i, enter_long=[None], enter_tag=[None], ok=[True])
        peer.live(i, enter_long=[1.0], enter_tag=["007"], ok=[False])
    window = peer.data.book("p").window("p", FrameKey(*KEY))
    assert window is not None
    assert [f.dtype for f in window.schema.fields] == ["ts_ms", "f8", "f8", "str", "bool"]
    assert window.row(8)[2:] == [1.0, "007", False]


def test_buffers_are_bounded(peer: Peer) -> None:
    for i in range(10, 2000):
        peer.live(i * 2)
    assert peer.state.statistics()["waiting_rows"] == 1500


# --- a model: a producer, a wire that is cut, answers in any order


class World:
    """A freqtrade producer that never has holes, whose first analysis is of four candles, and a consumer of it."""

    def __init__(self) -> None:
        self.peer = Peer()
        self.newest = -1
        self.pipe: list[dict[str, Any]] = []
        self.owed: list[tuple[int, str | None]] = []
        self.delivered: list[int] = []
        self.connected = False
        self.cut = False

    def step(self, step: Step) -> None:
        self.owed += asked(step)
        for delivery in step.deliveries:
            if isinstance(delivery.message, AnalyzedDf):
                self.delivered += numbers(delivery.message.df)

    def analyse(self) -> None:
        self.newest = max(self.newest + 1, 3)

    def answer(self) -> None:
        limit, _ = self.owed.pop(0)
        first = max(0, self.newest - limit + 1)
        self.pipe.append(frame(rows(first, self.newest - first + 1)) if self.newest >= 0 else empty())

    def play(self, choice: int) -> None:
        act = choice % 10
        if not self.connected:
            if act < 5:
                self.analyse()
            else:
                self.connected = True
                self.step(self.peer.state.start(self.peer.now))
        elif act < 3:
            self.analyse()
            self.pipe.append(frame(rows(self.newest)))
        elif act < 6 and self.pipe:
            self.step(self.peer.give(self.pipe.pop(0)))
        elif act < 8 and self.owed:
            self.answer()
        elif act == 9 and choice % 3 == 0:
            self.connected, self.pipe, self.owed = False, [], []
            self.peer.state.lost()

    def finish(self) -> None:
        """Let everything arrive, within the time that requests are waited for."""
        if not self.connected:
            self.connected = True
            self.step(self.peer.state.start(self.peer.now))
        while self.pipe or self.owed:
            if self.owed:
                self.answer()
            self.step(self.peer.give(self.pipe.pop(0)))


@given(st.lists(st.integers(0, 10_000), max_size=80))
def test_the_consumer_ends_with_what_the_producer_has(schedule: list[int]) -> None:
    world = World()
    for choice in schedule:
        world.play(choice)
        held = world.peer.held()
        assert held == list(range(held[0], held[-1] + 1)) if held else True, (
            "a hole that the producer has not"
        )
    world.finish()
    assert world.peer.held() == list(range(world.newest + 1))
    assert list(dict.fromkeys(world.delivered)) == list(range(world.newest + 1)), "first deliveries in order"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
texts = st.text(max_size=30) | values.map(lambda value: json.dumps(value))
frames = st.fixed_dictionaries(
    {
        "key": st.just(list(KEY)) | values,
        "df": st.fixed_dictionaries({"__type__": st.just("dataframe"), "__value__": texts}) | values,
        "la": st.just(LA) | values,
    }
)
hostile = st.builds(
    lambda name, more, data: {**more, "type": name, **data},
    st.sampled_from(sorted(TOPICS)) | st.text(max_size=5),
    st.dictionaries(st.text(max_size=6), values, max_size=3),
    st.fixed_dictionaries({}, optional={"data": frames | values}),
)


@given(st.lists(hostile, max_size=6))
def test_whatever_a_peer_sends_raises_nothing(messages: list[dict[str, Any]]) -> None:
    peer = Peer()
    peer.state.start(0.0)
    for message in messages:
        peer.give(message)
    for now in (30.0, 60.0, 120.0, 240.0):
        peer.at(now)
