"""consumer.outbox: the machine by itself, then against a hub and a disk that a schedule drives, crashes among it."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import PublishError
from consumer.outbox import ANSWER_S, Ack, Item, Outbox, Stage
from hub.protocol.envelope import Position

SIZE = 10
LIMIT = 6 * SIZE


def outbox(**more: Any) -> Outbox[str]:
    return Outbox(limit_bytes=1000, **more)


def put(box: Outbox[str], name: str, **more: Any) -> Item[str]:
    return box.submit(name, SIZE, mid=name, body=name.encode(), **more)


def sent(box: Outbox[str], now: float = 0.0) -> list[str]:
    """All that may be sent now."""
    return [item.content for item in iter(lambda: box.next_to_send(now), None)]


def ok(number: int, offset: int = 1) -> dict[str, Any]:
    return {"id": number, "ok": True, "data": {"epoch": "e", "offset": offset, "duplicate": False}}


def no(number: int, code: str = "bad_message", **more: Any) -> dict[str, Any]:
    return {"id": number, "ok": False, "error": {"code": code, "message": "m", **more}}


def test_nothing_is_sent_without_a_connection() -> None:
    box = outbox()
    put(box, "a")
    assert sent(box) == []
    box.connected()
    assert sent(box) == ["a"]


def test_an_answer_ends_a_message_once() -> None:
    box = outbox()
    item = put(box, "a")
    assert box.answered(ok(1), 0) is None
    box.connected()
    assert sent(box) == ["a"]
    assert box.answered(ok(1, 7), 0) == (item, Ack(Position("e", 7)))
    assert box.answered(ok(1, 7), 0) is None
    assert (len(box), box.bytes) == (0, 0)


@pytest.mark.parametrize("number", [None, "1", True, 2, 1.0, -1])
def test_an_answer_to_nothing_is_nothing(number: Any) -> None:
    box = outbox()
    put(box, "a")
    box.connected()
    sent(box)
    assert box.answered({"ok": True, "id": number}, 0) is None
    assert box.unanswered == 1


def test_what_is_being_stored_holds_up_what_is_behind_it() -> None:
    box = outbox()
    box.connected()
    a, b = put(box, "a", storing=True), put(box, "b", storing=True)
    put(box, "c")
    assert sent(box) == []
    box.stored(b)
    assert sent(box) == []
    box.stored(a)
    assert sent(box) == ["a", "b", "c"]


def test_what_could_not_be_stored_is_never_sent() -> None:
    box = outbox()
    box.connected()
    a = put(box, "a", storing=True)
    put(box, "b")
    box.not_stored(a)
    assert sent(box) == ["b"]
    assert put(box, "a").number == 3


def test_after_a_refusal_for_now_one_message_tries_the_hub() -> None:
    box = outbox()
    box.connected(10)
    for name in "abcd":
        put(box, name)
    assert sent(box) == list("abcd")
    for number in (1, 2, 3, 4):
        assert box.answered(no(number, "overloaded", temporary=True, retry_after_ms=2000), 10.0) is None
    assert (sent(box, 11.9), box.pause_s(11.5)) == ([], 0.5)
    assert sent(box, 12.0) == ["a"]
    assert box.answered(ok(1), 12.0) is not None
    assert sent(box, 12.0) == ["b", "c", "d"]
    assert box.retried == 4


def test_a_hub_that_does_not_say_for_how_long_is_asked_ever_more_rarely() -> None:
    box, now, waits = outbox(), 0.0, []
    box.connected()
    put(box, "a")
    for _ in range(8):
        assert sent(box, now) == ["a"]
        box.answered(no(1, "not_durable", temporary=True), now)
        waits.append(box.pause_s(now))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_refusal_of_what_is_expendable_ends_it_and_holds_nothing_up() -> None:
    box = outbox()
    box.connected()
    item = box.submit("a", SIZE, expendable=True)
    sent(box)
    ended = box.answered(no(1, "overloaded", temporary=True, retry_after_ms=9000), 0)
    assert ended is not None
    assert ended[0] is item
    assert isinstance(ended[1], PublishError)
    assert ended[1].temporary
    assert box.pause_s(0) == 0


def test_a_repetition_is_the_same_message_or_a_conflict() -> None:
    box = outbox()
    item = put(box, "a")
    assert box.repeated("a", b"a") is item
    assert box.repeated("b", b"a") is None
    with pytest.raises(PublishError, match="id_conflict: mid 'a' is that of another message"):
        box.repeated("a", b"b")
    box.end(item)
    assert box.repeated("a", b"b") is None


def test_a_hub_that_owes_an_answer_for_too_long_is_noticed() -> None:
    box = outbox()
    box.connected()
    assert box.overdue_at() is None
    put(box, "a")
    box.submit("large", 4096 * 100)
    assert sent(box, 5.0) == ["a", "large"]
    assert box.overdue_at() == pytest.approx(5 + ANSWER_S, abs=0.01)
    box.answered(ok(1), 6.0)
    assert box.overdue_at() == pytest.approx(5 + ANSWER_S + 100)
    box.connection_lost()
    assert box.overdue_at() is None


def test_one_message_larger_than_the_bound_has_room_alone() -> None:
    box = outbox()
    assert box.has_room(10_000)
    box.submit("large", 10_000)
    assert not box.has_room(1)


# --- schedules


@dataclass
class Sent:
    """A message on its way to the hub."""

    number: int
    mid: str
    ledger: bool
    body: str


class World:
    """A publisher's process that may die at any moment, its disk, a connection that keeps order, and a hub with dedupe.

    The promise: a ledger message whose `submit` returned is acknowledged, refused for good, or on disk; and the hub took the
    ledger's messages in the order of submit, each once. What happens is drawn from `chance`.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = 0.0
        self.mids = itertools.count()
        self.disk: dict[int, tuple[str, str]] = {}
        self.returned: list[str] = []
        self.turned_down: set[str] = set()
        self.ended: dict[str, str] = {}
        self.taken: list[str] = []
        self.bodies: dict[str, str] = {}
        self.refused: set[str] = set()
        self.boot()

    def boot(self) -> None:
        """A new process, on the same disk."""
        self.box: Outbox[str] = Outbox(limit_bytes=LIMIT, first=max(self.disk, default=0) + 1)
        self.unremoved: list[int] = []
        self.wire: list[Sent] = []
        self.replies: list[dict[str, Any]] = []
        self.held: str | None = None
        self.up = False
        for number, (mid, body) in sorted(self.disk.items()):
            self.box.submit(mid, SIZE, mid=mid, body=body.encode(), number=number)

    # the bot

    def submit(self) -> None:
        if not self.box.has_room(SIZE):
            return
        mid, kind = f"m{next(self.mids)}", self.chance.choice(["ledger", "ledger", "state", "expendable"])
        if kind == "ledger":
            self.box.submit(mid, SIZE, mid=mid, body=mid.encode(), storing=True)
        else:
            self.box.submit(mid, SIZE, expendable=kind == "expendable")

    def repeat(self) -> None:
        if not self.returned:
            return
        mid = self.chance.choice(self.returned)
        waiting = mid in {item.mid for item in self.box}
        assert (self.box.repeated(mid, mid.encode()) is not None) is waiting
        if waiting:
            with pytest.raises(PublishError, match="id_conflict"):
                self.box.repeated(mid, b"another")

    # the disk

    def commit(self) -> None:
        """One commit of what is queued, in order, and of the removals before it; or none, of a full disk."""
        full = self.chance.random() < 0.2
        for item in self.storing()[: self.chance.randint(1, 4)]:
            assert item.mid is not None
            if full:
                self.box.not_stored(item)
                self.turned_down.add(item.mid)
            else:
                self.disk[item.number] = (item.mid, item.body.decode())
                self.box.stored(item)
                self.returned.append(item.mid)
        if not full:
            self.remove()

    def remove(self) -> None:
        for number in self.unremoved:
            self.disk.pop(number, None)
        self.unremoved = []

    def storing(self) -> list[Item[str]]:
        return [item for item in self.box if item.stage is Stage.STORING]

    # the connection

    def connect(self) -> None:
        if not self.up:
            self.in_flight, self.up, self.held = self.chance.randint(1, 4), True, None
            self.box.connected(self.in_flight)

    def lose(self) -> None:
        """The connection ends; some of what was under way still reaches the hub, and its answers nobody."""
        if self.up:
            for _ in range(self.chance.randint(0, len(self.wire))):
                self.answer()
            self.box.connection_lost()
            self.wire, self.replies, self.up = [], [], False

    def wait(self) -> None:
        self.now += self.chance.choice([0.25, 0.5, 1.0, 40.0])

    def send(self) -> None:
        before = {item.number: item.stage for item in self.box}
        item = self.box.next_to_send(self.now)
        if item is None:
            return
        lower = {stage for number, stage in before.items() if number < item.number}
        assert lower <= {Stage.UNANSWERED}, "the lowest unanswered goes first"
        assert self.now >= self.box.paused_until
        assert item.mid not in self.turned_down
        self.wire.append(Sent(item.number, item.content, item.mid is not None, item.body.decode()))

    # the hub

    def answer(self, how: str = "") -> None:
        if not self.wire:
            return
        message = self.wire.pop(0)
        how = how or self.chance.choice(["ok", "ok", "later", "never"])
        if message.ledger and self.held not in (None, message.mid):
            how = "later"
        elif message.ledger:
            self.held = message.mid if how == "later" else None
        if message.mid in self.refused:
            how = "never"
        if how == "later":
            self.replies.append(no(message.number, "overloaded", temporary=True, retry_after_ms=500))
        elif how == "ok" or message.mid in self.bodies:
            if message.ledger and message.mid not in self.bodies:
                self.taken.append(message.mid)
            assert self.bodies.setdefault(message.mid, message.body) == message.body
            self.replies.append(ok(message.number))
        else:
            self.refused.add(message.mid)
            self.replies.append(no(message.number))

    def read(self) -> None:
        ended = self.box.answered(self.replies.pop(0), self.now) if self.replies else None
        if ended is None or ended[0].mid is None:
            return
        item, answer = ended
        self.unremoved.append(item.number)
        end = "acknowledged" if isinstance(answer, Ack) else "refused"
        assert self.ended.setdefault(item.content, end) == end
        assert end == ("refused" if item.mid in self.refused else "acknowledged")

    # the promise

    def check(self) -> None:
        self.box.check_invariants()
        assert self.box.bytes <= LIMIT
        assert self.box.unanswered <= (self.in_flight if self.up else 0)
        on_disk = {mid for mid, _ in self.disk.values()}
        waiting = {item.mid for item in self.box}
        for mid in self.returned:
            assert mid in self.ended or (mid in on_disk and mid in waiting), mid
        numbers = [int(mid[1:]) for mid in self.taken]
        assert numbers == sorted(set(numbers))

    def settle(self) -> None:
        """With a hub that takes everything the outbox empties."""
        self.lose()
        for item in self.storing():
            self.box.not_stored(item)
        self.connect()
        for _ in range(3 * len(self.box) + 3):
            self.now = max(self.now, self.box.paused_until)
            self.send()
            self.answer("ok")
            self.read()
            self.check()
        assert len(self.box) == 0
        assert set(self.returned) <= set(self.ended)


STEPS: list[tuple[Callable[[World], None], int]] = [
    (World.submit, 4), (World.repeat, 1), (World.commit, 3), (World.remove, 1), (World.boot, 1), (World.connect, 3),
    (World.lose, 1), (World.wait, 2), (World.send, 6), (World.answer, 4), (World.read, 4),
]  # fmt: skip
DECK = [step for step, times in STEPS for _ in range(times)]


def play(steps: Iterable[Callable[[World], None]], chance: random.Random) -> None:
    world = World(chance)
    for step in steps:
        step(world)
        world.check()
    world.settle()


@settings(max_examples=100)
@given(st.lists(st.sampled_from(DECK), max_size=60), st.integers(0, 1 << 32))
def test_a_schedule_loses_nothing(steps: list[Callable[[World], None]], seed: int) -> None:
    play(steps, random.Random(seed))


def test_many_schedules_lose_nothing() -> None:
    for seed in range(int(os.environ.get("SCHEDULES", "400"))):
        chance = random.Random(seed)
        try:
            play(chance.choices(DECK, k=80), chance)
        except Exception:
            print(f"seed {seed}")
            raise
