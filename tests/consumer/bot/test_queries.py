"""consumer.bot.queries, over the book."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from consumer.bot import journal, queries
from tests.consumer.bot.desk import BUY, SELL, Desk, flat
from tests.consumer.bot.replay import at


def test_a_fresh_book(desks: Any) -> None:
    book = desks().book
    assert (book.now_ms, book.rates, book.open_trades(), book.wallet_points()) == (None, {}, (), ())
    assert book.trade(1) is None
    assert book.trades(5).total == 0
    wallet = book.wallet()
    assert (wallet.currency, wallet.start, wallet.free, wallet.reserved) == ("USD", 1000, 1000, 0)
    assert wallet.created_ms > 0


def test_a_trade_and_its_orders(desks: Any) -> None:
    desk = desks()
    desk.candle(BTC=flat(100.0, **BUY))
    desk.candle(BTC=flat(100.0, **SELL))
    desk.candle(BTC=flat(101.0))
    (trade,) = desk.book.closed_trades()
    assert (trade.id, trade.pair, trade.is_open, trade.enter_tag) == (1, "BTC/USD", False, "up")
    assert (trade.open_ms, trade.open_fill_ms, trade.close_ms) == (at(1), at(1), at(2))
    assert (trade.open_rate, trade.open_rate_requested) == (100, 100)
    assert (trade.close_rate, trade.close_rate_requested, trade.current_rate) == (101, 101, 101)
    assert (trade.stop_rate, trade.initial_stop_rate) == (90, 90)
    assert (trade.fee_open_cost, trade.fee_close_cost) == (Decimal("0.1"), Decimal("0.101"))
    assert (trade.min_rate, trade.max_rate) == (100, 101)
    assert (trade.exit_reason, trade.exit_order_status) == ("down", "closed")
    assert [(o.number, o.order_id, o.is_entry, o.order_type, o.tag) for o in trade.orders] == [
        (1, "paper_buy_BTC/USD_1_1", True, "market", "up"),
        (2, "paper_sell_BTC/USD_1_2", False, "market", "down"),
    ]
    assert all((o.filled, o.placed_ms) == (o.amount, o.filled_ms) for o in trade.orders)


def test_pages_of_closed_trades(desks: Any) -> None:
    desk = desks()
    for rows in (
        {"BTC": flat(1.0, **BUY)},
        {"BTC": flat(1.0), "ETH": flat(1.0, **BUY)},
        {"BTC": flat(1.0), "ETH": flat(1.0, **SELL), "XRP": flat(1.0, **BUY)},
        {"BTC": flat(1.0, **SELL), "ETH": flat(1.0)},
        {"BTC": flat(1.0), "XRP": flat(1.0)},
    ):
        desk.candle(**rows)
    assert [trade.id for trade in desk.book.trades(9).trades] == [1, 2]
    assert [trade.id for trade in desk.book.trades(9, order_by_id=False).trades] == [1, 2]
    assert [trade.id for trade in desk.book.trades(1, 1).trades] == [2]
    assert desk.book.trades(1, 5) == type(desk.book.trades(1))((), 2)
    assert [trade.id for trade in desk.book.open_trades()] == [3]


def test_the_lowest_and_highest_rate_are_those_of_the_time_that_it_was_held(desks: Any) -> None:
    desk = desks(minimal_roi={"0": 0.2})
    desk.candle(BTC=flat(100.0, **BUY))
    desk.candle(BTC=flat(100.0)._replace(high=110.0, low=95.0))
    desk.candle(BTC=flat(100.0)._replace(high=105.0, low=93.0))
    (trade,) = desk.book.open_trades()
    assert (trade.min_rate, trade.max_rate) == (93, 110)
    desk.reopen()
    desk.candle(BTC=flat(100.0)._replace(high=900.0, low=91.0))
    (trade,) = desk.book.closed_trades()
    assert (trade.min_rate, trade.max_rate) == (93, trade.close_rate)


def test_the_revision_rises_with_every_commit(desks: Any) -> None:
    desk = desks(force_entry_enable=True)
    seen = [desk.book.revision]
    desk.candle(BTC=flat(100.0))
    seen.append(desk.book.revision)
    desk.book.force_enter("BTC/USD")
    seen.append(desk.book.revision)
    desk.reopen()
    assert desk.book.revision == seen[-1]
    assert seen == sorted(set(seen))
    with desk.book.reading() as reading:
        assert reading.revision == seen[-1]


def test_a_reading_stays_at_its_commit(desks: Any) -> None:
    desk = desks(force_entry_enable=True)
    desk.candle(BTC=flat(100.0))
    with desk.book.reading() as reading:
        assert reading.open_trades() == ()
        desk.book.force_enter("BTC/USD")
        assert reading.open_trades() == ()
        assert reading.wallet().reserved == 0
    assert len(desk.book.open_trades()) == 1


def test_the_wallet_is_noted_once_an_hour_and_old_points_become_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MOST_TOTALS", 20)
    desk = Desk(tmp_path)
    for index in range(60):
        desk.candle(BTC=flat(100.0))
        if index % 20 == 0:
            desk.reopen()
    ends = [point.at_ms for point in desk.book.wallet_points()]
    gaps = [later - earlier for earlier, later in pairwise(ends)]
    assert len(ends) <= 20
    assert (ends[0], ends[-1]) == (at(1), at(60))
    assert gaps[-5:] == [3_600_000] * 5
    assert gaps[0] > 3_600_000
    desk.book.close()


def test_what_is_kept_of_closed_trades_is_bounded_and_never_old(
    desks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MOST_KEPT", 2)
    desk = desks()
    for index in range(8):
        desk.candle(BTC=flat(100.0 + index, **(SELL if index % 2 else BUY)))
        desk.candle(BTC=flat(100.0 + index))
        assert len(desk.book._kept) <= 2
        first = desk.book.closed_trades()
        assert first == desk.book.closed_trades() == tuple(desk.book.trade(t.id) for t in first)
    assert [trade.id for trade in first] == [1, 2, 3, 4]
    desk.book.delete_trade(4)
    assert [trade.id for trade in desk.book.closed_trades()] == [1, 2, 3]
    assert [trade.id for trade in desk.book.trades(9).trades] == [1, 2, 3]
