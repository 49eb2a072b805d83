"""The rows of a position store: what is read and written, in the words of SQL that databases share.

Theory of operation
===================

`tradewire_positions` has a row per producer: its epoch, the base, and which run may write. `tradewire_streams` has the last offset
of each stream (bot, topic) that is beyond the base. `tradewire_recent` has the messages that were acted on last, by digest, in
REMEMBERED slots that are used in turn: a message costs one row, and none is deleted. They outlive an epoch. Every change begins
with an UPDATE of the producer's row: it takes the write lock (SQLite) or the row's (others), so that what is read after it cannot
change before the commit.

Invariants
==========

1. A message is saved once: an offset at or below what is known of its stream is refused in the transaction of the effect.
2. Only the run that loaded last can save: its token is in the row, and the first UPDATE finds no row without it.
3. No stream is kept at or below the base, or of another epoch: as many rows as streams since the last position, and REMEMBERED.
4. What is read is checked; a row that no store can have written is told, never acted on.

Source: docs/wire-protocol.md, The ledger, rules 1 and 2 of a client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from consumer.errors import AlreadyActed, StoreFailed, TakenOver
from consumer.recent import REMEMBERED, Recent
from hub.protocol.known import Known
from hub.protocol.localbot import Delivery

__all__ = ["POSITIONS", "RECENT", "STREAMS", "Execute", "Result", "Run", "advance", "claim", "save", "saved"]

POSITIONS, STREAMS, RECENT = "tradewire_positions", "tradewire_streams", "tradewire_recent"

_TAKE = f"UPDATE {POSITIONS} SET run = :run WHERE producer = :producer"
_ENTER = f"INSERT INTO {POSITIONS} (producer, epoch, base, run) VALUES (:producer, '', 0, :run)"
_RAISE = (
    f"UPDATE {POSITIONS} SET base = CASE WHEN epoch = :epoch AND base > :base THEN base ELSE :base END, epoch = :epoch"
    " WHERE producer = :producer AND run = :run"
)
_REPLACE = f"UPDATE {POSITIONS} SET base = :base, epoch = :epoch WHERE producer = :producer AND run = :run"
_BASE = f"SELECT epoch, base FROM {POSITIONS} WHERE producer = :producer"
_LAST = f"SELECT bot, topic, last FROM {STREAMS} WHERE producer = :producer AND epoch = :epoch"
_PRUNE = f"DELETE FROM {STREAMS} WHERE producer = :producer AND (epoch <> :epoch OR last <= :base)"
_FORGET = f"DELETE FROM {STREAMS} WHERE producer = :producer"
_ONE = " AND bot = :bot AND topic = :topic"
_MOVE = f"UPDATE {STREAMS} SET last = :offset WHERE producer = :producer{_ONE}"
_BEGIN = f"INSERT INTO {STREAMS} (producer, bot, topic, epoch, last) VALUES (:producer, :bot, :topic, :epoch, :offset)"
_RECENT = f"SELECT turn, epoch, digest FROM {RECENT} WHERE producer = :producer ORDER BY turn"
_REUSE = f"UPDATE {RECENT} SET turn = :turn, epoch = :epoch, digest = :digest WHERE producer = :producer AND slot = :slot"
_FILL = f"INSERT INTO {RECENT} (producer, slot, turn, epoch, digest) VALUES (:producer, :slot, :turn, :epoch, :digest)"


class Result(Protocol):
    """Of a statement that was executed."""

    @property
    def rowcount(self) -> int: ...

    def fetchall(self) -> Sequence[Sequence[Any]]: ...


Execute = Callable[[str, dict[str, Any]], Result]
"""Executes a statement with named parameters (`:name`) in the transaction that is open, or opens one."""


@dataclass(slots=True)
class Slots:
    """A producer's slots: how often one was used, and what was written to them."""

    turn: int = 0
    recent: Recent = field(default_factory=Recent)


@dataclass(slots=True)
class Run:
    """Who writes: a token that no other run has, and the producers whose positions it has loaded."""

    token: str
    producers: dict[str, Slots] = field(default_factory=dict)


def claim(execute: Execute, run: Run, producer: str) -> Known | None:
    """Make `run` the one that may write, and read what is known.

    Raises:
        StoreFailed: the rows are none of a store.
    """
    taken = {"producer": producer, "run": run.token}
    if execute(_TAKE, taken).rowcount == 0:
        execute(_ENTER, taken)
    run.producers[producer] = slots = Slots()
    return _read(execute, producer, slots)


def save(execute: Execute, run: Run, delivery: Delivery) -> None:
    """Note a message of the ledger; of others there is nothing to note.

    Raises:
        AlreadyActed, TakenOver: the effect must not be committed.
    """
    position, producer = delivery.position, delivery.producer
    if position is None:
        return
    base = delivery.base if delivery.base is not None else position.offset
    # The message itself is not below what is known before it is noted, even where its base is the message.
    _raise(execute, run, producer, Known(position.epoch, min(base, position.offset - 1)))
    stream = {"bot": delivery.bot, "topic": delivery.topic}
    if position.offset <= _of(execute, producer, position.epoch, stream):
        raise AlreadyActed(
            f"{producer}: {delivery.topic} {position.offset} of {delivery.bot} was acted on before"
        )
    _note(execute, producer, position.epoch, stream, position.offset)
    if base >= position.offset:
        _raise(execute, run, producer, Known(position.epoch, base))
    if delivery.digest is not None:
        _remember(execute, run, producer, delivery.digest, position.epoch)


def saved(execute: Execute, delivery: Delivery) -> bool:
    """Whether a message of the ledger is known."""
    position = delivery.position
    if position is None:
        return True
    stream = {"bot": delivery.bot, "topic": delivery.topic}
    return position.offset <= _of(execute, delivery.producer, position.epoch, stream)


def advance(execute: Execute, run: Run, producer: str, known: Known, *, anew: bool) -> None:
    """Note what is known; within an epoch nothing is turned back, unless `anew`.

    Raises:
        TakenOver: this run may not write any more.
    """
    if anew:
        _write(execute, _REPLACE, run, producer, known)
        execute(_FORGET, {"producer": producer})
    else:
        _raise(execute, run, producer, known)
    for (bot, topic), offset in known.last.items():
        stream = {"bot": bot, "topic": topic}
        if offset > _of(execute, producer, known.epoch, stream):
            _note(execute, producer, known.epoch, stream, offset)
    written = run.producers[producer].recent
    for digest, epoch in known.recent.items():
        if not written.has(digest, epoch):
            _remember(execute, run, producer, digest, epoch)


def _raise(execute: Execute, run: Run, producer: str, known: Known) -> None:
    _write(execute, _RAISE, run, producer, known)
    execute(_PRUNE, {"producer": producer, "epoch": known.epoch, "base": known.base})


def _write(execute: Execute, statement: str, run: Run, producer: str, known: Known) -> None:
    if producer not in run.producers:
        raise StoreFailed(f"{producer}: its positions were not loaded; return the PositionStore from start")
    values = {"producer": producer, "run": run.token, "epoch": known.epoch, "base": known.base}
    if execute(statement, values).rowcount != 1:
        raise TakenOver(
            f"{producer}: another run has loaded the positions in this database; only one can act on a producer's messages"
        )


def _note(execute: Execute, producer: str, epoch: str, stream: dict[str, str], offset: int) -> None:
    values = {"producer": producer, "offset": offset, **stream}
    if execute(_MOVE, values).rowcount == 0:
        execute(_BEGIN, {**values, "epoch": epoch})


def _remember(execute: Execute, run: Run, producer: str, digest: str, epoch: str) -> None:
    # A turn that is rolled back leaves the oldest in its slot a while longer.
    slots = run.producers[producer]
    slots.turn += 1
    values = {"producer": producer, "slot": slots.turn % REMEMBERED, "turn": slots.turn}
    values |= {"epoch": epoch, "digest": digest}
    if execute(_REUSE, values).rowcount == 0:
        execute(_FILL, values)
    slots.recent.add(digest, epoch)


def _of(execute: Execute, producer: str, epoch: str, stream: dict[str, str]) -> int:
    """What is known of a stream in `epoch`."""
    (found,) = execute(_BASE, {"producer": producer}).fetchall() or [("", 0)]
    if found[0] != epoch:
        return 0
    last = execute(_LAST + _ONE, {"producer": producer, "epoch": epoch, **stream}).fetchall()
    return max(_number(found[1]), *(_number(row[2]) for row in last), 0)


def _number(value: Any) -> int:
    if type(value) is not int:
        raise StoreFailed(f"{POSITIONS}, {STREAMS}: expected offsets, got {value!r:.40}")
    return value


def _read(execute: Execute, producer: str, slots: Slots) -> Known | None:
    ((epoch, base),) = execute(_BASE, {"producer": producer}).fetchall()
    if epoch == "" and base == 0:
        return None
    rows = execute(_LAST, {"producer": producer, "epoch": epoch}).fetchall()
    used = execute(_RECENT, {"producer": producer}).fetchall()
    slots.turn = _number(used[-1][0]) if used else 0
    # One that is there twice stands where it came last.
    recent: dict[str, str] = {}
    for _, came, digest in used:
        recent.pop(digest, None)
        recent[digest] = came
    try:
        known = Known(epoch, base, {(bot, topic): last for bot, topic, last in rows}, recent)
    except ValueError as error:
        raise StoreFailed(
            f"{POSITIONS}, {STREAMS}, {RECENT}: the rows of {producer} cannot be used: {error}"
        ) from None
    slots.recent = Recent(recent)
    last = {stream: last for stream, last in known.last.items() if last > base}
    return Known(epoch, base, last, slots.recent.known())
