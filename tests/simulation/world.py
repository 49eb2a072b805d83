"""A world in virtual time: it lives through a schedule, comes to rest, and is looked at.

What is looked at between any two turns of the loop: core's invariants, and every buffer against its bound. What is looked at as it
happens: an acknowledgement or a delivery before its fsync, a number that two messages have. What is looked at when all are
alive, the network is whole and nothing moves any more: see `_at_rest`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import consumer.client
import consumer.uplink
import hub.delivery
from consumer.errors import PublishError
from consumer.outbox import Answer
from consumer.publisher import Publisher
from consumer.state import HubState
from hub.node import Node
from hub.protocol.envelope import Position
from hub.protocol.localbot import Delivery, Lost
from tests.simulation import loop as virtual
from tests.simulation.ledger import Disk, SimLog
from tests.simulation.network import HIGH_WATER_BYTES, Network
from tests.simulation.parties import (
    INBOX_BYTES,
    HubProcess,
    Message,
    Process,
    ReaderProcess,
    SimPublisher,
    WriterProcess,
)
from tests.simulation.schedule import BOTS, LEDGER, Op, Schedule

__all__ = ["Bugs", "Violation", "World", "live"]

REST_S = 200.0
STILL_S = 2.0
CAP_S = 2.0


class Violation(AssertionError):
    """A promise was broken; the text has the schedule."""


@dataclass(frozen=True)
class Bugs:
    """What the parties are made of. A test plants a bug by another one."""

    log: Callable[..., SimLog] = SimLog
    publisher: Callable[..., Publisher] = SimPublisher
    state: Callable[[HubState], None] = lambda state: None
    handle: Callable[[ReaderProcess, Delivery], None] = ReaderProcess.handle


@dataclass
class Figures:
    """What a run did, to see that schedules do something."""

    acked: int = 0
    effects: int = 0
    lost: int = 0
    repeated: int = 0
    deaths: int = 0
    turns: int = 0
    epochs: int = 0
    virtual_s: float = 0.0
    trace: list[str] = field(default_factory=list)


def live(schedule: Schedule, bugs: Bugs = Bugs()) -> Figures:
    """Live through a schedule.

    Raises:
        Violation: something happened that must not.
    """
    return World(schedule, bugs).live()


class _Watch(logging.Handler):
    """What the node logs as an error, where it should have none."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not text.startswith(("the log failed", "the log cannot store")):
            cause = record.exc_info[1] if record.exc_info else None
            self._world.violated(f"the node logs: {text} {cause!r}")


class World:
    """One schedule's."""

    def __init__(self, schedule: Schedule, bugs: Bugs) -> None:
        self.schedule = schedule
        self.bugs = bugs
        self.loop = virtual.VirtualLoop()
        self.rng = random.Random(schedule.seed)
        self.disk = Disk(random.Random(f"{schedule.seed}/disk"), keep=schedule.keep)
        self.hub = HubProcess(self, self.disk)
        self.network = Network(self.loop, schedule.seed, self.hub)
        self.writers = [WriterProcess(self, i) for i in range(schedule.writers)]
        self.readers = [ReaderProcess(self, i, reader) for i, reader in enumerate(schedule.readers)]
        self.messages: dict[tuple[str, str], Message] = {}
        self.numbers: dict[Position, tuple[str, str]] = {}
        self.figures = Figures()
        self.trace = self.figures.trace
        self._violation: str | None = None

    # --- what happens

    def tell(self, text: str) -> None:
        """Remember what happened: for the one who reads a failure, and to see that the same schedule does the same."""
        self.trace.append(f"{self.loop.time() - virtual.START:9.4f} {text}")

    def violated(self, text: str) -> None:
        """A promise is broken; the first counts."""
        if self._violation is None:
            self.tell(f"VIOLATED: {text}")
            self._violation = text

    def live(self) -> Figures:
        names = (consumer.client, "CAP_S"), (consumer.uplink, "CAP_S"), (hub.delivery, "PULL_BYTES")
        before = [getattr(module, name) for module, name in names]
        watch, logger = _Watch(self), logging.getLogger("tradewire.node")
        loggers = [logger, logging.getLogger("consumer")]
        flags = [(each.propagate, each.level) for each in loggers]
        try:
            consumer.client.CAP_S = consumer.uplink.CAP_S = CAP_S  # type: ignore[misc]
            hub.delivery.PULL_BYTES = self.schedule.page_bytes  # type: ignore[misc]
            logger.addHandler(watch)
            logger.propagate = False
            loggers[1].setLevel(logging.CRITICAL)
            self.loop.on_turn = self._look
            virtual.run(self.loop, self._live())
        except virtual.Stuck as stuck:
            self.violated(str(stuck))
        finally:
            logger.removeHandler(watch)
            for each, (propagate, level) in zip(loggers, flags, strict=True):
                each.propagate = propagate
                each.setLevel(level)
            for reader in self.readers:
                reader.shelf.close()
            for (module, name), value in zip(names, before, strict=True):
                setattr(module, name, value)
        for context in self.loop.unhandled:
            self.violated(f"unhandled: {context}")
        if self._violation is not None:
            raise Violation(f"{self._violation}\n{self.schedule}")
        return self._sum()

    async def _live(self) -> None:
        for process in self._processes():
            comes_s = process.reader.comes_s if isinstance(process, ReaderProcess) else 0.0
            self.loop.call_later(comes_s, process.start)
        await asyncio.sleep(0.5)
        for op in self.schedule.ops:
            await asyncio.sleep(op.after_s)
            if self._violation is None:
                self._do(op)
        await self._rest()
        if self._violation is None:
            self._at_rest()
        for process in self._processes():
            if process.up:
                process.die(REST_S * 10)

    def _processes(self) -> list[Process]:
        return [self.hub, *self.writers, *self.readers]

    def _do(self, op: Op) -> None:
        self.tell(str(op))
        getattr(self, f"_op_{op.name}")(*op.args)

    def _op_publish(self, writer: int, count: int) -> None:
        for _ in range(count):
            bot, topic = self.rng.choice(BOTS), self.rng.choice(LEDGER)
            self.writers[writer].submit(bot, topic)

    def _op_kill_hub(self, down_s: float, point: str | None, nth: int, torn: int) -> None:
        self.hub.torn = torn
        self._kill(self.hub, down_s, point, nth)

    def _op_kill_reader(self, number: int, down_s: float, point: str | None, nth: int) -> None:
        self._kill(self.readers[number], down_s, point, nth)

    def _op_kill_writer(self, number: int, down_s: float, point: str | None, nth: int) -> None:
        self._kill(self.writers[number], down_s, point, nth)

    def _kill(self, process: Process, down_s: float, point: str | None, nth: int) -> None:
        if point is None:
            process.die(down_s)
        else:
            process.arm(point, nth, down_s)

    def _op_cut(self, client: str, client_hears_s: float, hub_hears_s: float) -> None:
        for link in self.network.of(client):
            link.cut(client_hears_s, hub_hears_s)

    def _op_silence(self, client: str, seconds: float) -> None:
        for link in self.network.of(client):
            link.silence(seconds)

    def _op_skip(self, reader: int) -> None:
        self.readers[reader].skips += 1
        for link in self.network.of(self.readers[reader].name):
            link.hub_end.skips = 1

    def _op_full(self, seconds: float, stores: bool) -> None:
        self.disk.full_until = self.loop.time() + seconds
        self.disk.full_stores = stores

    def _op_fill(self, writer: int, seconds: float) -> None:
        self.writers[writer].full_until = self.loop.time() + seconds

    def _op_damage(self, nth: int) -> None:
        self.disk.damage(nth)

    def _op_stall(self, reader: int, seconds: float) -> None:
        self.readers[reader].stalled_until = self.loop.time() + seconds

    def _op_drain(self, deadline_s: float, down_s: float) -> None:
        self.hub.drain(deadline_s, down_s)

    def _op_wait(self, seconds: float) -> None:
        self.disk.full_until = min(self.disk.full_until, self.loop.time() + seconds)

    # --- what is looked at as it happens

    def _look(self) -> None:
        node = self.hub.node
        if node is None or self._violation is not None:
            return
        try:
            node.core.check_invariants()
            self._bounds(node)
        except AssertionError as error:
            self.violated(f"between two turns: {error!r}")

    def _bounds(self, node: Node) -> None:
        core = node.core
        assert core.tail.bytes <= core.tail.limit_bytes or core.tail.next - core.tail.first == 1
        assert 0 <= core.pending_bytes <= core.limits.pending_bytes
        for connection in node._connections.values():
            session, unsent = connection.session, connection.outlet.unsent_bytes
            assert session.control_bytes == sum(map(len, session.control))
            assert session.control_bytes <= 2 * node.limits.control_bytes
            assert unsent <= HIGH_WATER_BYTES + hub.delivery.FLUSH_BYTES, unsent
        for reader in self.readers:
            if reader.client is not None:
                assert reader.client._inbox.bytes <= 2 * INBOX_BYTES

    def answered(self, message: Message, answer: Answer) -> None:
        """A writer was told how its message ended."""
        if isinstance(answer, PublishError):
            self.tell(f"{message.name} is refused: {answer.code}")
            message.refused = message.refused or answer.code
            return
        position = answer.position
        if position is None:
            self.violated(f"{message.name} was acknowledged without a position")
            return
        self.tell(f"{message.name} is acknowledged as {position.epoch} {position.offset}")
        self.figures.acked += message.acked is None
        message.acked = position
        self._number(position, message.name, "acknowledged")

    def delivered(self, reader: ReaderProcess, delivery: Delivery) -> tuple[str, str]:
        """A reader was told of a message; returns the name of it."""
        position = delivery.position
        assert position is not None
        tag = delivery.payload["buy_tag"]
        record = self.disk.history.get(position)
        if record is None or record.name[1] != tag:
            self.violated(f"{reader.name} was given {position} ({tag}), which is not durable")
            return ("", tag)
        self._number(position, record.name, "delivered")
        return record.name

    def repeated(self, reader: ReaderProcess, delivery: Delivery) -> None:
        """A reader was not given a message: it must have acted on it, in an epoch whose end was torn off with it."""
        position = delivery.position
        assert position is not None
        record = self.disk.history.get(position)
        name = record.name if record is not None else None
        before = next((e.position for e in reader.shelf.effects if e.name == name), None)
        self.tell(f"{reader.name} knows {name} {position} from {before}")
        if before is None or before.epoch == position.epoch:
            self.violated(f"{reader.name} takes {name} at {position} for a repetition of {before}")
        elif before.offset <= self._same(before.epoch, position.epoch):
            self.violated(f"{reader.name} was given {name} at {position} again, which it had in {before}")

    def lost(self, reader: ReaderProcess, lost: Lost) -> None:
        """A reader was told of a loss: what can still be had must not be among it."""
        if lost.first is None or lost.epoch is None:
            self.violated(f"{reader.name} is told of a loss that has no numbers: {lost}")
        elif lost.reason == "cut":
            self._lost_with_an_epoch(reader, lost, lost.epoch)
        elif lost.epoch == self.disk.epoch and reader.skips <= 1:
            self._lost_in_this_epoch(reader, lost, lost.first)

    def _lost_with_an_epoch(self, reader: ReaderProcess, lost: Lost, epoch: str) -> None:
        assert lost.first is not None
        if lost.last is None or Position(epoch, lost.last) not in self.disk.history:
            self.violated(f"{reader.name} is told of a loss that does not end at what was told: {lost}")
        if any(lost.first <= record.offset <= self._same(epoch) for record in self.disk.records):
            self.violated(f"{reader.name} is told that what is still there went with {epoch}: {lost}")

    def _means(self, place: Position, epoch: str) -> bool:
        """Whether the number of a place is that of its message in `epoch`, too."""
        return place.epoch == epoch or (
            _age(place.epoch) < _age(epoch) and place.offset <= self._same(place.epoch, epoch)
        )

    def _same(self, epoch: str, until: str = "") -> int:
        """Up to where the numbers of an epoch mean the same messages in a later one, or today."""
        last = _age(until or self.disk.epoch)
        return min(ended.upto for ended in self.disk.ended if _age(epoch) <= _age(ended.epoch) < last)

    def _lost_in_this_epoch(self, reader: ReaderProcess, lost: Lost, first: int) -> None:
        done = {effect.name for effect in reader.shelf.effects}
        for record in self.disk.records:
            message = self.messages[record.name]
            if (
                first <= record.offset <= (lost.last or record.offset)
                and not record.damaged
                and record.name not in done
                and reader.wants(message)
            ):
                self.violated(f"{reader.name} is told that {record.name} at {record.offset} is lost: {lost}")

    def _number(self, position: Position, name: tuple[str, str], how: str) -> None:
        record = self.disk.history.get(position)
        if record is None or record.name != name:
            self.violated(f"{name} was {how} as {position}, which is not durable")
        if self.numbers.setdefault(position, name) != name:
            self.violated(f"{position} was told for {self.numbers[position]} and for {name}")

    # --- at rest

    async def _rest(self) -> None:
        """Everybody lives, the network is whole; wait until nothing moves any more."""
        for process in self._processes():
            process.disarm()
        self.disk.full_until = 0.0
        for writer in self.writers:
            writer.full_until = 0.0
        self.hub.torn = 0
        end, still_at = self.loop.time() + REST_S, self.loop.time()
        seen = -1
        while self.loop.time() < end and self._violation is None:
            await asyncio.sleep(0.25)
            moved = len(self.trace)
            if moved != seen or not self._complete():
                seen, still_at = moved, self.loop.time()
            elif self.loop.time() - still_at >= STILL_S:
                return

    def _complete(self) -> bool:
        return (
            all(process.up for process in self._processes())
            and not any(writer.busy for writer in self.writers)
            and not any(self._missing(reader) for reader in self.readers)
        )

    def _at_rest(self) -> None:
        for writer in self.writers:
            for message in writer.submitted:
                if message.kept and message.acked is None and message.refused is None:
                    self.violated(f"{message.name} was submitted, and neither acknowledged nor refused")
            if writer.waiting:
                self.violated(f"{writer.name} still has {sorted(writer.waiting)} in its outbox")
        for reader in self.readers:
            reader.shelf.check()
            missing = self._missing(reader)
            if missing:
                self.violated(f"{reader.name} has neither got nor been told of {missing}")
            if reader.holes and not reader.skips:
                self.violated(f"{reader.name} found {reader.holes} holes that no hub made")
            self._check_effects(reader)
        self._check_ledger()

    def _missing(self, reader: ReaderProcess) -> list[tuple[str, str]]:
        """What was acknowledged, is owed to this reader, and neither acted nor was named as lost, which only what is gone can be."""
        start = reader.shelf.start_at
        if start is None:
            return [("", "its start")]
        done = {effect.name for effect in reader.shelf.effects}
        there = {record.name for record in self.disk.records if not record.damaged}
        return [
            name
            for name, message in self.messages.items()
            if message.acked is not None
            and name not in done
            and reader.wants(message)
            and self._owed(start, name)
            and ((name in there and reader.skips <= 1) or not self._named_lost(reader, name))
        ]

    def _owed(self, start: Position, name: tuple[str, str]) -> bool:
        """Whether it came into the ledger behind where the reader began."""
        return any(
            _after(place, start)
            for place in self.disk.places.get(name, ())
            if not self._carried_over(place, name)
        )

    def _carried_over(self, place: Position, name: tuple[str, str]) -> bool:
        before = self.disk.history.get(Position(f"e{_age(place.epoch) - 1}", place.offset))
        return before is not None and before.name == name

    def _named_lost(self, reader: ReaderProcess, name: tuple[str, str]) -> bool:
        """Whether a loss that the reader was told of has a place of this message in it."""
        places = self.disk.places[name]
        told = [effect.lost for effect in reader.shelf.effects if effect.lost is not None]
        return any(
            lost.first is not None
            and lost.epoch is not None
            and lost.first <= p.offset <= (lost.last or p.offset)
            and self._means(p, lost.epoch)
            for lost in told
            for p in places
        )

    def _check_effects(self, reader: ReaderProcess) -> None:
        seen: dict[tuple[str, str], Position] = {}
        acted: set[Position] = set()
        at: dict[tuple[str, ...], Position] = {}
        for effect in reader.shelf.effects:
            if effect.name is None or effect.position is None or effect.name not in self.messages:
                continue
            message = self.messages[effect.name]
            if not reader.wants(message):
                self.violated(f"{reader.name} acted on {effect.name}, which it did not want")
            before = seen.setdefault(effect.name, effect.position)
            if before != effect.position or effect.position in acted:
                self.violated(f"{reader.name} acted twice on {effect.name}")
            acted.add(effect.position)
            # A hub that skips messages is resumed from before them: what was missed then comes behind what was not.
            order = (message.bot, message.topic) if reader.skips else ()
            last = at.get(order)
            if last is not None and last.epoch == effect.position.epoch and effect.position <= last:
                self.violated(f"{reader.name} acted on {effect.position} after {last}")
            at[order] = effect.position

    def _check_ledger(self) -> None:
        """One writer's messages are in the ledger in the order of submit."""
        at: dict[tuple[str, str], int] = {}
        for place, record in sorted(self.disk.history.items(), key=lambda item: item[0]):
            if self.disk.places[record.name][0].epoch != place.epoch:
                # A tail that was torn off had it; who published it again may have published others before.
                continue
            writer = (place.epoch, record.publisher)
            number = self.messages[record.name].number
            if number < at.get(writer, 0):
                self.violated(f"{record.name} at {place} is behind a later one")
            at[writer] = number

    def _sum(self) -> Figures:
        figures = self.figures
        effects = [effect for reader in self.readers for effect in reader.shelf.effects]
        figures.effects = sum(effect.lost is None for effect in effects)
        figures.lost = sum(effect.lost is not None for effect in effects)
        figures.deaths = sum(process.lives for process in self._processes()) - len(self._processes())
        figures.turns = self.loop.turns
        figures.epochs = self.disk.epoch_number
        figures.repeated = sum(reader.repeated for reader in self.readers)
        figures.virtual_s = self.loop.time() - virtual.START
        return figures


def _after(place: Position, other: Position) -> bool:
    return (_age(place.epoch), place.offset) > (_age(other.epoch), other.offset)


def _age(epoch: str) -> int:
    return int(epoch[1:])
