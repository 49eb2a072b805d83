"""consumer.revisions, alone and in consumer.state against a model of a hub that conflates."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from consumer_doubles import KEY, numbers, rows
from hypothesis import given
from hypothesis import strategies as st

from consumer.data import ProducerData
from consumer.revisions import Applied, Held, Revisions, Unreadable
from consumer.state import HubState
from hub.frames import v2
from hub.frames.columns import Columns
from hub.protocol.envelope import Broadcast, Rev
from hub.protocol.messages import FrameKey

WIRE_KEY = ("alpha", FrameKey(*KEY))


def frame(
    rev: Any, columns: Columns, *, whole: bool = False, part: tuple[int, int] | None = None
) -> Broadcast:
    data: dict[str, Any] = {"schema": columns.schema.id, "la_ms": 5}
    if whole:
        data |= {"n": columns.n, "cols": v2.to_columns(columns, "msgpack")}
    else:
        data["rows"] = v2.to_rows(columns, "msgpack")
    return Broadcast(type="analyzed_df", bot="alpha", data=data, key=list(KEY), rev=Rev(*rev), part=part)


def snapshot(rev: Any, columns: Columns, part: tuple[int, int] | None = (1, 1)) -> Broadcast:
    return frame(rev, columns, whole=True, part=part)


@pytest.fixture
def revisions() -> Revisions:
    made = Revisions("msgpack")
    schema = rows(0).schema
    assert made.schema(schema.id, schema.data()) is None
    return made


def give(revisions: Revisions, message: Broadcast) -> Applied | Held | Unreadable:
    return revisions.frame(WIRE_KEY, message, 100, 0.0)


def applied(result: Applied | Held | Unreadable) -> tuple[list[int], bool]:
    assert isinstance(result, Applied)
    return numbers(result.columns), result.snapshot


def test_snapshot_then_rows(revisions: Revisions) -> None:
    assert applied(give(revisions, snapshot(("r", 0, 7), rows(0, 3)))) == ([0, 1, 2], True)
    assert applied(give(revisions, frame(("r", 7, 8), rows(3)))) == ([3], False)
    assert applied(give(revisions, frame(("r", 2, 9), rows(4)))) == ([4], False)
    assert revisions.have(WIRE_KEY) == 9
    assert give(revisions, frame(("r", 2, 9), rows(4))) == Held(current=True)
    assert revisions.due(1e9) == []


def test_a_hole_asks_once(revisions: Revisions) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 3)))
    assert give(revisions, frame(("r", 8, 9), rows(4))) == Held(current=False)
    assert give(revisions, frame(("r", 9, 10), rows(5))) == Held(current=False)
    assert revisions.due(0.0) == [WIRE_KEY]
    assert revisions.due(0.0) == []
    assert applied(give(revisions, snapshot(("r", 0, 10), rows(0, 6)))) == ([0, 1, 2, 3, 4, 5], True)
    assert revisions.due(1e9) == []


def test_asking_is_repeated_more_and_more_rarely(revisions: Revisions) -> None:
    give(revisions, frame(("r", 8, 9), rows(4)))
    times = [second for second in range(2000) if revisions.due(float(second))]
    assert times == [0, 15, 45, 105, 225, 465, 765, 1065, 1365, 1665, 1965]


def test_another_rev_epoch_waits_for_its_snapshot(revisions: Revisions) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 3)))
    assert give(revisions, frame(("s", 7, 8), rows(3))) == Held(current=False)
    assert revisions.have(WIRE_KEY) == 7
    assert applied(give(revisions, snapshot(("s", 0, 2), rows(1, 2)))) == ([1, 2], True)
    assert revisions.have(WIRE_KEY) == 2


def test_an_older_snapshot_is_not_taken(revisions: Revisions) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 3)))
    assert give(revisions, snapshot(("r", 0, 6), rows(0, 2))) == Held(current=True)
    assert revisions.have(WIRE_KEY) == 7


def test_parts_replace_when_the_last_is_in(revisions: Revisions) -> None:
    assert give(revisions, snapshot(("r", 0, 7), rows(0, 2), (1, 3))) == Held(current=False)
    assert give(revisions, snapshot(("r", 0, 7), rows(2, 2), (2, 3))) == Held(current=False)
    assert revisions.assembly_bytes > 0
    assert applied(give(revisions, snapshot(("r", 0, 7), rows(4, 1), (3, 3)))) == ([0, 1, 2, 3, 4], True)
    assert revisions.assembly_bytes == 0


@pytest.mark.parametrize(
    "second", [(("r", 0, 7), (3, 3)), (("r", 0, 8), (2, 3)), (("s", 0, 7), (2, 3)), (("r", 0, 7), (2, 4))]
)
def test_parts_that_do_not_fit_are_asked_for_anew(revisions: Revisions, second: Any) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 2), (1, 3)))
    assert give(revisions, snapshot(second[0], rows(2, 2), second[1])) == Held(current=False)
    assert revisions.assembly_bytes == 0
    assert revisions.due(0.0) == [WIRE_KEY]


def test_a_snapshot_that_starts_again(revisions: Revisions) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 2), (1, 2)))
    give(revisions, snapshot(("r", 0, 8), rows(0, 3), (1, 2)))
    assert applied(give(revisions, snapshot(("r", 0, 8), rows(3, 1), (2, 2)))) == ([0, 1, 2, 3], True)


def test_assembly_is_bounded_in_bytes() -> None:
    revisions = Revisions("msgpack", limit_bytes=100)
    schema = rows(0).schema
    revisions.schema(schema.id, schema.data())
    result = give(revisions, snapshot(("r", 0, 7), rows(0, 50), (1, 2)))
    assert result == Unreadable("its snapshot is over 100 bytes")
    assert revisions.assembly_bytes == 0
    assert give(revisions, frame(("r", 7, 8), rows(50))) == Unreadable("given up before")
    assert revisions.due(1e9) == []


def test_a_lost_connection_drops_parts_and_schemas(revisions: Revisions) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 2), (1, 2)))
    revisions.forget_connection()
    assert revisions.assembly_bytes == 0
    assert isinstance(give(revisions, snapshot(("r", 0, 7), rows(0, 2))), Unreadable)


def test_what_is_held_is_told_for_a_resume_and_goes_on(revisions: Revisions) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 3)))
    revisions.forget_connection()
    assert revisions.held(10_000) == [(WIRE_KEY, "r", 7)]
    assert revisions.held(10) == []
    revisions.expect_held(0.0)
    schema = rows(0).schema
    revisions.schema(schema.id, schema.data())
    assert applied(give(revisions, frame(("r", 7, 9), rows(3, 2)))) == ([3, 4], False)
    # It said that it is what is there now: no snapshot has to come.
    assert give(revisions, frame(("r", 9, 9), rows(0, 0))) == Held(current=True)
    assert revisions.deadline is None


def test_that_nothing_changed_since_is_an_answer(revisions: Revisions) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 3)))
    revisions.forget_connection()
    revisions.expect_held(0.0)
    assert give(revisions, frame(("r", 6, 6), rows(0, 0))) == Held(current=False)
    assert give(revisions, frame(("r", 7, 7), rows(0, 0))) == Held(current=True)
    assert revisions.deadline is None


def test_what_cannot_be_read_is_not_resumed(revisions: Revisions) -> None:
    whole = snapshot(("r", 0, 8), rows(0, 4))
    whole.data["n"] = 99
    give(revisions, whole)
    assert revisions.held(10_000) == []


def test_an_unknown_dtype_makes_the_key_unreadable() -> None:
    revisions = Revisions("msgpack")
    problem = revisions.schema("ab", {"columns": [["date", "ts_ms"], ["x", "f16"]], "index": "date"})
    assert problem is not None
    message = Broadcast(
        type="analyzed_df",
        bot="alpha",
        key=list(KEY),
        rev=Rev("r", 0, 1),
        data={"schema": "ab", "n": 0, "cols": []},
    )
    result = give(revisions, message)
    assert isinstance(result, Unreadable)
    assert revisions.due(1e9) == []


def test_a_schema_that_is_not_what_its_id_says() -> None:
    revisions = Revisions("msgpack")
    assert revisions.schema("0123456789abcdef", rows(0).schema.data()) is not None


def test_broken_rows_are_asked_for_and_a_broken_snapshot_is_given_up(revisions: Revisions) -> None:
    give(revisions, snapshot(("r", 0, 7), rows(0, 3)))
    broken = frame(("r", 7, 8), rows(3))
    broken.data["rows"] = [[1]]
    assert isinstance(give(revisions, broken), Unreadable)
    assert revisions.due(0.0) == [WIRE_KEY]
    whole = snapshot(("r", 0, 8), rows(0, 4))
    whole.data["n"] = 99
    assert isinstance(give(revisions, whole), Unreadable)
    assert revisions.due(1e9) == []
    assert applied(give(revisions, snapshot(("s", 0, 1), rows(0, 4)))) == ([0, 1, 2, 3], True)


def test_a_refusal_for_now_and_for_good(revisions: Revisions) -> None:
    give(revisions, frame(("r", 8, 9), rows(4)))
    revisions.due(0.0)
    revisions.refused([WIRE_KEY], 0.0, 2.5)
    assert revisions.deadline == 2.5
    revisions.refused([WIRE_KEY], 0.0, None)
    assert revisions.deadline is None


# --- the model: one key, a producer, a session that conflates, a connection that is cut


class Broken(AssertionError):
    """The receiver is wrong, or was told wrong things."""


class Model:
    """Ported from the specification's state model; drives a real HubState. `bug` breaks the hub or the receiver."""

    def __init__(self, bug: str = "", *, may_lose: bool = False) -> None:
        self.bug, self.may_lose = bug, may_lose
        self.history: list[tuple[int, int]] = []
        self.pending: tuple[int, int] | None = None
        self.pipe: list[dict[str, Any]] = []
        self.connected = self.asked = self.lost = False
        self.rev_epoch = 0
        data = ProducerData()
        self.book = data.book("p")
        self.state = HubState("p", self.book, [])
        if bug == "apply_anyway":
            self.state.revisions._usable = lambda held, rev: held.have is not None  # type: ignore[method-assign]
        if bug == "old_snapshot_wins":
            self.state.revisions._stale_snapshot = lambda held, rev: False  # type: ignore[method-assign]

    @property
    def epoch(self) -> str:
        return f"r{self.rev_epoch}"

    def actions(self) -> list[Callable[[], None]]:
        can: list[Callable[[], None]] = []
        if len(self.history) < 12:
            can += [lambda: self.publish(0), lambda: self.publish(1), lambda: self.publish(2)]
        if not self.connected:
            return [*can, self.connect, self.connect, self.restart]
        if self.pending and len(self.pipe) < 4:
            can.append(self.send)
            if self.may_lose:
                can.append(self.lose)
        if self.asked and len(self.pipe) < 4:
            can.append(self.answer)
        if self.pipe:
            can += [self.receive, self.receive]
        can.append(self.cut)
        return can

    def table(self, n: int) -> dict[int, int]:
        return dict(self.history[:n])

    def publish(self, date: int) -> None:
        self.history.append((date, len(self.history) + 1))
        n = len(self.history)
        if self.connected:
            start = n - 1 if self.pending is None or self.bug == "newest_prev" else self.pending[0]
            self.pending = (start, n)

    def message(
        self, prev: int, n: int, table: dict[int, int], part: list[int] | None = None
    ) -> dict[str, Any]:
        dates = sorted(table)
        columns = Columns.concat([rows(0, 0), *(rows(d, value=float(table[d])) for d in dates)])
        data: dict[str, Any] = {"schema": columns.schema.id}
        if part is None:
            data["rows"] = v2.to_rows(columns, "msgpack")
        else:
            data |= {"n": columns.n, "cols": v2.to_columns(columns, "msgpack")}
        head = {"type": "analyzed_df", "bot": "alpha", "ts": 0, "key": list(KEY)}
        head["rev"] = [self.epoch, prev, n]
        return head | {"data": data} | ({"part": part} if part is not None else {})

    def snapshot(self) -> None:
        n = len(self.history)
        table = self.table(n)
        if self.bug != "snapshot_keeps_pending":
            self.pending = None
        if not table:
            return
        dates = sorted(table)
        halves = [dates[:1], dates[1:]] if len(dates) > 1 else [dates]
        for i, half in enumerate(halves):
            self.pipe.append(self.message(0, n, {d: table[d] for d in half}, [i + 1, len(halves)]))

    def restart(self) -> None:
        """The hub's cache is new: its revisions are of another epoch."""
        self.rev_epoch += 1

    def connect(self) -> None:
        self.connected = True
        requests = self.state.start(0.0).requests
        schema = rows(0).schema
        reply = {"epoch": "e", "offset": 0, "recovered": None}
        self.state.receive({"type": "hub.reply", "id": requests[1]["id"], "ok": True, "data": reply}, 1, 0.0)
        self.state.receive({"type": "hub.schema", "schema": schema.id, "data": schema.data()}, 1, 0.0)
        held = requests[1]["data"].get("resume", {}).get("keys", [])
        for _, _, _, rev_epoch, have in held:
            same = rev_epoch == self.epoch or self.bug == "resume_ignores_epoch"
            # Rows that have left the window come as a snapshot.
            if same and have <= len(self.history) and (have + len(self.history)) % 3:
                return self.resume(have)
        return self.snapshot()

    def resume(self, have: int) -> None:
        n = len(self.history)
        since = self.history[-1:] if self.bug == "resume_at_head" else self.history[have:]
        self.pipe.append(self.message(have, n, dict(since)))

    def send(self) -> None:
        assert self.pending is not None
        start, n = self.pending
        if start == 0:
            # A key that is new to the session is owed whole.
            self.snapshot()
            return
        self.pending = None
        table = dict(self.history[n - 1 : n] if self.bug == "last_row_only" else self.history[start:n])
        self.pipe.append(self.message(start, n, table))

    def lose(self) -> None:
        self.pending, self.lost = None, True

    def answer(self) -> None:
        self.asked = False
        self.snapshot()

    def cut(self) -> None:
        self.connected = self.asked = False
        self.pipe.clear()
        self.pending = None
        self.state.lost()

    def receive(self) -> None:
        step = self.state.receive(self.pipe.pop(0), 1, 0.0)
        if any(request["type"] == "resync" for request in step.requests):
            self.asked = True
            if not self.lost:
                raise Broken("a false alarm")

    def held(self) -> dict[int, int]:
        window = self.book.window("alpha", FrameKey(*KEY))
        if window is None:
            return {}
        return dict(zip(numbers(window), map(int, window.column("close").tolist()), strict=True))

    def check(self) -> None:
        have = self.state.revisions.have(("alpha", FrameKey(*KEY)))
        if have is not None and self.held() != self.table(have):
            raise Broken(f"the table differs at revision {have}: {self.held()} != {self.table(have)}")
        at_rest = self.connected and not self.pending and not self.pipe and not self.asked and not self.lost
        if at_rest and self.history and have != len(self.history):
            raise Broken("stale at rest")

    def play(self, schedule: list[int]) -> None:
        for choice in schedule:
            actions = self.actions()
            actions[choice % len(actions)]()
            self.check()


schedules = st.lists(st.integers(0, 10_000), max_size=50)


@given(schedules)
def test_what_is_held_is_the_producers(schedule: list[int]) -> None:
    Model().play(schedule)


@given(schedules)
def test_losing_a_message_is_noticed(schedule: list[int]) -> None:
    Model(may_lose=True).play(schedule)


@given(schedules, st.sampled_from(["snapshot_keeps_pending", "old_snapshot_wins"]))
def test_variants_that_turned_out_harmless(schedule: list[int], bug: str) -> None:
    Model(bug).play(schedule)


@pytest.mark.parametrize(
    ("bug", "may_lose"),
    [
        ("newest_prev", False),
        ("last_row_only", False),
        ("apply_anyway", True),
        ("resume_at_head", False),
        ("resume_ignores_epoch", False),
    ],
)
def test_broken_variants_are_caught(bug: str, may_lose: bool) -> None:
    generator = random.Random(7)
    for _ in range(500):
        try:
            Model(bug, may_lose=may_lose).play([generator.randrange(10_000) for _ in range(40)])
        except Broken:
            return
    pytest.fail(f"{bug} was not caught in 500 schedules")
