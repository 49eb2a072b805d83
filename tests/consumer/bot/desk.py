"""A book with the index of its next candle, for the tests of the PaperBot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consumer.bot.book import Book, Source
from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.settings import PaperSettings
from tests.consumer.bot.replay import PAIRS, at

SOURCE = Source("hub", "alpha", "30m", "spot")
CONFIG = {
    "dry_run_wallet": 1000,
    "stake_currency": "USD",
    "stake_amount": 100,
    "fee": 0.001,
    "stoploss": -0.1,
    "max_open_trades": 2,
    "tradable_balance_ratio": 1,
}


class Desk:
    """A book and the index of the next candle."""

    def __init__(self, path: Path, **config: Any) -> None:
        self._settings = PaperSettings.from_config({**CONFIG, **config}, name="paper", data_dir=path)
        self.book = Book(self._settings)
        self.next = 0

    def candle(self, **rows: Candle) -> list[tuple[str, dict[str, Any]]]:
        """Act on the next candle with rows of BTC, ETH, XRP; returns the messages that came of it."""
        first = self.book._journal.next_message
        ready = ReadyCandle(at(self.next), [(f"{coin}/USD", row) for coin, row in rows.items()])
        self.book.act([ready], source=SOURCE, listed=PAIRS)
        self.next += 1
        self.book.check_invariants()
        return [(m.topic, m.data) for m in self.book.outgoing(10_000) if m.id >= first]

    def reopen(self) -> None:
        self.book.close()
        self.book = Book(self._settings)


def flat(rate: float, **signals: Any) -> Candle:
    return Candle(rate, rate, rate, rate, **signals)


BUY: dict[str, Any] = {"enter_long": True, "enter_tag": "up"}
SELL: dict[str, Any] = {"exit_long": True, "exit_tag": "down"}
