"""consumer.bot.fills."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumer.bot.fills import entry_messages, exit_messages, iso, quote_of
from consumer.bot.models import Trade
from consumer.bot.settings import PaperSettings
from hub.protocol.messages import Message, view
from tests.consumer.bot.replay import at

SAMPLES = Path(__file__).parents[2] / "wire" / "freqtrade"
SETTINGS = PaperSettings.from_config({"stake_currency": "USD"}, name="paper", data_dir=Path())


def closed_trade() -> Trade:
    return Trade(
        id=7,
        pair="BTC/USD",
        is_open=False,
        open_ms=at(0),
        open_rate=Decimal(4000),
        amount=Decimal("0.025"),
        stake_amount=Decimal(100),
        paid=Decimal("100.1"),
        fee=Decimal("0.001"),
        stop_rate=Decimal(3600),
        enter_tag="up",
        close_ms=at(3),
        close_rate=Decimal(3900),
        received=Decimal("97.4025"),
        profit=Decimal("-2.6975"),
        profit_ratio=Decimal("-0.02694805"),
        exit_reason="stop_loss",
    )


def messages() -> dict[str, dict[str, Any]]:
    trade = closed_trade()
    return dict(entry_messages(trade, SETTINGS) + exit_messages(trade, SETTINGS))


@pytest.mark.parametrize("topic", ["entry", "entry_fill", "exit", "exit_fill"])
def test_the_fields_are_those_of_a_real_bot(topic: str) -> None:
    sample = orjson.loads((SAMPLES / f"{topic}.json").read_bytes())
    if isinstance(sample, list):
        sample = sample[0]
    assert {"type", *messages()[topic]} == set(sample)


@pytest.mark.parametrize("topic", ["entry", "entry_fill", "exit", "exit_fill"])
def test_the_messages_fit_their_type(topic: str) -> None:
    message: Message = view(topic, messages()[topic])
    assert message.extra == {}


def test_a_loss_is_told_as_one() -> None:
    assert messages()["exit_fill"]["gain"] == "loss"
    assert messages()["exit_fill"]["profit_amount"] == -2.6975


def test_dates_are_written_as_freqtrade_does() -> None:
    assert iso(at(0)) == "2018-12-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("pair", "quote"),
    [("BTC/USD", "USD"), ("BTC/USDT:USDT", "USDT"), ("ETH/USD:ETH-240329", "USD"), ("X", "EUR")],
)
def test_the_quote_stands_between_slash_and_colon(pair: str, quote: str) -> None:
    assert quote_of(pair, "EUR") == quote
