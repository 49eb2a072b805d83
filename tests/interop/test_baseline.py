"""freqtrade to freqtrade with nothing of ours between: the rig itself works, and this is what freqtrade gives."""

from __future__ import annotations

from pathlib import Path

from bots import (
    PAIRS,
    ApiServerProbe,
    ConsumerProbe,
    FakeExchange,
    FreqtradeConsumer,
    FreqtradeProducer,
    wait_for,
)
from exact_frames import dump, hard_frame, load

TOKEN = "interop-baseline-token-0123456789"
START = 1795348800000


def test_frames_travel_exactly_between_test_and_probe() -> None:
    frame = hard_frame(150, start_ms=START, step_ms=60000)

    assert dump(load(dump(frame))) == dump(frame)


def test_freqtrade_receives_the_whitelist_and_the_frames_of_freqtrade(directory: Path) -> None:
    frame = hard_frame(150, start_ms=START, step_ms=60000)
    with ApiServerProbe(directory / "server", token=TOKEN) as server:
        server.do("whitelist", pairs=PAIRS[:1])
        server.do("analyzed", pair=PAIRS[0], frame=dump(frame), candles=0)
        with ConsumerProbe(directory / "consumer", port=server.port, token=TOKEN) as consumer:
            assert consumer.pairs(PAIRS[:1]) == PAIRS[:1]
            received = load(consumer.frame(PAIRS[0])["frame"])

    assert received["date"].tolist() == frame["date"].tolist()
    assert received["low"].iloc[0] == 0.0, (
        "freqtrade's own encoder keeps ten decimals; through the hub 4.2e-11 arrives"
    )


def test_whole_bots_consume_one_another(directory: Path, fake_exchange: FakeExchange) -> None:
    with (
        FreqtradeProducer(directory / "producer", exchange=fake_exchange, token=TOKEN) as producer,
        FreqtradeConsumer(
            directory / "consumer", exchange=fake_exchange, token=TOKEN, upstream_port=producer.port
        ) as consumer,
    ):
        wait_for(
            "whole frames of every pair",
            lambda: {report["pair"] for report in consumer.reports() if report["rows"] > 500} == set(PAIRS),
            60,
            of=consumer,
        )
        trades = wait_for("a trade on the producer's signal", consumer.trades, 120, of=consumer)
        assert trades[0]["enter_tag"] == "from_producer"
        assert not any(report.get("gaps") for report in consumer.reports())
