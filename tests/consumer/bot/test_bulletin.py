"""consumer.bot.bulletin."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consumer.bot import bulletin
from consumer.bot.bulletin import Bulletin
from consumer.errors import PublishError
from hub.protocol.envelope import Position
from hub.protocol.messages import FrameKey
from tests.consumer.bot.replay import Context

pytestmark = pytest.mark.anyio


class Hub(Context):
    """A context whose hub answers while `reachable`."""

    def __init__(self) -> None:
        super().__init__({})
        self.mids: list[str] = []
        self.asked = asyncio.Event()
        self.reachable = asyncio.Event()
        self.reachable.set()

    async def publish(self, topic: str, data: Any, *, mid: str, kept: bool = False) -> Position | None:
        self.asked.set()
        await self.reachable.wait()
        self.mids.append(mid)
        return await super().publish(topic, data, mid=mid)


class Pause:
    """A sleep that ends when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.asleep = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asleep.set()
        await self.over.wait()
        self.over.clear()

    async def round(self) -> None:
        """Wait until a round was published, then let the next one begin."""
        await self.asleep.wait()
        self.asleep.clear()
        self.over.set()


@asynccontextmanager
async def told(context: Hub) -> AsyncIterator[tuple[Bulletin, Pause]]:
    pause = Pause()
    made = Bulletin(context, sleep=pause)
    made.start()
    try:
        yield made, pause
    finally:
        await made.stop()


def key(pair: str) -> FrameKey:
    return FrameKey(pair, "5m", "spot")


def candle(pair: str) -> tuple[str, list[str]]:
    return "new_candle", [pair, "5m", "spot"]


async def in_thread(tell: Callable[[], None]) -> None:
    thread = threading.Thread(target=tell)
    thread.start()
    await asyncio.to_thread(thread.join)


async def test_what_comes_up_between_two_rounds_is_told_once() -> None:
    context = Hub()
    async with told(context) as (made, pause):

        def act() -> None:
            made.whitelist(["A/B", "C/D"])
            for _ in range(1000):
                made.acted([key("A/B"), key("C/D")])

        await in_thread(act)
        await pause.asleep.wait()
        assert context.bulletins == [("whitelist", ["A/B", "C/D"]), candle("A/B"), candle("C/D")]
        context.bulletins.clear()
        await in_thread(act)
        await in_thread(lambda: made.whitelist(["C/D"]))
        assert made.statistics()["waiting"] == 3
        await pause.round()
        await pause.asleep.wait()
        assert context.bulletins == [("whitelist", ["C/D"]), candle("A/B"), candle("C/D")]
        assert made.statistics() == {
            "waiting": 0, "waiting_limit": 10_001, "published": 6, "refused": 0, "dropped": 0,
        }  # fmt: skip
    assert len(set(context.mids)) == 6


async def test_a_hub_that_is_away_holds_nobody_up_and_gets_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulletin, "MOST_CANDLES", 3)
    context = Hub()
    context.reachable.clear()
    async with told(context) as (made, pause):
        made.acted([key("A/B")])
        await context.asked.wait()
        for number in range(10):
            made.whitelist([str(number)])
            made.acted([key(str(number))])
        assert made.statistics()["dropped"] == 7
        context.reachable.set()
        await pause.round()
        await pause.asleep.wait()
    assert context.bulletins[-4:] == [("whitelist", ["9"]), *(candle(str(n)) for n in (7, 8, 9))]


async def test_one_refusal_costs_one_message_a_missing_right_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = Hub()
    async with told(context) as (made, pause):
        context.failure = PublishError("too_large", "so many pairs")
        made.whitelist(["A/B"])
        await pause.asleep.wait()
        context.failure = None
        made.acted([key("A/B")])
        await pause.round()
        await pause.asleep.wait()
        assert context.bulletins == [candle("A/B")]
        assert made.statistics()["refused"] == 1
        assert pause.seconds == 0.5
        context.failure = PublishError("overloaded", "no room", temporary=True)
        made.acted([key("A/B"), key("C/D")])
        await pause.round()
        await pause.asleep.wait()
        assert made.statistics()["refused"] == 2
        assert pause.seconds == 30
        assert not caplog.records
        context.failure = PublishError("forbidden", "may not publish as paper")
        made.whitelist(["C/D"])
        made.acted([key("A/B")])
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                await pause.round()
                await pause.asleep.wait()
                assert pause.seconds == 30
        context.failure = None
        await pause.round()
        await pause.asleep.wait()
        assert context.bulletins == [candle("A/B"), ("whitelist", ["C/D"])]
    assert [record.getMessage() for record in caplog.records] == [
        "whitelist and new_candle are not published for now: forbidden: may not publish as paper"
    ]


async def test_what_was_told_before_the_start_is_published_then() -> None:
    context, pause = Hub(), Pause()
    made = Bulletin(context, sleep=pause)
    made.whitelist(["A/B"])
    await made.stop()
    made = Bulletin(context, sleep=pause)
    made.whitelist(["A/B"])
    made.start()
    await pause.asleep.wait()
    await made.stop()
    made.acted([key("A/B")])
    assert context.bulletins == [("whitelist", ["A/B"])]
