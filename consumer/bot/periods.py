"""Profit by day, week and month, as REST answers it.

A trade counts in the period (UTC) in which it ended. The starting balance of the newest period is the tradable balance of today
less the period's profit, and so on back in time, as in freqtrade.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from consumer.bot.records import TradeRecord
from hub.protocol.answers import Period, Periods

__all__ = ["Scale", "periods"]

MOST = 10_000
"""Periods of one answer: 27 years of days, in a megabyte. Making them holds up the bot, at 10 microseconds each."""

_EPOCH = date(1970, 1, 1)
_DAY_MS = 86_400_000
_FIRST = date(1, 1, 1)


class Scale(StrEnum):
    """How long a period is; weeks begin on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def periods(
    closed: Iterable[TradeRecord], *, scale: Scale, count: int, tradable: Decimal, now_ms: int, currency: str
) -> Periods:
    """The last `count` periods, the present one first, and at most MOST; those before the year 1 are left out.

    `tradable` is the part of the balance without open profit that may be traded. Profits are summed exactly and rounded once.
    """
    starts = list(_starts(scale, datetime.fromtimestamp(now_ms / 1000, UTC).date(), min(count, MOST)))
    trades = _by_start(closed, scale, starts[-1])
    data = []
    for start in starts:
        profits = [trade.profit_abs or Decimal(0) for trade in trades.get(start, ())]
        profit = sum(profits, Decimal(0))
        tradable -= profit
        data.append(
            Period(
                date=start.isoformat(),
                abs_profit=float(profit),
                rel_profit=round(float(profit / tradable), 8) if tradable > 0 else 0.0,
                starting_balance=float(tradable),
                fiat_value=0.0,
                trade_count=len(profits),
            )
        )
    return Periods(data=data, fiat_display_currency="", stake_currency=currency)


def _by_start(closed: Iterable[TradeRecord], scale: Scale, first: date) -> dict[date, Sequence[TradeRecord]]:
    found: dict[date, list[TradeRecord]] = {}
    since = (first - _EPOCH).days
    for trade in closed:
        assert trade.close_ms is not None
        days = trade.close_ms // _DAY_MS
        if days >= since:
            found.setdefault(_start(scale, _EPOCH + timedelta(days=days)), []).append(trade)
    return dict(found)


def _start(scale: Scale, day: date) -> date:
    match scale:
        case Scale.DAY:
            return day
        case Scale.WEEK:
            return day - timedelta(days=day.weekday())
        case Scale.MONTH:
            return day.replace(day=1)


def _starts(scale: Scale, today: date, count: int) -> Iterator[date]:
    start = _start(scale, today)
    for _ in range(count):
        yield start
        if (start - _FIRST).days < 7:
            return
        start = _start(scale, start - timedelta(days=1))
