"""The candle clock: which candle a PaperBot acts on next, decided by candles alone.

Theory of operation
-------------------
The bot acts candle by candle in the order of dates, and for each candle on all pairs together. Messages arrive in another
order: keys overtake each other, rows come in batches, are joined when the connection lags, and come again after a restart.
So the clock keeps every row behind the last acted candle until the candle's turn has come:

- Rows of one pair are absolute and keyed by date; none is skipped on the way. So when a pair has shown a row at or after T,
  or a candle_complete at or after T named it (as in or as missing: it never comes ahead of rows), the pair is *settled*
  for T: its row T is here or does not exist.
- The candle to act on is the oldest row that waits. It is acted on once every whitelisted pair is settled for it.
- Candles for which no pair has a row are never seen at all: an outage costs nothing and nothing is invented for it.

What decides is thus only which rows exist, not when or in what company they came: speed, batching and lag do not change
the trades (tests/consumer/bot/test_clock.py checks this with shuffled, joined and repeated deliveries). Three things are
beyond that promise, because they carry no date or come too late: a whitelist that changes, a row patched after its candle
was acted on (counted in `late_rows`, ignored), and a pair that is given up.

Invariants
----------
1. Candles are handed out with strictly rising dates, each at most once; `acted_ms` is the last.
2. Every waiting row is later than `acted_ms`.
3. `waiting_bytes` is the sum of the sizes of the waiting rows and at most PENDING_LIMIT_BYTES, plus one message.
4. `settled[pair]` never falls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal, NamedTuple

from consumer.bot.candles import Candle

__all__ = ["CandleClock", "ClockStatistics", "ReadyCandle"]

PENDING_LIMIT_BYTES = 256 * 1024 * 1024


class ReadyCandle(NamedTuple):
    """A candle whose turn has come: the pairs that have a row, in pair order."""

    date_ms: int
    rows: Sequence[tuple[str, Candle]]


@dataclass(frozen=True, slots=True)
class ClockStatistics:
    """A snapshot of a clock."""

    acted_ms: int | None = None
    newest_ms: int | None = None
    waiting_rows: int = 0
    waiting_bytes: int = 0
    waiting_for: tuple[str, ...] = ()
    late_rows: int = 0
    given_up: int = 0


class CandleClock:
    """Puts rows of several pairs back into the order of candles. Not thread-safe; knows no time but the candles'.

    `acted_ms` is the last candle acted on, None for a fresh bot: then `start_from` decides. `timeframe_ms` only measures
    how far pairs are apart for `wait_candles`, after which a pair is given up for a candle (None: never).
    """

    def __init__(
        self,
        *,
        timeframe_ms: int,
        acted_ms: int | None = None,
        start_from: Literal["live", "earliest"] = "live",
        wait_candles: int | None = None,
        limit_bytes: int = PENDING_LIMIT_BYTES,
    ) -> None:
        self.acted_ms = acted_ms
        self._timeframe_ms = timeframe_ms
        self._wait_ms = None if wait_candles is None else wait_candles * timeframe_ms
        self._limit_bytes = limit_bytes
        # A fresh live bot first learns where "now" is: the newest row of the pairs' first frames.
        self._probing = acted_ms is None and start_from == "live"
        self._first_ms: dict[str, int] = {}
        self._pairs: tuple[str, ...] | None = None
        self._settled: dict[str, int] = {}
        self._rows: dict[int, dict[str, Candle]] = {}
        self._dates: list[int] = []
        self._bytes = 0
        self._late = 0
        self._given_up = 0

    @property
    def pairs(self) -> tuple[str, ...] | None:
        """The pairs that candles wait for, in pair order; None until a whitelist came."""
        return self._pairs

    def whitelist(self, pairs: Iterable[str]) -> None:
        """The pairs to wait for from now on, in the order in which they are acted on."""
        self._pairs = tuple(dict.fromkeys(pairs))

    def rows(self, pair: str, rows: Mapping[int, Candle], *, snapshot: bool = False) -> None:
        """Rows of a pair by date. A row that waits is replaced; one that was acted on is ignored and counted.

        In a `snapshot` old rows are what is expected, so they are not counted.
        """
        if not rows:
            return
        newest = max(rows)
        if self._probing:
            self._first_ms.setdefault(pair, newest)
        for date_ms, candle in rows.items():
            if self.acted_ms is not None and date_ms <= self.acted_ms:
                self._late += not snapshot
                continue
            self._keep(date_ms, pair, candle)
        self._settle(pair, newest)

    def complete(self, candle_ms: int, pairs: Iterable[str], missing: Iterable[str]) -> None:
        """All rows up to `candle_ms` of these pairs were delivered before; the missing ones have none there."""
        for pair in (*pairs, *missing):
            self._settle(pair, candle_ms)

    def ready(self) -> ReadyCandle | None:
        """The next candle to act on, or None while something must be waited for. Handing it out acts on it."""
        if self._pairs is None or not self._started():
            return None
        date_ms = self._oldest()
        if date_ms is None:
            return None
        unsettled = self._unsettled(date_ms)
        if unsettled:
            if not self._give_up(date_ms):
                return None
            self._given_up += len(unsettled)
        return self._take(date_ms)

    @property
    def waiting_ms(self) -> int | None:
        """The oldest candle that waits, if any."""
        return self._oldest()

    @property
    def ahead(self) -> int:
        """How many candles the newest row is ahead of the oldest that waits."""
        oldest = self._oldest()
        return 0 if oldest is None else (max(self._settled.values()) - oldest) // self._timeframe_ms

    def statistics(self) -> ClockStatistics:
        """A snapshot of the figures."""
        oldest = self._oldest()
        return ClockStatistics(
            acted_ms=self.acted_ms,
            newest_ms=max(self._settled.values(), default=None),
            waiting_rows=sum(map(len, self._rows.values())),
            waiting_bytes=self._bytes,
            waiting_for=() if oldest is None else tuple(self._unsettled(oldest)),
            late_rows=self._late,
            given_up=self._given_up,
        )

    def check_invariants(self) -> None:
        """Assert what the module's docstring promises."""
        waiting = [candle for rows in self._rows.values() for candle in rows.values()]
        assert self._bytes == sum(candle.nbytes for candle in waiting), "3"
        assert self.acted_ms is None or all(date > self.acted_ms for date in self._rows), "2"
        assert sorted(self._dates) == sorted(self._rows), "a date is waiting once"

    def _keep(self, date_ms: int, pair: str, candle: Candle) -> None:
        rows = self._rows.get(date_ms)
        if rows is None:
            rows = self._rows[date_ms] = {}
            heappush(self._dates, date_ms)
        before = rows.get(pair)
        self._bytes += candle.nbytes - (before.nbytes if before is not None else 0)
        rows[pair] = candle

    def _settle(self, pair: str, date_ms: int) -> None:
        if date_ms > self._settled.get(pair, -1):
            self._settled[pair] = date_ms

    def _started(self) -> bool:
        """Whether a fresh live bot knows where to begin: each pair showed its first frame or was told missing."""
        if not self._probing:
            return True
        assert self._pairs is not None
        if not self._pairs or any(pair not in self._settled for pair in self._pairs):
            return False
        begin = max((self._first_ms[pair] for pair in self._pairs if pair in self._first_ms), default=None)
        if begin is None:
            return False
        self._probing = False
        while self._dates and self._dates[0] <= begin:
            self._drop(heappop(self._dates))
        self.acted_ms = begin
        return True

    def _oldest(self) -> int | None:
        return self._dates[0] if self._dates else None

    def _unsettled(self, date_ms: int) -> list[str]:
        return [pair for pair in self._pairs or () if self._settled.get(pair, -1) < date_ms]

    def _give_up(self, date_ms: int) -> bool:
        if self._bytes > self._limit_bytes:
            return True
        newest = max(self._settled.values(), default=date_ms)
        return self._wait_ms is not None and newest - date_ms >= self._wait_ms

    def _take(self, date_ms: int) -> ReadyCandle:
        heappop(self._dates)
        rows = self._drop(date_ms)
        self.acted_ms = date_ms
        order = {pair: index for index, pair in enumerate(self._pairs or ())}
        # Pairs that left the whitelist come last: an open trade of theirs is still looked after.
        ranked = sorted(rows.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
        return ReadyCandle(date_ms, ranked)

    def _drop(self, date_ms: int) -> dict[str, Candle]:
        rows = self._rows.pop(date_ms)
        self._bytes -= sum(candle.nbytes for candle in rows.values())
        return rows
