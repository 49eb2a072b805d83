"""Bugs, planted: each is the product with one thing wrong, and each must be caught by a schedule that the product lives through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from consumer.outbox import Item
from consumer.positions import Loss, Positions, Verdict
from consumer.recent import Recent
from consumer.state import HubState
from hub.committer import Committer, _tell
from hub.core import notices, positions
from hub.core.ledger import Append, Appended, LogState
from hub.core.ledger_lane import LedgerLane
from hub.core.session import Cursor, Session
from hub.protocol.errors import NotDurable
from hub.protocol.known import Fingerprint
from hub.protocol.localbot import Delivery
from hub.protocol.subscription import Resume
from tests.simulation.ledger import SimLog
from tests.simulation.parties import ReaderProcess, SimPublisher
from tests.simulation.world import Bugs

__all__ = ["PLANTED", "Planted"]


@dataclass(frozen=True)
class Planted:
    """What is wrong, and what to have more of so that it shows soon."""

    bugs: Bugs = field(default_factory=Bugs)
    patch: Callable[[], AbstractContextManager[object]] = nullcontext
    favour: Mapping[str, float] = field(default_factory=dict)
    first: int = 0
    """The seed from which on schedules are tried; one that is known to show it keeps the test short."""


# --- the hub


async def _deliver_early(self: Committer, batch: list[Append]) -> None:
    """Delivers a batch before the log has committed it."""
    log = self._log
    assert isinstance(log, SimLog)
    early, _ = log._judge(batch)
    self._core.committed(early)
    self._delivery.flush_soon()
    try:
        results = await log.append(batch)
    except NotDurable:
        return
    for result in results:
        _acknowledge(self, result)


async def _acknowledge_early(self: Committer, batch: list[Append]) -> None:
    """Acknowledges a batch before the log has committed it."""
    log = self._log
    assert isinstance(log, SimLog)
    for result in log._judge(batch)[0]:
        _acknowledge(self, result)
    try:
        self._core.committed(await log.append(batch))
    except NotDurable:
        return
    self._delivery.flush_soon()


def _acknowledge(committer: Committer, result: Appended) -> None:
    if result.refused is None:
        ack = {"epoch": committer._core.epoch, "offset": result.offset, "duplicate": result.duplicate}
        _tell(result.append, ack)
    else:
        _tell(result.append, result.refused)


def _commits(change: Callable[..., Any]) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(Committer, "_commit", change)


class _ReusesOffsets(SimLog):
    """Numbers go on from what is left, whatever was told before."""

    async def open(self) -> LogState:
        disk = self.disk
        disk.told = disk.head = disk.records[-1].offset if disk.records else 0
        return LogState(disk.epoch, min(disk.floor, disk.head), disk.head, dict(disk.last))


class _ForgetsIds(SimLog):
    """What it knows of ids is in memory only."""

    async def open(self) -> LogState:
        self.disk.ids.clear()
        return await super().open()


@contextmanager
def _joins_without_a_position() -> Iterator[None]:
    with (
        mock.patch.object(positions, "joins_with_a_position", return_value=False),
        mock.patch.object(Cursor, "take_claim"),
    ):
        yield


def _starts(change: Callable[..., positions.Start]) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(positions, "start", change)


_START = positions.start


def _at_head(epoch: str, floor: int, head: int, resume: Resume | None, **more: Any) -> positions.Start:
    start = _START(epoch, floor, head, resume, **more)
    return positions.Start(head, True) if start.recovered else start


def _without_floor(epoch: str, floor: int, head: int, resume: Resume | None, **more: Any) -> positions.Start:
    return _START(epoch, 0, head, resume, **more)


def _without_epoch(epoch: str, floor: int, head: int, resume: Resume | None, **more: Any) -> positions.Start:
    if resume is not None:
        resume = Resume(epoch, min(resume.offset, head), resume.keys)
    return _START(epoch, floor, head, resume, **more)


def _without_cut(epoch: str, floor: int, head: int, resume: Resume | None, **more: Any) -> positions.Start:
    start = _START(epoch, floor, head, resume, **more)
    return replace(start, recovered=True, reason=None, cut=()) if start.cut else start


@contextmanager
def _floor_unchecked() -> Iterator[None]:
    """Neither at a resume nor at a read: what retention took is skipped without a word."""

    def gap(self: LedgerLane, session: Session, cursor: Cursor, floor: int) -> bool:
        cursor.ledger = floor + 1
        return True

    with mock.patch.object(positions, "start", _without_floor), mock.patch.object(LedgerLane, "_gap", gap):
        yield


def _positions_without_heads() -> AbstractContextManager[object]:
    told = notices.position
    return mock.patch.object(
        notices, "position", lambda epoch, start, offset, heads: told(epoch, start, offset, [])
    )


# --- the consumer


class _BaseFromMessages(Positions):
    def message(self, *args: Any) -> tuple[Verdict, Loss | None]:
        verdict, loss = super().message(*args)
        if verdict is Verdict.ACT:
            self._advance(args[2])
        return verdict, loss


class _IgnoresEpoch(Positions):
    def message(self, epoch: str, *args: Any) -> tuple[Verdict, Loss | None]:
        return super().message(self.epoch or epoch, *args)

    def position(self, epoch: str, *args: Any) -> tuple[Verdict, Loss | None]:
        return super().position(self.epoch or epoch, *args)

    def subscribed(self, epoch: str, *args: Any) -> Loss | None:
        return super().subscribed(self.epoch or epoch, *args)


class _ForgetsAtACut(Positions):
    def moves(self, epoch: str, offset: int, same: int, reply: Mapping[str, Any]) -> list[Loss]:
        """What is known beyond `same` is dropped, instead of kept up to there."""
        self._last = {stream: last for stream, last in self._last.items() if last <= same}
        return super().moves(epoch, offset, same, reply)


def _with(kind: type[Positions]) -> Callable[[HubState], None]:
    def change(state: HubState) -> None:
        state.positions.__class__ = kind

    return change


class _KnowsNoRepetition(Recent):
    def came(self, fingerprint: Fingerprint, epoch: str) -> bool:
        super().came(fingerprint, epoch)
        return False


def _acts_again(state: HubState) -> None:
    state.recent.__class__ = _KnowsNoRepetition


def _position_first(reader: ReaderProcess, delivery: Delivery) -> None:
    with reader.transaction():
        reader.save(delivery)
    reader.step("effect")
    with reader.transaction():
        reader.act(delivery)


def _effect_first(reader: ReaderProcess, delivery: Delivery) -> None:
    with reader.transaction():
        reader.act(delivery)
    reader.step("save")
    with reader.transaction():
        reader.save(delivery)


# --- the publisher


class _ForgetsOnSend(SimPublisher):
    async def _send(self, item: Item[Any], session: Any) -> None:
        await super()._send(item, session)
        assert self._file is not None
        self._file.remove(item.number)


class _NewMidOnRetry(SimPublisher):
    async def _send(self, item: Item[Any], session: Any) -> None:
        message = item.content
        p = message.publication
        mid = f"{p.mid}.{self._uplink.counts['connections']}.{self.process.lives}"
        data = self.process.world.messages[self.process.name, p.mid].publication.data
        payload, message.payload = (
            message.payload,
            self._encoded(item.number, mock.Mock(bot=p.bot, topic=p.topic, mid=mid, ts=p.ts), {"data": data}),
        )
        await super()._send(item, session)
        message.payload = payload


PLANTED: Mapping[str, Planted] = {
    "deliver before commit": Planted(patch=_commits(_deliver_early), favour={"kill_hub": 3}),
    "acknowledge before fsync": Planted(patch=_commits(_acknowledge_early), favour={"kill_hub": 3}),
    "reuse an offset after a crash": Planted(Bugs(log=_ReusesOffsets), favour={"kill_hub": 4}, first=35),
    "dedupe lost at restart": Planted(Bugs(log=_ForgetsIds), favour={"kill_hub": 4, "cut": 2}, first=3),
    "join without a position": Planted(
        patch=_joins_without_a_position, favour={"cut": 3, "stall": 3}, first=2
    ),
    "resume at head": Planted(patch=_starts(_at_head), favour={"cut": 3}),
    "retention floor unchecked": Planted(
        patch=_floor_unchecked, favour={"cut": 3, "kill_reader": 2}, first=15
    ),
    "position without heads": Planted(patch=_positions_without_heads, favour={"skip": 8}, first=3),
    "epoch ignored": Planted(
        Bugs(state=_with(_IgnoresEpoch)), patch=_starts(_without_epoch), favour={"kill_hub": 5}, first=24
    ),
    "repetition across epochs acts": Planted(
        Bugs(state=_acts_again), favour={"kill_hub": 5, "cut": 4, "full": 3}, first=79
    ),
    "what went with a cut is not named": Planted(
        patch=_starts(_without_cut), favour={"kill_hub": 5, "kill_reader": 3}, first=24
    ),
    "what is known is dropped at a cut": Planted(
        Bugs(state=_with(_ForgetsAtACut)), favour={"kill_hub": 5}, first=125
    ),
    "base moved by messages": Planted(Bugs(state=_with(_BaseFromMessages)), favour={"skip": 8}, first=1),
    "position stored before the effect": Planted(
        Bugs(handle=_position_first), favour={"kill_reader": 4}, first=24
    ),
    "effect before position in separate transactions": Planted(
        Bugs(handle=_effect_first), favour={"kill_reader": 4}, first=25
    ),
    "outbox forgets on send": Planted(Bugs(publisher=_ForgetsOnSend), favour={"kill_writer": 6}),
    "retry with a new mid": Planted(
        Bugs(publisher=_NewMidOnRetry), favour={"cut": 4, "kill_hub": 2}, first=7
    ),
}
