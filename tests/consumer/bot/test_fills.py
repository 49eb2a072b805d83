"""consumer.bot.fills."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumer.bot.fills import (
    Outcome,
    entry,
    entry_cancel,
    exit_cancel,
    exit_fill,
    exit_placed,
    iso,
    quote_of,
)
from consumer.bot.models import Order, Trade
from consumer.bot.settings import PaperSettings
from hub.protocol.messages import Message, view
from tests.consumer.bot.replay import at

SAMPLES = Path(__file__).parents[2] / "wire" / "freqtrade"
TOPICS = ["entry", "entry_fill", "entry_cancel", "exit", "exit_fill", "exit_cancel"]
SETTINGS = PaperSettings.from_config({"stake_currency": "USD"}, name="paper", data_dir=Path())


def a_trade(**fields: Any) -> Trade:
    return Trade(
        **{
            "id": 7,
            "pair": "BTC/USD",
            "is_open": True,
            "open_ms": at(0),
            "open_rate": Decimal(4000),
            "amount": Decimal("0.025"),
            "stake_amount": Decimal(100),
            "realized_profit": Decimal(0),
            "enter_tag": "up",
            **fields,
        }
    )


def an_order(tag: str, rate: int, **fields: Any) -> Order:
    common = {"type": "limit", "status": "open", "amount": Decimal("0.025"), "placed_ms": at(0)}
    return Order(rate=Decimal(rate), tag=tag, **{**common, **fields})


def filled(ms: int, rate: int) -> dict[str, Any]:
    return {"status": "closed", "average": Decimal(rate), "filled_ms": ms}


def messages() -> dict[str, dict[str, Any]]:
    now, loss = Decimal(3950), Outcome(Decimal("-2.6975"), Decimal("-0.02694805"))
    enter, leave = an_order("up", 4000), an_order("stop_loss", 3900, placed_ms=at(3))
    left = a_trade(is_open=False, realized_profit=loss.profit, profit_ratio=loss.ratio)
    told = [
        entry(a_trade(), enter, SETTINGS, current_rate=now),
        entry(a_trade(), an_order("up", 4000, **filled(at(0), 4000)), SETTINGS, current_rate=now),
        entry_cancel(a_trade(), enter, SETTINGS, current_rate=now, reason="no, fully cancelled"),
        exit_placed(a_trade(), leave, SETTINGS, outcome=loss, current_rate=now, partial=False),
        exit_fill(
            left,
            an_order("stop_loss", 3900, **filled(at(3), 3900)),
            SETTINGS,
            outcome=loss,
            partial=False,
        ),
        exit_cancel(
            a_trade(),
            leave,
            SETTINGS,
            outcome=loss,
            current_rate=now,
            partial=False,
            reason="no",
            at_ms=at(4),
        ),
    ]
    return dict(told)


@pytest.mark.parametrize("topic", TOPICS)
def test_the_fields_are_those_of_a_real_bot(topic: str) -> None:
    sample = orjson.loads((SAMPLES / f"{topic}.json").read_bytes())
    if isinstance(sample, list):
        sample = sample[0]
    assert {"type", *messages()[topic]} == set(sample)


@pytest.mark.parametrize("topic", TOPICS)
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
