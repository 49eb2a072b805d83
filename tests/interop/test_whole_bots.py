"""Whole dry-run bots: a real producer, our relay and hub, a real consumer that trades on the producer's signals."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from bots import PAIRS, FakeExchange, FreqtradeConsumer, FreqtradeProducer, HubProcess, Process, wait_for

TOKEN = "interop-bots-read-token-0123456789abcdef"
UPSTREAM_TOKEN = "interop-bots-upstream-token-0123456789"
CANDLE_S = 100  # a one-minute candle, its analysis, and a slow machine


def test_a_consumer_trades_on_a_producers_signals_over_a_restart_of_each(
    directory: Path, fake_exchange: FakeExchange
) -> None:
    producer = FreqtradeProducer(directory / "producer", exchange=fake_exchange, token=UPSTREAM_TOKEN)
    upstream = {"name": "maker", "host": "127.0.0.1", "port": producer.port, "ws_token": UPSTREAM_TOKEN}
    hub = HubProcess(
        directory / "hub",
        api_server={"ws_token": TOKEN},
        hub={"upstreams": [upstream], "state_dir": str(directory / "state")},
    )
    consumer = FreqtradeConsumer(
        directory / "consumer", exchange=fake_exchange, token=TOKEN, upstream_port=hub.port
    )
    with producer, hub, consumer:
        frames_come(consumer, since=0.0)
        trades = wait_for("a trade on the producer's signal", consumer.trades, CANDLE_S, of=consumer)
        assert all(trade["enter_tag"] == "from_producer" for trade in trades)

        for part in (producer, hub, consumer):
            frames_come(consumer, since=restarted(part))

        opened = datetime_ms()
        wait_for(
            "a trade after the restarts",
            lambda: latest_order_ms(consumer) > opened,
            2 * CANDLE_S,
            of=consumer,
        )
        assert not any(report.get("gaps") for report in consumer.reports())
        assert all(report.get("monotonic", True) for report in consumer.reports())
        hammering = [line for line in consumer.lines() if "Connected to channel" in line]
        assert len(hammering) <= 6


def restarted(part: Process) -> float:
    """Ends and starts it; the hub without a chance to drain. The time when it was back."""
    if isinstance(part, HubProcess):
        part.kill()
        part.start()
    else:
        part.restart()
    return time.time()


def frames_come(consumer: FreqtradeConsumer, since: float) -> None:
    """Waits until every pair has a frame whose last candle was analyzed after `since`."""

    def fresh() -> bool:
        seen = {
            report["pair"]
            for report in consumer.reports(since)
            if report["rows"] > 500 and datetime.fromisoformat(report["la"]).timestamp() > since
        }
        return seen == set(PAIRS)

    wait_for("fresh frames of every pair", fresh, CANDLE_S, of=consumer)


def latest_order_ms(consumer: FreqtradeConsumer) -> int:
    """When an order was last placed or filled, in the open and closed trades."""
    return max((trade["open_timestamp"] for trade in consumer.trades()), default=0)


def datetime_ms() -> int:
    return int(time.time() * 1000)
