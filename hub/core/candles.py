"""When a candle is whole: all pairs of the bot's whitelist are in, or are known to be missing.

A pair is in for candle T when its row T arrived, and known to be missing when a later row of it arrived first (rows of a key
come in order). Past the deadline the candle is told with the pairs that did not come. Candles are told in
ascending order, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CandleClock"]

MAX_OPEN = 64


@dataclass(slots=True)
class _Track:
    """One timeframe of one bot. Invariant: every open candle is later than `told`."""

    told: int = -1
    last: dict[str, int] = field(default_factory=dict)
    open: dict[int, set[str]] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)


class CandleClock:
    """Tracks open candles per (bot, timeframe); yields the data of hub.candle_complete. Times of candles in ms."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._pairs: dict[str, tuple[str, ...]] = {}
        self._tracks: dict[tuple[str, str], _Track] = {}

    def whitelist(self, bot: str, pairs: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
        """The bot's pairs changed: candles that waited only for a pair that left are whole now. (timeframe, data) each."""
        self._pairs[bot] = tuple(dict.fromkeys(pairs))
        done = []
        for (owner, timeframe), track in self._tracks.items():
            if owner == bot:
                done += [(timeframe, data) for data in self._settle(bot, timeframe, track)]
        return done

    def rows(
        self, bot: str, pair: str, timeframe: str, dates_ms: list[int], now: float
    ) -> list[dict[str, Any]]:
        """Rows of a pair arrived, in any order. Of a first block only the newest counts, the others are history; a row before
        the pair's newest is a correction and opens no candle. Of a long block the newest MAX_OPEN count: no more candles are
        kept open, and what a block costs must not grow with its square.
        """
        track = self._tracks.setdefault((bot, timeframe), _Track())
        counted = MAX_OPEN if pair in track.last else 1
        for date in sorted(dates_ms)[-counted:]:
            newer = date > track.last.get(pair, -1)
            if date > track.told and (newer or date in track.open):
                track.open.setdefault(date, set()).add(pair)
                track.since.setdefault(date, now)
            if newer:
                track.last[pair] = date
        done = self._settle(bot, timeframe, track)
        while len(track.open) > MAX_OPEN:
            told = self._tell(bot, timeframe, track, min(track.open), deadline=True)
            # Of a bot that never sent a whitelist nobody knows what a whole candle is.
            done += [told] if bot in self._pairs else []
        return done

    def tick(self, now: float) -> list[tuple[str, str, dict[str, Any]]]:
        """Candles whose deadline passed, as (bot, timeframe, data)."""
        late = []
        for (bot, timeframe), track in self._tracks.items():
            due = [c for c, since in track.since.items() if now - since >= self.deadline_s]
            if due and bot in self._pairs:
                for candle in sorted(c for c in track.open if c <= max(due)):
                    late.append((bot, timeframe, self._tell(bot, timeframe, track, candle, deadline=True)))  # noqa: PERF401
        return late

    def _settle(self, bot: str, timeframe: str, track: _Track) -> list[dict[str, Any]]:
        pairs = self._pairs.get(bot)
        done: list[dict[str, Any]] = []
        while pairs and track.open:
            candle = min(track.open)
            came = track.open[candle]
            if not all(p in came or track.last.get(p, -1) > candle for p in pairs):
                break
            done.append(self._tell(bot, timeframe, track, candle, deadline=False))
        return done

    def _tell(
        self, bot: str, timeframe: str, track: _Track, candle: int, *, deadline: bool
    ) -> dict[str, Any]:
        came = track.open.pop(candle)
        del track.since[candle]
        track.told = candle
        wanted = self._pairs.get(bot, ())
        return {
            "bot": bot,
            "timeframe": timeframe,
            "candle_ms": candle,
            "pairs": [p for p in wanted if p in came],
            "missing": [p for p in wanted if p not in came],
            "deadline": deadline,
        }
