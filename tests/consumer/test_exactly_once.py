"""A bot that is killed at any step of its work acts on each fill once, and is told of each that is gone.

A model of a hub's ledger feeds the real HubState, Feed, lane, bookmarks and stores; the bot's database is a real SQLite one, in which
each statement and commit is a step at which the process may die: before it, or when it is done. A new run gets what was committed.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from consumer import bookmarks, feed
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.data import ProducerData
from consumer.errors import ConsumerError
from consumer.state import HubState
from consumer.stores.sqlalchemy import SqlAlchemyPositionStore
from consumer.stores.sqlite import SqlitePositionStore
from hub.protocol.envelope import Position
from hub.protocol.known import Known
from hub.protocol.localbot import BotContext, Delivery, Lost, PositionStore

ENTRY, EXIT, OTHER = ("alpha", "entry_fill"), ("alpha", "exit_fill"), ("beta", "entry_fill")
WANTED = (ENTRY, EXIT)


class Killed(Exception):
    """The process is dead."""


# --- a hub


@dataclass
class Ledger:
    """Hub rules H1-H5 of docs/wire-protocol.md for one session."""

    number: int = 1
    log: list[tuple[str, str]] = field(default_factory=list)
    floor: int = 0
    skipped: set[int] = field(default_factory=set)
    """What a hub with a bug does not send."""
    cursor: int = 0
    run: int = 0
    told: int = 0
    again: dict[int, tuple[str, int]] = field(default_factory=dict)
    """What was first published in an epoch before, by offset: the epoch and offset that it had there."""

    @property
    def epoch(self) -> str:
        return f"e{self.number}"

    @property
    def head(self) -> int:
        return len(self.log)

    def connect(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        resume = request["data"].get("resume")
        answer: dict[str, Any] = {"epoch": self.epoch, "offset": self.head, "recovered": None}
        if resume is not None:
            answer |= self._resumed(resume["epoch"], resume["offset"])
        self.cursor = self.run = self.told = answer["offset"]
        reply = {"type": "hub.reply", "id": request["id"], "ok": True, "data": answer}
        replay = [reply, *self.unsent(), self.position()]
        self.run = self.head
        return replay

    def _resumed(self, epoch: str, offset: int) -> dict[str, Any]:
        if epoch != self.epoch or offset > self.head:
            return {"recovered": False, "reason": "epoch" if epoch != self.epoch else "future"}
        if offset < self.floor:
            lost = [offset + 1, self.floor]
            return {"recovered": False, "reason": "retention", "lost": lost, "offset": self.floor}
        return {"recovered": True, "offset": offset}

    def unsent(self) -> list[dict[str, Any]]:
        frames = [self._frame(offset) for offset in range(self.cursor + 1, self.head + 1)]
        self.cursor = self.head
        return [frame for frame in frames if frame is not None]

    def _frame(self, offset: int) -> dict[str, Any] | None:
        stream = self.log[offset - 1]
        if stream not in WANTED or offset in self.skipped:
            return None
        prev = max([self.run, *(o for o in range(self.run + 1, offset) if self.log[o - 1] == stream)])
        head = {"type": stream[1], "bot": stream[0], "epoch": self.epoch, "offset": offset, "prev": prev}
        epoch, number = self.name(offset)
        return head | {"mid": f"{epoch}/{number}", "data": {"trade_id": number, "pair": "BTC/USDT"}}

    def name(self, offset: int) -> tuple[str, int]:
        """What a message is called for ever: where it was at first."""
        return self.again.get(offset, (self.epoch, offset))

    def publish_again(self, before: Ledger) -> None:
        """The writer of the last message of an epoch before had no answer."""
        wanted = [offset for offset in range(1, before.head + 1) if before.log[offset - 1] in WANTED]
        if wanted and before.name(wanted[-1]) not in self.again.values():
            self.log.append(before.log[wanted[-1] - 1])
            self.again[self.head] = before.name(wanted[-1])

    def position(self) -> dict[str, Any]:
        last = {s: o for o in range(self.told + 1, self.cursor + 1) if (s := self.log[o - 1]) in WANTED}
        heads = [[*stream, offset] for stream, offset in last.items()]
        notice = {"type": "hub.position", "epoch": self.epoch, "from": self.told, "offset": self.cursor}
        self.told = self.cursor
        return notice | {"heads": heads}


# --- a process that dies


class Mortal(sqlite3.Connection):
    """A database whose process dies at step number `fuse`, and does nothing any more then."""

    fuse: int | None = None
    dead = False

    def step(self) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            self.dead = self.fuse < 0
        if self.dead:
            raise Killed

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(_Cursor)

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().execute(sql, *args)
        return cursor

    def commit(self) -> None:
        self.step()
        super().commit()
        self.step()

    def close(self) -> None:
        """As at the end of a process: what was not committed is gone. The next one finds the same database."""
        self.rollback()

    def bury(self) -> None:
        self.rollback()
        self.fuse, self.dead = None, False


class _Cursor(sqlite3.Cursor):
    connection: Any

    def execute(self, sql: str, *args: Any) -> Any:
        self.connection.step()
        return super().execute(sql, *args)


class Bot:
    """Copies fills and losses into its database. `early`: the position before the effect."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.database = world.database

    async def start(self, context: BotContext) -> PositionStore | Position | None:
        return None

    async def handle(self, delivery: Delivery) -> None:
        statement = self.effect(delivery)
        if statement is not None:
            self.act(statement, delivery)

    def effect(self, delivery: Delivery) -> tuple[str, dict[str, Any]] | None:
        message = delivery.message
        if isinstance(message, Lost):
            row = {"epoch": self.world.ledger.epoch, "first": message.first, "last": message.last}
            return "INSERT INTO lost VALUES (:epoch, :first, :last)", row
        if delivery.position is None:
            return None
        assert delivery.mid is not None
        epoch, _, number = delivery.mid.partition("/")
        row = {"epoch": epoch, "number": number}
        return "INSERT INTO acted VALUES (:epoch, :number)", row

    def act(self, statement: tuple[str, dict[str, Any]], delivery: Delivery) -> None:
        self.database.execute(*statement)
        self.database.commit()

    async def stop(self) -> None:
        pass


class PlainBot(Bot):
    async def start(self, context: BotContext) -> PositionStore | Position | None:
        self.store = SqlitePositionStore(self.database)
        return self.store

    def act(self, statement: tuple[str, dict[str, Any]], delivery: Delivery) -> None:
        if self.world.early:
            self.store.save(delivery)
        self.database.execute(*statement)
        if not self.world.early:
            self.store.save(delivery)
        self.database.commit()


class MappedBot(Bot):
    async def start(self, context: BotContext) -> PositionStore | Position | None:
        self.engine = create_engine("sqlite://", creator=lambda: self.database, poolclass=StaticPool)
        self.store = SqlAlchemyPositionStore(self.engine)
        return self.store

    def act(self, statement: tuple[str, dict[str, Any]], delivery: Delivery) -> None:
        with Session(self.engine) as session, session.begin():
            if self.world.early:
                self.store.save(session, delivery)
            session.execute(text(statement[0]), statement[1])
            if not self.world.early:
                self.store.save(session, delivery)


class ThreadBot(PlainBot):
    def handle(self, delivery: Delivery) -> None:  # type: ignore[override]
        statement = self.effect(delivery)
        if statement is not None:
            self.act(statement, delivery)


class ForgetfulBot(PlainBot):
    def act(self, statement: tuple[str, dict[str, Any]], delivery: Delivery) -> None:
        self.database.execute(*statement)
        self.database.commit()


class FakeConsumer:
    """A HubState on the model's frames; `world.script` is what happens while it is connected."""

    world: World

    def __init__(self, settings: ConsumerConfig, *, positions: dict[str, Known], advances: bool) -> None:
        self.data = ProducerData()
        self._state = HubState("hub", self.data.book("hub"), [], start=positions.get("hub"))
        self._frames = self._connect()
        self._deliveries: list[Delivery] = []

    async def __aenter__(self) -> FakeConsumer:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> FakeConsumer:
        return self

    def _connect(self) -> list[dict[str, Any]]:
        request = self._state.start(0.0).requests[-1]
        ledger = self.world.ledger
        if "resume" not in request["data"]:
            # Nothing is known yet: what was before is not this bot's.
            self.world.begun[ledger.epoch] = ledger.head
        self.world.begun.setdefault(ledger.epoch, 0)
        return ledger.connect(request)

    async def _handled(self) -> None:
        """What is on its way to the bot arrives; a dead bot ends the run from elsewhere."""
        while (figures := self.world.feed.statistics()).handled < figures.handed:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def __anext__(self) -> Delivery:
        while not self._deliveries:
            if not self._frames:
                if not self.world.script:
                    await self._handled()
                    raise StopAsyncIteration
                self._frames = self.world.live(self.world.script.pop(0))
                continue
            step = self._state.receive(self._frames.pop(0), 100, 0.0)
            self._deliveries = step.deliveries
            if step.close is not None:
                self.world.closes += 1
                self._frames = self._connect()
        return self._deliveries.pop(0)


class World:
    """A hub, a bot's database, and what was published."""

    def __init__(self, kind: type[Bot], directory: Path, *, early: bool = False) -> None:
        self.kind, self.directory, self.early = kind, directory, early
        self.database = sqlite3.connect(":memory:", factory=Mortal, check_same_thread=False)
        self.database.execute("CREATE TABLE acted (epoch TEXT, number INTEGER)")
        self.database.execute("CREATE TABLE lost (epoch TEXT, first INTEGER, last INTEGER)")
        self.ledgers = [Ledger()]
        self.script: list[str] = []
        self.closes = 0
        self.begun: dict[str, int] = {}

    @property
    def ledger(self) -> Ledger:
        return self.ledgers[-1]

    def away(self, action: str) -> None:
        """Something happens while nobody is connected, or at the hub alone."""
        ledger = self.ledger
        if action == "epoch":
            self.ledgers.append(Ledger(ledger.number + 1))
        elif action == "retention":
            ledger.floor = ledger.head
        elif action in ("entry", "exit", "other"):
            ledger.log.append({"entry": ENTRY, "exit": EXIT, "other": OTHER}[action])
        elif action == "again" and len(self.ledgers) > 1:
            ledger.publish_again(self.ledgers[-2])
        elif action == "skip":
            ledger.log.append(ENTRY)
            ledger.skipped.add(ledger.head)

    def live(self, action: str) -> list[dict[str, Any]]:
        if action == "position":
            return [self.ledger.position()]
        if action not in ("epoch", "retention"):
            self.away(action)
        return self.ledger.unsent()

    def run(self, script: list[str], fuse: int | None = None) -> bool:
        """One process; whether it lived to the end of its script."""
        FakeConsumer.world = self
        self.script = list(script)
        self.database.fuse = fuse
        producer = ProducerConfig(name="hub", host="localhost", ws_token="t")
        config = ConsumerConfig(enabled=True, producers=(producer,), raw={})
        self.feed = feed.Feed(config, lambda: self.kind(self), data_dir=self.directory)
        try:
            asyncio.run(self.feed.run())
        except ConsumerError:
            if not self.database.dead:
                raise
        lived = not self.database.dead
        self.database.bury()
        return lived

    def acted(self) -> list[tuple[str, int]]:
        return self.database.execute("SELECT epoch, number FROM acted ORDER BY rowid").fetchall()

    def lost(self) -> list[tuple[str, int | None, int | None]]:
        return self.database.execute("SELECT * FROM lost ORDER BY rowid").fetchall()

    def stored(self) -> Known | None:
        tables = self.database.execute("SELECT name FROM sqlite_master").fetchall()
        if ("tradewire_positions",) not in tables:
            return None
        found = self.database.execute("SELECT epoch, base FROM tradewire_positions").fetchall()
        if not found or not found[0][0]:
            return None
        rows = self.database.execute("SELECT bot, topic, last FROM tradewire_streams").fetchall()
        return Known(*found[0], {(bot, topic): last for bot, topic, last in rows})

    def accounted(self, epoch: str, offset: int) -> bool:
        """Acted on, or told to be lost; a ledger that was given up is lost with all that was not acted on."""
        if self.ledgers[int(epoch[1:]) - 1].name(offset) in self.acted():
            return True
        given_up = any(first is None for e, first, _ in self.lost() if e > epoch)
        ranges = [(first, last) for e, first, last in self.lost() if e == epoch and first is not None]
        # The start of a new epoch is its head: what was before belongs to the loss that came with it.
        begun = any(e == epoch and first is None for e, first, _ in self.lost())
        return given_up or begun or any(first <= offset <= (last or 0) for first, last in ranges)

    def check_stored(self) -> None:
        """Nothing is known that was not acted on or told to be lost."""
        known = self.stored()
        if known is None:
            return
        ledger = self.ledgers[int(known.epoch[1:]) - 1]
        for offset in range(self.begun[known.epoch] + 1, ledger.head + 1):
            stream = ledger.log[offset - 1]
            if stream in WANTED and offset <= known.of(stream):
                assert self.accounted(known.epoch, offset), (known, offset, self.acted(), self.lost())
        assert all(offset > known.base for offset in known.last.values())

    def check_end(self, *, once: bool = True) -> None:
        """After a run that lived: everything was acted on, once and in order, or told."""
        acted = self.acted()
        if once:
            assert len(acted) == len(set(acted)), acted
            # What was published again stands where it came to stand then.
            anew = {name for ledger in self.ledgers for name in ledger.again.values()}
            first = [name for name in acted if name not in anew]
            assert first == sorted(first)
        for ledger in self.ledgers:
            for offset in range(self.begun.get(ledger.epoch, ledger.head) + 1, ledger.head + 1):
                if ledger.log[offset - 1] in WANTED:
                    assert self.accounted(ledger.epoch, offset), (ledger.epoch, offset, acted, self.lost())


@pytest.fixture(autouse=True)
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "Consumer", FakeConsumer)
    # Every base is due: the steps of storing it can be the last ones, too.
    monkeypatch.setattr(bookmarks, "EVERY_S", 0.0)


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(getattr(request, "param", PlainBot), tmp_path)


BUSY = ["entry", "exit", "position", "entry"]


@pytest.mark.parametrize(("kind", "steps"), [(PlainBot, 1), (MappedBot, 3), (ThreadBot, 5)])
def test_killed_at_each_step_once(kind: type[Bot], steps: int, tmp_path: Path) -> None:
    """Every step of a run, one after the other, in a world of its own."""
    fuse, lived = 0, False
    while not lived:
        world = World(kind, tmp_path, early=fuse % 2 == 1)
        world.run(["entry"])
        lived = world.run(BUSY, fuse)
        world.check_stored()
        world.away("entry")
        assert world.run(["exit"])
        world.check_end()
        assert world.lost() == []
        world.check_stored()
        fuse += steps
    assert fuse > 30


@pytest.mark.parametrize(("kind", "steps"), [(PlainBot, 1), (MappedBot, 3), (ThreadBot, 5)])
def test_killed_at_each_step_a_message_of_another_epoch_acts_once(
    kind: type[Bot], steps: int, tmp_path: Path
) -> None:
    fuse, lived = 0, False
    while not lived:
        world = World(kind, tmp_path, early=fuse % 2 == 1)
        world.run(["exit", "entry"])
        world.away("epoch")
        lived = world.run(["again", "exit", "position"], fuse)
        world.check_stored()
        assert world.run(["again", "exit"])
        world.check_end()
        assert world.acted()[:2] == [("e1", 1), ("e1", 2)]
        fuse += steps
    assert fuse > 20


@pytest.mark.parametrize("kind", [PlainBot, MappedBot, ThreadBot, ForgetfulBot, Bot])
def test_a_message_acts_once_in_any_number_of_epochs(kind: type[Bot], tmp_path: Path) -> None:
    world = World(kind, tmp_path)
    world.run(["exit", "entry"])
    for _ in range(3):
        world.away("epoch")
        world.run([])
        world.run(["again"])
        world.run([])
    assert world.acted() == [("e1", 1), ("e1", 2)]
    world.run(["entry"])
    assert world.acted()[2:] == [("e4", 2)]


runs = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["entry", "exit", "other", "retention", "epoch", "skip"]), max_size=4),
        st.lists(st.sampled_from(["entry", "exit", "other", "position", "skip", "again"]), max_size=6),
        st.none() | st.integers(0, 80),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("kind", [PlainBot, MappedBot, ForgetfulBot, Bot])
@settings(
    max_examples=10,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example([([], ["entry", "position"], None), (["epoch", "entry"], ["entry"], 9), (["entry"], [], None)])
@example([([], ["skip", "exit", "position", "entry"], 30), (["retention", "entry"], [], 12)])
@given(history=runs)
def test_killed_at_any_step_of_any_history(
    kind: type[Bot], history: list[tuple[list[str], list[str], int | None]]
) -> None:
    once = kind not in (ForgetfulBot, Bot)
    with tempfile.TemporaryDirectory() as directory:
        world = World(kind, Path(directory), early=len(history) % 2 == 0)
        for away, script, fuse in history:
            for action in away:
                world.away(action)
            world.run(script, fuse)
            world.check_stored()
        assert world.run(["entry", "exit"])
        world.check_end(once=once)
        world.check_stored()


def test_an_idle_bots_base_follows_the_ledger(world: World) -> None:
    world.run(["entry", *["other", "position"] * 50])
    stored = world.stored()
    assert stored == Known("e1", 51)
    for _ in range(10):
        world.away("other")
    # What retention took was not this bot's, as far as its base says.
    world.ledger.floor = 51
    world.run(["entry"])
    assert world.lost() == []
    world.check_end()


def test_what_retention_took_is_told_once(world: World) -> None:
    world.run(["entry", "position"])
    for _ in range(3):
        world.away("entry")
    world.away("retention")
    for _ in range(3):
        world.run([])
    assert world.lost() == [("e1", 2, 4)]
    world.run(["entry"])
    assert world.acted() == [("e1", 1), ("e1", 5)]


def test_a_new_epoch_is_told_once_and_gone_on_with(world: World) -> None:
    world.run(["entry"])
    world.away("epoch")
    world.away("entry")
    for _ in range(3):
        world.run(["entry"])
    assert world.lost() == [("e2", None, None)]
    assert world.acted() == [("e1", 1), ("e2", 2), ("e2", 3), ("e2", 4)]


def test_a_hole_that_the_hub_cannot_close_is_resumed_once_and_told_once(world: World) -> None:
    world.run(["entry", "skip", "exit", "entry", "entry"])
    assert world.closes == 1
    assert world.lost() == [("e1", 2, 2)]
    assert world.acted() == [("e1", 1), ("e1", 3), ("e1", 4), ("e1", 5)]
    world.run(["entry"])
    assert world.closes == 1
    world.check_end()


def test_a_ledger_that_lost_its_end_is_begun_anew(world: World) -> None:
    world.run(["entry", "entry", "entry", "position"])
    del world.ledger.log[1:]
    world.run(["entry"])
    assert world.lost() == [("e1", None, None)]
    assert world.acted() == [("e1", 1), ("e1", 2), ("e1", 3), ("e1", 2)]
    assert world.stored() == Known("e1", 1, {ENTRY: 2})
