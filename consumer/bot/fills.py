"""The messages of a PaperBot's orders, with freqtrade 2026.9's fields.

A dry run fills an order where it places it, so an order gives its pair of messages at once: entry and entry_fill, or exit
and exit_fill. They differ as freqtrade's do (docs/wire-protocol.md, Messages): only the fill of an exit knows the profit as
final, and has no current rate.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from consumer.bot.models import Trade
from consumer.bot.settings import PaperSettings

__all__ = ["entry_messages", "exit_messages", "iso", "quote_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(ms: int) -> str:
    """RFC 3339 of ms since 1970 UTC, as freqtrade writes its dates."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat()


def base_of(pair: str) -> str:
    """The currency that is bought; the whole name when it has no quote."""
    return pair.partition("/")[0]


def quote_of(pair: str, default: str) -> str:
    """The currency that is paid with: between `/` and the settlement's `:`."""
    return pair.partition("/")[2].partition(":")[0] or default


def entry_messages(trade: Trade, settings: PaperSettings) -> list[tuple[str, dict[str, Any]]]:
    """entry and entry_fill of a trade that was just opened, in this order."""
    rate = float(trade.open_rate)
    fields = {
        **_common(trade, settings),
        "limit": rate,
        "order_rate": rate,
        "open_rate": rate,
        "order_type": "market",
        "current_rate": rate,
    }
    return [("entry", fields), ("entry_fill", dict(fields))]


def exit_messages(trade: Trade, settings: PaperSettings) -> list[tuple[str, dict[str, Any]]]:
    """exit and exit_fill of a trade that was just closed, in this order."""
    rate, profit, ratio = map(_number, (trade.close_rate, trade.profit, trade.profit_ratio))
    assert profit is not None
    assert trade.close_ms is not None
    fields = {
        **_common(trade, settings),
        "gain": "profit" if profit > 0 else "loss",
        "limit": rate,
        "order_rate": rate,
        "order_type": "market",
        "open_rate": float(trade.open_rate),
        "close_rate": rate,
        "profit_amount": profit,
        "profit_ratio": ratio,
        "exit_reason": trade.exit_reason,
        "close_date": iso(trade.close_ms),
    }
    placed = {
        "current_rate": rate,
        "cumulative_profit": 0.0,
        "final_profit_ratio": None,
        "is_final_exit": False,
    }
    filled = {
        "current_rate": None,
        "cumulative_profit": profit,
        "final_profit_ratio": ratio,
        "is_final_exit": True,
    }
    return [("exit", {**fields, **placed}), ("exit_fill", {**fields, **filled})]


def _common(trade: Trade, settings: PaperSettings) -> dict[str, Any]:
    return {
        "trade_id": trade.id,
        "buy_tag": trade.enter_tag,
        "enter_tag": trade.enter_tag,
        "exchange": settings.exchange,
        "pair": trade.pair,
        "leverage": 1.0,
        "direction": "Long",
        "amount": float(trade.amount),
        "open_date": iso(trade.open_ms),
        "stake_amount": float(trade.stake_amount),
        "stake_currency": settings.stake_currency,
        "base_currency": base_of(trade.pair),
        "quote_currency": quote_of(trade.pair, settings.stake_currency),
        "fiat_currency": settings.fiat_currency,
        "sub_trade": False,
    }


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
