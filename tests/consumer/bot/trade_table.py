"""Trades for tests of reports, made from tables: pair, amount, rates, dates, tags. Money is what exact arithmetic gives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from consumer.bot import rules
from consumer.bot.records import OrderRecord, OrderStatus, TradeRecord, WalletRecord

Row = Sequence[str | None]
"""pair, amount, open rate, close rate (None: open), open date, close date, entry tag, exit reason."""

FEE = Decimal("0.001")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def trade(number: int, row: Row, *, fee: Decimal = FEE, current: str | None = None) -> TradeRecord:
    """A trade of one entry and at most one exit; it ended if the row has a close rate. `current` is the last close."""
    pair, amount_text, open_text, close_text, opened, closed, tag, reason = row
    assert pair is not None
    assert amount_text is not None
    assert open_text is not None
    assert opened is not None
    amount, open_rate, open_ms = Decimal(amount_text), Decimal(open_text), ms(opened)
    bought = rules.fill(amount, open_rate, fee)
    paid = bought.cost + bought.fee
    orders = [_order(1, bought, tag, open_ms)]
    stop = rules.stop_rate(open_rate, Decimal("-0.3"))
    profit = close_ms = close_rate = sold = None
    if close_text is not None and closed is not None:
        close_rate, close_ms = Decimal(close_text), ms(closed)
        sold = rules.fill(amount, close_rate, fee)
        profit = sold.cost - sold.fee - paid
        orders.append(_order(2, sold, reason, close_ms))
    rates = [rate for rate in (open_rate, close_rate) if rate is not None]
    return TradeRecord(
        id=number,
        pair=pair,
        is_open=close_ms is None,
        enter_tag=tag,
        open_ms=open_ms,
        open_fill_ms=open_ms,
        open_rate=open_rate,
        open_rate_requested=open_rate,
        amount=amount,
        amount_requested=amount,
        stake_amount=bought.cost,
        max_stake_amount=bought.cost,
        paid=paid,
        tied=Decimal(0) if close_ms is not None else paid,
        fee=fee,
        fee_open_cost=bought.fee,
        fee_close_cost=Decimal(0) if sold is None else sold.fee,
        stop_rate=stop,
        initial_stop_rate=stop,
        min_rate=min(rates),
        max_rate=max(rates),
        close_ms=close_ms,
        close_rate=close_rate,
        close_rate_requested=close_rate,
        realized_profit=profit if profit is not None else Decimal(0),
        profit_abs=profit,
        profit_ratio=None if profit is None else rules.profit_ratio(profit, paid),
        exit_reason=reason,
        exit_order_status=None if close_ms is None else "closed",
        current_rate=None if current is None else Decimal(current),
        orders=tuple(orders),
    )


def wallet(trades: Sequence[TradeRecord], start: str = "10000", *, created_ms: int = 0) -> WalletRecord:
    """The wallet after these trades."""
    closed = sum((t.profit_abs or Decimal(0) for t in trades), Decimal(0))
    tied = sum((t.tied for t in trades), Decimal(0))
    begun = Decimal(start)
    return WalletRecord(
        currency="USDT",
        start=begun,
        free=begun + closed - tied,
        reserved=Decimal(0),
        closed_profit=closed,
        created_ms=created_ms,
    )


def _order(number: int, filled: rules.Fill, tag: str | None, at_ms: int) -> OrderRecord:
    return OrderRecord(
        number=number,
        order_id=f"o{number}",
        is_entry=number == 1,
        order_type="limit",
        status=OrderStatus.CLOSED,
        rate=filled.rate,
        amount=filled.amount,
        filled=filled.amount,
        average=filled.rate,
        cost=filled.cost,
        fee=filled.fee,
        tag=tag,
        placed_ms=at_ms,
        filled_ms=at_ms,
    )
