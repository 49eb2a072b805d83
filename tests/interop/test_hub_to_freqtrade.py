"""freqtrade's own message consumer and data provider against the hub: whitelist and frames equal to the producer's."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
from bots import ApiServerProbe, ConsumerProbe, HubProcess
from exact_frames import dump, hard_frame, load

from consumer import Publisher
from hub.frames.columns import Columns
from hub.frames.v2 import to_columns, to_rows

T = TypeVar("T")
TOKEN = "interop-read-token-0123456789abcdef"
OTHER_TOKEN = "interop-other-token-0123456789abcdef"
PUBLISH_TOKEN = "interop-publish-token-0123456789abcdef"
UPSTREAM_TOKEN = "interop-upstream-token-0123456789abcdef"
BTC, ETH = "BTC/USDT", "ETH/USDT:USDT"
START, MINUTE = 1795348800000, 60000
FULL = hard_frame(600, start_ms=START, step_ms=MINUTE)


def first(rows: int) -> pd.DataFrame:
    return FULL.head(rows)


def ends_at(frame: pd.DataFrame) -> Any:
    """Whether an event's frame is as long as `frame` and ends with its date."""
    return lambda event: (
        len(got := load(event["frame"])) == len(frame) and got["date"].iloc[-1] == frame["date"].iloc[-1]
    )


def assert_equal(event: dict[str, Any], sent: pd.DataFrame) -> None:
    """The frame that freqtrade has is the producer's: dates, holes, and floats as near as freqtrade's reader takes them."""
    got = load(event["frame"])
    assert list(got.columns) == list(sent.columns)
    assert got["date"].tolist() == sent["date"].tolist()
    for name in sent.columns:
        if sent[name].dtype.kind == "f":
            wanted = sent[name].where(np.isfinite(sent[name])).to_numpy()
            np.testing.assert_allclose(
                got[name].to_numpy(dtype="float64"), wanted, rtol=1.2e-15, atol=0, err_msg=name
            )
        elif sent[name].dtype.kind in "bi":
            assert got[name].tolist() == sent[name].tolist(), name
    assert got["is_green"].dtype == bool
    assert got["count"].dtype == np.int64
    assert got["exit_tag"].tolist() == sent["exit_tag"].tolist()


class HttpProducer:
    """Publishes as bot `maker` over POST /api/v1/publish."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1/publish"
        self.ids = itertools.count()

    def whitelist(self, pairs: list[str]) -> None:
        self._publish(topic="whitelist", data=pairs)

    def frame(self, pair: str, frame: pd.DataFrame, *, replace: bool = False) -> None:
        columns = Columns.from_pandas(frame)
        data: dict[str, Any] = {"la_ms": START}
        if replace:
            data |= {"n": columns.n, "cols": to_columns(columns, "json")}
        else:
            data |= {"rows": to_rows(columns, "json")}
        self._publish(topic="analyzed_df", key=[pair, "1m", "spot"], schema=columns.schema.data(), data=data)

    def _publish(self, **item: Any) -> None:
        body = orjson.dumps({"bot": "maker", "mid": f"interop/{next(self.ids)}", **item})
        headers = {"Authorization": f"Bearer {PUBLISH_TOKEN}", "Content-Type": "application/json"}
        answer = httpx.post(self.url, content=body, headers=headers, timeout=20)
        assert answer.status_code == 200, answer.text

    def close(self) -> None:
        """Nothing is held."""


class WebsocketProducer:
    """Publishes as bot `maker` over our own wire, with consumer.Publisher on a loop in a thread of its own."""

    def __init__(self, port: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.publisher = self._run(self._open(port))

    def whitelist(self, pairs: list[str]) -> None:
        self._run(self.publisher.publish("maker", "whitelist", pairs))

    def frame(self, pair: str, frame: pd.DataFrame, *, replace: bool = False) -> None:
        columns, key = Columns.from_pandas(frame), (pair, "1m", "spot")
        self._run(
            self.publisher.publish(
                "maker", "analyzed_df", key=key, frame=columns, replace=replace, la_ms=START
            )
        )

    def close(self) -> None:
        self._run(self.publisher.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def _open(self, port: int) -> Publisher:
        return await Publisher(f"ws://127.0.0.1:{port}", PUBLISH_TOKEN).__aenter__()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(20)


Producer = HttpProducer | WebsocketProducer


@contextmanager
def hub_with_publisher(
    directory: Path, producer_class: type[Producer] = HttpProducer
) -> Iterator[tuple[HubProcess, Producer]]:
    section = {
        "default_bot": "maker",
        "publishers": [{"name": "maker", "token": PUBLISH_TOKEN, "bots": ["maker"]}],
        "state_dir": str(directory / "state"),
    }
    with (
        HubProcess(directory / "hub", api_server={"ws_token": TOKEN}, hub=section) as hub,
        closing(producer_class(hub.port)) as producer,
    ):
        yield hub, producer


def relaying_hub(directory: Path, upstreams: dict[str, ApiServerProbe], **section: Any) -> HubProcess:
    listed = [
        {"name": name, "host": "127.0.0.1", "port": server.port, "secure": False, "ws_token": server.token}
        for name, server in upstreams.items()
    ]
    hub = {"upstreams": listed, "state_dir": str(directory / "state")} | section
    return HubProcess(directory / "hub", api_server={"ws_token": TOKEN}, hub=hub)


@pytest.mark.parametrize("producer_class", [HttpProducer, WebsocketProducer])
def test_published_frames_reach_freqtrade_with_every_digit(
    directory: Path, producer_class: type[Producer]
) -> None:
    with hub_with_publisher(directory, producer_class) as (hub, producer):
        producer.whitelist([BTC, ETH])
        producer.frame(BTC, first(200), replace=True)
        producer.frame(ETH, hard_frame(150, start_ms=START, step_ms=MINUTE, seed=7), replace=True)
        with ConsumerProbe(directory / "emc", port=hub.port, token=TOKEN) as freqtrade:
            freqtrade.pairs([BTC, ETH])
            assert_equal(freqtrade.frame(BTC, ends_at(first(200))), first(200))
            assert_equal(freqtrade.frame(ETH), hard_frame(150, start_ms=START, step_ms=MINUTE, seed=7))

            producer.frame(BTC, FULL.iloc[200:201])
            assert_equal(freqtrade.frame(BTC, ends_at(first(201))), first(201))

            producer.whitelist([ETH])
            freqtrade.pairs([ETH])
            assert freqtrade.connects() == 1


def test_a_late_candle_deletes_nothing_newer_at_freqtrade(directory: Path) -> None:
    """Row 190 comes last: freqtrade drops what follows a received row, so the hub sends the rest behind it."""
    with hub_with_publisher(directory) as (hub, producer):
        producer.whitelist([BTC])
        producer.frame(BTC, first(200).drop(index=190), replace=True)
        with ConsumerProbe(directory / "emc", port=hub.port, token=TOKEN) as freqtrade:
            freqtrade.frame(BTC)
            producer.frame(BTC, FULL.iloc[190:191])
            assert_equal(freqtrade.frame(BTC, ends_at(first(200))), first(200))


def test_an_outage_of_the_exchange_is_not_asked_for_twice(directory: Path) -> None:
    with hub_with_publisher(directory) as (hub, producer):
        producer.whitelist([BTC])
        producer.frame(BTC, first(200), replace=True)
        with ConsumerProbe(directory / "emc", port=hub.port, token=TOKEN) as freqtrade:
            freqtrade.frame(BTC, ends_at(first(200)))
            time.sleep(2)  # freqtrade loses what it asks for in the second and a half of its first requests
            with_outage = pd.concat([first(200), FULL.iloc[204:206]])
            producer.frame(BTC, FULL.iloc[204:205])
            producer.frame(BTC, FULL.iloc[205:206])
            assert_equal(freqtrade.frame(BTC, ends_at(with_outage)), with_outage)
            holes = [event for event in freqtrade.drain() if "Holes in data" in event.get("text", "")]
            assert len(holes) <= 2


def test_a_young_pair_is_not_asked_for_for_ever(directory: Path) -> None:
    """freqtrade stores no first frame under 100 rows and asks again after every answer: twice a second, for ever."""
    with hub_with_publisher(directory) as (hub, producer):
        producer.whitelist([BTC])
        producer.frame(BTC, first(40), replace=True)
        with ConsumerProbe(directory / "emc", port=hub.port, token=TOKEN) as freqtrade:
            freqtrade.pairs([BTC])
            time.sleep(6)
            assert sum("Holes in data" in event.get("text", "") for event in freqtrade.drain()) <= 4
            producer.frame(BTC, first(120), replace=True)
            assert_equal(freqtrade.frame(BTC, ends_at(first(120))), first(120))


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_freqtrade_recovers_from_a_hub_that_dies_or_drains(directory: Path, ending: str) -> None:
    with ApiServerProbe(directory / "server", token=UPSTREAM_TOKEN) as server:
        server.do("whitelist", pairs=[BTC])
        server.do("analyzed", pair=BTC, frame=dump(first(200)), candles=0)
        with (
            relaying_hub(directory, {"maker": server}) as hub,
            ConsumerProbe(directory / "emc", port=hub.port, token=TOKEN) as freqtrade,
        ):
            freqtrade.frame(BTC, ends_at(first(200)))
            getattr(hub, ending)()
            server.do("whitelist", pairs=[BTC, ETH])
            server.do("analyzed", pair=BTC, frame=dump(first(230)), candles=1)
            time.sleep(3)
            hub.start()
            freqtrade.pairs([BTC, ETH], 60)
            freqtrade.frame(BTC, ends_at(first(230)), 60)
            server.do("analyzed", pair=BTC, frame=dump(first(231)), candles=1)
            received = freqtrade.frame(BTC, ends_at(first(231)))
            assert_same_as_direct(directory, server, received)
            assert freqtrade.connects() <= 5, "a hub that is away is not hammered"


def test_frames_through_the_relay_are_the_ones_freqtrade_gets_directly(directory: Path) -> None:
    """From 200 candles, a candle at a time, over a restart of the producer that left a hole of thirty."""
    server = ApiServerProbe(directory / "server", token=UPSTREAM_TOKEN)
    with server, relaying_hub(directory, {"maker": server}) as hub:
        server.do("whitelist", pairs=[BTC])
        server.do("analyzed", pair=BTC, frame=dump(first(200)), candles=0)
        with ConsumerProbe(directory / "emc", port=hub.port, token=TOKEN) as freqtrade:
            freqtrade.pairs([BTC])
            server.do("analyzed", pair=BTC, frame=dump(first(201)), candles=1)
            freqtrade.frame(BTC, ends_at(first(201)))

            server.restart()
            server.do("whitelist", pairs=[BTC])
            server.do("analyzed", pair=BTC, frame=dump(first(231)), candles=0)
            server.do("analyzed", pair=BTC, frame=dump(first(232)), candles=1)
            received = freqtrade.frame(BTC, ends_at(first(232)), 90)

            assert_same_as_direct(directory, server, received)
            assert freqtrade.connects() == 1, "a producer's restart does not cut off the hub's clients"


def test_a_bot_that_has_analysed_nothing_when_the_hub_asks_comes_whole(directory: Path) -> None:
    """It answers with an empty frame, and of its first analysis it broadcasts the last row only."""
    server = ApiServerProbe(directory / "server", token=UPSTREAM_TOKEN)
    with server:
        server.do("whitelist", pairs=[BTC])
        with (
            relaying_hub(directory, {"maker": server}) as hub,
            ConsumerProbe(directory / "emc", port=hub.port, token=TOKEN) as freqtrade,
        ):
            freqtrade.pairs([BTC])
            server.do("analyzed", pair=BTC, frame=dump(first(200)), candles=1)
            received = freqtrade.frame(BTC, ends_at(first(200)))
            assert_same_as_direct(directory, server, received)


def test_two_bots_never_mix_on_a_freqtrade_socket(directory: Path) -> None:
    with (
        ApiServerProbe(directory / "one", token=UPSTREAM_TOKEN) as one,
        ApiServerProbe(directory / "two", token=UPSTREAM_TOKEN) as two,
        relaying_hub(
            directory, {"one": one, "two": two}, default_bot="one", tokens={OTHER_TOKEN: "two"}
        ) as hub,
        ConsumerProbe(directory / "emc_one", port=hub.port, token=TOKEN) as of_one,
        ConsumerProbe(directory / "emc_two", port=hub.port, token=OTHER_TOKEN) as of_two,
    ):
        for rows in range(200, 205):
            for server, pair in ((one, BTC), (two, ETH)):
                server.do("whitelist", pairs=[pair])
                server.do("analyzed", pair=pair, frame=dump(first(rows)), candles=1)
        of_one.frame(BTC, ends_at(first(204)))
        of_two.frame(ETH, ends_at(first(204)))

        for consumer, pair in ((of_one, BTC), (of_two, ETH)):
            assert {event["pair"] for event in consumer.drain() if "pair" in event} == {pair}
            assert {tuple(event["pairs"]) for event in consumer.seen if "pairs" in event} == {(pair,)}


def assert_same_as_direct(directory: Path, server: ApiServerProbe, received: dict[str, Any]) -> None:
    """What came through the hub is what freqtrade gets from the producer itself, dtype for dtype and bit for bit."""
    with ConsumerProbe(directory / "direct", port=server.port, token=server.token) as direct:
        wanted = load(direct.frame(BTC)["frame"])
    got = load(received["frame"])
    pd.testing.assert_frame_equal(got, wanted, check_exact=False, rtol=5e-16, atol=0, check_index_type=False)
