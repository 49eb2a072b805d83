"""consumer.bot.ledger, over the book."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.bot.ledger import Ledger
from consumer.bot.queries import Reading
from tests.consumer.bot.desk import BUY, SELL, Desk, flat


def closed(desk: Desk) -> None:
    """One more trade that was closed, without profit."""
    desk.candle(BTC=flat(100.0, **BUY))
    desk.candle(BTC=flat(100.0, **SELL))
    desk.candle(BTC=flat(100.0))


def test_a_deleted_trade_is_gone_also_when_a_new_one_brought_the_same(desks: Any) -> None:
    desk, ledger = desks(fee=0), Ledger()
    closed(desk)
    closed(desk)
    assert [trade.id for trade in ledger.trades(desk.book).closed] == [1, 2]
    desk.book.delete_trade(1)
    closed(desk)
    assert [trade.id for trade in ledger.trades(desk.book).closed] == [2, 3]
    assert ledger.trades(desk.book).closed == desk.book.closed_trades()


def test_a_closed_trade_is_read_once(desks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    read = Reading.closed

    def counted(reading: Reading, numbers: Any) -> Any:
        asked.append(list(numbers))
        return read(reading, numbers)

    monkeypatch.setattr(Reading, "closed", counted)
    desk, ledger = desks(), Ledger()
    for _ in range(2):
        closed(desk)
        ledger.trades(desk.book)
        ledger.trades(desk.book)
    assert asked == [[1], [2]]
    assert ledger.statistics() == {"closed_trades": 2}
