"""A position store for a bot that uses `sqlite3`: the same connection, the same transaction."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from consumer.errors import StoreFailed
from consumer.stores import rows
from hub.protocol.known import Known
from hub.protocol.localbot import Delivery

__all__ = ["SqlitePositionStore"]

_TABLES = (
    f"""CREATE TABLE IF NOT EXISTS {rows.POSITIONS} (
        producer VARCHAR(255) NOT NULL PRIMARY KEY,
        epoch VARCHAR(255) NOT NULL,
        base BIGINT NOT NULL,
        run VARCHAR(32) NOT NULL
    )""",
    f"""CREATE TABLE IF NOT EXISTS {rows.STREAMS} (
        producer VARCHAR(255) NOT NULL,
        bot VARCHAR(64) NOT NULL,
        topic VARCHAR(64) NOT NULL,
        epoch VARCHAR(255) NOT NULL,
        last BIGINT NOT NULL,
        PRIMARY KEY (producer, bot, topic)
    )""",
    f"""CREATE TABLE IF NOT EXISTS {rows.RECENT} (
        producer VARCHAR(255) NOT NULL,
        slot INTEGER NOT NULL,
        turn BIGINT NOT NULL,
        epoch VARCHAR(255) NOT NULL,
        digest VARCHAR(64) NOT NULL,
        PRIMARY KEY (producer, slot)
    )""",
)


class SqlitePositionStore:
    """In the bot's own database::

        with self.connection:  # the transaction: commits, or rolls back when something is raised
            self.connection.execute("INSERT INTO copied ...")
            self.store.save(delivery)

    A bot whose `handle` is a plain function runs in a thread: it opens its connection there, or with `check_same_thread=False`.
    What the store does by itself commits at once, except while a transaction of the bot is open: then it is part of that one.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._run = rows.Run(secrets.token_hex(8))
        # Of Python 3.12. False begins a transaction behind each: one is always open, the bot's or not. True begins none, and its
        # commit() does nothing.
        autocommit = getattr(connection, "autocommit", None)
        self._always_open = autocommit is False
        self._begins_none = autocommit is True

    def save(self, delivery: Delivery) -> None:
        """Note that `delivery` is acted on, as part of the open transaction. Of what is no message of a ledger, nothing.

        Raises:
            AlreadyActed, TakenOver: the effect must not be committed. StoreFailed: there is no transaction to be part of.
            sqlite3.Error: as from any statement of the bot.
        """
        begins_none = self._begins_none or self._connection.isolation_level is None
        if begins_none and not self._connection.in_transaction:
            raise StoreFailed(
                "SqlitePositionStore.save: expected an open transaction; BEGIN before the effect"
            )
        rows.save(self._execute, self._run, delivery)

    def load(self, producer: str) -> Known | None:
        """As PositionStore; creates the tables where they are missing."""
        with self._transaction():
            for statement in _TABLES:
                self._connection.execute(statement)
            return rows.claim(self._execute, self._run, producer)

    def saved(self, delivery: Delivery) -> bool:
        """As PositionStore."""
        with _told():
            return rows.saved(self._execute, delivery)

    def advance(self, producer: str, known: Known, *, anew: bool = False) -> None:
        """As PositionStore."""
        with self._transaction():
            rows.advance(self._execute, self._run, producer, known, anew=anew)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _told():
            if self._connection.in_transaction and not self._always_open:
                yield
                return
            if not self._always_open:
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._end("ROLLBACK")
                raise
            self._end("COMMIT")

    def _end(self, how: str) -> None:
        if self._always_open:
            (self._connection.commit if how == "COMMIT" else self._connection.rollback)()
        elif self._connection.in_transaction:
            # An error may have rolled it back.
            self._connection.execute(how)

    def _execute(self, statement: str, values: dict[str, Any]) -> sqlite3.Cursor:
        cursor = self._connection.cursor()
        # The bot may have made its rows something else.
        cursor.row_factory = None
        return cursor.execute(statement, values)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreFailed(f"the bot's database: the position cannot be kept: {error}") from error
