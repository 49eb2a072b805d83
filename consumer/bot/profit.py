"""The profit view as REST answers it.

Sums of money are made in Decimals and rounded once; means and statistics are floats (`metrics`). Everything is measured against
the tradable part of the starting balance, but the growth of a year, which freqtrade measures against all of it. Ratios of open
trades are of what is held; trades whose entry waits count as trades and have no profit. "First" and "latest" go by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from consumer.bot import metrics
from consumer.bot.humanized import ago
from consumer.bot.performance import best_pair
from consumer.bot.records import OrderStatus, TradeRecord, WalletRecord
from consumer.bot.trade_answers import date_text, percent, worth
from hub.protocol.answers import Profit

__all__ = ["profit"]

_ZERO = Decimal(0)
_DAY_MS = 86_400_000


def profit(
    closed: Sequence[TradeRecord],
    open_trades: Sequence[TradeRecord],
    wallet: WalletRecord,
    *,
    ratio: Decimal,
    now_ms: int,
) -> Profit:
    """All figures; trades by number, `ratio` the tradable part of the balance, `now_ms` the time of day."""
    start = wallet.start * ratio
    held = [trade for trade in open_trades if trade.open_fill_ms is not None]
    worths = [worth(trade) for trade in held]
    gained = [trade.profit_abs or _ZERO for trade in closed]
    ratios = [trade.profit_ratio or _ZERO for trade in closed]
    return Profit(
        **_sums("closed", gained, ratios, start),
        **_sums("all", [*gained, *(w.total for w in worths)], [*ratios, *(w.ratio for w in worths)], start),
        trade_count=len(closed) + len(open_trades),
        closed_trade_count=len(closed),
        **_span([*closed, *open_trades], now_ms),
        avg_duration=_mean_duration(closed),
        **_best(closed),
        **_outcomes(gained),
        **_statistics(closed, open_trades, float(start), float(wallet.start)),
        **_drawdowns(closed, float(start)),
        trading_volume=float(_volume([*closed, *open_trades])),
        bot_start_timestamp=wallet.created_ms,
        bot_start_date=date_text(wallet.created_ms),
    )


def _sums(kind: str, gained: Sequence[Decimal], ratios: Sequence[Decimal], start: Decimal) -> dict[str, Any]:
    total, ratio_sum = sum(gained, _ZERO), sum(ratios, _ZERO)
    mean = ratio_sum / len(ratios) if ratios else _ZERO
    of_start = total / start if start else _ZERO
    figures = {
        "coin": float(total),
        "percent_mean": percent(mean),
        "ratio_mean": float(mean),
        "percent_sum": percent(ratio_sum),
        "ratio_sum": float(ratio_sum),
        "percent": percent(of_start),
        "ratio": float(of_start),
        "fiat": 0.0,
    }
    return {f"profit_{kind}_{name}": value for name, value in figures.items()}


def _span(trades: Sequence[TradeRecord], now_ms: int) -> dict[str, Any]:
    """When the first and the latest trade, by number, were opened."""
    ends = {"first": min(trades, key=_number, default=None), "latest": max(trades, key=_number, default=None)}
    told: dict[str, Any] = {}
    for name, trade in ends.items():
        told[f"{name}_trade_date"] = "" if trade is None else date_text(trade.open_ms)
        told[f"{name}_trade_humanized"] = "" if trade is None else ago(trade.open_ms, now_ms)
        told[f"{name}_trade_timestamp"] = 0 if trade is None else trade.open_ms
    return told


def _number(trade: TradeRecord) -> int:
    return trade.id


def _mean_duration(closed: Sequence[TradeRecord]) -> str:
    lasted_ms = sum((trade.close_ms or trade.open_ms) - trade.open_ms for trade in closed)
    return str(timedelta(seconds=lasted_ms // max(len(closed), 1) // 1000))


def _best(closed: Sequence[TradeRecord]) -> dict[str, Any]:
    best = best_pair(closed)
    return {
        "best_pair": "" if best is None else best.pair,
        "best_rate": 0.0 if best is None else best.profit_pct,
        "best_pair_profit_ratio": 0.0 if best is None else best.profit_ratio,
        "best_pair_profit_abs": 0.0 if best is None else best.profit_abs,
    }


def _outcomes(gained: Sequence[Decimal]) -> dict[str, Any]:
    """A trade without profit and loss counts as won here, as in freqtrade."""
    won = sum(1 for amount in gained if amount >= 0)
    return {
        "winning_trades": won,
        "losing_trades": len(gained) - won,
        "winrate": won / len(gained) if gained else 0.0,
    }


def _statistics(
    closed: Sequence[TradeRecord], open_trades: Sequence[TradeRecord], start: float, all_of_start: float
) -> dict[str, Any]:
    profits = _profits(closed)
    mean, ratio = metrics.expectancy(profits)
    trades = [*closed, *open_trades]
    first = min(trades, key=_number).open_ms if trades else 0
    last = max(trades, key=_number).open_ms if trades else 0
    days = max((last - first) // _DAY_MS, 1) if trades else 0
    return {
        "profit_factor": metrics.profit_factor(profits),
        "expectancy": mean,
        "expectancy_ratio": ratio,
        "sharpe": metrics.sharpe(profits, first, last, start) if start else 0.0,
        "sortino": metrics.sortino(profits, first, last, start) if start else 0.0,
        "sqn": metrics.sqn(profits, start) if start else 0.0,
        "calmar": metrics.calmar(profits, first, last, start) if start else 0.0,
        "cagr": metrics.cagr(days, all_of_start, all_of_start + sum(profits)),
    }


def _drawdowns(closed: Sequence[TradeRecord], start: float) -> dict[str, Any]:
    ended = sorted(closed, key=lambda trade: trade.close_ms or 0)
    found = metrics.drawdown(_profits(ended), start) if ended and start else None
    figures: dict[str, Any] = {
        "max_drawdown": found.ratio if found else 0.0,
        "max_drawdown_abs": found.amount if found else 0.0,
        "current_drawdown": found.current_ratio if found else 0.0,
        "current_drawdown_abs": found.current_amount if found else 0.0,
        "current_drawdown_high": found.current_high if found else 0.0,
    }
    moments = {
        "max_drawdown_start": ended[found.high_at] if found else None,
        "max_drawdown_end": ended[found.low_at] if found else None,
        "current_drawdown_start": ended[found.current_high_at] if found else None,
    }
    for name, trade in moments.items():
        at_ms = trade.close_ms if trade is not None else None
        figures[name] = "" if at_ms is None else date_text(at_ms)
        figures[f"{name}_timestamp"] = at_ms or 0
    return figures


def _profits(trades: Sequence[TradeRecord]) -> list[float]:
    return [float(trade.profit_abs or _ZERO) for trade in trades]


def _volume(trades: Sequence[TradeRecord]) -> Decimal:
    filled = (o.cost for trade in trades for o in trade.orders if o.status is OrderStatus.CLOSED)
    return sum(filled, _ZERO)
