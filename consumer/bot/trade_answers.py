"""Trades as REST answers them: records to EnteredTrade, OpenTrade and ListedTrade.

Everything is computed in Decimals and rounded once, into the floats of the answers. What a trade is worth now is what leaving it
at the current rate would bring after the fee, against what the held amount cost with its fee. Fields are freqtrade 2026.9's
(measured against a running bot); `profit_*` of an open trade are of the amount that is held, `total_profit_*` of all that was
bought. Ratios are to eight places, per cents to two.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from consumer.bot import rules
from consumer.bot.fills import base_of, quote_of
from consumer.bot.records import OrderRecord, OrderStatus, TradeRecord
from hub.protocol.answers import EnteredTrade, ListedOrder, ListedTrade, OpenTrade, OrderInfo

__all__ = ["Labels", "Worth", "date_text", "entered", "listed", "opened", "percent", "worth"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = Decimal(0)
_PLACES = Decimal("1e-8")
_AMOUNT_STEP = 1e-8
_TICK_SIZE = 4
"""ccxt's number for precisions that are steps."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What all trades of a bot say alike. `timeframe_min` is 0 while it is unknown; `exchange` in small letters."""

    strategy: str
    exchange: str
    timeframe_min: int
    currency: str


@dataclass(frozen=True, slots=True)
class Worth:
    """What an open trade is worth at `rate`: `profit` and `ratio` of what is held, `total` with what was realized before.

    A trade whose entry waits has neither; its `total_ratio` is None.
    """

    rate: Decimal
    value: Decimal
    profit: Decimal
    ratio: Decimal
    total: Decimal
    total_ratio: Decimal | None


def worth(trade: TradeRecord) -> Worth:
    """What `trade` is worth at its current rate: the last close, before the first one its open rate; at last its close rate."""
    rate = (trade.current_rate if trade.is_open else trade.close_rate) or trade.open_rate
    value = rules.fill(trade.amount, rate, trade.fee).cost
    if not trade.is_open:
        return Worth(rate, value, trade.profit_abs or _ZERO, trade.profit_ratio or _ZERO, _ZERO, None)
    if trade.open_fill_ms is None:
        return Worth(rate, _ZERO, _ZERO, _ZERO, trade.realized_profit, None)
    profit = _left_at(trade, rate) - trade.tied
    total = profit + trade.realized_profit
    return Worth(rate, value, profit, _ratio(profit, trade.tied), total, _ratio(total, trade.paid))


def date_text(ms: int) -> str:
    """A moment as freqtrade writes it in trades: UTC, to the second."""
    return f"{_EPOCH + timedelta(milliseconds=ms):%Y-%m-%d %H:%M:%S}"


def percent(ratio: Decimal | float) -> float:
    """A ratio in per cent, to two places."""
    return round(float(ratio) * 100, 2)


def entered(trade: TradeRecord, labels: Labels) -> EnteredTrade:
    """A trade as /forceenter answers it: without what it is worth."""
    orders = [OrderInfo(**_order(order, trade)) for order in trade.orders]
    return EnteredTrade(**_info(trade, labels), profit_fiat=None, orders=orders)


def opened(trade: TradeRecord, labels: Labels) -> OpenTrade:
    """A trade, open or closed, as /status and /trade/{id} answer it."""
    now = worth(trade)
    waits = trade.is_open and trade.open_fill_ms is None
    info = _info(trade, labels) | {
        "profit_ratio": float(now.ratio),
        "profit_pct": percent(now.ratio),
        "profit_abs": float(now.profit),
        "profit_fiat": 0.0 if waits else None,
    }
    return OpenTrade(
        **info,
        orders=[OrderInfo(**_order(order, trade)) for order in trade.orders],
        **_distances(trade, now),
        current_rate=float(now.rate),
        total_profit_abs=float(now.total),
        total_profit_fiat=None,
        total_profit_ratio=_float(now.total_ratio),
    )


def listed(trade: TradeRecord, labels: Labels) -> ListedTrade:
    """A trade as /trades answers it."""
    lasted_s = None if trade.close_ms is None else (trade.close_ms - trade.open_ms) // 1000
    return ListedTrade(
        **_info(trade, labels),
        orders=[ListedOrder(**_listed_order(order, trade)) for order in trade.orders],
        trade_duration_s=lasted_s,
        trade_duration=None if lasted_s is None else lasted_s // 60,
        precision_mode_price=None,
        contract_size=1.0,
    )


def _info(trade: TradeRecord, labels: Labels) -> dict[str, Any]:
    return _identity(trade, labels) | _fees(trade, labels) | _moments(trade) | _profits(trade) | _stops(trade)


def _identity(trade: TradeRecord, labels: Labels) -> dict[str, Any]:
    filled = trade.open_fill_ms is not None
    waiting = next((order for order in trade.orders if order.is_entry), None)
    asked = _ZERO if filled or waiting is None else waiting.amount * waiting.rate
    return {
        "trade_id": trade.id,
        "pair": trade.pair,
        "base_currency": base_of(trade.pair),
        "quote_currency": quote_of(trade.pair, labels.currency),
        "is_open": trade.is_open,
        "is_short": False,
        "exchange": labels.exchange,
        "amount": float(trade.amount) if filled else 0.0,
        "amount_requested": float(trade.amount_requested),
        "stake_amount": float(trade.stake_amount if filled else asked),
        "max_stake_amount": float(trade.max_stake_amount) if filled else None,
        "strategy": labels.strategy,
        "enter_tag": trade.enter_tag,
        "timeframe": labels.timeframe_min,
        "exit_reason": trade.exit_reason,
        "exit_order_status": trade.exit_order_status,
        "min_rate": _float(trade.min_rate),
        "max_rate": _float(trade.max_rate),
        "nr_of_successful_entries": sum(_is_filled(o) and o.is_entry for o in trade.orders),
        "nr_of_successful_exits": sum(_is_filled(o) and not o.is_entry for o in trade.orders),
        "has_open_orders": trade.open_order is not None,
        "leverage": 1.0,
        "interest_rate": 0.0,
        "liquidation_price": None,
        "funding_fees": 0.0,
        "trading_mode": "spot",
        "amount_precision": _AMOUNT_STEP,
        "price_precision": None,
        "precision_mode": _TICK_SIZE,
    }


def _fees(trade: TradeRecord, labels: Labels) -> dict[str, Any]:
    quote = quote_of(trade.pair, labels.currency)
    filled = trade.open_fill_ms is not None
    left = any(_is_filled(order) and not order.is_entry for order in trade.orders)
    return {
        "fee_open": float(trade.fee),
        "fee_open_cost": float(trade.fee_open_cost) if filled else None,
        "fee_open_currency": quote if filled else None,
        "fee_close": float(trade.fee),
        "fee_close_cost": float(trade.fee_close_cost) if left else None,
        "fee_close_currency": quote if left else None,
    }


def _moments(trade: TradeRecord) -> dict[str, Any]:
    return {
        "open_date": date_text(trade.open_ms),
        "open_timestamp": trade.open_ms,
        "open_fill_date": _date(trade.open_fill_ms),
        "open_fill_timestamp": trade.open_fill_ms,
        "open_rate": float(trade.open_rate),
        "open_rate_requested": float(trade.open_rate_requested),
        "open_trade_value": float(_cost_of_held(trade)),
        "close_date": _date(trade.close_ms),
        "close_timestamp": trade.close_ms,
        "close_rate": _float(trade.close_rate),
        "close_rate_requested": _float(trade.close_rate_requested),
        "stoploss_last_update": None,
        "stoploss_last_update_timestamp": None,
    }


def _profits(trade: TradeRecord) -> dict[str, Any]:
    """`close_profit*` of an open trade are of the parts that were left, as freqtrade has them; `profit_*` only of a closed one."""
    realized = _ratio(trade.realized_profit, trade.paid) if trade.realized_profit else None
    ratio = realized if trade.is_open else trade.profit_ratio
    left = trade.profit_abs if not trade.is_open else trade.realized_profit or None
    closed_pct = None if trade.profit_ratio is None else percent(trade.profit_ratio)
    return {
        "close_profit": _float(trade.profit_ratio),
        "close_profit_pct": None if ratio is None else percent(ratio),
        "close_profit_abs": _float(left),
        "profit_ratio": _float(trade.profit_ratio),
        "profit_pct": closed_pct,
        "profit_abs": _float(trade.profit_abs),
        "realized_profit": float(trade.realized_profit if trade.is_open else trade.profit_abs or _ZERO),
        "realized_profit_ratio": _float(ratio),
    }


def _stops(trade: TradeRecord) -> dict[str, Any]:
    rates = (trade.stop_rate, trade.initial_stop_rate)
    stop, first = (_ratio(rate - trade.open_rate, trade.open_rate) for rate in rates)
    return {
        "stop_loss_abs": float(trade.stop_rate),
        "stop_loss_ratio": float(stop),
        "stop_loss_pct": percent(stop),
        "initial_stop_loss_abs": float(trade.initial_stop_rate),
        "initial_stop_loss_ratio": float(first),
        "initial_stop_loss_pct": percent(first),
    }


def _distances(trade: TradeRecord, now: Worth) -> dict[str, Any]:
    distance = trade.stop_rate - now.rate
    ratio = _ratio(distance, now.rate)
    cost = _cost_of_held(trade)
    at_stop = _left_at(trade, trade.stop_rate) - cost if cost else _ZERO
    return {
        "stoploss_current_dist": float(distance),
        "stoploss_current_dist_pct": percent(ratio),
        "stoploss_current_dist_ratio": float(ratio),
        "stoploss_entry_dist": float(at_stop),
        "stoploss_entry_dist_ratio": float(_ratio(at_stop, cost)),
    }


def _cost_of_held(trade: TradeRecord) -> Decimal:
    """What the held amount cost with its fee; of a closed trade, what was held at last."""
    if trade.open_fill_ms is None:
        return _ZERO
    if trade.is_open:
        return trade.tied
    filled = rules.fill(trade.amount, trade.open_rate, trade.fee)
    return filled.cost + filled.fee


def _left_at(trade: TradeRecord, rate: Decimal) -> Decimal:
    """What leaving the held amount at `rate` brings after the fee."""
    filled = rules.fill(trade.amount, rate, trade.fee)
    return filled.cost - filled.fee


def _order(order: OrderRecord, trade: TradeRecord) -> dict[str, Any]:
    waits = order.status is OrderStatus.OPEN
    return {
        "pair": trade.pair,
        "order_id": order.order_id,
        "status": str(order.status),
        "remaining": float(order.amount - order.filled),
        "amount": float(order.amount),
        "safe_price": float(order.average or order.rate),
        "cost": float(order.amount * order.rate if waits else order.cost),
        "filled": float(order.filled),
        "ft_order_side": "buy" if order.is_entry else "sell",
        "order_type": order.order_type,
        "is_open": waits,
        "order_timestamp": order.placed_ms,
        "order_filled_timestamp": order.filled_ms,
        "ft_fee_base": None,
        "ft_order_tag": order.tag,
    }


def _listed_order(order: OrderRecord, trade: TradeRecord) -> dict[str, Any]:
    return _order(order, trade) | {
        "ft_is_entry": order.is_entry,
        "average": _float(order.average),
        "order_date": date_text(order.placed_ms),
        "order_filled_date": _date(order.filled_ms),
        "price": float(order.rate),
        "funding_fee": 0.0,
    }


def _is_filled(order: OrderRecord) -> bool:
    return order.filled_ms is not None


def _ratio(part: Decimal, whole: Decimal) -> Decimal:
    return rules.profit_ratio(part, whole) if whole else _ZERO


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _date(ms: int | None) -> str | None:
    return None if ms is None else date_text(ms)
