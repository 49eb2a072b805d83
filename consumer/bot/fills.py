"""The messages of a PaperBot's orders, with freqtrade 2026.9's fields.

An order is told when it is placed (entry, exit), and when it is filled (entry_fill, exit_fill) or cancelled (entry_cancel,
exit_cancel). They differ as freqtrade's do (docs/wire-protocol.md, Messages): only the fill of an exit knows the profit as
final and has no current rate; a cancellation's amount is what was filled, nothing, and its `open_date` has no offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from consumer.bot.models import Order, Trade
from consumer.bot.settings import PaperSettings

__all__ = [
    "Outcome",
    "Told",
    "entry",
    "entry_cancel",
    "exit_cancel",
    "exit_fill",
    "exit_placed",
    "iso",
    "quote_of",
]

Told = tuple[str, dict[str, Any]]
"""A topic and its data."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an exit brings or would bring: money, and its ratio to what the amount cost."""

    profit: Decimal
    ratio: Decimal


def iso(ms: int) -> str:
    """RFC 3339 of ms since 1970 UTC, as freqtrade writes its dates."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat()


def base_of(pair: str) -> str:
    """The currency that is bought; the whole name when it has no quote."""
    return pair.partition("/")[0]


def quote_of(pair: str, default: str) -> str:
    """The currency that is paid with: between `/` and the settlement's `:`."""
    return pair.partition("/")[2].partition(":")[0] or default


def entry(trade: Trade, order: Order, settings: PaperSettings, *, current_rate: Decimal) -> Told:
    """entry of an order that waits, entry_fill of one that is filled."""
    topic = "entry" if order.status == "open" else "entry_fill"
    return topic, _entry(trade, order, settings, current_rate)


def entry_cancel(
    trade: Trade, order: Order, settings: PaperSettings, *, current_rate: Decimal, reason: str
) -> Told:
    """entry_cancel of an order that never was filled."""
    fields = _entry(trade, order, settings, current_rate)
    return "entry_cancel", {**fields, "amount": 0.0, "open_date": _naive(trade.open_ms), "reason": reason}


def exit_placed(
    trade: Trade,
    order: Order,
    settings: PaperSettings,
    *,
    outcome: Outcome,
    current_rate: Decimal,
    partial: bool,
) -> Told:
    """exit of an order that waits."""
    return "exit", {
        **_exit(trade, order, settings, outcome, partial),
        "close_rate": float(order.rate),
        "close_date": iso(order.placed_ms),
        "current_rate": float(current_rate),
        "cumulative_profit": float(trade.realized_profit),
        "final_profit_ratio": None,
        "is_final_exit": False,
    }


def exit_fill(
    trade: Trade, order: Order, settings: PaperSettings, *, outcome: Outcome, partial: bool
) -> Told:
    """exit_fill of an order that is filled; `trade` is as it is after that."""
    assert order.filled_ms is not None
    return "exit_fill", {
        **_exit(trade, order, settings, outcome, partial),
        "close_rate": float(_rate(order)),
        "close_date": iso(order.filled_ms),
        "current_rate": None,
        "cumulative_profit": float(trade.realized_profit),
        "final_profit_ratio": None if trade.profit_ratio is None else float(trade.profit_ratio),
        "is_final_exit": not trade.is_open,
    }


def exit_cancel(
    trade: Trade,
    order: Order,
    settings: PaperSettings,
    *,
    outcome: Outcome,
    current_rate: Decimal,
    partial: bool,
    reason: str,
    at_ms: int,
) -> Told:
    """exit_cancel of an order that was not filled."""
    return "exit_cancel", {
        **_exit(trade, order, settings, outcome, partial),
        "amount": 0.0,
        "current_rate": float(current_rate),
        "open_date": _naive(trade.open_ms),
        "close_date": iso(at_ms),
        "reason": reason,
    }


def _entry(trade: Trade, order: Order, settings: PaperSettings, current_rate: Decimal) -> dict[str, Any]:
    rate = float(_rate(order))
    return {
        **_common(trade, order, settings),
        "limit": rate,
        "order_rate": rate,
        "open_rate": rate,
        "amount": float(order.amount),
        "current_rate": float(current_rate),
        "sub_trade": False,
    }


def _exit(
    trade: Trade, order: Order, settings: PaperSettings, outcome: Outcome, partial: bool
) -> dict[str, Any]:
    rate = float(_rate(order))
    return {
        **_common(trade, order, settings),
        "gain": "profit" if outcome.profit > 0 else "loss",
        "limit": rate,
        "order_rate": rate,
        "open_rate": float(trade.open_rate),
        "amount": float(order.amount),
        "profit_amount": float(outcome.profit),
        "profit_ratio": float(outcome.ratio),
        "exit_reason": order.tag,
        "sub_trade": partial,
    }


def _common(trade: Trade, order: Order, settings: PaperSettings) -> dict[str, Any]:
    return {
        "trade_id": trade.id,
        "buy_tag": trade.enter_tag,
        "enter_tag": trade.enter_tag,
        "exchange": settings.exchange,
        "pair": trade.pair,
        "leverage": 1.0,
        "direction": "Long",
        "order_type": order.type,
        "open_date": iso(trade.open_ms),
        "stake_amount": float(trade.stake_amount),
        "stake_currency": settings.stake_currency,
        "base_currency": base_of(trade.pair),
        "quote_currency": quote_of(trade.pair, settings.stake_currency),
        "fiat_currency": settings.fiat_currency,
    }


def _rate(order: Order) -> Decimal:
    return order.rate if order.average is None else order.average


def _naive(ms: int) -> str:
    return iso(ms).removesuffix("+00:00")
