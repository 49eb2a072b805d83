"""Fills that reconciliation stored and whose own messages may come after all, which must not act a second time.

A bot that hangs stores a fill and tells it minutes later; a publisher that was cut off keeps one in its outbox. Reconciliation waits
for a grace, but not for ever. So what it stores is remembered for as long as a message is ever late, and the first message that tells
the same fill is answered as the repetition that it is, with the offset of what was stored.

The same fill: of the same trade and side, and it names the order, or has its amount and rate. A second order of a trade with the very
figures of the first, filled within that time, is taken for it: whoever is told of a repetition compares again, and finds it missing.

Invariants
==========
1. A remembered fill takes one message at most, and that again: its publisher may not have had the answer.
2. Nothing is taken that reconciliation itself publishes.
3. At most `limit` fills are remembered, and as many messages that were taken; the oldest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from hub.core.bot_trades import FILL_TOPICS, Fill
from hub.core.entry import Entry
from hub.core.reconciliation import MARGIN_MS, Told, fits, of_trade, told

__all__ = ["LateFills", "StoredFill"]

LIMIT = 4096
Known = Callable[[int | None], None]


class StoredFill:
    """A fill that reconciliation stores: under which offset is known once the log has answered (`settle`)."""

    __slots__ = ("_offset", "_waiting", "bot", "fill", "until_ms")

    def __init__(self, bot: str, fill: Fill, until_ms: int) -> None:
        self.bot = bot
        self.fill = fill
        self.until_ms = until_ms
        self._offset: int | None = None
        self._waiting: list[Known] | None = []

    def settle(self, offset: int | None) -> None:
        """The log has answered; None: it is not stored."""
        self._offset = offset
        waiting, self._waiting = self._waiting or [], None
        for known in waiting:
            known(offset)

    def when_known(self, known: Known) -> None:
        """Call `known` with the offset, now or as soon as the log has answered."""
        if self._waiting is None:
            known(self._offset)
        else:
            self._waiting.append(known)


class LateFills:
    """What reconciliation stored lately, of all bots. On the loop's thread only; times in ms since 1970 by the hub's clock."""

    def __init__(self, limit: int = LIMIT, *, late_ms: int = MARGIN_MS) -> None:
        self.limit = limit
        self._late_ms = late_ms
        self._stored: OrderedDict[StoredFill, None] = OrderedDict()
        self._bots: dict[str, int] = {}
        self._taken: OrderedDict[tuple[str, str, str | None], StoredFill] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stored)

    def give_up(self, entry: Entry) -> None:
        """The fill that a message was taken for is not stored: it is a message like any other."""
        self._taken.pop((entry.bot, entry.publisher, entry.mid), None)

    def of_bot(self, bot: str) -> int:
        """How many are remembered of a bot."""
        return self._bots.get(bot, 0)

    def storing(self, bot: str, fill: Fill, now_ms: int) -> StoredFill:
        """Reconciliation publishes a fill; to be settled by the caller."""
        stored = StoredFill(bot, fill, now_ms + self._late_ms)
        self._stored[stored] = None
        self._bots[bot] = self._bots.get(bot, 0) + 1
        while len(self._stored) > self.limit:
            self.forget(next(iter(self._stored)))
        return stored

    def forget(self, stored: StoredFill) -> None:
        """Nothing is taken for this one any more. Idempotent."""
        if stored in self._stored:
            del self._stored[stored]
            self._bots[stored.bot] -= 1
            if not self._bots[stored.bot]:
                del self._bots[stored.bot]

    def take(self, entry: Entry, now_ms: int) -> StoredFill | None:
        """The stored fill that a message tells again; only a repetition of this very message gets it once more."""
        if not (self._bots or self._taken) or entry.topic not in FILL_TOPICS:
            return None
        name = (entry.bot, entry.publisher, entry.mid)
        again = self._taken.get(name) if entry.mid is not None else None
        if again is not None or entry.bot not in self._bots:
            return again
        found = self._told_again(entry, now_ms)
        if found is not None:
            self.forget(found)
            self._taken[name] = found
            while len(self._taken) > self.limit:
                self._taken.popitem(last=False)
        return found

    def _told_again(self, entry: Entry, now_ms: int) -> StoredFill | None:
        self._expire(now_ms)
        message = told(entry)
        if message is None or message.reconciled:
            return None
        same = [s for s in self._stored if s.bot == entry.bot and _tells(message, s.fill)]
        if not same:
            return None
        return next((s for s in same if s.fill.order_id == message.order_id), same[0])

    def _expire(self, now_ms: int) -> None:
        while self._stored and (oldest := next(iter(self._stored))).until_ms < now_ms:
            self.forget(oldest)


def _tells(message: Told, fill: Fill) -> bool:
    return (
        (message.topic, message.trade_id, message.pair) == (fill.topic, fill.trade_id, fill.pair)
        and of_trade(message, fill.open_ms)
        and (message.order_id == fill.order_id or fits(message, fill))
    )
