"""consumer.bot.database."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from consumer.bot.book import Book, Source
from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.database import PRAGMAS, DatabaseFailed, open_database
from consumer.bot.settings import PaperSettings
from consumer.errors import ConfigError


def settings(db_url: str, **config: Any) -> PaperSettings:
    return PaperSettings.from_config({"db_url": db_url, **config}, name="paper", data_dir=Path())


def refused(db_url: str, **config: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Book(settings(db_url, **config))
    assert "\n" not in str(caught.value)
    return caught.value


def test_another_schema_version_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    Book(settings(f"sqlite:///{path}")).close()
    connection = sqlite3.connect(path)
    connection.execute("update wallet set schema_version = 99")
    connection.commit()
    connection.close()
    error = refused(f"sqlite:///{path}")
    assert str(error) == "db_url: expected schema version 3, the database has 99"


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tradesv3.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("create table trades (id integer)")
    connection.commit()
    connection.close()
    assert "tables of something else" in str(refused(f"sqlite:///{path}"))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_text("no database at all, but long enough to look like one " * 20)
    assert refused(f"sqlite:///{path}").key == "db_url"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(f"sqlite:///{tmp_path / 'file' / 'a.sqlite'}").key == "db_url"


@pytest.mark.parametrize("url", ["not a url", "nosuchdb://localhost/x"])
def test_a_url_of_nothing(url: str) -> None:
    assert refused(url).key == "db_url"


def test_a_password_is_never_shown() -> None:
    assert "hunter2" not in str(refused("nosuchdb://me:hunter2@localhost/x"))


def test_another_stake_currency_than_the_wallets(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    Book(settings(url, stake_currency="USD")).close()
    assert refused(url, stake_currency="EUR").key == "stake_currency"


def test_a_database_in_memory() -> None:
    book = Book(settings("sqlite://"))
    assert book.summary().free == 1000
    book.close()


def test_a_new_folder_is_made(tmp_path: Path) -> None:
    Book(settings(f"sqlite:///{tmp_path / 'new' / 'a.sqlite'}")).close()
    assert (tmp_path / "new" / "a.sqlite").exists()


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRAGMAS, "synchronous", "FULL")
    engine = open_database(make_url(f"sqlite:///{tmp_path / 'a.sqlite'}"))
    with engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
    engine.dispose()
    assert pragmas == ["wal", 2, 1]


@pytest.mark.parametrize("pages", range(1, 20, 3))
def test_a_disk_that_is_full_leaves_no_half_made_database(
    pages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    with monkeypatch.context() as full:
        full.setitem(PRAGMAS, "max_page_count", str(pages))
        with contextlib.suppress(ConfigError, DatabaseFailed):
            Book(settings(url)).close()
    book = Book(settings(url))
    assert book.summary().free == 1000
    book.close()


def test_two_runs_on_one_database_do_not_both_act(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    first, second = Book(settings(url)), Book(settings(url))
    source = Source("hub", "alpha", "30m", "spot")
    row = Candle(1.0, 1.0, 1.0, 1.0)
    first.act([ReadyCandle(1, [("BTC/USDT", row)])], source=source, listed=())
    with pytest.raises(DatabaseFailed, match="another run"):
        second.act([ReadyCandle(1, [("BTC/USDT", row)])], source=source, listed=())
    second.close()
    second = Book(settings(url))
    first.act([ReadyCandle(2, [("BTC/USDT", row)])], source=source, listed=())
    with pytest.raises(DatabaseFailed, match="another run"):
        second.act([ReadyCandle(2, [("BTC/USDT", row)])], source=source, listed=())
    first.close()
    second.close()


def test_a_name_that_is_no_name_of_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "what?=%41"
    for name in ("../up", "a?b=c", "%2e", "plain name"):
        made = PaperSettings.from_config({}, name=name, data_dir=folder)
        Book(made).close()
    assert sorted(path.name for path in folder.glob("*.sqlite")) == [
        "%252e.sqlite",
        "..%2Fup.sqlite",
        "a%3Fb%3Dc.sqlite",
        "plain name.sqlite",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_password_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(settings("postgresql://me:hunter2@localhost/x"))


def of_version_2(path: Path) -> None:
    """Make a database what it was in version 2."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE answers")
        connection.execute("UPDATE wallet SET schema_version = 2")


def test_a_database_of_version_2_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    url = f"sqlite:///{path}"
    book = Book(settings(url))
    source, candle = Source("hub", "a", "5m", "spot"), Candle(1.0, 1.0, 1.0, 1.0)
    book.act([ReadyCandle(300_000, [("BTC/USDT", candle)])], source=source, listed=["BTC/USDT"])
    before = book.summary()
    book.close()
    of_version_2(path)
    for _ in range(2):
        book = Book(settings(url))
        assert book.summary() == before
        assert book.sources == {source: 300_000}
        book.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT schema_version FROM wallet").fetchone() == (3,)
        assert connection.execute("SELECT COUNT(*) FROM answers").fetchone() == (0,)


def test_a_migration_that_dies_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite"
    Book(settings(f"sqlite:///{path}")).close()
    of_version_2(path)
    with monkeypatch.context() as killed:
        killed.setattr("consumer.bot.database.update", None)
        with pytest.raises(TypeError):
            open_database(make_url(f"sqlite:///{path}"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT schema_version FROM wallet").fetchone() == (2,)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        assert ("answers",) not in tables
    Book(settings(f"sqlite:///{path}")).close()
