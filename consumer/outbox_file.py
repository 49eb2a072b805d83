"""The outbox on disk: one SQLite file and one thread that writes it, whose commits many submits share.

Theory of operation
===================

Callers queue changes; the thread takes all that is queued, makes one transaction of it and commits. A commit returns once it is
fsynced (WAL, synchronous=FULL), so while one is under way the next batch comes together, and a hundred submits cost one fsync.

A message that the hub acknowledged is removed with the next batch of new ones, and after REMOVE_S at the latest: an fsync per
acknowledgement would halve what can be published. A removal that a crash loses is harmless: the message is sent again with its mid,
and the hub says that it has it. A message that is refused for good stays, with the reason, in the same table (`refused`).

A commit that fails (a full disk) is rolled back and told; nothing of it is in the file that a reader sees. After a crash right then it
may be there all the same, as with every database: whoever repeats the message does so with the same mid.

Invariants
==========

1. `stored` is called with a number only after the commit that has its message.
2. A row is in the file from then until it was removed, or is there with the reason of its refusal.
3. Refused rows are at most REFUSED_MOST and REFUSED_BYTES; the oldest leave, counted and told.
4. One process has the file.

There are no checksums beyond SQLite's own. A database whose structure or rows cannot be read is refused at the start, in one line; a
bit that the disk flips in the write-ahead log ends the log there, unseen, so what is committed is in as much danger as in any SQLite.

Source: SQLite, "Write-Ahead Logging" and PRAGMA synchronous.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from consumer.errors import ConfigError, NotStored
from hub.protocol.codec import decode_body

__all__ = ["OutboxFile", "Stored"]

_LOG = logging.getLogger(__name__)

REMOVE_S = 1.0
REMOVE_MANY = 1000
REASON_CHARACTERS = 500
REFUSED_MOST = 1000
REFUSED_BYTES = 4 * 1024 * 1024
APPLICATION_ID = 0x74774F42
"""Which SQLite databases are outboxes (PRAGMA application_id): "twOB"."""
VERSION = 1

_TABLE = """CREATE TABLE message (
    number INTEGER PRIMARY KEY, bot TEXT NOT NULL, topic TEXT NOT NULL, mid TEXT NOT NULL, ts INTEGER NOT NULL,
    body TEXT NOT NULL, refused TEXT, refused_ms INTEGER
)"""
_INSERT = "INSERT INTO message (number, bot, topic, mid, ts, body) VALUES (?, ?, ?, ?, ?, ?)"
_REMOVE = "DELETE FROM message WHERE number = ?"
_REFUSE = "UPDATE message SET refused = ?, refused_ms = ? WHERE number = ?"
_WAITING = "SELECT number, bot, topic, mid, ts, body FROM message WHERE refused IS NULL ORDER BY number"
_REFUSED = "SELECT number, length(body) FROM message WHERE refused IS NOT NULL ORDER BY number"
_ROW_BYTES = 200


@dataclass(frozen=True, slots=True)
class Stored:
    """A row: a message by its place in the order. `body` is the canonical payload as JSON."""

    number: int
    bot: str
    topic: str
    mid: str
    ts: int
    body: str


@dataclass(slots=True)
class _Batch:
    """What the next commit changes. `failed`: some of it was in one that failed."""

    inserts: list[Stored] = field(default_factory=list)
    removals: list[int] = field(default_factory=list)
    refusals: list[tuple[int, int, str, int]] = field(default_factory=list)
    failed: bool = False

    def __bool__(self) -> bool:
        return bool(self.inserts or self.removals or self.refusals)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for the commit, or there is enough for one that did not just fail."""
        return bool(self.inserts) or (len(self.removals) >= REMOVE_MANY and not self.failed)


class OutboxFile:
    """The file at `path`. `stored` is called in the writer's thread, after each commit, with the numbers of its new messages and
    None, or with the error that kept them out. All methods may be called from any thread; `open` and `close` block.
    """

    def __init__(
        self,
        path: Path,
        stored: Callable[[Sequence[int], NotStored | None], object],
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.path = path
        self.next_number = 1
        self._stored, self._now_ms = stored, now_ms
        self._lock: IO[str] | None = None
        self._changed = threading.Condition()
        self._batch = _Batch()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._refused: deque[tuple[int, int]] = deque()
        self._refused_bytes = 0
        self._commits = self._failures = self._dropped = 0

    def open(self) -> list[Stored]:
        """Take the file, made where there is none: what waits in it, in order.

        Raises:
            ConfigError: another process has it, or it cannot be opened, is damaged, or is something else.
        """
        self._lock = _locked(self.path)
        try:
            with _told(self.path):
                self._connection = _connected(self.path)
                waiting = _waiting(self._connection)
                self._keep_refused(self._connection.execute(_REFUSED))
                (last,) = self._connection.execute("SELECT max(number) FROM message").fetchone()
        except BaseException:
            self._release()
            raise
        self.next_number = (last or 0) + 1
        self._thread = threading.Thread(target=self._write, name=f"outbox {self.path.name}", daemon=True)
        self._thread.start()
        return waiting

    def insert(self, message: Stored) -> None:
        """Store a message; `stored` tells when."""
        self._queue(lambda batch: batch.inserts.append(message))

    def remove(self, number: int) -> None:
        """The hub has it."""
        self._queue(lambda batch: batch.removals.append(number))

    def refuse(self, number: int, size: int, reason: str) -> None:
        """The hub will never take it: keep it with the reason. `size` of its body, in bytes."""
        told = reason[:REASON_CHARACTERS].encode(errors="replace").decode()
        refusal = (number, size, told, self._now_ms())
        self._queue(lambda batch: batch.refusals.append(refusal))

    def close(self) -> None:
        """Commit what is queued and give the file back."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        # A commit that is under way ends, so this takes as long as the disk does.
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._release()

    def statistics(self) -> dict[str, int]:
        """Commits and those that failed; the refused messages that are kept with their bound, and how many had to go."""
        with self._changed:
            return {
                "commits": self._commits,
                "commits_failed": self._failures,
                "refused_kept": len(self._refused),
                "refused_bytes": self._refused_bytes,
                "refused_limit_bytes": REFUSED_BYTES,
                "refused_dropped": self._dropped,
            }

    # --- the writer's thread

    def _queue(self, change: Callable[[_Batch], None]) -> None:
        with self._changed:
            first = not self._batch
            change(self._batch)
            # The thread is not woken for each removal.
            if first or self._batch.urgent:
                self._changed.notify()

    def _write(self) -> None:
        while batch := self._take():
            error = self._commit(batch)
            if error is not None:
                self._again(batch)
            if batch.inserts:
                self._stored([message.number for message in batch.inserts], error)
            if error is not None and self._closing:
                return

    def _take(self) -> _Batch:
        """What is to be committed now, waited for; nothing once the file is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._batch or self._closing)
            self._changed.wait_for(lambda: self._batch.urgent or self._closing, REMOVE_S)
            batch, self._batch = self._batch, _Batch()
            return batch

    def _again(self, batch: _Batch) -> None:
        """What a failed commit leaves to be tried again: all but the new messages, which are told of it."""
        with self._changed:
            self._failures += 1
            self._batch.failed = True
            self._batch.removals[:0] = batch.removals
            self._batch.refusals[:0] = batch.refusals

    def _commit(self, batch: _Batch) -> NotStored | None:
        """Change the file by a batch, or not at all and say why."""
        assert self._connection is not None
        surplus = self._surplus(batch.refusals)
        try:
            self._change(self._connection, batch, surplus)
        except Exception as error:
            # Whatever it is: a thread that ended would leave every submit waiting.
            self._roll_back(self._connection)
            return NotStored(f"{self.path}: {error}")
        with self._changed:
            self._commits += 1
            self._keep_refused((number, size) for number, size, _, _ in batch.refusals)
            for _ in surplus:
                self._refused_bytes -= self._refused.popleft()[1] + _ROW_BYTES
            self._dropped += len(surplus)
        if surplus:
            _LOG.warning("%s: the %d oldest refused messages had to go", self.path, len(surplus))
        return None

    def _change(self, connection: sqlite3.Connection, batch: _Batch, surplus: Sequence[int]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        rows = [(m.number, m.bot, m.topic, m.mid, m.ts, m.body) for m in batch.inserts]
        connection.executemany(_INSERT, rows)
        connection.executemany(_REMOVE, [(number,) for number in batch.removals])
        connection.executemany(_REFUSE, [(why, at_ms, number) for number, _, why, at_ms in batch.refusals])
        connection.executemany(_REMOVE, [(number,) for number in surplus])
        connection.execute("COMMIT")

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        with contextlib.suppress(sqlite3.Error):
            # What is in the log of a full disk moves into the database, where removed rows have left room.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _surplus(self, refusals: Sequence[tuple[int, int, str, int]]) -> list[int]:
        """The oldest refused messages, which no longer have room once `refusals` are there."""
        if not refusals:
            return []
        kept = [*self._refused, *((number, size) for number, size, _, _ in refusals)]
        total = sum(size + _ROW_BYTES for _, size in kept)
        surplus: list[int] = []
        for number, size in kept:
            if total <= REFUSED_BYTES and len(kept) - len(surplus) <= REFUSED_MOST:
                break
            surplus.append(number)
            total -= size + _ROW_BYTES
        return surplus

    def _keep_refused(self, rows: Iterable[tuple[int, int]]) -> None:
        for number, size in rows:
            self._refused.append((number, size))
            self._refused_bytes += size + _ROW_BYTES

    def _release(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked(path: Path) -> IO[str]:
    """Hold the file beside `path` for this process: two publishers would send the same messages, out of order."""
    lock_path = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("a")
    except OSError as error:
        raise ConfigError("outbox", f"{path} cannot be used: {error.strerror}") from None
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        _LOG.debug("no file locks on this system")
    except OSError:
        lock.close()
        raise ConfigError(
            "outbox", f"{path} is in use by another publisher; each needs a file of its own"
        ) from None
    return lock


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # A text that is none must not pass for a fault of the machine.
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    try:
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Make an empty database an outbox; raise ConfigError or sqlite3.Error when it cannot be used as one."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise ConfigError(
            "outbox", f"{path}: expected an outbox or no file, found a database of something else"
        )
    if tables and version != VERSION:
        raise ConfigError("outbox", f"{path}: expected version {VERSION} of an outbox, found {version}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ConfigError(
            "outbox", f"{path}: expected a file system on which SQLite can write ahead, this one has {mode}"
        )
    connection.execute("PRAGMA synchronous = FULL")
    if not tables:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLE}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT"
        )
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _waiting(connection: sqlite3.Connection) -> list[Stored]:
    waiting = [Stored(*row) for row in connection.execute(_WAITING)]
    for message in waiting:
        try:
            "".join((message.bot, message.topic, message.mid)).encode()
            decode_body(message.body.encode())
        except (TypeError, AttributeError, ValueError):
            raise sqlite3.DatabaseError(f"row {message.number} is no message") from None
    return waiting


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What SQLite says of a file as a ConfigError that says the way on."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise ConfigError("outbox", f"{path} cannot be opened: {error}") from None
    except sqlite3.DatabaseError as error:
        way = f"move it and {path.name}-wal away to begin with an empty one; what was not published may be read there"
        raise ConfigError("outbox", f"{path} is damaged ({str(error).splitlines()[0]}): {way}") from None
