"""consumer.stores: the same promises, whether a bot uses sqlite3 or SQLAlchemy."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from feed_doubles import digest, event, fill
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert, inspect
from sqlalchemy.orm import Session

from consumer import recent
from consumer.errors import AlreadyActed, StoreFailed, TakenOver
from consumer.stores import rows
from consumer.stores.sqlalchemy import SqlAlchemyPositionStore
from consumer.stores.sqlite import SqlitePositionStore
from hub.protocol.known import Known
from hub.protocol.localbot import Delivery, PositionStore

ALPHA, BETA = ("alpha", "entry_fill"), ("beta", "entry_fill")


class Plain:
    """A bot's database with sqlite3: effects are rows of `acted`."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, timeout=0)
        with self.connection:
            self.connection.execute("CREATE TABLE IF NOT EXISTS acted (number INTEGER)")
        self.store = SqlitePositionStore(self.connection)

    @contextmanager
    def acting(self, delivery: Delivery, *, save: bool = True) -> Iterator[None]:
        """The transaction of a message's effect; what the block raises rolls it back."""
        assert delivery.position is not None
        with self.connection:
            self.connection.execute("INSERT INTO acted VALUES (?)", (delivery.position.offset,))
            if save:
                self.store.save(delivery)
            yield

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with self.connection:
            return self.connection.execute(statement).fetchall()

    def close(self) -> None:
        self.connection.close()


class Mapped:
    """The same with SQLAlchemy."""

    def __init__(self, path: Path) -> None:
        self.engine: Engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0})
        self.metadata = MetaData()
        self.acted = Table("acted", self.metadata, Column("number", Integer))
        self.store = SqlAlchemyPositionStore(self.engine, self.metadata)
        self.metadata.create_all(self.engine)

    @contextmanager
    def acting(self, delivery: Delivery, *, save: bool = True) -> Iterator[None]:
        assert delivery.position is not None
        with Session(self.engine) as session, session.begin():
            session.execute(insert(self.acted).values(number=delivery.position.offset))
            if save:
                self.store.save(session, delivery)
            yield

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []

    def close(self) -> None:
        self.engine.dispose()


Database = Plain | Mapped


@pytest.fixture(params=[Plain, Mapped])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    made: list[Database] = []

    def open_database() -> Database:
        made.append(request.param(tmp_path / "bot.sqlite"))
        return made[-1]

    yield open_database
    for database in made:
        database.close()


@pytest.fixture
def database(opened: Callable[[], Database]) -> Database:
    return opened()


def acted(database: Database) -> list[int]:
    return [row[0] for row in database.sql("SELECT number FROM acted ORDER BY number")]


def test_it_is_a_position_store(database: Database) -> None:
    assert isinstance(database.store, PositionStore)
    assert database.store.load("hub") is None


def test_an_effect_and_its_position_are_durable_together(opened: Callable[[], Database]) -> None:
    database = opened()
    database.store.load("hub")
    with database.acting(fill(3, base=1)):
        assert not isinstance(database, Plain) or database.connection.in_transaction
    with pytest.raises(KeyError), database.acting(fill(5, base=1)):
        raise KeyError
    assert database.store.saved(fill(3, base=1))
    assert not database.store.saved(fill(5, base=1))
    later = opened()
    assert later.store.load("hub") == Known("e1", 1, {ALPHA: 3})
    assert acted(later) == [3]


def test_what_is_no_message_of_a_ledger_is_not_noted(database: Database) -> None:
    database.store.load("hub")
    if isinstance(database, Plain):
        database.store.save(event())
    assert database.store.saved(event())
    assert database.store.load("hub") is None


def test_streams_below_the_base_are_forgotten(database: Database) -> None:
    database.store.load("hub")
    for delivery in (fill(3, base=1), fill(4, base=1, bot="beta"), fill(6, base=5)):
        with database.acting(delivery):
            pass
    assert database.store.load("hub") == Known("e1", 5, {ALPHA: 6})
    assert database.sql("SELECT COUNT(*) FROM tradewire_streams") == [(1,)]
    database.store.advance("hub", Known("e1", 9))
    assert database.sql("SELECT COUNT(*) FROM tradewire_streams") == [(0,)]


def test_a_message_is_saved_once(database: Database) -> None:
    database.store.load("hub")
    for delivery in (fill(3, base=1), fill(9, base=7)):
        with database.acting(delivery):
            pass
    for offset in (3, 7, 9):
        with (
            pytest.raises(AlreadyActed, match=rf"entry_fill {offset} of alpha"),
            database.acting(fill(offset, base=1)),
        ):
            pass
    assert acted(database) == [3, 9]
    assert database.store.load("hub") == Known("e1", 7, {ALPHA: 9})


def test_who_knows_no_base_has_one_number(database: Database) -> None:
    database.store.load("hub")
    with database.acting(fill(3)):
        pass
    assert database.store.load("hub") == Known("e1", 3)


def test_another_epoch_begins_anew(database: Database) -> None:
    database.store.load("hub")
    for delivery in (fill(30, base=20), fill(31, base=20, bot="beta"), fill(3, base=2, epoch="e2")):
        with database.acting(delivery):
            pass
    assert database.store.load("hub") == Known("e2", 2, {ALPHA: 3})
    assert database.sql("SELECT COUNT(*) FROM tradewire_streams") == [(1,)]


def test_nothing_is_turned_back_unless_the_ledger_is_another(database: Database) -> None:
    database.store.load("hub")
    with database.acting(fill(9, base=7)):
        pass
    database.store.advance("hub", Known("e1", 4, {BETA: 8, ALPHA: 5}))
    assert database.store.load("hub") == Known("e1", 7, {ALPHA: 9, BETA: 8})
    database.store.advance("hub", Known("e1", 4, {BETA: 5}), anew=True)
    assert database.store.load("hub") == Known("e1", 4, {BETA: 5})
    database.store.advance("hub", Known("e2", 1))
    assert database.store.load("hub") == Known("e2", 1)


def test_what_was_acted_on_last_is_remembered_with_its_effect(opened: Callable[[], Database]) -> None:
    database = opened()
    database.store.load("hub")
    with database.acting(fill(3, base=1, mid="a")):
        pass
    with pytest.raises(KeyError), database.acting(fill(4, base=1, mid="b")):
        raise KeyError
    with database.acting(fill(1, base=0, epoch="e2", mid="c")):
        pass
    known = Known("e2", 0, {ALPHA: 1}, {digest("a"): "e1", digest("c"): "e2"})
    assert opened().store.load("hub") == known


def test_the_oldest_of_what_is_remembered_is_forgotten(
    opened: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (recent, rows):
        monkeypatch.setattr(module, "REMEMBERED", 3)
    for first in (1, 4):
        database = opened()
        database.store.load("hub")
        for number in range(first, first + 3):
            with database.acting(fill(number, base=0, mid=f"m{number}")):
                pass
    with database.acting(fill(7, base=0, mid="m7")):
        pass
    known = opened().store.load("hub")
    assert known is not None
    assert known.recent == {digest(mid): "e1" for mid in ("m5", "m6", "m7")}
    assert database.sql("SELECT COUNT(*) FROM tradewire_recent") == [(3,)]


def test_what_is_remembered_moves_in_and_is_written_once(opened: Callable[[], Database]) -> None:
    database = opened()
    database.store.load("hub")
    moved = Known("e1", 4, {}, {digest("a"): "e0", digest("b"): "e1"})
    for _ in range(2):
        database.store.advance("hub", moved)
        database.store.advance("hub", moved, anew=True)
    assert database.sql("SELECT COUNT(*) FROM tradewire_recent") == [(2,)]
    # It came again in another epoch, and is of that one then.
    database.store.advance("hub", Known("e2", 1, {}, {digest("b"): "e1", digest("a"): "e2"}))
    known = opened().store.load("hub")
    assert known is not None
    assert list(known.recent.items()) == [(digest("b"), "e1"), (digest("a"), "e2")]


def test_a_database_of_a_time_before_messages_were_remembered(opened: Callable[[], Database]) -> None:
    database = opened()
    database.store.load("hub")
    with database.acting(fill(3, base=1)):
        pass
    database.sql("DROP TABLE tradewire_recent")
    later = opened()
    assert later.store.load("hub") == Known("e1", 1, {ALPHA: 3})
    with later.acting(fill(4, base=1, mid="a")):
        pass


def test_producers_are_apart(database: Database) -> None:
    for name in ("one", "two"):
        database.store.load(name)
    for delivery in (fill(3, base=1, producer="one"), fill(3, base=2, producer="two", epoch="e2")):
        with database.acting(delivery):
            pass
    assert database.store.load("one") == Known("e1", 1, {ALPHA: 3})
    assert database.store.load("two") == Known("e2", 2, {ALPHA: 3})


def test_of_two_runs_on_one_database_only_the_later_acts(opened: Callable[[], Database]) -> None:
    first, second = opened(), opened()
    first.store.load("hub")
    with first.acting(fill(3, base=1)):
        pass
    assert second.store.load("hub") == Known("e1", 1, {ALPHA: 3})
    # Also where the first has an offset, or an epoch, that the second has not seen.
    for delivery in (fill(4, base=1), fill(1, base=0, epoch="e2")):
        with pytest.raises(TakenOver, match="another run"), first.acting(delivery):
            pass
    with pytest.raises(TakenOver):
        first.store.advance("hub", Known("e1", 9))
    with second.acting(fill(4, base=1)):
        pass
    assert acted(second) == [3, 4]
    assert second.store.load("hub") == Known("e1", 1, {ALPHA: 4})


def test_a_store_that_was_not_returned_from_start_is_told(database: Database) -> None:
    database.store.load("other")
    with pytest.raises(StoreFailed, match="return the PositionStore from start"), database.acting(fill(1)):
        pass
    assert acted(database) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tradewire_positions SET base = -1",
        "UPDATE tradewire_positions SET base = 'much'",
        "UPDATE tradewire_positions SET epoch = ''",
        "UPDATE tradewire_streams SET last = 1.5",
        "UPDATE tradewire_streams SET bot = ''",
        "UPDATE tradewire_recent SET digest = ''",
        "UPDATE tradewire_recent SET turn = 1.5",
    ],
)
def test_rows_that_no_store_wrote_are_told(damage: str, database: Database) -> None:
    database.store.load("hub")
    with database.acting(fill(3, base=1, mid="a")):
        pass
    database.sql(damage)
    with pytest.raises(StoreFailed, match="tradewire_positions, tradewire_streams"):
        database.store.load("hub")


def test_a_database_that_cannot_be_used_is_told_in_one_line(opened: Callable[[], Database]) -> None:
    database, other = opened(), opened()
    database.store.load("hub")
    with other.acting(fill(1), save=False), pytest.raises(StoreFailed, match="database is locked"):
        database.store.advance("hub", Known("e1", 1))
    database.sql("DROP TABLE tradewire_streams")
    with pytest.raises(StoreFailed, match="no such table: tradewire_streams"):
        database.store.advance("hub", Known("e1", 1, {ALPHA: 3}))
    assert database.sql("SELECT base FROM tradewire_positions") == [(0,)]


# --- sqlite3


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "bot.sqlite")) as connection:
        yield connection


def test_what_the_store_does_itself_does_not_end_the_bots_transaction(
    plain: sqlite3.Connection,
) -> None:
    store = SqlitePositionStore(plain)
    store.load("hub")
    plain.execute("CREATE TABLE acted (number)")
    plain.execute("INSERT INTO acted VALUES (1)")
    store.advance("hub", Known("e1", 5))
    assert plain.in_transaction
    plain.rollback()
    assert store.load("hub") is None
    assert not plain.in_transaction


def test_without_a_transaction_there_is_nothing_to_be_part_of(plain: sqlite3.Connection) -> None:
    plain.isolation_level = None
    store = SqlitePositionStore(plain)
    store.load("hub")
    with pytest.raises(StoreFailed, match="BEGIN before the effect"):
        store.save(fill(1))
    plain.execute("BEGIN")
    store.save(fill(1))
    plain.execute("COMMIT")
    assert store.load("hub") == Known("e1", 1)


def test_the_bot_may_read_rows_as_it_likes(plain: sqlite3.Connection) -> None:
    plain.row_factory = lambda cursor, row: {"a": "map"}
    store = SqlitePositionStore(plain)
    store.load("hub")
    store.advance("hub", Known("e1", 5, {ALPHA: 7}))
    assert store.load("hub") == Known("e1", 5, {ALPHA: 7})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit came with Python 3.12")
def test_a_connection_that_always_has_a_transaction(tmp_path: Path) -> None:
    path = tmp_path / "bot.sqlite"
    options: dict[str, Any] = {"autocommit": False}
    with closing(sqlite3.connect(path, **options)) as connection, closing(sqlite3.connect(path)) as other:
        store = SqlitePositionStore(connection)
        store.load("hub")
        store.advance("hub", Known("e1", 5))
        assert other.execute("SELECT base FROM tradewire_positions").fetchall() == [(5,)]


class BeginsNone(sqlite3.Connection):
    """What autocommit=True of Python 3.12 makes of a connection: no BEGIN by itself, and no effect of what would end one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, isolation_level=None)

    def __getattribute__(self, name: str) -> Any:
        if name == "autocommit":
            return True
        if name == "isolation_level":
            return ""
        return (lambda: None) if name in ("commit", "rollback") else super().__getattribute__(name)


def test_a_connection_that_begins_no_transaction(tmp_path: Path) -> None:
    path = tmp_path / "bot.sqlite"
    with closing(BeginsNone(str(path))) as connection, closing(sqlite3.connect(path)) as other:
        store = SqlitePositionStore(connection)
        store.load("hub")
        store.advance("hub", Known("e1", 5))
        assert other.execute("SELECT base FROM tradewire_positions").fetchall() == [(5,)]
        with pytest.raises(StoreFailed, match="BEGIN before the effect"):
            store.save(fill(7))
        with pytest.raises(StoreFailed, match="were not loaded"):
            store.advance("another", Known("e1", 5))
        assert not connection.in_transaction


# --- SQLAlchemy


def test_an_engine_without_transactions_is_told(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'bot.sqlite'}", isolation_level="AUTOCOMMIT")
    with pytest.raises(StoreFailed, match="commits each statement at once"):
        SqlAlchemyPositionStore(engine).load("hub")
    engine.dispose()


def test_the_tables_are_the_bots_own(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'bot.sqlite'}")
    metadata = MetaData()
    SqlAlchemyPositionStore(engine, metadata).load("hub")
    again = SqlAlchemyPositionStore(engine, metadata)
    assert again.load("hub") is None
    assert set(metadata.tables) == {"tradewire_positions", "tradewire_streams", "tradewire_recent"}
    assert inspect(engine).get_table_names() == sorted(metadata.tables)
    engine.dispose()


def test_either_store_reads_what_the_other_wrote(tmp_path: Path) -> None:
    path = tmp_path / "bot.sqlite"
    mapped = Mapped(path)
    mapped.store.load("hub")
    with mapped.acting(fill(3, base=1)):
        pass
    mapped.close()
    plain = Plain(path)
    assert plain.store.load("hub") == Known("e1", 1, {ALPHA: 3})
    plain.close()
