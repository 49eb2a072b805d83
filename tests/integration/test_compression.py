"""A whole hub with `hub.compression`, and clients of `websockets` that offer permessage-deflate as they do by default."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from consumer.client import Client
from consumer.config import ConsumerConfig, ProducerConfig
from hub.core import deflate
from hub.protocol.messages import AnalyzedDf
from hub.server import Hub

from .conftest import ALPHA, CONFIG, READER, Clients, ask, fill, heard, say, settled

pytestmark = pytest.mark.anyio

KEY = ("BTC/USDT", "5m", "spot")
LONG = fill(1) | {"note": "a long note " * 200}


def hub_with(compression: dict[str, Any]) -> Hub:
    return Hub({**CONFIG, "hub": {**CONFIG["hub"], "ledger": {"kind": "memory"}, "compression": compression}})


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_with({"enabled": True}) as running:
        yield running


@asynccontextmanager
async def offering(hub: Hub, wire: str | None = None) -> AsyncIterator[ClientConnection]:
    """A client that offers compression, as the library does unless it is told not to."""
    url = f"ws://127.0.0.1:{hub.port}/api/v1/message/ws"
    if wire is None:
        options: dict[str, Any] = {}
        url += f"?token={ALPHA}"
    else:
        headers = {"Authorization": f"Bearer {READER}"}
        options = {"subprotocols": [Subprotocol(wire)], "additional_headers": headers}
    async with connect(url, max_size=None, **options) as websocket:
        if wire is not None:
            assert (await heard(websocket))["type"] == "hub.welcome"
        yield websocket


def agreed(websocket: ClientConnection) -> bool:
    return bool(websocket.protocol.extensions)


def frame(rows: int) -> pd.DataFrame:
    values = np.random.default_rng(3).normal(100.0, 1.0, (rows, 12)).round(8)
    made = pd.DataFrame(values, columns=[f"c{i}" for i in range(12)])
    made.insert(0, "date", pd.date_range("2026-11-01", periods=rows, freq="5min", tz="UTC"))
    return made


async def test_a_message_is_deflated_once_for_all(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    compressobj = zlib.compressobj

    def counted(*args: Any) -> Any:
        made.append(args)
        return compressobj(*args)

    want = {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["entry_fill"]}]}}
    async with AsyncExitStack() as stack:
        websockets = [await stack.enter_async_context(offering(hub, "tradewire.v2.json")) for _ in range(8)]
        for websocket in websockets:
            assert agreed(websocket)
            await ask(websocket, want)
        # The clients deflate what they ask, with the same function.
        monkeypatch.setattr(deflate.zlib, "compressobj", counted)
        hub.publish("entry_fill", LONG, bot="alpha").result(5)
        hub.publish("entry_fill", fill(2), bot="alpha").result(5)
        for websocket in websockets:
            assert [(await heard(websocket))["data"] for _ in range(2)] == [LONG, fill(2)]
        monkeypatch.undo()
    assert len(made) == 1
    core = hub.statistics()["core"]
    assert core["deflated"] == 1
    assert core["deflate_saved_bytes"] > 2000
    assert 0 < core["deflated_bytes"] <= core["deflated_limit_bytes"]


async def test_who_offers_nothing_gets_the_very_bytes_of_a_hub_without(hub: Hub) -> None:
    want = {"type": "subscribe", "data": ["entry_fill", "whitelist", "analyzed_df"]}
    texts: list[list[str | bytes]] = []
    with hub_with({}) as without:
        for each in (hub, without):
            async with Clients(each).legacy(ALPHA) as plain, offering(each) as other:
                assert not agreed(plain)
                assert agreed(other) == (each is hub)
                for websocket in (plain, other):
                    await say(websocket, want)
                    await settled(websocket)
                each.publish("entry_fill", LONG, bot="alpha").result(5)
                each.publish("whitelist", [f"P{i}/USDT" for i in range(300)], bot="alpha").result(5)
                async with asyncio.timeout(10):
                    texts += [[await w.recv() for _ in range(2)] for w in (plain, other)]
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert len(texts[0][0]) > hub.config.hub.compression.min_bytes


@pytest.mark.parametrize("wire", [None, "tradewire.v2.json"])
async def test_a_large_dataframe_comes_whole(hub: Hub, wire: str | None) -> None:
    hub.publish("analyzed_df", bot="alpha", key=KEY, frame=frame(1500), la_ms=1_795_357_431_000).result(5)
    async with offering(hub, wire) as websocket:
        if wire is None:
            await say(websocket, {"type": "analyzed_df", "data": {"limit": 1500, "pair": "BTC/USDT"}})
            message = await heard(websocket)
            rows = json.loads(message["data"]["df"]["__value__"])["data"]
            assert len(rows) == 1500
        else:
            await ask(
                websocket, {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["analyzed_df"]}]}}
            )
            while (await heard(websocket))["type"] != "analyzed_df":
                pass
    core = hub.statistics()["core"]
    assert core["deflated"] >= 1
    assert core["deflate_saved_bytes"] > 50_000


@pytest.mark.parametrize(("protocol", "encoding"), [("v2", "json"), ("v2", "msgpack"), ("freqtrade", "json")])
async def test_our_consumer_reads_what_it_asked_to_be_deflated(
    hub: Hub, protocol: Any, encoding: Any
) -> None:
    hub.publish("analyzed_df", bot="alpha", key=KEY, frame=frame(1500), la_ms=1_795_357_431_000).result(5)
    producer = ProducerConfig(
        name="p", host="127.0.0.1", port=hub.port, ws_token=ALPHA if protocol == "freqtrade" else READER,
        protocol=protocol, encoding=encoding, compression=True,
    )  # fmt: skip
    async with asyncio.timeout(10), Client(producer, ConsumerConfig()) as client:
        async for delivery in client:
            if isinstance(delivery.message, AnalyzedDf):
                break
        hub.publish("entry_fill", LONG, bot="alpha").result(5)
        async for delivery in client:
            if delivery.topic == "entry_fill":
                break
        got, _ = client.data.get_producer_df(KEY[0], timeframe="5m", candle_type="spot", producer_name="p")
    assert got["c0"].tolist() == frame(1500)["c0"].tolist()
    assert hub.statistics()["core"]["deflated"] >= 1
