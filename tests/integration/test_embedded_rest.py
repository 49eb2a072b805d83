"""Hub.register: a bot of the embedding program behind the hub's REST, from other threads and over a restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from rest.ledger_bot import LedgerBot

from hub.frames.columns import Columns
from hub.protocol.answers import Count
from hub.protocol.errors import BadMessage
from hub.server import Hub

from .conftest import CONFIG, READER, Clients, ask, fill, heard

pytestmark = pytest.mark.anyio

USER = ("somebody", "a-long-password-1")


class BlockingBot(LedgerBot):
    """Whose count never comes while `held`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.held = threading.Event()

    async def count(self) -> Count:
        self.entered.set()
        self.held.wait(30)
        return await super().count()


@pytest.fixture
def bot() -> Iterator[BlockingBot]:
    bot = BlockingBot()
    yield bot
    bot.held.set()


def test_a_registered_bot_answers_before_and_after_the_start_and_after_another(bot: BlockingBot) -> None:
    hub = Hub(CONFIG)
    hub.register("alpha", bot)
    for _ in range(2):
        with hub, httpx.Client(base_url=hub.url, auth=USER, verify=False) as client:

            def get(path: str, client: httpx.Client = client) -> Any:
                return client.get(f"/api/v1/{path}").json()

            assert get("version") == {"version": "ledger-1"}
            hub.unregister("alpha")
            assert get("version") != {"version": "ledger-1"}
            thread = threading.Thread(target=hub.register, args=("alpha", bot))
            thread.start()
            thread.join()
            assert get("bots")[0] == {
                "name": "alpha",
                "kind": "in_process",
                "default": True,
                "online": True,
                "state": None,
                "timeframe": None,
                "last_message_ts": None,
                "stale": None,
            }
            assert hub.statistics()["bots_in_process"]["alpha"]["in_flight"] == 0
    hub.unregister("alpha")
    with pytest.raises(BadMessage, match="bot: expected 1 to 64 bytes"):
        hub.register("", bot)


async def test_a_bot_that_blocks_delays_no_fill(hub: Hub, clients: Clients, bot: BlockingBot) -> None:
    hub.register("alpha", bot)
    async with clients.v2(READER) as reader, httpx.AsyncClient(base_url=hub.url, auth=USER) as client:
        await ask(reader, {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["entry_fill"]}]}})
        waiting = [asyncio.create_task(client.get("/api/v1/count")) for _ in range(3)]
        assert await asyncio.to_thread(bot.entered.wait, 5)
        await asyncio.wrap_future(hub.publish("entry_fill", fill(1)))
        assert (await heard(reader))["data"]["trade_id"] == 1
        assert (await client.get("/api/v1/ping")).status_code == 200
        bot.held.set()
        assert {response.status_code for response in await asyncio.gather(*waiting)} == {200}
    hub.unregister("alpha")


async def test_candles_that_were_published_are_answered(hub: Hub) -> None:
    dates = [1_795_348_800_000 + n * 300_000 for n in range(1500)]
    columns = {name: np.arange(1500) / 7 for name in ("open", "high", "low", "close", "volume", "rsi")}
    frame = Columns.from_mapping({"date": dates, **columns})
    hub.publish("analyzed_df", key=("BTC/USDT:USDT", "5m", "futures"), frame=frame, la_ms=dates[-1]).result(5)
    async with httpx.AsyncClient(base_url=hub.url, auth=USER) as client:
        body = {"pair": "BTC/USDT:USDT", "timeframe": "5m", "columns": ["rsi"], "limit": 1000}
        got = (await client.post("/api/v1/pair_candles", json=body)).json()
        assert got["length"] == len(got["data"]) == 1000
        assert got["data"][-1][got["columns"].index("rsi")] == 1499 / 7
        (listing,) = (await client.get("/api/v1/bots")).json()
        assert (listing["kind"], listing["timeframe"], listing["stale"]) == ("messages", "5m", False)
