"""A PaperBot on a real hub: what a UI hears of it on freqtrade's websocket, and its configuration read again over REST."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection

from consumer.bot import PaperBot
from consumer.config import load
from consumer.feed import Feed
from hub.frames.columns import Columns
from hub.server import Hub

from .conftest import CONFIG, READER, WRITER, Clients, heard, say

pytestmark = pytest.mark.anyio

PAIRS = ["BTC/USDT", "ETH/USDT"]
UI = "ui-token-0123456789abcdefghijklmnop"
START_MS, STEP_MS = 1_700_000_100_000, 300_000


def paper_hub(port: int = 0) -> Hub:
    tokens = [{"token": UI, "bot": "paper"}]
    publishers = [{"name": "writer", "token": WRITER, "bots": ["paper"]}]
    section = {"default_bot": "paper", "tokens": tokens, "publishers": publishers, "drain_s": 1}
    return Hub({"api_server": {**CONFIG["api_server"], "listen_port": port}, "hub": section})


def candle(hub: Hub, index: int) -> None:
    """Candles up to `index` of both pairs, from the bot alpha."""
    dates = START_MS + STEP_MS * np.arange(index + 1, dtype=np.int64)
    rates = np.full(index + 1, 100.0)
    columns = {"date": dates, **dict.fromkeys(("open", "high", "low", "close", "volume"), rates)}
    frame = Columns.from_mapping(columns, {"date": "ts_ms"})
    for pair in PAIRS:
        key = (pair, "5m", "spot")
        hub.publish("analyzed_df", bot="alpha", key=key, frame=frame, la_ms=int(dates[-1])).result(5)


class World:
    """A consumer's file, its run and REST's view of it."""

    def __init__(self, directory: Path, hub: Hub) -> None:
        self.file = directory / "consumer.json"
        self.data_dir = directory / "data"
        self.port = hub.port
        self.client = httpx.AsyncClient(base_url=hub.url, auth=("somebody", "a-long-password-1"), timeout=10)
        self.write(max_open_trades=3)

    def write(self, **changes: Any) -> None:
        producer = {"name": "hub", "host": "127.0.0.1", "port": self.port, "ws_token": READER}
        config = {
            "bot_name": "paper",
            "external_message_consumer": {"enabled": True, "producers": [producer], "sleep_time": 1},
            "publish": {"host": "127.0.0.1", "port": self.port, "token": WRITER},
            "stake_amount": 100,
            "paper": {"start_from": "earliest"},
        }
        self.file.write_text(json.dumps(config | changes))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        read = lambda: load(self.file)  # noqa: E731
        feed = Feed(read(), PaperBot, data_dir=self.data_dir, read=read)
        task = asyncio.create_task(feed.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.client.aclose()

    async def got(self, path: str) -> dict[str, Any]:
        answer = await self.client.get(f"/api/v1{path}")
        body: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        return body

    async def reload(self) -> tuple[int, Any]:
        answer = await self.client.post("/api/v1/reload_config")
        return answer.status_code, answer.json()


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def hears(websocket: ClientConnection, kind: str) -> list[str]:
    while (message := await heard(websocket))["type"] != kind:
        pass
    told: list[str] = message["data"]
    return told


async def asked_whitelist(websocket: ClientConnection) -> list[str]:
    await say(websocket, {"type": "whitelist", "data": ""})
    return await hears(websocket, "whitelist")


async def test_a_ui_hears_the_whitelist_and_the_candles_also_after_the_hubs_restart(tmp_path: Path) -> None:
    with paper_hub() as hub:
        world = World(tmp_path, hub)
        hub.publish("whitelist", PAIRS, bot="alpha").result(5)
        candle(hub, 0)
        async with world.running():
            await until(lambda: world.got("/whitelist?x"))
            async with Clients(hub).legacy(UI) as ui:
                await until(lambda: asked(ui))
                await say(ui, {"type": "subscribe", "data": ["whitelist", "new_candle", "analyzed_df"]})
                assert await asked_whitelist(ui) == PAIRS
                candle(hub, 1)
                told = {tuple(await hears(ui, "new_candle")) for _ in PAIRS}
                assert told == {(pair, "5m", "spot") for pair in PAIRS}
            candles = await world.got("/pair_candles?pair=BTC/USDT&timeframe=5m")
            assert (candles["strategy"], candles["length"]) == ("PaperBot", 2)
            hub.stop()
            with paper_hub(hub.port) as again:
                async with Clients(again).legacy(UI) as ui:
                    await until(lambda: asked(ui))


async def asked(ui: ClientConnection) -> bool:
    return await asked_whitelist(ui) == PAIRS


async def test_the_configuration_is_read_again(tmp_path: Path) -> None:
    with paper_hub() as hub:
        world = World(tmp_path, hub)
        hub.publish("whitelist", PAIRS, bot="alpha").result(5)
        candle(hub, 0)
        async with world.running() as task:

            async def most(number: int) -> bool:
                return (await world.got("/show_config")).get("max_open_trades") == number

            async def candles(number: int) -> bool:
                answer = await world.got("/pair_candles?pair=BTC/USDT&timeframe=5m")
                return answer.get("length") == number

            await until(lambda: most(3))
            for changes, text in (
                ({"max_open_trades": "seven"}, "max_open_trades: expected a whole number"),
                ({"stake_currency": "EUR"}, "stake_currency: expected 'USDT', the currency of the wallet"),
                ({"publish": {"token": "x"}}, "publish.url: expected either a URL or publish.host"),
                (
                    {"external_message_consumer": {"enabled": 3}},
                    "external_message_consumer.enabled: expected",
                ),
            ):
                world.write(**changes)
                status, body = await world.reload()
                assert status == 502
                assert body["error"].startswith(f"Error querying /api/v1/reload_config: {text}")
            world.file.write_text("{")
            assert "is not JSON" in (await world.reload())[1]["error"]
            assert await most(3)
            for number in (2, 7):
                world.write(max_open_trades=number)
                assert await world.reload() == (200, {"status": "Reloading config ..."})
                await until(lambda number=number: most(number))  # type: ignore[misc]
                candle(hub, number)
                await until(lambda number=number: candles(number + 1))  # type: ignore[misc]
            assert not task.done()
            rows = (await world.got("/logs"))["logs"]
            assert not any("token" in row[4] for row in rows)
