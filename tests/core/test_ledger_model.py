"""Numbering, resume and positions: the real core and the real consumer's positions under random schedules.

The rules of wire-v2 §5 were checked by an exhaustive model; here its schedules drive the code. One world has a log with retention
and damage, a hub that is killed and started again on it, and clients of a few filters that share groups, fall behind, are cut,
resume and change their filter. After each step that tells a client something the model's invariants are checked:

- every claim is true: `prev` of a message, and `from`, `offset`, `heads` of a position;
- no message is delivered before its commit, or twice to one client;
- everything of a client's filter up to what it knows was delivered or declared lost (no undetected hole);
- no alarm, unless the schedule dropped a frame on its way, and then only for a message that is really missing;
- at rest every client is at the head, with all of its filter.

`PLANTED` are bugs, each put into the world by replacing one function of the product, and each must be caught.

A long run: `python -m tests.core.test_ledger_model 5000` prints the seed of a schedule that fails.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from consumer.positions import Loss, Positions, Verdict
from hub.core import positions, requests
from hub.core.engine import Core, CoreLimits
from hub.core.entry import Entry
from hub.core.ledger import Append, Appended, Damaged, LogState, Page, Read
from hub.core.ledger_lane import LedgerLane
from hub.core.session import Session
from hub.protocol.codec import Wire, encode_body
from hub.protocol.errors import NotDurable
from hub.protocol.principal import Principal
from hub.protocol.subscription import Subscription, parse_want
from tests.core.model import decode, frames_of

Stream = tuple[str, str]
STREAMS: list[Stream] = [("a", "entry_fill"), ("a", "exit_fill"), ("b", "entry_fill")]
FILTERS: list[dict[str, Any]] = [
    {"topics": ["entry_fill"], "bots": ["a"]},
    {"topics": ["entry_fill", "exit_fill"], "bots": ["a"]},
    {"topics": ["entry_fill", "exit_fill"]},
    {"topics": ["entry_fill"], "bots": ["b"]},
]
CLIENTS = 3
PIPE_FRAMES = 4
MESSAGES = 30
LIMITS = {"items": 16, "keys": 16}
BIG = 1 << 20
WEIGHTS = {
    "publish": 4.0,
    "store": 5.0,
    "tell": 6.0,
    "fail": 0.2,
    "expire": 0.6,
    "damage": 0.2,
    "flush": 6.0,
    "pull": 9.0,
    "read": 6.0,
    "receive": 12.0,
    "connect": 5.0,
    "cut": 0.6,
    "refilter": 0.5,
    "restart": 0.25,
    "tick": 2.0,
}


class Bad(AssertionError):
    """An invariant is broken."""


def taken(number: int) -> set[Stream]:
    """The streams that a filter takes."""
    items, _ = parse_want([FILTERS[number]])
    return {stream for stream in STREAMS if Subscription(items).wants(*stream)}


class ModelLog:
    """A log that commits when it is told to, forgets a prefix, and outlives the hub."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.floor = 0
        self.head = 0
        self.slots: dict[int, Entry | Damaged] = {}
        self.last: dict[Stream, int] = {}

    def state(self) -> LogState:
        """As of a start."""
        return LogState(self.epoch, self.floor, self.head, dict(self.last))

    def store(self, append: Append) -> Appended:
        entry = append.entry
        self.head += 1
        entry.epoch, entry.offset, entry.prev = self.epoch, self.head, self.last.get(entry.stream, 0)
        self.last[entry.stream] = self.head
        self.slots[self.head] = entry
        return Appended(append, entry.offset)

    def expire(self) -> None:
        self.floor += 1
        self.slots.pop(self.floor, None)

    def damage(self, offset: int) -> None:
        self.slots[offset] = Damaged(offset)

    def read(self, read: Read, most: int) -> Page:
        first = max(read.offset, self.floor + 1)
        slots = [self.slots[o] for o in range(first, min(self.head, first + most - 1) + 1)]
        return Page(slots, self.floor)


class Client:
    """A consumer: its positions decide, this keeps the books that the invariants are about."""

    def __init__(self, number: int, standing: Positions) -> None:
        self.number = number
        self.positions = standing
        # Two of them share a group, until they change their filters.
        self.want = 2 if number else 0
        self.filter: int | None = None
        self.asked: dict[int, int] = {}
        self.session: Session | None = None
        self.pipe: deque[bytes] = deque()
        self.epoch: str | None = None
        self.start: dict[Stream, int] = {}
        self.delivered: set[str] = set()
        self.lost: set[int] = set()


class World:
    """See the module's docstring."""

    core_class: type[Core] = Core
    log_class: type[ModelLog] = ModelLog
    positions_class: type[Positions] = Positions

    def __init__(self, seed: int, *, faults: int = 0, resets: int = 0) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.faulted = False
        self.resets = resets
        self.now = 0.0
        self.count = 0
        self.requests = 0
        self.epochs = 0
        self.outcome: Counter[str] = Counter()
        self.truth: dict[str, dict[int, list[tuple[Stream, str]]]] = {}
        self.reads: list[tuple[Client, Session, Read, Page | None]] = []
        self.waiting: deque[Append] = deque()
        self.stored: deque[Appended] = deque()
        self.clients = [Client(i, self.positions_class()) for i in range(CLIENTS)]
        self._new_ledger()

    def _new_ledger(self) -> None:
        self.epochs += 1
        self.log = self.log_class(f"e{self.epochs}")
        self.truth[self.log.epoch] = {}
        self._start()

    def _start(self) -> None:
        for client in self.clients:
            self.cut(client)
        self.reads.clear()
        self.waiting.clear()
        self.stored.clear()
        # A tail of three or four messages: whoever is cut or stalls for a little reads the log.
        self.core = self.core_class(self.log.state(), "r", CoreLimits(tail_bytes=3200))

    # --- what can happen

    def options(self) -> list[tuple[str, Callable[[], None]]]:
        """Every step that is possible now, by its kind."""
        live = [c for c in self.clients if c.session is not None]
        steps: list[tuple[str, Callable[[], None]]] = [("tick", self.tick)]
        if self.count < MESSAGES:
            steps += [("publish", lambda s=s: self.publish(s)) for s in STREAMS]  # type: ignore[misc]
        if self.waiting:
            steps.append(("store", self.store))
        if self.stored:
            steps += [("tell", self.tell), ("fail", self.fail)]
        if self.log.floor < self.log.head:
            steps += [("expire", self.log.expire), ("damage", self.damage)]
        if self.core.dirty:
            steps.append(("flush", self.flush))
        for client in live:
            steps += [("cut", lambda c=client: self.cut(c)), ("refilter", lambda c=client: self.refilter(c))]  # type: ignore[misc]
            if len(client.pipe) < PIPE_FRAMES:
                steps.append(("pull", lambda c=client: self.pull(c)))  # type: ignore[misc]
            if client.pipe:
                steps.append(("receive", lambda c=client: self.receive(c)))  # type: ignore[misc]
        steps += [("connect", lambda c=c: self.connect(c)) for c in self.clients if c.session is None]  # type: ignore[misc]
        steps += [("read", lambda i=i: self.read(i)) for i in range(len(self.reads))]  # type: ignore[misc]
        steps.append(("restart", self.restart))
        return steps

    def publish(self, stream: Stream) -> None:
        self.count += 1
        data = {"number": self.count}
        entry = Entry(*stream, self.count, encode_body(data), mid=f"m{self.count}", publisher=stream[0])
        self.waiting.append(self.core.accept(entry, None))

    def store(self) -> None:
        for _ in range(self.random.randint(1, len(self.waiting))):
            result = self.log.store(self.waiting.popleft())
            entry = result.append.entry
            self.truth[self.log.epoch].setdefault(result.offset, []).append((entry.stream, entry.mid or ""))
            self.stored.append(result)

    def tell(self) -> None:
        self.core.committed([self.stored.popleft() for _ in range(self.random.randint(1, len(self.stored)))])

    def fail(self) -> None:
        """The log stored it and reports that it could not."""
        result = self.stored.popleft()
        self.core.committed([Appended(result.append, refused=NotDurable("disk"))])

    def damage(self) -> None:
        self.log.damage(self.random.randint(self.log.floor + 1, self.log.head))

    def tick(self) -> None:
        self.now += self.random.choice([0.1, 0.4, 1.0, 7.0])
        self.core.tick(self.now, 1, 20.0)
        self._close_who_ends()

    def restart(self) -> None:
        if self.resets and self.random.random() < 0.3:
            self.resets -= 1
            self._new_ledger()
        else:
            self._start()

    def flush(self) -> None:
        dirty, self.core.dirty = self.core.dirty, set()
        for group in sorted(dirty, key=lambda g: min(s.id for s in [*g.hot, *g.stragglers])):
            frames, more = self.core.collect(group, self.random.choice([1, 400, BIG]), self.now)
            for client in self.clients:
                if client.session in group.hot and client.session is not None:
                    client.pipe.extend(frames_of(frames))
                    if len(client.pipe) >= PIPE_FRAMES:
                        self.core.fall_behind(client.session)
            if more:
                self.core.dirty.add(group)
        self.core.check_invariants()

    def pull(self, client: Client) -> None:
        session = client.session
        assert session is not None
        pulled = self.core.pull(session, self.random.choice([1, 400, BIG]), self.now)
        client.pipe.extend(frames_of(pulled.frames))
        if pulled.read is not None:
            self.reads.append((client, session, pulled.read, None))
        self.core.check_invariants()
        self._close_who_ends()

    def read(self, which: int) -> None:
        """A read has two steps, what the log does and its arrival here: much may happen in between."""
        client, session, read, page = self.reads.pop(which)
        if page is None:
            page = self.log.read(read, self.random.choice([1, 2, 100]))
            self.reads.append((client, session, read, page))
        elif client.session is session:
            self.core.loaded(session, page)
            self._close_who_ends()

    def _close_who_ends(self) -> None:
        for client in self.clients:
            if client.session is not None and client.session.closing is not None:
                raise Bad(f"the hub closed a session: {client.session.closing}")

    # --- clients

    def connect(self, client: Client) -> None:
        self.requests += 1
        session = Session(f"s{self.requests:05}", Principal(name="p"), Wire.JSON, "c", self.now)
        client.session = session
        self.core.connect(session)
        self._subscribe(client, resume=client.positions.resume)

    def refilter(self, client: Client) -> None:
        client.want = self.random.randrange(len(FILTERS))
        self._subscribe(client, resume=None)

    def _subscribe(self, client: Client, resume: dict[str, Any] | None) -> None:
        assert client.session is not None
        self.requests += 1
        number = self.requests
        client.asked[number] = client.want
        data: dict[str, Any] = {"want": [FILTERS[client.want]]}
        if resume is not None:
            data["resume"] = resume
        # As the node does: the floor is current when a subscribe is answered.
        self.core.floor = max(self.core.floor, self.log.floor)
        message = {"type": "subscribe", "id": number, "data": data}
        requests.respond(self.core, client.session, message, 1, LIMITS)

    def cut(self, client: Client) -> None:
        if client.session is not None:
            self.core.disconnect(client.session)
        client.session = None
        client.pipe.clear()
        client.asked.clear()

    def receive(self, client: Client) -> None:
        frame = client.pipe.popleft()
        if self.faults and b'"prev":' in frame and self.random.random() < 0.1:
            self.faults -= 1
            self.faulted = True
            return
        message = decode(Wire.JSON, frame)
        kind = message["type"]
        if kind == "hub.reply":
            self._on_reply(client, message)
        elif kind == "hub.position":
            self._on_position(client, message)
        elif kind == "hub.gap":
            self._on_gap(client, message)
        elif "offset" in message:
            self._on_message(client, message)
        elif kind != "hub.lagging":
            raise Bad(f"unexpected {message}")
        self.check(client)

    def _on_message(self, client: Client, message: dict[str, Any]) -> None:
        epoch, offset, prev = message["epoch"], message["offset"], message["prev"]
        stream = (message["bot"], message["type"])
        if (stream, message["mid"]) not in self.truth[epoch].get(offset, []):
            raise Bad(f"{message['mid']} was delivered as {offset} before its commit")
        if any(stream == other for o in range(prev + 1, offset) for other in self._streams(epoch, o)):
            raise Bad(f"a false claim: prev {prev} of {offset}")
        known = client.positions.known(stream)
        verdict, loss = client.positions.message(epoch, stream, offset, prev)
        if verdict is Verdict.HOLE:
            self._alarm(client, {stream}, known, prev)
        elif verdict is Verdict.OTHER_EPOCH:
            raise Bad(f"{offset} of another epoch")
        elif verdict is Verdict.ACT:
            self._declare(client, loss)
            if message["mid"] in client.delivered:
                raise Bad(f"{offset} was delivered twice")
            client.delivered.add(message["mid"])

    def _on_position(self, client: Client, message: dict[str, Any]) -> None:
        epoch, first, last = message["epoch"], message["from"], message["offset"]
        heads = {(bot, topic): offset for bot, topic, offset in message["heads"]}
        assert client.filter is not None
        true = {
            stream: o
            for o in range(first + 1, last + 1)
            for stream in self._streams(epoch, o)
            if stream in taken(client.filter)
        }
        if not self.without_heads and heads != true:
            raise Bad(f"a false claim: {heads} in ({first}, {last}], not {true}")
        known = {stream: client.positions.known(stream) for stream in STREAMS}
        base = client.positions.base
        verdict, loss = client.positions.position(epoch, first, last, list(heads.items()))
        if verdict is Verdict.OTHER_EPOCH:
            raise Bad(f"a position of another epoch at {last}")
        if verdict is Verdict.HOLE:
            if first > base:
                self._alarm(client, taken(client.filter), base, first)
            for stream, head in heads.items():
                if head > known[stream]:
                    self._alarm(client, {stream}, known[stream], head)
        else:
            self._declare(client, loss)

    without_heads = False

    def _alarm(self, client: Client, streams: set[Stream], after: int, upto: int) -> None:
        """The client found a hole: it is to be a real one, and the schedule's fault. It connects anew."""
        epoch = client.positions.epoch or ""
        missing = [
            o
            for o in range(after + 1, upto + 1)
            for stream, mid in self.truth[epoch].get(o, [])
            if stream in streams and mid not in client.delivered and o not in client.lost
        ]
        if not self.faulted:
            raise Bad(f"an alarm without a fault: ({after}, {upto}]")
        if not missing:
            raise Bad(f"a false alarm: nothing of {streams} is missing in ({after}, {upto}]")
        self.outcome["alarm"] += 1
        self.cut(client)

    def _declare(self, client: Client, loss: Loss | None) -> None:
        if loss is not None and loss.last is not None:
            self.outcome["declared"] += 1
            if not self.faulted:
                raise Bad(f"declared lost without a fault: {loss}")
            streams = set(loss.streams) or set(STREAMS)
            for o in range(loss.first or 1, loss.last + 1):
                if streams & set(self._streams(client.positions.epoch or "", o)):
                    client.lost.add(o)

    def _on_gap(self, client: Client, message: dict[str, Any]) -> None:
        self._lose(client, message["to"])
        first, last = message["from"] + 1, message["to"]
        if message["reason"] == "damaged" and first != last:
            raise Bad(f"a damaged record took more with it: {message}")
        client.positions.gap(message["epoch"], message["to"], message["reason"])
        self.outcome["gap"] += 1

    def _lose(self, client: Client, upto: int) -> None:
        """Rule 3: of each stream what lies above what is known of it is lost, and must be gone from the log."""
        epoch = client.positions.epoch or ""
        for o in range(1, upto + 1):
            for stream, mid in self.truth[epoch].get(o, []):
                if client.positions.known(stream) >= o or mid in client.delivered:
                    continue
                client.lost.add(o)
                is_taken = client.filter is not None and stream in taken(client.filter)
                if is_taken and o > self.log.floor and isinstance(self.log.slots.get(o), Entry):
                    raise Bad(f"{o} is told lost, and the log has it")

    def _on_reply(self, client: Client, message: dict[str, Any]) -> None:
        if not message["ok"]:
            raise Bad(f"refused: {message['error']}")
        data = message["data"]
        epoch, offset, before = data["epoch"], data["offset"], client.filter
        number = client.asked.pop(message["id"])
        client.filter = number
        if data.get("reason") == "retention":
            self._lose(client, offset)
        loss = client.positions.subscribed(epoch, offset, data["recovered"], data)
        if epoch != client.epoch or data.get("reason") == "future":
            # Where the consumer does not say that it is another ledger, it answers for all of it.
            begin = offset if client.epoch is None or loss is not None else 0
            client.epoch, client.delivered, client.lost = epoch, set(), set()
            client.start = dict.fromkeys(taken(number), begin)
            self.outcome["epoch"] += 1
            return
        was = taken(before) if before is not None else set()
        client.start = {s: client.start[s] if s in was else offset for s in taken(number)}
        self.outcome[str(data.get("reason") or data["recovered"])] += 1

    def _streams(self, epoch: str, offset: int) -> list[Stream]:
        return [stream for stream, _ in self.truth[epoch].get(offset, [])]

    # --- what must hold

    def check(self, client: Client) -> None:
        """Everything of the filter up to what the client knows was delivered or declared lost."""
        if client.filter is None or client.epoch is None:
            return
        for offset, slots in self.truth[client.epoch].items():
            for stream, mid in slots:
                if stream not in client.start or offset <= client.start[stream]:
                    continue
                if offset > client.positions.known(stream):
                    continue
                if mid not in client.delivered and offset not in client.lost:
                    raise Bad(f"an undetected hole: {offset} of {stream}")

    def settle(self) -> None:
        """Nothing fails any more: everybody must get where the log is."""
        self.faults = 0
        # What the log stored and reported as failed is delivered with the next commit.
        self.publish(STREAMS[0])
        for _ in range(3000):
            if self.waiting:
                self.store()
            elif self.stored:
                self.tell()
            elif not self._serve():
                break
        else:
            raise Bad("it never comes to rest")
        for client in self.clients:
            self.check(client)
            if client.positions.base != self.log.head:
                raise Bad(f"not caught up at rest: base {client.positions.base}, head {self.log.head}")

    def _serve(self) -> bool:
        """One round for everybody; False when all are at rest and were told so."""
        for client in self.clients:
            if client.session is None:
                self.connect(client)
        if self.core.dirty:
            self.flush()
        for client in self.clients:
            while client.pipe:
                self.receive(client)
            if client.session is not None:
                self.pull(client)
        while self.reads:
            self.read(0)
        busy = self.core.dirty or any(c.pipe or c.session is None or not c.session.hot for c in self.clients)
        if busy:
            return True
        if all(client.positions.base == self.log.head for client in self.clients):
            return False
        self.now += 20.0
        self.core.tick(self.now, 1, 20.0)
        return True

    def walk(self, steps: int) -> Counter[str]:
        """A random schedule, then rest."""
        for _ in range(steps):
            options = self.options()
            weights = [WEIGHTS[name] for name, _ in options]
            self.random.choices(options, weights)[0][1]()
        self.settle()
        return self.outcome


# --- planted bugs


@contextlib.contextmanager
def _patched(*changes: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for target, name, value in changes:
            stack.enter_context(patch.object(target, name, value))
        yield


real_claim, real_start = positions.claim, positions.start
real_claim_if_due = LedgerLane._claim_if_due


def _claim_without_heads(*args: Any) -> dict[str, Any]:
    return real_claim(*args) | {"heads": []}


def _start_at_head(epoch: str, floor: int, head: int, resume: Any, **more: Any) -> positions.Start:
    began = real_start(epoch, floor, head, resume, **more)
    return replace(began, offset=head) if began.recovered else began


def _start_in_any_epoch(epoch: str, floor: int, head: int, resume: Any, **more: Any) -> positions.Start:
    if resume is not None and resume.offset <= head:
        return positions.Start(max(resume.offset, floor), True)
    return real_start(epoch, floor, head, resume, **more)


def _start_below_the_floor(epoch: str, floor: int, head: int, resume: Any, **more: Any) -> positions.Start:
    return real_start(epoch, 0, head, resume, **more)


def _loaded_without_a_floor(self: LedgerLane, session: Session, page: Page) -> None:
    session.reading = False
    cursor = session.cursor
    if cursor is None or cursor.ledger < session.read_from:
        return
    slots = [slot for slot in page.entries if cursor.ledger <= slot.offset < self._tail.next]
    if not slots:
        cursor.ledger = self._tail.next
    session.page = deque(slots)


def _claim_if_due_but_not_alone(self: LedgerLane, group: Any, cursor: Any, *rest: Any) -> int:
    return real_claim_if_due(self, group, cursor, *rest) if cursor is group.cursor else 0


def _claim_if_due_but_not_at_the_end(self: LedgerLane, group: Any, cursor: Any, *rest: Any) -> int:
    cursor.replays = False
    return real_claim_if_due(self, group, cursor, *rest)


class MovesTheBase(Positions):
    """Takes a message for a position."""

    def message(self, epoch: str, stream: Stream, offset: int, prev: int | None) -> Any:
        judged = super().message(epoch, stream, offset, prev)
        if judged[0] is Verdict.ACT:
            self._advance(offset)
        return judged


class IgnoresTheEpoch(Positions):
    """Takes the numbers of any ledger for those of its own."""

    def subscribed(self, epoch: str, *rest: Any) -> Loss | None:
        self.epoch = epoch
        return super().subscribed(epoch, *rest)


class FiltersAtTheHead(Core):
    """Lets a new filter begin at the head, whatever the old one still owed."""

    def subscribe(self, session: Session, *args: Any, **kwargs: Any) -> positions.Start:
        had = session.group is not None
        began = super().subscribe(session, *args, **kwargs)
        if not had or session.cursor is None:
            return began
        session.page = ()
        session.cursor.ledger = self.tail.next
        session.cursor.claim_from(self.tail.next - 1)
        return replace(began, offset=self.tail.next - 1)


class Eager(Core):
    """Delivers what it has accepted, before the log has it."""

    def accept(self, entry: Entry, token: object) -> Append:
        append = super().accept(entry, token)
        entry.epoch, entry.offset = self.epoch, self.tail.next
        self.tail.append(entry)
        self._touch(self.groups_of(entry.stream), entry.offset)
        return append

    def committed(self, results: Any) -> None:
        for result in results:
            self.pending_bytes -= result.append.entry.size


class ReusesOffsets(ModelLog):
    """Loses its last record in a crash, and does not begin a new epoch."""

    def state(self) -> LogState:
        if self.head > self.floor:
            self.slots.pop(self.head)
            self.head -= 1
        return super().state()


class ForgetsStreams(ModelLog):
    """Knows no predecessor of what it has not seen since its start, and says that there is none."""

    def state(self) -> LogState:
        self.last = {}
        return super().state()


class KeepsStale(ModelLog):
    """Of what retention took it remembers the predecessor of the predecessor."""

    def expire(self) -> None:
        gone = self.slots.get(self.floor + 1)
        if isinstance(gone, Entry) and self.last.get(gone.stream) == gone.offset:
            self.last[gone.stream] = gone.prev
        super().expire()


NO_FLOOR = [
    (positions, "start", _start_below_the_floor),
    (LedgerLane, "loaded", _loaded_without_a_floor),
]
PLANTED: dict[str, tuple[list[Any], dict[str, int]]] = {
    "deliver before commit": ([(World, "core_class", Eager)], {}),
    "reuse an offset": ([(World, "log_class", ReusesOffsets)], {}),
    "join without a position": (
        [
            (LedgerLane, "_claim_if_due", _claim_if_due_but_not_alone),
            (positions, "joins_with_a_position", lambda *_: False),
        ],
        {},
    ),
    "position without heads": (
        [(positions, "claim", _claim_without_heads), (World, "without_heads", True)],
        {"faults": 2},
    ),
    "base moved by messages": ([(World, "positions_class", MovesTheBase)], {"faults": 2}),
    "resume at head": ([(positions, "start", _start_at_head)], {}),
    "filter change at head": ([(World, "core_class", FiltersAtTheHead)], {}),
    "epoch ignored": (
        [(positions, "start", _start_in_any_epoch), (World, "positions_class", IgnoresTheEpoch)],
        {"resets": 2},
    ),
    "replay joins without a position": (
        [
            (LedgerLane, "_claim_if_due", _claim_if_due_but_not_at_the_end),
            (positions, "joins_with_a_position", lambda *_: False),
        ],
        {},
    ),
    "floor check missing": (NO_FLOOR, {}),
    "prev = 0 for unknown": ([*NO_FLOOR, (World, "log_class", ForgetsStreams)], {}),
    "stale prev after retention overtook a tail": ([(World, "log_class", KeepsStale)], {}),
}


def run(seed: int, steps: int = 220, **kinds: int) -> Counter[str]:
    """One schedule; raises AssertionError with its seed."""
    try:
        return World(seed, **kinds).walk(steps)
    except Bad as bad:
        raise Bad(f"seed {seed}: {bad}") from bad


@pytest.mark.parametrize("kinds", [{}, {"resets": 2}, {"faults": 2}], ids=["plain", "resets", "faults"])
def test_schedules_of_a_hub_that_keeps_the_rules(kinds: dict[str, int]) -> None:
    outcome: Counter[str] = Counter()
    for seed in range(40):
        outcome += run(seed, **kinds)
    # The schedules are worth something only if all of it happens.
    assert {"True", "None", "gap", "retention", "epoch"} <= set(outcome)
    assert ("alarm" in outcome) is ("faults" in kinds)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str) -> None:
    changes, kinds = PLANTED[name]
    with _patched(*changes):
        for seed in range(60):
            try:
                run(seed, **kinds)
            except AssertionError:
                return
    pytest.fail(f"{name} was not caught in 60 schedules")


def main(schedules: int) -> None:
    """`schedules` of each kind, and how soon each planted bug is caught."""
    for kinds in ({}, {"resets": 2}, {"faults": 2}, {"faults": 2, "resets": 2}):
        outcome: Counter[str] = Counter()
        for seed in range(schedules):
            outcome += run(seed, 300, **kinds)
        print(schedules, kinds, dict(outcome))
    for name, (changes, planted) in PLANTED.items():
        caught: list[str] = []
        with _patched(*changes):
            for seed in range(200):
                with contextlib.suppress(StopIteration):
                    try:
                        run(seed, **planted)
                    except AssertionError as error:
                        caught.append(str(error) or type(error).__name__)
        print(f"{name}: caught by {len(caught)} of 200, first: {caught[:1]}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
