"""The processes of a world: a hub, writers and readers. Each runs the product's own code, and can die at any step.

What a process has on disk outlives it: the hub's `Disk`, a writer's outbox, a reader's `Shelf`. To die is to be cut off from the
world first, so that no cleanup has an effect, and to be cancelled then.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from consumer.client import Client
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.errors import ConnectionFailed, PublishError
from consumer.inbox import Inbox
from consumer.publisher import Ack, Publication, Publisher
from consumer.state import HubState
from hub.core.engine import CoreLimits
from hub.node import Node, NodeLimits
from hub.protocol.codec import Wire
from hub.protocol.envelope import Position
from hub.protocol.known import Known
from hub.protocol.localbot import Advanced, Delivery, Lost
from hub.protocol.principal import Principal
from tests.simulation.ledger import Disk
from tests.simulation.schedule import Reader

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Effect", "HubProcess", "Message", "Process", "ReaderProcess", "Shelf", "WriterProcess"]

INBOX_BYTES = 8192
HEARTBEAT_MS = 5000
_SECOND = 0.01
"""No process comes back sooner: the one before must have ended."""


class Process:
    """Something that runs, dies and comes back."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.loop = world.loop
        self.name = name
        self.up = False
        self.deaths = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self._armed: dict[str, tuple[int, float]] = {}

    def start(self) -> None:
        """Run it, from what it has on disk."""
        self.up = True
        self.own(self.loop.create_task(self._run()))

    async def _run(self) -> None:
        try:
            await self._main()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.world.violated(f"{self.name} ended: {type(error).__name__}: {error}")

    async def _main(self) -> None:
        raise NotImplementedError

    def own(self, task: asyncio.Task[None]) -> None:
        """A task of this process; it ends with it."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def arm(self, point: str, nth: int, down_s: float) -> None:
        """Die when this point is passed for the nth time from now."""
        self._armed[point] = (nth, down_s)

    async def point(self, name: str) -> None:
        """A step is done; perhaps it was the last."""
        armed = self._armed.get(name)
        if armed is None:
            return
        nth, down_s = armed
        if nth > 1:
            self._armed[name] = (nth - 1, down_s)
            return
        del self._armed[name]
        self.world.tell(f"{self.name} dies at {name}")
        self.die(down_s)
        await self.loop.create_future()

    def die(self, down_s: float) -> None:
        """Now, and come back after `down_s`."""
        if self.up:
            self.up = False
            self.deaths += 1
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
        self._rng = random.Random(f"{world.schedule.seed}/hub")

    async def _main(self) -> None:
        bugs, schedule = self.world.bugs, self.world.schedule
        limits = NodeLimits(
            heartbeat_ms=HEARTBEAT_MS,
            core=CoreLimits(tail_bytes=schedule.tail_bytes, slow_bytes=20_000, slow_grace_s=5.0),
        )
        node = bugs.node(bugs.log(self.disk, self.loop, self.point), limits, clock=_Clock(self.loop))
        await node.start()
        self.node = node
        self.world.tell(f"hub up, {self.disk.epoch} head {self.disk.head}")

    def _cut_off(self) -> None:
        node, self.node = self.node, None
        for link in list(self.world.network.links):
            link.hub_died(self._rng.choice((0.0, 0.2, 2.0)))
        if node is not None:
            self.tasks |= node._tasks
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
    acked: Position | None = None
    refused: str | None = None

    @property
    def name(self) -> tuple[str, str]:
        """What it is known by for ever."""
        return (self.writer, self.mid)

    @property
    def publication(self) -> Publication:
        data = {"trade_id": self.number, "pair": "BTC/USDT", "buy_tag": self.mid}
        return Publication(bot=self.bot, topic=self.topic, data=data, mid=self.mid, ts=self.ts)


class WriterProcess(Process):
    """A publisher with an outbox on disk."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, f"w{number}")
        self.outbox: dict[str, Message] = {}
        self.submitted: list[Message] = []
        self.publisher: Publisher | None = None
        self._todo: deque[Message] = deque()
        self._some = asyncio.Event()

    def submit(self, bot: str, topic: str) -> None:
        """The bot has something to tell. One that is down has not."""
        if self.up:
            number = len(self.submitted) + len(self._todo) + 1
            ts = self.loop.now_ms() + number
            self._todo.append(Message(self.name, f"m{number}", bot, topic, number, ts))
            self._some.set()

    async def _main(self) -> None:
        bugs = self.world.bugs
        rng = random.Random(f"{self.world.schedule.seed}/{self.name}/{self.deaths}")
        principal = Principal(name=self.name, publishes=frozenset({"*"}))
        self.publisher = bugs.publisher(
            "ws://hub",
            "token",
            name=self.name,
            encoding=rng.choice(("json", "msgpack")),
            dial=self.world.network.dialler(self.name, principal),
            random=lambda: rng.random() * 0.1,
            now_ms=self.loop.now_ms,
        )
        async with self.publisher as publisher:
            for message in list(self.outbox.values()):
                await self._send(publisher, message)
            while True:
                while self._todo:
                    await self._submit(publisher, self._todo.popleft())
                self._some.clear()
                await self._some.wait()

    async def _submit(self, publisher: Publisher, message: Message) -> None:
        await self.point("submit")
        self.outbox[message.mid] = message
        self.submitted.append(message)
        self.world.messages[message.name] = message
        await self.point("submitted")
        await self._send(publisher, message)

    async def _send(self, publisher: Publisher, message: Message) -> None:
        future = await publisher.submit(message.publication)
        self.own(self.loop.create_task(self._answered(future, message)))

    async def _answered(self, future: asyncio.Future[Ack], message: Message) -> None:
        try:
            ack = await future
        except PublishError as error:
            message.refused = f"{error.code}: {error}"
            self.world.tell(f"{message.mid} of {self.name} is refused: {error.code}")
        except ConnectionFailed:
            return
        else:
            self.world.acked(message, ack)
        await self.point("acked")
        self.outbox.pop(message.mid, None)
        await self.point("deleted")

    def _cut_off(self) -> None:
        for link in self.world.network.of(self.name):
            link.client_died(1.0)
        self._todo.clear()
        self.publisher = None


# --- readers


@dataclass(frozen=True)
class Effect:
    """What a reader's bot did, durably: on a message (`name`), on the word that something is lost, or on a new beginning."""

    name: tuple[str, str] | None = None
    position: Position | None = None
    lost: Lost | None = None
    anew: Position | None = None


@dataclass
class Shelf:
    """What a reader has on disk: its effects and what it knows of the ledger, changed together by `commit` or not at all."""

    effects: list[Effect] = field(default_factory=list)
    known: Known | None = None
    _effects: list[Effect] = field(default_factory=list)
    _known: Known | None = None

    def act(self, effect: Effect) -> None:
        """Do something; it is not durable yet."""
        self._effects.append(effect)

    def move(self, known: Known) -> None:
        """Know more; it is not durable yet."""
        self._known = known

    def commit(self) -> list[Effect]:
        """Make durable what was done and what is known; returns what was done."""
        done = self._effects
        self.effects += done
        self.known = self._known or self.known
        self.rollback()
        return done

    def rollback(self) -> None:
        """What was not committed never was."""
        self._effects = []
        self._known = None


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
        self.start_at: Position | None = None
        self.skips = 0
        self.states: list[HubState] = []
        self.stalled_until = 0.0
        self.client: Client | None = None

    @property
    def holes(self) -> int:
        """How often it found that the hub had left something out."""
        return sum(state.statistics().get("holes", 0) for state in self.states)

    def wants(self, message: Message) -> bool:
        """Whether its subscription takes this message."""
        bots = self.reader.bots
        return message.topic in self.reader.topics and (bots is None or message.bot in bots)

    async def _main(self) -> None:
        rng = random.Random(f"{self.world.schedule.seed}/{self.name}/{self.deaths}")
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
        self.client = _Client(
            self,
            producer,
            settings,
            position=self.shelf.known,
            advances=True,
            inbox=Inbox(INBOX_BYTES),
            dial=self.world.network.dialler(self.name, Principal(name=self.name)),
            random=lambda: rng.random() * 0.1,
        )
        async with self.client as client:
            async for delivery in client:
                wait_s = max(self.reader.takes_s, self.stalled_until - self.loop.time())
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                await self.world.bugs.handle(self, delivery)

    async def handle(self, delivery: Delivery) -> None:
        """Effect and position in one transaction."""
        await self.point("deliver")
        self.act(delivery)
        await self.point("effect")
        self.move(delivery)
        await self.point("save")
        self.commit()
        await self.point("saved")

    def act(self, delivery: Delivery) -> None:
        """What the bot does."""
        message = delivery.message
        if isinstance(message, Lost):
            self.world.lost(self, message)
            self.shelf.act(Effect(lost=message))
        elif isinstance(message, Advanced) and message.anew:
            self.shelf.act(Effect(anew=message.position))
        elif delivery.position is not None:
            self.shelf.act(Effect(self.world.delivered(self, delivery), delivery.position))

    def move(self, delivery: Delivery) -> None:
        """What is known then."""
        message, known = delivery.message, self.shelf.known
        if isinstance(message, Advanced):
            if known is None or message.anew:
                self.shelf.move(Known.at(message.position))
            else:
                self.shelf.move(replace(known, base=max(known.base, message.position.offset)))
        elif delivery.position is not None and known is not None and delivery.base is not None:
            last = {**known.last, (delivery.bot, delivery.topic): delivery.position.offset}
            self.shelf.move(replace(known, base=max(known.base, delivery.base), last=last))

    def commit(self) -> None:
        """It is durable. What is known first is where it began."""
        began = self.shelf.known is None
        for effect in self.shelf.commit():
            self.world.tell(
                f"{self.name} acts on {effect.name or effect.lost or effect.anew} {effect.position}"
            )

    def _cut_off(self) -> None:
        for link in self.world.network.of(self.name):
            link.client_died(1.0)
        self.shelf.rollback()
        self.client = None
