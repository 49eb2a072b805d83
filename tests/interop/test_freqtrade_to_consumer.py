"""Our consumer against a real freqtrade API server: all 17 types arrive, each as its own type, and frames are the bot's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bots import ApiServerProbe
from exact_frames import dump, hard_frame

from consumer import Client
from consumer.config import ConsumerConfig, ProducerConfig
from hub.protocol.localbot import Connected, Delivery, Disconnected
from hub.protocol.messages import REGISTRY, TOPICS, GenericMessage

TOKEN = "interop-consumer-token-0123456789abcdef"
BTC, ETH = "BTC/USDT", "ETH/USDT"
START, MINUTE = 1795348800000, 60000
FULL = hard_frame(300, start_ms=START, step_ms=MINUTE)


def client_of(server: ApiServerProbe, protocol: str = "freqtrade") -> Client:
    producer = ProducerConfig(
        name="default",
        host="127.0.0.1",
        port=server.port,
        ws_token=TOKEN,
        protocol=protocol,  # type: ignore[arg-type]
    )
    settings = ConsumerConfig(enabled=True, producers=(producer,), sleep_time=1)
    return Client(producer, settings)


async def until(client: Client, wanted: Any, seconds: float = 30) -> list[Delivery]:
    """Everything up to the first delivery that is wanted."""
    seen: list[Delivery] = []
    async with asyncio.timeout(seconds):
        async for delivery in client:
            seen.append(delivery)
            if wanted(delivery):
                return seen
    raise AssertionError("the client ended")


def is_last_words(delivery: Delivery) -> bool:
    return delivery.topic == "strategy_msg" and "told" in str(delivery.message)


def assert_near(got: pd.DataFrame, sent: pd.DataFrame) -> None:
    """Equal but for the ten decimals that freqtrade's encoder keeps."""
    assert got["date"].tolist() == sent["date"].tolist()
    for name in (name for name in sent.columns if sent[name].dtype.kind == "f"):
        finite = np.isfinite(sent[name].to_numpy())
        np.testing.assert_array_equal(np.isfinite(got[name].to_numpy(dtype="float64")), finite, err_msg=name)
        np.testing.assert_allclose(got[name][finite], sent[name][finite], rtol=0, atol=6e-11, err_msg=name)
    assert got["exit_tag"].tolist() == sent["exit_tag"].tolist()
    assert got["is_green"].tolist() == sent["is_green"].tolist()


@pytest.mark.parametrize("protocol", ["freqtrade", "auto"])
def test_every_type_of_a_freqtrade_bot_arrives_as_its_own_type(directory: Path, protocol: str) -> None:
    async def main(server: ApiServerProbe) -> list[Delivery]:
        async with client_of(server, protocol) as client:
            seen = await until(client, lambda delivery: delivery.topic == "whitelist")
            await asyncio.to_thread(server.do, "analyzed", pair=BTC, frame=dump(FULL.head(201)), candles=1)
            await asyncio.to_thread(server.do, "story", first=ETH, second=BTC)
            return seen + await until(client, is_last_words)

    with ApiServerProbe(directory / "server", token=TOKEN) as server:
        server.do("whitelist", pairs=[BTC])
        server.do("analyzed", pair=BTC, frame=dump(FULL.head(200)), candles=0)
        seen = asyncio.run(main(server))

    by_topic = {delivery.topic: delivery for delivery in seen if delivery.topic in TOPICS}
    assert set(by_topic) == set(TOPICS)
    for topic, delivery in by_topic.items():
        assert type(delivery.message) is REGISTRY[topic], topic
        assert not delivery.message.extra, topic
    assert not [delivery for delivery in seen if isinstance(delivery.message, GenericMessage)]
    ledger = [delivery.topic for delivery in seen if delivery.topic.startswith(("entry", "exit"))]
    assert ledger == [
        "entry",
        "entry_cancel",
        "entry",
        "entry_fill",
        "exit",
        "exit_cancel",
        "exit",
        "exit_fill",
    ]


def test_frames_of_a_freqtrade_bot_are_kept_over_its_restart(directory: Path) -> None:
    async def main(server: ApiServerProbe) -> None:
        async with client_of(server) as client:
            await until(client, lambda delivery: frame_of(client, BTC, 200))
            assert client.data.get_producer_pairs() == [BTC]
            assert_near(client.data.get_producer_df(BTC, "1m", "spot")[0], FULL.head(200))

            await asyncio.to_thread(server.do, "analyzed", pair=BTC, frame=dump(FULL.head(201)), candles=1)
            await until(client, lambda delivery: frame_of(client, BTC, 201))

            await asyncio.to_thread(server.restart)
            await asyncio.to_thread(server.do, "whitelist", pairs=[BTC])
            await asyncio.to_thread(server.do, "analyzed", pair=BTC, frame=dump(FULL.head(231)), candles=0)
            seen = await until(client, lambda delivery: frame_of(client, BTC, 231))
            assert_near(client.data.get_producer_df(BTC, "1m", "spot")[0], FULL.head(231))
            link = [delivery.message for delivery in seen if delivery.topic not in TOPICS]
            assert isinstance(link[0], Disconnected)
            assert isinstance(link[-1], Connected)

    with ApiServerProbe(directory / "server", token=TOKEN) as server:
        server.do("whitelist", pairs=[BTC])
        server.do("analyzed", pair=BTC, frame=dump(FULL.head(200)), candles=0)
        asyncio.run(main(server))


def test_a_type_of_a_newer_freqtrade_is_delivered_as_a_generic_event(directory: Path) -> None:
    """freqtrade sends only types it was asked for, so a newer one only comes when a newer client asks; never a failure."""

    async def main(server: ApiServerProbe) -> Delivery:
        async with client_of(server) as client:
            await until(client, lambda delivery: delivery.topic == "whitelist")
            fields = {"status": "running", "of_a_newer_version": {"a": 1}}
            await asyncio.to_thread(server.do, "send", type="status", fields=fields)
            return (await until(client, lambda delivery: delivery.topic == "status"))[-1]

    with ApiServerProbe(directory / "server", token=TOKEN) as server:
        server.do("whitelist", pairs=[BTC])
        delivery = asyncio.run(main(server))

    assert delivery.message.extra == {"of_a_newer_version": {"a": 1}}  # type: ignore[union-attr]


def frame_of(client: Client, pair: str, rows: int) -> bool:
    return len(client.data.get_producer_df(pair, "1m", "spot")[0]) == rows
