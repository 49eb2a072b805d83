"""Opening a PaperBot's database: engine, pragmas, tables, and whose database it is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, StaticPool, Table, create_engine, event, inspect, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from consumer.bot.models import ADDED, SCHEMA_VERSION, Base, Wallet
from consumer.bot.settings import PaperSettings
from consumer.errors import ConfigError, ConsumerError

__all__ = ["DatabaseFailed", "check_currency", "one_line", "open_database", "open_wallet", "storable"]

BUSY_TIMEOUT_S = 10.0
PRAGMAS = {"journal_mode": "WAL", "synchronous": "FULL", "foreign_keys": "ON"}


class DatabaseFailed(ConsumerError):
    """The database cannot be read or written (disk full, locked, damaged). What was not committed did not happen."""


@contextmanager
def one_line() -> Iterator[None]:
    """Turn SQLAlchemy's errors, which quote statements and values over several lines, into a DatabaseFailed."""
    try:
        yield
    except (StaleDataError, IntegrityError) as error:
        raise DatabaseFailed("the bot's database: another run has acted on it meanwhile") from error
    except SQLAlchemyError as error:
        raise DatabaseFailed(f"the bot's database: {_reason(error)}") from error


def open_database(url: URL) -> Engine:
    """The engine of a PaperBot's database, its tables made when it is empty, and added to when it is of an older version.

    A commit is on disk when it returns (SQLite: WAL, synchronous=FULL), and nothing is when it failed, tables included. The
    URL may hold a password and is never shown.

    Raises:
        ConfigError: the driver of `db_url` is missing, it cannot be opened, or it holds something else.
    """
    try:
        engine = create_engine(url, **_options(url))
        _make_folder(url)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError("db_url", f"expected a URL of an installed database: {_reason(error)}") from None
    except OSError as error:
        raise ConfigError("db_url", f"cannot be opened: {error.strerror}") from None
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _connected)
        event.listen(engine, "begin", _begin)
    try:
        _tables(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        raise ConfigError("db_url", f"cannot be opened: {_reason(error)}") from None
    except ConfigError:
        engine.dispose()
        raise
    return engine


def open_wallet(session: Session, settings: PaperSettings) -> Wallet:
    """The wallet of the database, made from the settings when there is none yet.

    Raises:
        ConfigError: the database is of another schema version, or its wallet of another currency.
    """
    wallet = session.scalars(select(Wallet)).first()
    if wallet is None:
        wallet = Wallet(
            id=1,
            schema_version=SCHEMA_VERSION,
            instance=secrets.token_hex(6),
            currency=settings.stake_currency,
            start=settings.wallet,
            free=settings.wallet,
            reserved=Decimal(0),
            closed_profit=Decimal(0),
            created_ms=time.time_ns() // 1_000_000,
            state=settings.initial_state,
            next_trade=1,
            revision=1,
        )
        session.add(wallet)
        session.commit()
    check_currency(wallet.currency, settings)
    return wallet


def check_currency(currency: str, settings: PaperSettings) -> None:
    """Raise ConfigError when a wallet of `currency` cannot be that of these settings: it never changes."""
    if currency != settings.stake_currency:
        raise ConfigError(
            "stake_currency",
            f"expected {currency!r}, the currency of the wallet in db_url, got {settings.stake_currency!r}",
        )


def storable(text: str) -> bool:
    """Whether every database can keep a text: PostgreSQL has no null characters, and none has half a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() != "sqlite":
        return {}
    connect = {"check_same_thread": False, "timeout": BUSY_TIMEOUT_S}
    if url.database in (None, "", ":memory:"):
        # Each connection to a database in memory would otherwise see one of its own.
        return {"connect_args": connect, "poolclass": StaticPool}
    return {"connect_args": connect}


def _make_folder(url: URL) -> None:
    if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith((":", "file:")):
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)


def _connected(connection: Any, _record: Any) -> None:
    # Python's own way begins no transaction before a CREATE TABLE; `_begin` does.
    connection.isolation_level = None
    for name, value in PRAGMAS.items():
        connection.execute(f"PRAGMA {name}={value}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _tables(engine: Engine) -> None:
    present = set(inspect(engine).get_table_names())
    if not present:
        Base.metadata.create_all(engine)
        return
    if "wallet" not in present:
        raise ConfigError(
            "db_url", "expected a PaperBot's database or an empty one, found tables of something else"
        )
    # Only this column is read before the version is known to fit.
    with engine.connect() as connection:
        version = connection.execute(select(Wallet.schema_version)).scalar()
    if version in ADDED:
        _migrate(engine, version)
        present = set(inspect(engine).get_table_names())
    elif version is not None and version != SCHEMA_VERSION:
        raise ConfigError("db_url", f"expected schema version {SCHEMA_VERSION}, the database has {version}")
    if missing := set(Base.metadata.tables) - present:
        raise ConfigError("db_url", f"expected a PaperBot's database, table {min(missing)!r} is missing")


def _migrate(engine: Engine, version: int) -> None:
    """Add what this version has and an older one had not, all or nothing. What is there is not touched."""
    added = [
        cast(Table, model.__table__) for since in range(version, SCHEMA_VERSION) for model in ADDED[since]
    ]
    with engine.begin() as connection:
        Base.metadata.create_all(connection, tables=added)
        connection.execute(update(Wallet).values(schema_version=SCHEMA_VERSION))


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
