"""consumer.lane."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from feed_doubles import AsyncBot, Bot, advanced, event, fill, handled

from consumer import lane
from consumer.bookmarks import Bookmarks
from consumer.errors import BotFailed
from consumer.lane import Lane, lane_to
from consumer.stores.sqlite import SqlitePositionStore
from hub.protocol.known import Known
from hub.protocol.localbot import Delivery

pytestmark = pytest.mark.anyio


@pytest.fixture
def bookmarks(tmp_path: Path) -> Bookmarks:
    return Bookmarks.of_file(tmp_path / "positions.json", {})


async def fails(way: Lane, *deliveries: Delivery) -> str:
    """Put deliveries and wait for the failure; its text."""

    async def work() -> None:
        async with way:
            for delivery in deliveries:
                await way.put(delivery)
            await way.failed()

    with pytest.raises(BotFailed) as caught:
        await work()
    return str(caught.value)


def exits(delivery: Delivery) -> None:
    sys.exit("bye")


def cancels(delivery: Delivery) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("kind", [Bot, AsyncBot])
@pytest.mark.parametrize(("deed", "text"), [(exits, "SystemExit: bye"), (cancels, "CancelledError")])
async def test_what_is_no_exception_ends_the_run_too(
    kind: type[Bot], deed: Any, text: str, bookmarks: Bookmarks
) -> None:
    bot = kind()
    bot.on = deed
    told = await fails(lane_to(bot, bookmarks), event())
    assert told.startswith(f"{kind.__name__}.handle: status of alpha: {text}")


async def test_the_place_in_the_bots_module_and_the_cause_within_a_group_are_told(
    bookmarks: Bookmarks,
) -> None:
    class Grouping(Bot):
        async def handle(self, delivery: Delivery) -> None:  # type: ignore[override]
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0, int("x")))

    text = await fails(lane_to(Grouping(), bookmarks), event())
    assert text.startswith("Grouping.handle: status of alpha: ValueError: invalid literal")
    assert "(test_lane.py:" in text


async def test_a_coroutine_that_does_not_end_is_given_up(
    bookmarks: Bookmarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "STOP_S", 0)
    entered = asyncio.Event()

    class Endless(Bot):
        async def handle(self, delivery: Delivery) -> None:  # type: ignore[override]
            entered.set()
            await asyncio.Event().wait()

    way = lane_to(Endless(), bookmarks)

    async def work() -> None:
        async with way, anyio.create_task_group() as group:
            group.start_soon(way.put, fill(1))
            group.start_soon(way.failed)
            await entered.wait()
            group.cancel_scope.cancel()

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    assert str(lane.leaf(caught.value)) == "Endless.handle: did not return within 0 s of the end of the run"
    assert bookmarks.known == {}


class Store:
    """A PositionStore that notes what it is asked; the bot saves all."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def load(self, producer: str) -> Known | None:
        return None

    def saved(self, delivery: Delivery) -> bool:
        self.asked.append(f"saved {delivery.position.offset}")  # type: ignore[union-attr]
        return True

    def advance(self, producer: str, known: Known, *, anew: bool = False) -> None:
        self.asked.append(f"advance {known.base} {threading.get_ident()}")


@pytest.mark.parametrize("kind", [Bot, AsyncBot])
async def test_a_base_passes_behind_what_came_before_and_where_the_bot_runs(
    kind: type[Bot], tmp_path: Path
) -> None:
    bot, store = kind(), Store()
    bot.on = lambda delivery: store.asked.append(f"handle {delivery.position.offset}")  # type: ignore[union-attr]
    marks = Bookmarks.of_store(store, tmp_path / "positions.json", {}, ["hub"])
    async with lane_to(bot, marks) as way:
        for delivery in (fill(6, base=4), advanced(6), fill(8, base=6), advanced(9)):
            delivery.commit = marks.hook(delivery)
            await way.put(delivery)
        await handled(bot, 2)
        while way.statistics().waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
    thread = bot.threads.pop()
    expected = ["handle 6", "saved 6", "handle 8", "saved 8", f"advance 9 {thread}"]
    assert store.asked == expected
    assert (thread == threading.get_ident()) == (kind is AsyncBot)
    assert [d.topic for d in bot.seen] == ["entry_fill", "entry_fill"]


@pytest.mark.parametrize("kind", [Bot, AsyncBot])
async def test_a_store_is_left_alone_once_the_bot_has_failed(kind: type[Bot], tmp_path: Path) -> None:
    """A transaction that the bot left half-done may be open: nothing may commit it."""
    path = tmp_path / "bot.sqlite"
    with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        connection.execute("CREATE TABLE acted (number INTEGER)")
        store = SqlitePositionStore(connection)
        marks = Bookmarks.of_store(store, tmp_path / "positions.json", {}, ["hub"])

        def half(delivery: Delivery) -> None:
            connection.execute("INSERT INTO acted VALUES (1)")
            raise ValueError

        bot = kind()
        bot.on = half
        await fails(lane_to(bot, marks), advanced(4), advanced(5), fill(6, base=5))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM acted").fetchone() == (0,)
        assert connection.execute("SELECT base FROM tradewire_positions").fetchone() == (4,)
