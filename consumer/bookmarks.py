"""Bookmarks: what a local bot has committed of each producer's ledger, and when that is stored.

Theory of operation
-------------------
A commit is noted in memory at once (`hook`), and so is a base, at its place in the order (`advance`). They are kept in one of
two places:

- a bot that returned a PositionStore saves each message itself, in the transaction of its effect. What is left to do here is to
  store a base while no message comes, so that retention does not overtake an idle bot; and to store what it forgot to save.
- for any other bot there is a file, written after the commit: it sees a message again when the process dies in between. A bot that
  returned a Position begins there, whatever the file says; it is written all the same, or an old place would be found in it by a bot
  that returns something else later.

Invariants
----------
1. What is stored was committed: no message beyond the last commit, no base whose messages were not all committed before.
2. Within an epoch nothing stored is turned back, unless the hub's ledger is another one (`Advanced.anew`). What moves into the
   next epoch (`Advanced.same`) moves whole, in one write, behind all of the old epoch and before anything of the new one: until then
   the old epoch is resumed from, and the hub says the same again.
3. A base that was not stored is at most EVERY_S old when another one comes; one after a loss, or of a new ledger, is stored at once.
4. What is held is bounded: per producer the streams since its base, REMEMBERED messages, and what waits in the lane uncommitted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from consumer.errors import BotFailed, ConfigError, ConsumerError, StoreFailed
from consumer.recent import Recent
from hub.protocol.envelope import Position
from hub.protocol.known import Known, Stream
from hub.protocol.localbot import Advanced, Delivery, Lost, PositionStore, Repeated

__all__ = ["EVERY_S", "Bookmarks", "Marks", "read_file"]

log = logging.getLogger(__name__)

EVERY_S = 10.0
_COMMITS_PER_WRITE = 100


@dataclass(slots=True)
class Marks:
    """A Known that grows."""

    epoch: str
    base: int
    last: dict[Stream, int] = field(default_factory=dict)
    recent: Recent = field(default_factory=Recent)

    @classmethod
    def of(cls, known: Known) -> Marks:
        """What an earlier run knew."""
        last = {s: n for s, n in known.last.items() if n > known.base}
        return cls(known.epoch, known.base, last, Recent(known.recent))

    def known(self) -> Known:
        """As it is now."""
        return Known(self.epoch, self.base, dict(self.last), self.recent.known())

    @classmethod
    def before(cls, delivery: Delivery) -> Marks:
        """Nothing but where the first message of a ledger says that it begins."""
        assert delivery.position is not None
        return cls(delivery.position.epoch, _base(delivery))

    def covers(self, delivery: Delivery) -> bool:
        """Whether a message was known before."""
        position = delivery.position
        assert position is not None
        known = max(self.base, self.last.get((delivery.bot, delivery.topic), 0))
        return position.epoch == self.epoch and position.offset <= known

    def acted(self, delivery: Delivery) -> None:
        """A message came, and everything up to its base before it."""
        position, stream = delivery.position, (delivery.bot, delivery.topic)
        assert position is not None
        if position.epoch != self.epoch:
            self.epoch, self.base, self.last = position.epoch, 0, {}
        self._rise(_base(delivery))
        if position.offset > self.base:
            self.last[stream] = max(position.offset, self.last.get(stream, 0))
        if delivery.fingerprint is not None:
            self.recent.came(delivery.fingerprint, position.epoch)

    def advance(self, to: Advanced) -> bool:
        """A base came; whether it is one of a new ledger."""
        anew = to.anew or to.position.epoch != self.epoch
        if anew and to.same is not None and to.same.epoch == self.epoch:
            known = self.known().moved(to.position.epoch, to.position.offset, to.same.offset)
            self.epoch, self.base, self.last = known.epoch, known.base, dict(known.last)
        elif anew:
            self.epoch, self.base, self.last = to.position.epoch, to.position.offset, {}
        else:
            self._rise(to.position.offset)
        return anew

    def _rise(self, base: int) -> None:
        if base > self.base:
            self.base = base
            self.last = {stream: n for stream, n in self.last.items() if n > base}


def _base(delivery: Delivery) -> int:
    """Where to resume from once all before this was acted on. Who knows no base has one number: all up to the message."""
    assert delivery.position is not None
    return delivery.base if delivery.base is not None else delivery.position.offset


class _Keeper(Protocol):
    """Where what is committed is kept. `blocking`: its methods are to be called in a thread of their own."""

    blocking: bool
    commits_per_write: int

    def saved(self, delivery: Delivery) -> bool:
        """Whether the bot has done it itself."""

    def store(self, changed: Mapping[str, Known], anew: frozenset[str]) -> None:
        """Make it durable; what is `anew` replaces what was stored."""


@dataclass(slots=True)
class _Unstored:
    """What of a producer is not stored yet: messages, a base, and whether that is to be at once or replaces what is stored."""

    messages: int = 0
    base: bool = False
    urgent: bool = False
    anew: bool = False


class Bookmarks:
    """What is committed, by producer. `known` is thread-safe, and so are the hooks; `settle` belongs to where `handle` runs.

    `clock` is a monotonic time in s.
    """

    def __init__(
        self,
        keeper: _Keeper,
        starts: Mapping[str, Known],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeper = keeper
        self._clock = clock
        self._marks = {name: Marks.of(known) for name, known in starts.items()}
        self._unstored: dict[str, _Unstored] = {}
        self._stored_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._storing = threading.Lock()
        # Of the deliveries in the order in which they were handed over: epochs have none by themselves.
        self._handed = 0
        self._pending: dict[str, deque[tuple[int, Delivery]]] = {}

    @classmethod
    def of_file(cls, path: Path, filed: Mapping[str, Known], **options: Any) -> Bookmarks:
        """They are kept in the file, in which `filed` was found."""
        return cls(_File(path, filed), filed, **options)

    @classmethod
    def of_position(
        cls, start: Position, path: Path, filed: Mapping[str, Known], producers: Iterable[str], **options: Any
    ) -> Bookmarks:
        """The bot keeps one number itself. It belongs to the producers that the file knows by its epoch, or else to any.

        The file goes on: it has the places of the other producers, and of all once the bot keeps its number no more.
        """
        names = list(producers)
        known = [name for name in names if name in filed and filed[name].epoch == start.epoch]
        starts = {**filed, **dict.fromkeys(known or names, Known.at(start))}
        return cls(_File(path, filed), starts, **options)

    @classmethod
    def of_store(
        cls,
        store: PositionStore,
        path: Path,
        filed: Mapping[str, Known],
        producers: Iterable[str],
        **options: Any,
    ) -> Bookmarks:
        """The bot keeps them itself. What the file has, of a time before the bot did, moves into the store.

        Raises:
            ConsumerError: the store cannot be used.
        """
        starts: dict[str, Known] = {}
        keeper = _Store(store)
        for name in dict.fromkeys([*producers, *filed]):
            known = keeper.load(name)
            if known is None and name in filed:
                known = filed[name]
                keeper.store({name: known}, frozenset())
            if known is not None:
                starts[name] = known
        if filed:
            path.unlink(missing_ok=True)
            _sync_directory(path.parent)
        return cls(keeper, starts, **options)

    @property
    def blocking(self) -> bool:
        """Whether storing is to be done in a thread, instead of where `handle` runs."""
        return self._keeper.blocking

    @property
    def known(self) -> dict[str, Known]:
        """What is committed."""
        with self._lock:
            return {name: marks.known() for name, marks in self._marks.items()}

    def hook(self, delivery: Delivery) -> Callable[[], None]:
        """What the bot calls when the effect of `delivery` is durable; more than once is once.

        Called once for each delivery, in the order of handing over. A commit stands for all that was handed over before.
        """
        producer = delivery.producer
        if isinstance(delivery.message, Lost):
            return lambda: self._told_loss(producer)
        if delivery.position is None:
            return _nothing
        with self._lock:
            self._handed += 1
            number = self._handed
            self._pending.setdefault(producer, deque()).append((number, delivery))
        return lambda: self._commit(producer, number)

    def advance(self, message: Advanced) -> None:
        """A base at its place: everything handed over before was committed."""
        name = message.producer
        with self._lock:
            unstored = self._unstored.setdefault(name, _Unstored())
            marks = self._marks.get(name)
            if marks is None:
                self._marks[name] = Marks(message.position.epoch, message.position.offset)
                unstored.base = unstored.urgent = True
                return
            before = marks.base
            anew = marks.advance(message)
            unstored.base |= anew or marks.base != before
            unstored.anew |= anew
            unstored.urgent |= anew

    def settle(self, delivery: Delivery, *, idle: bool) -> None:
        """`delivery` was handled: store what is committed and due. `idle`: nothing else waits. Blocks for the disk or database.

        Raises:
            ConsumerError: it cannot be stored.
        """
        acted = delivery.position is not None and not isinstance(delivery.message, Repeated)
        if acted and self._keeper.saved(delivery):
            with self._lock:
                self._unstored.pop(delivery.producer, None)
                self._stored_at[delivery.producer] = self._clock()
        self._store(lambda name, unstored: self._due(name, unstored, idle))

    def close(self) -> None:
        """Store all that is committed.

        Raises:
            ConsumerError: it cannot be stored.
        """
        self._store(lambda name, unstored: True)

    def _commit(self, producer: str, number: int) -> None:
        with self._lock:
            pending = self._pending[producer]
            while pending and pending[0][0] <= number:
                self._acted(pending.popleft()[1])

    def _acted(self, delivery: Delivery) -> None:
        position, name = delivery.position, delivery.producer
        assert position is not None
        marks = self._marks.setdefault(name, Marks.before(delivery))
        unstored = self._unstored.setdefault(name, _Unstored())
        unstored.anew |= marks.epoch != position.epoch
        marks.acted(delivery)
        unstored.messages += 1

    def _told_loss(self, producer: str) -> None:
        with self._lock:
            self._unstored.setdefault(producer, _Unstored()).urgent = True

    def _due(self, name: str, unstored: _Unstored, idle: bool) -> bool:
        if unstored.messages and (idle or unstored.messages >= self._keeper.commits_per_write):
            return True
        if not unstored.base:
            return False
        return unstored.urgent or self._clock() - self._stored_at.get(name, -EVERY_S) >= EVERY_S

    def _store(self, due: Callable[[str, _Unstored], bool]) -> None:
        with self._storing:
            with self._lock:
                taken = {n: u for n, u in self._unstored.items() if (u.messages or u.base) and due(n, u)}
                changed = {name: self._marks[name].known() for name in taken}
                for name in taken:
                    del self._unstored[name]
            if not changed:
                return
            self._keeper.store(changed, frozenset(name for name, u in taken.items() if u.anew))
            now = self._clock()
            self._stored_at.update(dict.fromkeys(changed, now))


class _Store:
    """A bot's own store."""

    blocking = False
    commits_per_write = 1

    def __init__(self, store: PositionStore) -> None:
        self._store = store
        self._name = type(store).__name__
        self._told = False

    def load(self, producer: str) -> Known | None:
        with self._asked("load"):
            known = self._store.load(producer)
        if known is not None and not isinstance(known, Known):
            raise StoreFailed(f"{self._name}.load: expected a Known or None, got {type(known).__name__}")
        return known

    def saved(self, delivery: Delivery) -> bool:
        with self._asked("saved"):
            saved = self._store.saved(delivery)
        if not saved and not self._told:
            self._told = True
            log.warning(
                "%s of %s was not saved with its effect; it is saved now, but a crash in between lets it act twice",
                delivery.topic,
                delivery.bot,
            )
        return saved

    def store(self, changed: Mapping[str, Known], anew: frozenset[str]) -> None:
        for name, known in changed.items():
            with self._asked("advance"):
                self._store.advance(name, known, anew=name in anew)

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Whatever a store raises ends the run in one line."""
        try:
            yield
        except ConsumerError:
            raise
        except Exception as error:
            raise StoreFailed(f"{self._name}.{what}: {type(error).__name__}: {error}") from error


class _File:
    """positions.json. Names that are not configured now keep their places in it."""

    blocking = True
    commits_per_write = _COMMITS_PER_WRITE

    def __init__(self, path: Path, positions: Mapping[str, Known]) -> None:
        self._path = path
        self._positions = dict(positions)

    def saved(self, delivery: Delivery) -> bool:
        return False

    def store(self, changed: Mapping[str, Known], anew: frozenset[str]) -> None:
        self._positions.update(changed)
        try:
            _write_atomically(self._path, json.dumps({"version": 2, "positions": _as_json(self._positions)}))
        except OSError as error:
            raise BotFailed(f"{self._path}: the position cannot be stored: {error.strerror}") from error


def _as_json(positions: Mapping[str, Known]) -> dict[str, Any]:
    return {
        name: {
            "epoch": k.epoch,
            "base": k.base,
            "last": [[*stream, n] for stream, n in k.last.items()],
            "recent": _by_epoch(k.recent),
        }
        for name, k in positions.items()
    }


def _by_epoch(recent: Mapping[str, str]) -> dict[str, list[str]]:
    digests: dict[str, list[str]] = {}
    for digest, epoch in recent.items():
        digests.setdefault(epoch, []).append(digest)
    return digests


def read_file(path: Path) -> dict[str, Known]:
    """What the last run left in positions.json; no file is empty.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        stored = json.loads(path.read_text())
        if stored.get("version", 1) not in (1, 2):
            raise ConfigError("--data-dir", f"{path} is of a newer version of tradewire")
        return {name: _known(value) for name, value in stored["positions"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConfigError(
            "--data-dir", f"{path} cannot be read; without it the bot begins with what is live"
        ) from None


def _known(value: Any) -> Known:
    if isinstance(value, list):
        # Version 1 had one number: every message up to it.
        epoch, offset = value
        return Known(epoch, offset)
    last = {(bot, topic): n for bot, topic, n in value["last"]}
    recent = {digest: epoch for epoch, digests in value.get("recent", {}).items() for digest in digests}
    return Known(value["epoch"], value["base"], last, recent)


def _nothing() -> None:
    return None


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make a rename in it durable, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
