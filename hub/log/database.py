"""The database: its tables, how it is opened, and what its errors mean.

WAL with synchronous=FULL: a COMMIT returns when the WAL is on the disk. Checkpoints are the writer's own, between commits, so
that none delays an acknowledgement. Texts are read as bytes, since a damaged one may be no UTF-8.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote

__all__ = [
    "APPLICATION_ID",
    "PAGE_BYTES",
    "TABLES",
    "VERSION",
    "Malformed",
    "check_schema",
    "checkpoint",
    "connect",
    "connect_to_read",
    "create",
    "is_malformed",
    "keep_pages",
    "said",
    "wal_position",
]

VERSION = 1
APPLICATION_ID = 0x74776C67
PAGE_BYTES = 4096
BUSY_MS = 5000
CACHE_BYTES = 2 << 20
WAL_KEPT_BYTES = 16 << 20

# No AUTOINCREMENT: the writer numbers by itself (hub.log.books), and sqlite_sequence would be one more page in every commit.
TABLES = """
CREATE TABLE records (
    offset INTEGER PRIMARY KEY,
    prev INTEGER NOT NULL,
    stored_ms INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    bot TEXT NOT NULL,
    topic TEXT NOT NULL,
    publisher TEXT NOT NULL,
    mid TEXT NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL,
    UNIQUE (publisher, mid)
);
CREATE INDEX records_by_stream ON records (bot, topic);
CREATE TABLE streams (bot TEXT NOT NULL, topic TEXT NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (bot, topic));
CREATE TABLE publishers (publisher TEXT PRIMARY KEY, expired_ts INTEGER NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE lineage (
    number INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL,
    successor TEXT NOT NULL,
    upto INTEGER NOT NULL,
    told INTEGER,
    checksum BLOB NOT NULL
);
CREATE TABLE quarantine (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE meta (
    id INTEGER PRIMARY KEY,
    magic TEXT NOT NULL,
    epoch TEXT NOT NULL,
    floor INTEGER NOT NULL,
    head INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    least_prev INTEGER NOT NULL,
    books INTEGER NOT NULL,
    checksum BLOB NOT NULL
);
"""

_MALFORMED = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_TOOBIG,
    }
)
_UNREADABLE = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
        sqlite3.SQLITE_IOERR_DATA,
    }
)


class Malformed(sqlite3.DatabaseError):
    """The database is not what this program wrote."""


def is_malformed(error: BaseException) -> bool:
    """Whether the file itself is at fault: nothing in it has changed for the better when it is asked again."""
    # The sqlite3 module cannot word an error that quotes what is no UTF-8.
    if isinstance(error, Malformed | UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", 0)
    return code in _UNREADABLE or code & 0xFF in _MALFORMED


def said(error: BaseException) -> str:
    """An error in one line, with SQLite's name for it where it has one."""
    name = getattr(error, "sqlite_errorname", None)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{text} ({name})" if name else str(text)


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection; the file is there. For the thread that calls this.

    Raises:
        sqlite3.Error: it cannot be opened, or (Malformed) is no WAL database.
    """
    return _connect(path, "rw")


def create(path: Path) -> sqlite3.Connection:
    """A new, empty database at a name that is free, with its tables."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    connection = _plain(path, "rw")
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    connection = _connect(path, "rw")
    connection.executescript(f"BEGIN; {TABLES} COMMIT;")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that reads only, beside a writer or without one. For the thread that calls this."""
    return _connect(path, "ro")


def _plain(path: Path, mode: str) -> sqlite3.Connection:
    # Not the file's name as it is: "?" and "#" mean something in a URI.
    uri = f"file:{quote(os.fsencode(path))}?mode={mode}"
    connection = sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        timeout=BUSY_MS / 1000,
        # A reader's is closed by another thread than the one that used it.
        check_same_thread=mode == "rw",
    )
    connection.text_factory = bytes
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = _plain(path, mode)
    try:
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        if journal != b"wal":
            raise Malformed(f"its journal is {journal.decode()}, expected wal")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        keep_pages(connection, CACHE_BYTES)
        connection.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def keep_pages(connection: sqlite3.Connection, cache_bytes: int) -> None:
    """How many bytes of pages the connection keeps in memory at most."""
    connection.execute(f"PRAGMA cache_size = -{max(1, cache_bytes // 1024)}")


def wal_position(shm: Path) -> tuple[bytes, int]:
    """Which WAL this is (its salt, another with each that begins anew in the file) and the frames in it, of the wal-index header.

    Costs no question to the WAL itself, which its next sync would pay for (see hub.log.writer). The format: "WAL-mode File Format"
    of SQLite's documentation, section 2.1.

    Raises:
        OSError: it cannot be read.
    """
    with shm.open("rb", buffering=0) as file:
        header = file.read(40)
    if len(header) < 40:
        raise OSError("the wal-index has no header")
    return header[32:40], int.from_bytes(header[16:20], sys.byteorder)


def check_schema(connection: sqlite3.Connection) -> None:
    """Whether the tables are ours.

    Raises:
        Malformed: they are not. sqlite3.Error: they cannot be read.
    """
    asked = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    with contextlib.closing(sqlite3.connect(":memory:")) as ours:
        ours.text_factory = bytes
        ours.executescript(TABLES)
        expected = ours.execute(asked).fetchall()
    if connection.execute(asked).fetchall() != expected:
        raise Malformed("its tables are not those of a ledger")


def checkpoint(connection: sqlite3.Connection, *, truncate: bool) -> bool:
    """Copy the WAL into the database and sync that; True when all of it is there (and, with `truncate`, the WAL is empty)."""
    mode = "TRUNCATE" if truncate else "PASSIVE"
    busy, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return bool(busy == 0 and frames == copied)
