"""A freqtrade bot's messages as they come in on its own wire, sans-I/O: whole frames out of rows without ids.

Theory of operation
===================

freqtrade's wire numbers nothing. What can be known is the grid of candles: a row that does not follow the last one says that
candles are missing. So each key is *current*, or *filling*: rows wait until the candles before them came.

- After a connect everything is asked for once (`analyzed_df {limit, pair: null}`); keys fill as the answers come in.
- A row beyond a hole is kept back, the key is marked stale, and the hole is asked for (`limit` = the missing candles and one).
- A producer that has no rows of a pair answers so. Its first live row is then the end of a first analysis, never all there is: the
  rest is asked for at once, and only an answer to that, with this row alone or none at all, says that there is no more.
- An answer that closes the hole is delivered with what waited. One that leaves it open shows that the producer has no such candles:
  an outage of the exchange, or a producer that started anew. Then rows are stored over the hole. So they are when a third
  request got no answer, since waiting longer would cost the consumer more than the hole.
- One request is out per key at most; it is repeated after 10, 20 and 40 s.
- What waits when a connection ends waits for the next one, whose first answer is for everything.

Answers cannot be told from live rows by anything but their size: an answer has two rows or more, a live message of freqtrade has
one. A live block of a tradewire hub, which may have more, says so: where nothing is held it waits for the answer. Elsewhere it
never leaves a hole but an outage's, so there it may count as one.

A frame above the size limit kills the connection before anybody knows whose it was. `shrink` halves what is asked for, down to
100 candles and then to live rows only.

Invariants
==========

1. Whatever the peer sends, `receive` raises nothing.
2. Rows are delivered in the order of their dates per key, unless the producer patches a late candle.
3. A row that waits is delivered, or replaced by a newer version of itself, and at most `MAX_WAITING_ROWS` wait per key.
4. No key is asked for more often than its backoff allows, whatever arrives.

Source: freqtrade 2026.9 as observed (docs/wire-protocol.md); its consumer's faults that are avoided here: shared/research.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consumer.data import Book
from consumer.step import Step
from hub.frames.columns import Columns, Schema
from hub.frames.freqtrade import decode_split
from hub.protocol.codec import UNDER_DATA
from hub.protocol.errors import BadFrame, BadMessage
from hub.protocol.localbot import Connected, Delivery
from hub.protocol.messages import (
    TOPICS,
    AnalyzedDf,
    FrameKey,
    GenericMessage,
    Message,
    NewCandle,
    Whitelist,
    view,
)
from hub.protocol.subscription import HUB_TOPICS

__all__ = ["LegacyState"]

_LOG = logging.getLogger(__name__)

FIRST_WAIT_S = 10.0
ALL_WAIT_S = 5.0
MAX_REQUESTS = 3
MAX_WAITING_ROWS = 1500
LEAST_LIMIT = 100
MAX_LIMIT = 1500

# freqtrade ignores a whole subscribe for one topic that it does not know, and an older bot does not know the newest. Each of
# these steps replaces the one before where the bot knows all of it.
_OLD_TOPICS = frozenset({"whitelist", "analyzed_df"})
_NEW_TOPICS = frozenset({"liquidation_warning"})


@dataclass(slots=True)
class _Filling:
    """A key that waits for candles. `waiting` are rows beyond the hole; `deadline` is when to ask (again)."""

    waiting: Columns | None = None
    la: datetime | None = None
    limit: int = MAX_LIMIT
    requests: int = 0
    deadline: float = 0.0


class LegacyState:
    """The state of one producer on freqtrade's wire, which names no bot: its bot is the producer itself.

    `limit` is how many candles to ask for at first, 0 for none; `book` takes rows and whitelists.
    """

    def __init__(
        self, producer: str, book: Book, *, topics: Iterable[str] = TOPICS, limit: int = MAX_LIMIT
    ) -> None:
        self.producer = producer
        self.limit = limit
        self._book = book
        self._topics = frozenset(topics) & TOPICS
        self._skipped = sorted(frozenset(topics) - TOPICS - HUB_TOPICS)
        self._filling: dict[FrameKey, _Filling] = {}
        self._schemas: dict[FrameKey, Schema] = {}
        self._counts: Counter[str] = Counter()
        self._told: set[str] = set()
        self._connected = False
        self._asked_all_at = 0.0
        self._most = MAX_LIMIT
        self._answered: set[FrameKey] = set()
        self._empty_pairs: set[str] = set()

    @property
    def deadline(self) -> float | None:
        """When `tick` is due."""
        if not self._connected:
            return None
        return min((f.deadline for f in self._filling.values()), default=None)

    def start(self, now: float) -> Step:
        """A connection is open: subscribe, and ask for what there is."""
        self.lost()
        self._connected = True
        self._asked_all_at = now
        for filling in self._filling.values():
            filling.requests, filling.deadline = 0, now + ALL_WAIT_S
        step = Step()
        step.deliveries.append(self._delivery("connected", Connected(producer=self.producer)))
        tiers = [self._topics & _OLD_TOPICS, self._topics - _NEW_TOPICS, self._topics]
        for i, topics in enumerate(tiers):
            if topics and topics not in tiers[:i]:
                step.requests.append({"type": "subscribe", "data": sorted(topics)})
        if "whitelist" in self._topics:
            step.requests.append({"type": "whitelist", "data": None})
        if "analyzed_df" in self._topics and self.limit and self._most:
            step.requests.append(_request(min(self.limit, self._most), None))
        if self._skipped:
            self._once(f"not on freqtrade's wire: {', '.join(self._skipped[:20])}")
        return step

    def lost(self) -> None:
        """The connection ended: what waits for an answer waits for the next connection's."""
        self._connected = False
        self._answered.clear()
        self._empty_pairs.clear()
        self._book.mark_all_stale()

    def shrink(self) -> bool:
        """A frame was over the size limit: ask for fewer candles from now on. False when nothing is asked for any more."""
        if not self._most:
            return False
        self._most = max(LEAST_LIMIT, self._most // 2) if self._most > LEAST_LIMIT else 0
        return True

    def tick(self, now: float) -> Step:
        """Ask again for what did not come, or go on without it."""
        step = Step()
        for key in [key for key, filling in self._filling.items() if filling.deadline <= now]:
            self._ask(key, self._filling[key], now, step)
        return step

    def receive(self, message: Mapping[str, Any], size: int, now: float) -> Step:
        """A decoded frame of `size` bytes came."""
        step = Step()
        self._counts["messages"] += 1
        name = message["type"]
        data = _data_of(name, message)
        try:
            typed = view(name, data)
        except BadMessage as error:
            typed = self._problem(name, data, str(error))
        if isinstance(typed, AnalyzedDf):
            self._frame(typed, now, step)
        else:
            self._deliver(typed, data, step)
        return step

    # --- messages

    def _deliver(self, typed: Message, payload: Any, step: Step) -> None:
        key = typed.data if isinstance(typed, NewCandle) else None
        if isinstance(typed, Whitelist):
            self._book.set_pairs(self.producer, typed.data)
        step.deliveries.append(self._delivery(typed.type, typed, key=key, payload=payload))

    def _delivery(
        self,
        topic: str,
        message: Message | Connected,
        *,
        key: FrameKey | None = None,
        snapshot: bool = False,
        payload: Any = None,
    ) -> Delivery:
        return Delivery(
            producer=self.producer,
            bot=self.producer,
            topic=topic,
            message=message,
            key=key,
            snapshot=snapshot,
            payload=payload,
        )

    def _problem(self, name: str, data: Any, problem: str) -> GenericMessage:
        self._counts["problems"] += 1
        self._once(problem)
        return GenericMessage(name=name, data=data, problem=problem)

    def _once(self, text: str) -> None:
        if text not in self._told and len(self._told) < 1000:
            self._told.add(text)
            _LOG.warning("%s: %s", self.producer, text)

    # --- dataframes

    def _frame(self, message: AnalyzedDf, now: float, step: Step) -> None:
        key = message.key
        value = message.df.get("__value__") if isinstance(message.df, Mapping) else None
        if isinstance(value, str) and _is_empty(value):
            self._empty(key, now, step)
            return
        try:
            if not isinstance(value, str):
                raise BadFrame("df: expected {__type__: dataframe, __value__: text}")
            columns = self._book.prepared(decode_split(value, like=self._schemas.get(key)))
        except BadFrame as error:
            self._unreadable(key, str(error), step)
            return
        if columns.n:
            self._rows(key, columns, message, now, step)
        else:
            self._empty(key, now, step)

    def _unreadable(self, key: FrameKey, problem: str, step: Step) -> None:
        self._book.mark_stale(self.producer, key, problem=problem)
        data = {"key": [key.pair, key.timeframe, key.candle_type]}
        typed = self._problem("analyzed_df", data, f"{key.pair} {key.timeframe}: {problem}")
        step.deliveries.append(self._delivery("analyzed_df", typed, key=key))

    def _empty(self, key: FrameKey, now: float, step: Step) -> None:
        """The producer has no rows of this pair; freqtrade then names the key as it was asked, a hub may not."""
        self._counts["empty_frames"] += 1
        self._empty_pairs.add(key.pair)
        for waiting in [k for k in self._filling if k.pair == key.pair]:
            if self._filling[waiting].requests:
                self._release(waiting, step)
            else:
                # It answers the request for all pairs, from before the rows that wait.
                self._ask(waiting, self._filling[waiting], now, step)

    def _rows(self, key: FrameKey, columns: Columns, message: AnalyzedDf, now: float, step: Step) -> None:
        filling = self._filling.get(key)
        missing = self._missing(key, int(columns.date_ms.min()))
        if (
            missing == 0
            or self._is_answer(key, columns, filling, live=message.extra.get("live") is True)
            or (missing is None and not self.limit)
        ):
            self._filling.pop(key, None)
            waiting = filling.waiting if filling is not None else None
            if filling is not None and waiting is not None:
                self._beside(key, waiting, columns, filling.la, step, before=True)
            self._take(key, columns, message.la, step, extra=message.extra)
            if filling is not None and waiting is not None:
                self._beside(key, waiting, columns, filling.la, step, before=False)
            return
        if filling is None:
            filling = self._filling[key] = _Filling(deadline=now)
            if missing is None and key.pair not in self._empty_pairs:
                # The answer to the request for all pairs may be under way.
                filling.deadline = max(now, self._asked_all_at + ALL_WAIT_S)
        filling.waiting = _joined(filling.waiting, columns)
        filling.la = message.la
        # Missing candles cannot be asked for by date, only by how far back they lie.
        to_last = self._missing(key, int(columns.date_ms.max()))
        filling.limit = max(self.limit, 1) if to_last is None else to_last + 1
        self._book.mark_stale(self.producer, key, missing=missing or 0)
        self._counts["held_back"] += 1
        if filling.deadline <= now:
            self._ask(key, filling, now, step)

    def _is_answer(self, key: FrameKey, columns: Columns, filling: _Filling | None, *, live: bool) -> bool:
        """Whether rows answer a request, as far as their number tells: the first block after a connect does.

        A block of a tradewire hub that says that it is `live` does not while nothing is held: a bot that acted on it could
        not act on the candles before.
        A single row does when a pair of which nothing is held was asked for and has no other: it is that young.
        """
        if columns.n == 1:
            waiting = filling.waiting if filling is not None and filling.requests else None
            same = waiting is not None and waiting.date_ms.tolist() == columns.date_ms.tolist()
            return same and self._missing(key, int(columns.date_ms[0])) is None
        if live and self._missing(key, int(columns.date_ms[0])) is None:
            return False
        first = key not in self._answered
        self._answered.add(key)
        return first or filling is not None

    def _beside(
        self,
        key: FrameKey,
        waiting: Columns,
        answer: Columns,
        la: datetime | None,
        step: Step,
        *,
        before: bool,
    ) -> None:
        """What waited and lies before or behind an answer, over a hole that the producer has too.

        Where both have a date the answer's row is newer.
        """
        first, last = int(answer.date_ms.min()), int(answer.date_ms.max())
        dates = waiting.date_ms.tolist()
        rows = waiting.take([i for i, date in enumerate(dates) if (date < first if before else date > last)])
        if rows.n:
            self._counts["holes_kept"] += bool(self._missing(key, int(rows.date_ms.min())))
            self._take(key, rows, la, step)

    def _missing(self, key: FrameKey, date_ms: int) -> int | None:
        """Candles missing between what is held and `date_ms`; None when nothing is held."""
        return self._book.missing_before(self.producer, key, date_ms)

    def _take(
        self,
        key: FrameKey,
        columns: Columns,
        la: datetime | None,
        step: Step,
        *,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Store rows, and deliver those that changed: of an answer most are known already."""
        before = self._book.store_rev(self.producer, key)
        try:
            change = self._book.apply(self.producer, key, columns, _ms(la), snapshot=False)
        except BadFrame as error:
            self._unreadable(key, str(error), step)
            return
        known = self._schemas.get(key)
        self._schemas[key] = columns.schema if known is None else known.widen(columns.schema)
        rows, snapshot = columns, before < 0
        if columns.n > 1 and before >= 0:
            if change.unchanged:
                return
            changed = self._book.changed_since(self.producer, key, before)
            window = self._book.window(self.producer, key) if changed is None else None
            rows, snapshot = (changed, False) if changed is not None else (window or columns, True)
        typed = AnalyzedDf(key=key, df=rows, la=la, extra=extra or {})
        step.deliveries.append(self._delivery("analyzed_df", typed, key=key, snapshot=snapshot))

    def _release(self, key: FrameKey, step: Step) -> None:
        """Go on without the missing candles."""
        filling = self._filling.pop(key)
        if filling.waiting is not None:
            self._counts["holes_kept"] += 1
            self._take(key, filling.waiting, filling.la, step)

    def _ask(self, key: FrameKey, filling: _Filling, now: float, step: Step) -> None:
        if filling.requests >= MAX_REQUESTS or not self._most:
            self._release(key, step)
            return
        filling.deadline = now + FIRST_WAIT_S * 2.0**filling.requests
        filling.requests += 1
        self._counts["requests"] += 1
        step.requests.append(_request(min(filling.limit, self._most), key.pair))

    def statistics(self) -> Mapping[str, Any]:
        """Counters; rows that wait, with their bound."""
        waiting = [f.waiting for f in self._filling.values() if f.waiting is not None]
        return {
            **self._counts,
            "filling_keys": len(self._filling),
            "waiting_rows": sum(w.n for w in waiting),
            "waiting_bytes": sum(w.nbytes for w in waiting),
            "waiting_limit_rows_per_key": MAX_WAITING_ROWS,
            "candle_limit": min(self.limit, self._most),
        }


def _request(limit: int, pair: str | None) -> dict[str, Any]:
    return {"type": "analyzed_df", "data": {"limit": limit, "pair": pair}}


def _data_of(name: str, message: Mapping[str, Any]) -> Any:
    """What v2 has under `data`: freqtrade's `data` where its messages have it, else the flat fields."""
    if name in UNDER_DATA:
        return message.get("data")
    fields = {key: value for key, value in message.items() if key != "type"}
    if name not in TOPICS and fields.keys() == {"data"} and not isinstance(fields["data"], Mapping):
        return fields["data"]
    return fields


def _is_empty(split: str) -> bool:
    return len(split) < 64 and '"data":[]' in split.replace(" ", "")


def _joined(old: Columns | None, new: Columns) -> Columns:
    """The rows that wait, of which the newest count: of two rows of one date the later one."""
    if old is None:
        return new
    if old.schema != new.schema:
        schema = old.schema.widen(new.schema)
        old, new = old.cast(schema, lossy=True), new.cast(schema)
    dates = set(new.date_ms.tolist())
    kept = old.take([i for i, date in enumerate(old.date_ms.tolist()) if date not in dates])
    return Columns.concat([kept, new]).tail(MAX_WAITING_ROWS)


def _ms(when: datetime | None) -> int | None:
    if when is None:
        return None
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)
