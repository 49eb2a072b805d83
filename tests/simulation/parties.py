"""The processes of a world: a hub, writers and readers. Each runs the product's own code, and can die at any step.

What a process has on disk outlives it: the hub's `Disk`, a writer's outbox, a reader's `Shelf`. To die is to be cut off from the
world first, so that no cleanup has an effect, and to be cancelled then.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumer import outbox_file
from consumer.bookmarks import Bookmarks
from consumer.client import Client
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.errors import NotStored
from consumer.inbox import Inbox
from consumer.lane import lane_to
from consumer.outbox import Answer, Item
from consumer.publisher import Publication, Publisher
from consumer.state import HubState
from consumer.stores.sqlite import SqlitePositionStore
from hub.core.engine import CoreLimits
from hub.limits import NodeLimits
from hub.node import Node
from hub.protocol.codec import Wire
from hub.protocol.envelope import Position
from hub.protocol.known import Known
from hub.protocol.localbot import Delivery, Lost, Repeated
from hub.protocol.principal import Principal
from tests.simulation.ledger import Disk, SimLog
from tests.simulation.schedule import Reader

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = [
    "Effect",
    "HubProcess",
    "Message",
    "Process",
    "ReaderProcess",
    "Shelf",
    "SimPublisher",
    "WriterProcess",
]

INBOX_BYTES = 8192
HEARTBEAT_MS = 5000
_SECOND = 0.01
"""No process comes back sooner: the one before must have ended."""


class Died(BaseException):
    """The process ended in the middle of something that is not waiting."""


class Process:
    """Something that runs, dies and comes back."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.loop = world.loop
        self.name = name
        self.up = False
        self.lives = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self._armed: dict[str, tuple[int, float]] = {}

    def start(self) -> None:
        """Run it, from what it has on disk."""
        self.up = True
        self.lives += 1
        self.own(self.loop.create_task(self._run(self.lives)))

    async def _run(self, life: int) -> None:
        try:
            await self._main()
        except (asyncio.CancelledError, Died):
            pass
        except Exception as error:
            if self.alive(life):
                self.world.violated(f"{self.name} ended: {type(error).__name__}: {error}")

    async def _main(self) -> None:
        raise NotImplementedError

    def alive(self, life: int) -> bool:
        """Whether this life still goes on."""
        return self.up and self.lives == life

    def own(self, task: asyncio.Task[None]) -> None:
        """A task of this process; it ends with it."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def arm(self, point: str, nth: int, down_s: float) -> None:
        """Die when this point is passed for the nth time from now."""
        self._armed[point] = (nth, down_s)

    def dies_at(self, point: str) -> bool:
        """A step is done: whether it was the last, and this process is dead now."""
        armed = self._armed.get(point)
        if armed is None:
            return False
        nth, down_s = armed
        if nth > 1:
            self._armed[point] = (nth - 1, down_s)
            return False
        del self._armed[point]
        self.world.tell(f"{self.name} dies at {point}")
        self.die(down_s)
        return True

    def step(self, point: str) -> None:
        """As `dies_at`, in the middle of something."""
        if self.dies_at(point):
            raise Died

    async def point(self, name: str) -> None:
        """As `dies_at`, where it waits."""
        if self.dies_at(name):
            await self.loop.create_future()

    def die(self, down_s: float) -> None:
        """Now, and come back after `down_s`."""
        if self.up:
            self.up = False
            self._cut_off()
            for task in self.tasks:
                task.cancel()
            self.loop.call_later(max(down_s, _SECOND), self.start)

    def disarm(self) -> None:
        """Nothing more befalls it."""
        self._armed.clear()

    def _cut_off(self) -> None:
        raise NotImplementedError


class HubProcess(Process):
    """A node on a disk."""

    def __init__(self, world: World, disk: Disk) -> None:
        super().__init__(world, "hub")
        self.disk = disk
        self.node: Node | None = None
        self.torn = 0
        self._log: SimLog | None = None
        self._rng = random.Random(f"{world.schedule.seed}/hub")

    async def _main(self) -> None:
        bugs, schedule = self.world.bugs, self.world.schedule
        limits = NodeLimits(
            heartbeat_ms=HEARTBEAT_MS,
            publish_in_flight=schedule.in_flight,
            core=CoreLimits(
                tail_bytes=schedule.tail_bytes,
                pending_bytes=schedule.pending_bytes,
                slow_bytes=6000,
                slow_grace_s=4.0,
            ),
        )
        self._log = bugs.log(self.disk, self.loop, self.point)
        node = Node(self._log, limits, clock=_Clock(self.loop))
        await node.start()
        self.node = node
        self.world.tell(f"hub up, {self.disk.epoch} head {self.disk.head}")

    def _cut_off(self) -> None:
        node, self.node = self.node, None
        for link in list(self.world.network.links):
            link.hub_died(self._rng.choice((0.0, 0.2, 2.0)))
        if node is not None:
            self.tasks |= set(node._tasks)
        if self._log is not None:
            self._log.abandon()
            self._log = None
        self.disk.crash()
        if self.torn:
            self.disk.tear(self.torn)
            self.torn = 0

    def drain(self, deadline_s: float, down_s: float) -> None:
        """Be restarted, as by SIGTERM."""
        if self.node is not None and not self.node.draining:
            self.own(self.loop.create_task(self._drain(self.node, deadline_s, down_s)))

    async def _drain(self, node: Node, deadline_s: float, down_s: float) -> None:
        await node.drain(deadline_s)
        await node.stop()
        self.die(down_s)


class _Clock:
    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()

    def now_ms(self) -> int:
        return self._loop.now_ms()


# --- writers


@dataclass(eq=False)
class Message:
    """One submit, and what became of it."""

    writer: str
    mid: str
    bot: str
    topic: str
    number: int
    ts: int
    pad_bytes: int
    kept: bool = False
    """Whether `submit` returned: it is on the writer's disk."""
    acked: Position | None = None
    refused: str | None = None

    @property
    def name(self) -> tuple[str, str]:
        """What it is known by for ever."""
        return (self.writer, self.mid)

    @property
    def publication(self) -> Publication:
        data = {"trade_id": self.number, "pair": "BTC/USDT", "buy_tag": self.mid, "enter_tag": self.writer}
        data["pad"] = "x" * self.pad_bytes
        return Publication(bot=self.bot, topic=self.topic, data=data, mid=self.mid, ts=self.ts)


class WriterProcess(Process):
    """A bot that publishes, through an outbox on disk."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, f"w{number}")
        self.disk = sqlite3.connect(":memory:", isolation_level=None)
        self.disk.executescript(outbox_file._TABLE)
        self.full_until = 0.0
        self.submitted: list[Message] = []
        self.publisher: Publisher | None = None
        self._todo: deque[Message] = deque()
        self._some = asyncio.Event()

    @property
    def waiting(self) -> set[str]:
        """The mids in its outbox."""
        return {row.mid for row in outbox_file._waiting(self.disk)}

    @property
    def busy(self) -> bool:
        """Whether it still has something to send."""
        return not self.up or bool(self._todo) or bool(self.waiting)

    def submit(self, bot: str, topic: str) -> None:
        """The bot has something to tell. One that is down has not."""
        if self.up:
            number = len(self.submitted) + len(self._todo) + 1
            ts = self.loop.now_ms() + number
            pad_bytes = self.world.schedule.pad_bytes
            self._todo.append(Message(self.name, f"m{number}", bot, topic, number, ts, pad_bytes))
            self._some.set()

    async def _main(self) -> None:
        world = self.world
        rng = random.Random(f"{world.schedule.seed}/{self.name}/{self.lives}")
        principal = Principal(name=self.name, publishes=frozenset({"*"}))
        publisher = self.publisher = world.bugs.publisher(
            self,
            rng,
            "ws://hub",
            "token",
            name=self.name,
            encoding=rng.choice(("json", "msgpack")),
            dial=world.network.dialler(self.name, principal),
            random=lambda: rng.random() * 0.1,
            now_ms=self.loop.now_ms,
        )
        async with publisher:
            while True:
                while self._todo:
                    await self._submit(publisher, self._todo.popleft())
                self._some.clear()
                await self._some.wait()

    async def _submit(self, publisher: Publisher, message: Message) -> None:
        await self.point("submit")
        self.submitted.append(message)
        self.world.messages[message.name] = message
        while True:
            try:
                await publisher.submit(message.publication)
            except NotStored:
                await asyncio.sleep(0.2)
            else:
                message.kept = True
                return

    def _cut_off(self) -> None:
        for link in self.world.network.of(self.name):
            link.client_died(1.0)
        self._todo.clear()
        self.publisher = None


class SimPublisher(Publisher):
    """A Publisher that tells the world how its messages end, with an outbox on a disk that a test has."""

    def __init__(self, process: WriterProcess, rng: random.Random, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.process = process
        self._file = _OutboxFile(process, rng, self._committed)

    def _settle(self, item: Item[Any], answer: Answer) -> None:
        process, mid = self.process, item.content.publication.mid
        process.world.answered(process.world.messages[process.name, mid], answer)
        process.step("acked")
        super()._settle(item, answer)


class _OutboxFile(outbox_file.OutboxFile):
    """The outbox on disk without its thread: commits come a while later, one step at a time."""

    def __init__(self, process: WriterProcess, rng: random.Random, stored: Any) -> None:
        super().__init__(Path("outbox"), stored, now_ms=process.loop.now_ms)
        self._process, self._rng = process, rng
        self._life = process.lives
        self._due: asyncio.TimerHandle | None = None

    def open(self) -> list[outbox_file.Stored]:
        self._connection = self._process.disk
        waiting = outbox_file._waiting(self._connection)
        self._keep_refused(self._connection.execute(outbox_file._REFUSED))
        (last,) = self._connection.execute("SELECT max(number) FROM message").fetchone()
        self.next_number = (last or 0) + 1
        return waiting

    def _queue(self, change: Any) -> None:
        change(self._batch)
        wait_s = self._rng.choice((0.0, 0.0005, 0.02)) if self._batch.urgent else outbox_file.REMOVE_S
        loop = self._process.loop
        if self._due is None or self._due.when() > loop.time() + wait_s:
            if self._due is not None:
                self._due.cancel()
            self._due = loop.call_later(wait_s, self._write_one)

    def _write_one(self) -> None:
        self._due = None
        process = self._process
        if not process.alive(self._life) or process.dies_at("storing"):
            return
        batch, self._batch = self._batch, outbox_file._Batch()
        error = NotStored("disk full") if process.loop.time() < process.full_until else self._commit(batch)
        if error is not None:
            self._again(batch)
        if process.dies_at("stored" if batch.inserts else "removed"):
            return
        if batch.inserts:
            self._stored([message.number for message in batch.inserts], error)
        if self._batch:
            self._queue(lambda batch: None)

    def close(self) -> None:
        pass


# --- readers


@dataclass(frozen=True)
class Effect:
    """What a reader's bot did, durably: on a message (`name`), on the word that something is lost, or on a new beginning."""

    name: tuple[str, str] | None = None
    position: Position | None = None
    lost: Lost | None = None
    anew: Position | None = None


class Shelf:
    """What a reader has on disk: a database with the effects of its bot and its positions.

    A connection to it is a process's: what that one has not committed is gone with it.
    """

    _numbers = itertools.count()

    def __init__(self) -> None:
        self._where = f"file:shelf{next(self._numbers)}?mode=memory&cache=shared"
        self._disk = self.connect()
        self._disk.execute("CREATE TABLE effect (number INTEGER PRIMARY KEY)")
        self.effects: list[Effect] = []
        self.start_at: Position | None = None
        self.epoch: str | None = None

    def connect(self) -> sqlite3.Connection:
        """A process begins."""
        return sqlite3.connect(self._where, uri=True, isolation_level=None)

    def check(self) -> None:
        """Raise AssertionError if the effects here are not those that are committed."""
        (count,) = self._disk.execute("SELECT count(*) FROM effect").fetchone()
        assert count == len(self.effects), (count, len(self.effects))

    def close(self) -> None:
        """Throw it away."""
        self._disk.close()


class SimStore(SqlitePositionStore):
    """The bot's PositionStore, which notes where it began and begins anew."""

    def __init__(self, shelf: Shelf, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._shelf = shelf

    def load(self, producer: str) -> Known | None:
        known = super().load(producer)
        self._shelf.epoch = known.epoch if known is not None else None
        return known

    def advance(self, producer: str, known: Known, *, anew: bool = False) -> None:
        super().advance(producer, known, anew=anew)
        self._note(known.position)
        if anew:
            self._connection.execute("INSERT INTO effect DEFAULT VALUES")
            self._shelf.effects.append(Effect(anew=known.position))

    def _note(self, position: Position) -> None:
        self._shelf.start_at = self._shelf.start_at or position
        self._shelf.epoch = position.epoch


class _Client(Client):
    """A client whose receiver may have a bug, and whose alarms are counted."""

    def __init__(self, process: ReaderProcess, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._process = process

    def _hub_state(self, wire: Wire) -> HubState:
        state = super()._hub_state(wire)
        self._process.world.bugs.state(state)
        self._process.states.append(state)
        return state


class ReaderProcess(Process):
    """A consumer and its bot."""

    def __init__(self, world: World, number: int, reader: Reader) -> None:
        super().__init__(world, f"r{number}")
        self.reader = reader
        self.shelf = Shelf()
        self.skips = 0
        self.states: list[HubState] = []
        self.stalled_until = 0.0
        self.client: Client | None = None
        self.connection: sqlite3.Connection | None = None
        self.store: SimStore | None = None

    @property
    def holes(self) -> int:
        """How often it found that the hub had left something out."""
        return sum(state.statistics().get("holes", 0) for state in self.states)

    @property
    def repeated(self) -> int:
        """How often it was given a message that it had acted on in another epoch."""
        return sum(state.statistics().get("repeated", 0) for state in self.states)

    def wants(self, message: Message) -> bool:
        """Whether its subscription takes this message."""
        bots = self.reader.bots
        return message.topic in self.reader.topics and (bots is None or message.bot in bots)

    async def _main(self) -> None:
        self.connection = self.shelf.connect()
        self.store = SimStore(self.shelf, self.connection)
        bookmarks = Bookmarks.of_store(self.store, Path("positions"), {}, ["hub"], clock=self.loop.time)
        self.client = self._client(bookmarks.known.get("hub"))
        async with lane_to(_Bot(self), bookmarks) as lane, self.client as client:
            async for delivery in client:
                wait_s = max(self.reader.takes_s, self.stalled_until - self.loop.time())
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                self.step("deliver")
                if isinstance(delivery.message, Repeated):
                    self.world.repeated(self, delivery)
                delivery.commit = bookmarks.hook(delivery)
                await lane.put(delivery)
                self.step("settled")

    def _client(self, known: Known | None) -> Client:
        rng = random.Random(f"{self.world.schedule.seed}/{self.name}/{self.lives}")
        producer = ProducerConfig(
            name="hub",
            host="hub",
            ws_token="token",
            protocol="v2",
            bots="*" if self.reader.bots is None else list(self.reader.bots),
            topics=list(self.reader.topics),
            encoding="msgpack" if self.reader.encoding == "msgpack" else "json",
        )
        settings = ConsumerConfig(producers=(producer,), wait_timeout=6, ping_timeout=2, sleep_time=2)
        return _Client(
            self,
            producer,
            settings,
            position=known,
            advances=True,
            inbox=Inbox(INBOX_BYTES),
            dial=self.world.network.dialler(self.name, Principal(name=self.name)),
            random=lambda: rng.random() * 0.1,
        )

    def handle(self, delivery: Delivery) -> None:
        """The bot's part: effect and position in one transaction."""
        with self.transaction():
            self.act(delivery)
            self.step("effect")
            self.save(delivery)
            self.step("save")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it, or nothing."""
        connection, self._effects = self.connection, []
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
        for effect in self._effects:
            self.world.tell(f"{self.name} acts on {effect.name or effect.lost} {effect.position or ''}")
        self.shelf.effects += self._effects
        self.step("saved")

    def act(self, delivery: Delivery) -> None:
        """What the bot does, within a transaction."""
        message = delivery.message
        if isinstance(message, Lost):
            self.world.lost(self, message)
            self._effect(Effect(lost=message))
        elif delivery.position is not None:
            self._effect(Effect(self.world.delivered(self, delivery), delivery.position))

    def _effect(self, effect: Effect) -> None:
        assert self.connection is not None
        self.connection.execute("INSERT INTO effect DEFAULT VALUES")
        self._effects.append(effect)

    def save(self, delivery: Delivery) -> None:
        """What is known then, within a transaction."""
        assert self.store is not None
        self.store.save(delivery)
        if delivery.position is not None:
            base = delivery.base if delivery.base is not None else delivery.position.offset
            self.store._note(Position(delivery.position.epoch, base))

    def _cut_off(self) -> None:
        for link in self.world.network.of(self.name):
            link.client_died(1.0)
        if self.connection is not None:
            self.connection.close()
        self.connection = self.client = None


class _Bot:
    """A LocalBot that copies, or what a test makes of it."""

    def __init__(self, process: ReaderProcess) -> None:
        self._process = process

    async def start(self, context: Any) -> None:
        pass

    async def handle(self, delivery: Delivery) -> None:
        self._process.world.bugs.handle(self._process, delivery)

    async def stop(self) -> None:
        pass
