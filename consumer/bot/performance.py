"""Closed trades by pair, by tags and by exit reason, as REST answers them.

Sums are made in Decimals and rounded once. The ratio of a group is its profit to what its trades staked at most; that of a mix of
tags is the sum of its trades' ratios, as in freqtrade. `profit_pct` is always that ratio in per cent: freqtrade's /mix_tags adds
per cents and ratios there when a group has several trades.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from consumer.bot.records import TradeRecord
from consumer.bot.trade_answers import percent
from hub.protocol.answers import (
    EntryPerformance,
    ExitPerformance,
    ExitReasonCount,
    MixTagPerformance,
    PairPerformance,
    Stats,
)

__all__ = ["best_pair", "by_entry", "by_exit", "by_mix", "by_pair", "stats"]

_NO_TAG = "Other"
"""freqtrade's word for trades without a tag."""


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    trades: list[TradeRecord]

    @property
    def profit(self) -> Decimal:
        return sum((_profit(trade) for trade in self.trades), Decimal(0))

    @property
    def ratio(self) -> float:
        staked = sum((trade.max_stake_amount for trade in self.trades), Decimal(0))
        return float(self.profit / staked) if staked else 0.0

    @property
    def ratio_sum(self) -> float:
        return float(sum((trade.profit_ratio or Decimal(0) for trade in self.trades), Decimal(0)))

    def figures(self, ratio: float) -> dict[str, Any]:
        return {
            "profit_ratio": ratio,
            "profit_pct": percent(ratio),
            "profit_abs": float(self.profit),
            "count": len(self.trades),
        }


def by_pair(closed: Sequence[TradeRecord]) -> list[PairPerformance]:
    """Pairs, most profit first."""
    return [
        PairPerformance(**group.figures(group.ratio), pair=group.name, profit=percent(group.ratio))
        for group in _ranked(closed, lambda trade: trade.pair)
    ]


def best_pair(closed: Sequence[TradeRecord]) -> PairPerformance | None:
    """The pair with the most profit, None without trades."""
    return next(iter(by_pair(closed)), None)


def by_entry(closed: Sequence[TradeRecord], pair: str | None = None) -> list[EntryPerformance]:
    """Entry tags (of one pair), most profit first."""
    return [
        EntryPerformance(**group.figures(group.ratio), enter_tag=group.name)
        for group in _ranked(_of(closed, pair), _enter_tag)
    ]


def by_exit(closed: Sequence[TradeRecord], pair: str | None = None) -> list[ExitPerformance]:
    """Exit reasons (of one pair), most profit first."""
    return [
        ExitPerformance(**group.figures(group.ratio), exit_reason=group.name)
        for group in _ranked(_of(closed, pair), _exit_reason)
    ]


def by_mix(closed: Sequence[TradeRecord], pair: str | None = None) -> list[MixTagPerformance]:
    """Entry tag and exit reason together (of one pair), in the order of the best trade of each."""
    best_first = sorted(_of(closed, pair), key=_profit, reverse=True)
    groups = _grouped(best_first, lambda trade: f"{_enter_tag(trade)} {_exit_reason(trade)}")
    return [MixTagPerformance(**group.figures(group.ratio_sum), mix_tag=group.name) for group in groups]


def stats(closed: Sequence[TradeRecord]) -> Stats:
    """Wins, losses and draws by exit reason, and how many seconds each kind lasted on average."""
    reasons = _grouped(closed, _exit_reason)
    kinds = {
        kind: [trade for trade in closed if _kind(trade) == kind] for kind in ("wins", "draws", "losses")
    }
    return Stats(
        exit_reasons={group.name: _counts(group.trades) for group in reasons},
        durations={kind: _mean_s(trades) for kind, trades in kinds.items()},
    )


def _ranked(trades: Iterable[TradeRecord], name: Callable[[TradeRecord], str]) -> list[_Group]:
    return sorted(_grouped(trades, name), key=lambda group: group.profit, reverse=True)


def _grouped(trades: Iterable[TradeRecord], name: Callable[[TradeRecord], str]) -> list[_Group]:
    groups: dict[str, list[TradeRecord]] = {}
    for trade in trades:
        groups.setdefault(name(trade), []).append(trade)
    return [_Group(key, members) for key, members in groups.items()]


def _of(closed: Sequence[TradeRecord], pair: str | None) -> Sequence[TradeRecord]:
    return closed if pair is None else [trade for trade in closed if trade.pair == pair]


def _profit(trade: TradeRecord) -> Decimal:
    return trade.profit_abs or Decimal(0)


def _enter_tag(trade: TradeRecord) -> str:
    return _NO_TAG if trade.enter_tag is None else trade.enter_tag


def _exit_reason(trade: TradeRecord) -> str:
    return _NO_TAG if trade.exit_reason is None else trade.exit_reason


def _kind(trade: TradeRecord) -> str:
    profit = _profit(trade)
    return "wins" if profit > 0 else "losses" if profit < 0 else "draws"


def _counts(trades: Sequence[TradeRecord]) -> ExitReasonCount:
    kinds = [_kind(trade) for trade in trades]
    return ExitReasonCount(wins=kinds.count("wins"), losses=kinds.count("losses"), draws=kinds.count("draws"))


def _mean_s(trades: Sequence[TradeRecord]) -> float | None:
    if not trades:
        return None
    return sum((trade.close_ms or trade.open_ms) - trade.open_ms for trade in trades) / len(trades) / 1000
