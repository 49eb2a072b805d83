"""A position store for a bot that uses SQLAlchemy: it takes part in the bot's Session."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

from sqlalchemy import BigInteger, Column, Connection, Engine, Integer, MetaData, String, Table, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from consumer.errors import StoreFailed
from consumer.stores import rows
from hub.protocol.known import Known
from hub.protocol.localbot import Delivery

__all__ = ["SqlAlchemyPositionStore", "define_tables"]

_TRY = f"UPDATE {rows.POSITIONS} SET run = '' WHERE producer = :producer"
_RUN = f"SELECT run FROM {rows.POSITIONS} WHERE producer = :producer"


class SqlAlchemyPositionStore:
    """In the bot's own database::

        with Session(self.engine) as session, session.begin():
            session.add(Copied(...))
            self.store.save(session, delivery)

    `handle` ends the transaction before it returns. The store's tables are made on first use; with the bot's `metadata` they are
    known to what the bot makes of that, migrations too. For a database that compares text byte by byte (SQLite, PostgreSQL).
    With an AsyncSession: `await session.run_sync(store.save, delivery)`, and a plain Engine here.
    """

    def __init__(self, engine: Engine, metadata: MetaData | None = None) -> None:
        self._engine = engine
        self._metadata = metadata if metadata is not None else MetaData()
        self._tables = define_tables(self._metadata)
        self._run = rows.Run(secrets.token_hex(8))

    def save(self, session: Session | Connection, delivery: Delivery) -> None:
        """Note that `delivery` is acted on, in the session's transaction. Of what is no message of a ledger, nothing.

        Raises:
            AlreadyActed, TakenOver: the effect must not be committed. SQLAlchemyError: as from any statement of the bot.
        """
        rows.save(_executing(session), self._run, delivery)

    def load(self, producer: str) -> Known | None:
        """As PositionStore; creates the tables where they are missing."""
        with self._transaction() as execute:
            known = rows.claim(execute, self._run, producer)
        self._check_atomic(producer)
        return known

    def saved(self, delivery: Delivery) -> bool:
        """As PositionStore."""
        with self._transaction() as execute:
            return rows.saved(execute, delivery)

    def advance(self, producer: str, known: Known, *, anew: bool = False) -> None:
        """As PositionStore."""
        with self._transaction() as execute:
            rows.advance(execute, self._run, producer, known, anew=anew)

    @contextmanager
    def _transaction(self) -> Iterator[rows.Execute]:
        with _told():
            if self._tables:
                self._metadata.create_all(self._engine, tables=self._tables)
                self._tables = []
            with self._engine.begin() as connection:
                yield _executing(connection)

    def _check_atomic(self, producer: str) -> None:
        """Raise StoreFailed where a rollback undoes nothing: a crash would keep an effect without its position, unseen."""
        with _told(), self._engine.connect() as connection:
            execute = _executing(connection)
            execute(_TRY, {"producer": producer})
            connection.rollback()
            ((run,),) = execute(_RUN, {"producer": producer}).fetchall()
        if run == "":
            raise StoreFailed(
                "the bot's database: expected transactions, but its engine commits each statement at once (AUTOCOMMIT)"
            )


def define_tables(metadata: MetaData) -> list[Table]:
    """The store's three tables in `metadata`."""
    names = (rows.POSITIONS, rows.STREAMS, rows.RECENT)
    if all(name in metadata.tables for name in names):
        return [metadata.tables[name] for name in names]
    positions = Table(
        rows.POSITIONS,
        metadata,
        Column("producer", String(255), primary_key=True),
        Column("epoch", String(255), nullable=False),
        Column("base", BigInteger, nullable=False),
        Column("run", String(32), nullable=False),
    )
    streams = Table(
        rows.STREAMS,
        metadata,
        Column("producer", String(255), primary_key=True),
        Column("bot", String(64), primary_key=True),
        Column("topic", String(64), primary_key=True),
        Column("epoch", String(255), nullable=False),
        Column("last", BigInteger, nullable=False),
    )
    recent = Table(
        rows.RECENT,
        metadata,
        Column("producer", String(255), primary_key=True),
        # A number that the database makes up by itself would be none of a slot.
        Column("slot", Integer, primary_key=True, autoincrement=False),
        Column("turn", BigInteger, nullable=False),
        Column("epoch", String(255), nullable=False),
        Column("digest", String(64), nullable=False),
    )
    return [positions, streams, recent]


def _executing(on: Session | Connection) -> rows.Execute:
    def execute(statement: str, values: dict[str, Any]) -> rows.Result:
        return cast("rows.Result", on.execute(_text(statement), values))

    return execute


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise StoreFailed(f"the bot's database: the position cannot be kept: {cause}") from error


# A few statements, again and again: to parse one takes as long as to execute it.
_text = cache(text)
