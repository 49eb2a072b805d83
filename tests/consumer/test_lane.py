"""consumer.lane."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from feed_doubles import AsyncBot, Bot, event, fill

from consumer import lane
from consumer.bookmarks import Bookmarks
from consumer.errors import BotFailed
from consumer.lane import Lane, lane_to
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
