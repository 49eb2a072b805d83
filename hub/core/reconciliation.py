"""A bot's own trades against what the ledger was told of them: which fills are missing, and which the bot does not know.

Theory of operation
===================

freqtrade's fills carry no order id and its orders no message id. So the fills of one trade and side are matched as multisets: every
order with a message that fits it best, and what is left over of the orders is missing. A trade is its number, its pair and when it
was opened: a bot with a new database begins at number 1 again.

Pairs of an order and a message are taken in this order, the nearest in time first within each:

1. The message names the order (`order_id`). A reconciled one is of that order and no other.
2. Amount and rate are those of the order.
3. Any other, unless the message is that of another order, repeated: then it says nothing of this one, except where it came just when
   this one was filled.

By the third rule a message whose figures were corrected later counts as told: to publish a fill twice is worse than to leave one out.

Rules
=====

R1. Nothing is missing that a message of the ledger may have told. With as many messages as orders of a trade and side nothing is
    missing, whatever their figures, unless a message is the repetition of another.
R2. Only fills in [since, …) are reported, in both directions; what is older takes part in the matching, so that it does not take the
    message of a younger one, but takes none that is not its own.
R3. Missing fills come by fill time; of one trade no exit comes before its first entry.
R4. A message is unknown only where the bot would know its trade: closed or opened, by the bot's clock, within what is read. So
    nothing is said of the fills of a bot whose clock runs on other days, as one does that replays candles.

Times of orders are the bot's clock, `ts` of messages the hub's; `skew_ms` is how far the bot's is ahead.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hub.core.bot_trades import FILL_TOPICS, SOURCE, Fill, TradeRow, fills_of
from hub.core.entry import Entry

__all__ = ["MARGIN_MS", "Comparison", "Told", "compare", "fits", "of_trade", "told"]

MARGIN_MS = 600_000
"""So much longer ago than `since` the caller reads trades and messages (R2); a message is never that late."""
NEAR_MS = 60_000
OPENED_TOLERANCE_MS = 1500
AMOUNT_TOLERANCE = 1e-6
RATE_TOLERANCE = 1e-6
MAX_PAIRS = 250_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A fill as a message of the ledger tells it; None is what it does not say."""

    offset: int
    ts: int
    topic: str
    trade_id: int
    pair: str
    open_ms: int | None
    amount: float | None
    rate: float | None
    order_id: str | None
    reconciled: bool
    at_ms: int
    """When it happened by the bot's clock, where the message says it, else `ts`."""
    of_bot: bool
    """Whether `at_ms` is the bot's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`missing` in the order in which they are to be published; `unknown` by offset; `fills` and `messages` are what was compared."""

    missing: Sequence[Fill]
    unknown: Sequence[Told]
    trades: int
    fills: int
    messages: int


def told(entry: Entry) -> Told | None:
    """What an entry of a fill topic tells; None for one that cannot be matched with anything (no trade, no pair)."""
    data = entry.data
    if entry.topic not in FILL_TOPICS or not isinstance(data, Mapping):
        return None
    trade_id, pair, order_id = data.get("trade_id"), data.get("pair"), data.get("order_id")
    if not isinstance(trade_id, int) or isinstance(trade_id, bool) or not isinstance(pair, str):
        return None
    is_exit = entry.topic == "exit_fill"
    closed = _ms(data.get("close_date")) if is_exit else None
    return Told(
        offset=entry.offset,
        ts=entry.ts,
        topic=entry.topic,
        trade_id=trade_id,
        pair=pair,
        open_ms=_ms(data.get("open_date")),
        amount=_number(data.get("amount")),
        rate=_number(data.get("close_rate" if is_exit else "open_rate")),
        order_id=order_id if isinstance(order_id, str) else None,
        reconciled=data.get("source") == SOURCE,
        at_ms=entry.ts if closed is None else closed,
        of_bot=closed is not None,
    )


def compare(
    trades: Iterable[TradeRow],
    messages: Iterable[Told],
    *,
    since_ms: int,
    skew_ms: int = 0,
    known_up_to: int | None = None,
) -> Comparison:
    """Compare all fills of `trades` with `messages`, both of `since_ms` - MARGIN_MS on.

    `since_ms` is by the hub's clock. `known_up_to` is the ledger's head when the reading of trades began: what came later the bot may
    tell the next time, so it is not unknown; None where the trades are not all, and none can be.
    """
    by_trade: dict[tuple[str, int, str], list[Told]] = defaultdict(list)
    count = 0
    for message in messages:
        by_trade[message.topic, message.trade_id, message.pair].append(message)
        count += 1
    newest = {(trade.trade_id, trade.pair, trade.open_timestamp): trade for trade in trades}
    missing: list[Fill] = []
    fills = 0
    matched: set[int] = set()
    of_known: set[int] = set()
    for trade in newest.values():
        sides: dict[str, list[Fill]] = defaultdict(list)
        for fill in fills_of(trade):
            sides[fill.topic].append(fill)
        for topic, side in sides.items():
            candidates = [
                message
                for message in by_trade.get((topic, trade.trade_id, trade.pair), ())
                if of_trade(message, trade.open_timestamp)
            ]
            if len(side) * len(candidates) > MAX_PAIRS:
                raise ValueError(f"trade {trade.trade_id}: too many fills to be compared")
            match = _Match(side, candidates, since_ms, skew_ms)
            matched |= match.messages
            of_known |= {message.offset for message in candidates}
            missing += match.missing
            fills += len(side)
    missing.sort(key=lambda fill: (fill.filled_ms, fill.topic, fill.trade_id, fill.open_ms))
    read_from_ms = since_ms - MARGIN_MS + skew_ms
    unknown = [
        message
        for group in by_trade.values()
        for message in group
        if message.offset not in matched
        and message.ts >= since_ms
        and known_up_to is not None
        and message.offset <= known_up_to
        and (message.offset in of_known or _when(message) >= read_from_ms)
    ]
    return Comparison(
        missing=missing,
        unknown=sorted(unknown, key=lambda message: message.offset),
        trades=len(newest),
        fills=fills,
        messages=count,
    )


def of_trade(message: Told, open_ms: int) -> bool:
    """Whether a message, of this number and pair, is of the trade that was opened then."""
    return message.open_ms is None or abs(message.open_ms - open_ms) <= OPENED_TOLERANCE_MS


def _when(message: Told) -> int:
    """The latest time that a message tells of its trade."""
    return message.at_ms if message.of_bot or message.open_ms is None else message.open_ms


class _Match:
    """The fills of one trade and side with their messages. Afterwards: `missing`, and the offsets of `messages` that were taken."""

    def __init__(self, fills: Sequence[Fill], messages: Sequence[Told], since_ms: int, skew_ms: int) -> None:
        self._fills = fills
        self._told = messages
        self._skew_ms = skew_ms
        self._old = [fill.filled_ms - skew_ms < since_ms for fill in fills]
        self._taken: set[int] = set()
        self._done: set[int] = set()
        self._take(self._named())
        self._take(self._exact())
        self._take(self._others())
        self.missing = [fill for i, fill in enumerate(fills) if i not in self._taken and not self._old[i]]
        # Theirs, however far apart in time; it only keeps them from being unknown.
        self._take([(0, i, j) for i, fill, j, message in self._free() if fits(message, fill)])
        self.messages = {messages[i].offset for i in self._done}

    def _take(self, pairs: list[tuple[int, int, int]]) -> None:
        """Take pairs (distance, fill, message), the nearest first, each fill and each message once."""
        for _, fill, message in sorted(pairs):
            if fill not in self._taken and message not in self._done:
                self._taken.add(fill)
                self._done.add(message)

    def _free(self) -> Iterable[tuple[int, Fill, int, Told]]:
        for i, fill in enumerate(self._fills):
            if i not in self._taken:
                for j, message in enumerate(self._told):
                    if j not in self._done:
                        yield i, fill, j, message

    def _named(self) -> list[tuple[int, int, int]]:
        return [(0, i, j) for i, fill, j, message in self._free() if message.order_id == fill.order_id]

    def _exact(self) -> list[tuple[int, int, int]]:
        return [
            (distance, i, j)
            for i, fill, j, message in self._free()
            if not message.reconciled
            and fits(message, fill)
            and ((distance := self._distance(fill, message)) <= NEAR_MS or not self._old[i])
        ]

    def _others(self) -> list[tuple[int, int, int]]:
        repeated = {
            j for j, message in enumerate(self._told) if any(fits(message, fill) for fill in self._fills)
        }
        pairs = []
        for i, fill, j, message in self._free():
            distance = self._distance(fill, message)
            apart = j in repeated or self._old[i]
            if not message.reconciled and (distance <= NEAR_MS or not apart):
                pairs.append((distance, i, j))
        return pairs

    def _distance(self, fill: Fill, message: Told) -> int:
        filled_ms = fill.filled_ms if message.of_bot else fill.filled_ms - self._skew_ms
        return abs(message.at_ms - filled_ms)


def fits(message: Told, fill: Fill) -> bool:
    """Whether a message has the amount and the rate of a fill."""
    if message.amount is None or message.rate is None:
        return False
    return math.isclose(message.rate, fill.rate, rel_tol=RATE_TOLERANCE) and any(
        math.isclose(message.amount, amount, rel_tol=AMOUNT_TOLERANCE) for amount in fill.amounts
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _ms(value: Any) -> int | None:
    """ms since 1970 of a date in RFC 3339, without an offset in UTC; None for what is none."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    try:
        return math.floor(at.timestamp() * 1000)
    except (OverflowError, ValueError):
        return None
