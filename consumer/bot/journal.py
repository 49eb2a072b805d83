"""The journal of a PaperBot: the rows that can still change, kept in memory, and the one way to commit them.

Everything that can still change is here once: wallet, open trades and their waiting orders, signals, clocks, last rates, locks and
the changes of the blacklist. Closed trades are in the database only. A transaction changes these and ends with `commit`, which
raises the wallet's revision: a second run on the same database is refused there. `told` is what the log may say of the transaction
once it is committed: messages of orders, and notes in plain words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import Table, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from consumer.bot.database import open_wallet
from consumer.bot.fills import Told
from consumer.bot.models import (
    Answered,
    BlacklistChange,
    Clock,
    CustomDatum,
    Lock,
    Order,
    OutboxEntry,
    Rate,
    Signal,
    Trade,
    WalletTotal,
)
from consumer.bot.records import BotState
from consumer.bot.settings import PaperSettings
from hub.frames.timeframe import timeframe_ms
from hub.protocol.calls import KEY_S

__all__ = ["Journal", "Source"]

_KEY_MS = round(KEY_S * 1000)
_RATES = cast(Table, Rate.__table__)
_UPDATE_RATE = update(_RATES).where(_RATES.c.pair == bindparam("of_pair")).values(close=bindparam("at"))
_INSERT_RATE = insert(_RATES).values(pair=bindparam("of_pair"), close=bindparam("at"))

HOUR_MS = 3_600_000
MOST_ANSWERS, ANSWERS_BYTES = 1000, 16 * 1024 * 1024
"""Of answers to keyed calls: rows, and characters of their bodies."""
MOST_TOTALS = 10_000
"""Of the wallet's totals. Once there are more, every second one of the older half is dropped: old history becomes coarser."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose frames are traded."""

    producer: str
    bot: str
    timeframe: str
    candle_type: str


class Journal:
    """See the module. Not thread-safe: the book holds its lock.

    Raises:
        ConfigError: the wallet is of another currency.
        SQLAlchemyError: from any method.
    """

    def __init__(self, session: Session, settings: PaperSettings) -> None:
        self.session = session
        self.wallet = open_wallet(session, settings)
        self.open: dict[str, Trade] = {
            trade.pair: trade for trade in self._all(select(Trade).where(Trade.is_open))
        }
        self.resting: dict[int, Order] = {
            order.trade_id: order for order in self._all(select(Order).where(Order.status == "open"))
        }
        self.signals: dict[str, Signal] = {signal.pair: signal for signal in self._all(select(Signal))}
        self.clocks: dict[Source, Clock] = {_source_of(clock): clock for clock in self._all(select(Clock))}
        self.locks: dict[int, Lock] = {lock.id: lock for lock in self._all(select(Lock).order_by(Lock.id))}
        self.blacklist: dict[str, BlacklistChange] = {
            c.entry: c for c in self._all(select(BlacklistChange).order_by(BlacklistChange.number))
        }
        self.rates: dict[str, Decimal] = {rate.pair: rate.close for rate in self._all(select(Rate))}
        self._stored_rates = set(self.rates)
        self._new_rates: set[str] = set()
        self._totals = session.scalar(select(func.count()).select_from(WalletTotal)) or 0
        self._last_total_ms: int | None = session.scalar(select(func.max(WalletTotal.at_ms)))
        self.now_ms = max(map(_end_of, self.clocks.values()), default=None)
        self.next_message = (session.scalar(select(func.max(OutboxEntry.id))) or 0) + 1
        self.revision = self.wallet.revision
        self.told: list[Told | str] = []
        session.commit()

    def _all(self, query: Any) -> Sequence[Any]:
        return self.session.scalars(query).all()

    @property
    def state(self) -> BotState:
        """Running, paused or stopped."""
        return BotState(self.wallet.state)

    @property
    def equity(self) -> Decimal:
        """Money that is there or in trades at what they cost: the start and all profit so far."""
        realized = sum((trade.realized_profit for trade in self.open.values()), Decimal(0))
        return self.wallet.start + self.wallet.closed_profit + realized

    @property
    def tied(self) -> Decimal:
        """What the held amounts cost, and what waiting entries hold."""
        return sum((trade.tied for trade in self.open.values()), self.wallet.reserved)

    def open_trade(self, trade_id: int) -> Trade | None:
        """The open trade of a number."""
        return next((trade for trade in self.open.values() if trade.id == trade_id), None)

    def tell(self, trade: Trade, number: int, told: Sequence[Told]) -> None:
        """Put messages of an order into the outbox."""
        for topic, data in told:
            # The same after every crash, and never that of another database of the same bot.
            mid = f"{self.wallet.instance}/{trade.id}/{number}/{topic}"
            entry = OutboxEntry(
                id=self.next_message, topic=topic, mid=mid, data=json.dumps(data), refused=None
            )
            self.session.add(entry)
            self.next_message += 1
        self.told += told

    def note(self, text: str) -> None:
        """Something that a person did, for the log."""
        self.told.append(text)

    def keep_answer(self, call: str, status: int, body: str, at_ms: int) -> None:
        """Keep the answer to a call with its effect, for KEY_S of the time of day, within bounds: the oldest go first."""
        stale = or_(
            Answered.at_ms <= at_ms - _KEY_MS, Answered.at_ms > at_ms + _KEY_MS, Answered.call == call
        )
        self.session.execute(delete(Answered).where(stale))
        values = {"call": call, "at_ms": at_ms, "status": status, "body": body, "size": len(body)}
        self.session.execute(insert(Answered).values(**values))
        kept, size, gone = 0, 0, []
        for name, taken in self.session.execute(
            select(Answered.call, Answered.size).order_by(Answered.call != call, Answered.at_ms.desc())
        ):
            kept, size = kept + 1, size + taken
            if kept > MOST_ANSWERS or size > ANSWERS_BYTES:
                gone.append(name)
        if gone:
            self.session.execute(delete(Answered).where(Answered.call.in_(gone)))

    def answered(self, session: Session, call: str, now_ms: int) -> tuple[int, str] | None:
        """The status and body that were kept for a call; `session` is any on the database."""
        held = and_(Answered.at_ms > now_ms - _KEY_MS, Answered.at_ms <= now_ms + _KEY_MS)
        found = session.execute(
            select(Answered.status, Answered.body).where(Answered.call == call, held)
        ).first()
        return None if found is None else (found.status, found.body)

    def drop(self, row: Any) -> None:
        """Delete a row, whether it was stored yet or not."""
        if row in self.session.new:
            self.session.expunge(row)
        else:
            self.session.delete(row)

    def forget(self, trade: Trade) -> None:
        """Delete a trade with its orders and custom data."""
        self.session.flush()
        for table in (CustomDatum, Order):
            self.session.execute(delete(table).where(table.trade_id == trade.id))
        self.session.execute(delete(Trade).where(Trade.id == trade.id))
        order = self.resting.pop(trade.id, None)
        if order is not None:
            self.session.expunge(order)
        self.session.expunge(trade)
        if self.open.get(trade.pair) is trade:
            del self.open[trade.pair]

    def note_rate(self, pair: str, close: Decimal) -> None:
        """The close of a pair's newest row."""
        self.rates[pair] = close
        self._new_rates.add(pair)

    def tick(self, source: Source, date_ms: int) -> None:
        """A candle was acted on."""
        clock = self.clocks.get(source)
        if clock is None:
            self.clocks[source] = clock = Clock(
                producer=source.producer,
                bot=source.bot,
                timeframe=source.timeframe,
                candle_type=source.candle_type,
                acted_ms=date_ms,
            )
            self.session.add(clock)
        clock.acted_ms = date_ms
        self.now_ms = max(_end_of(clock), self.now_ms or 0)
        for lock in [lock for lock in self.locks.values() if lock.until_ms <= self.now_ms]:
            self.drop(self.locks.pop(lock.id))

    def note_total(self, total: Decimal) -> None:
        """The wallet's worth now; kept when it is the first of its hour."""
        assert self.now_ms is not None
        self.session.add(WalletTotal(at_ms=self.now_ms, total=total))
        self._last_total_ms = self.now_ms
        self._totals += 1
        if self._totals > MOST_TOTALS:
            self._thin_totals()

    @property
    def total_due(self) -> bool:
        """Whether the hour of candle time has no total yet."""
        last, now = self._last_total_ms, self.now_ms
        return now is not None and (last is None or now // HOUR_MS > last // HOUR_MS)

    def commit(self) -> None:
        """End the transaction: all of it, or nothing."""
        self._write_rates()
        self.wallet.revision += 1
        self.session.commit()
        self.revision = self.wallet.revision
        self._release()

    def check(self) -> None:
        """Assert that what is in memory fits together and is what the database has."""
        by_id = {trade.id: trade for trade in self.open.values()}
        assert all(trade.is_open and trade.pair == pair for pair, trade in self.open.items())
        assert all(order.status == "open" and key == order.trade_id for key, order in self.resting.items())
        assert set(self.resting) <= set(by_id)
        unfilled = {trade.id for trade in self.open.values() if trade.open_fill_ms is None}
        assert unfilled == {order.trade_id for order in self.resting.values() if order.side == "entry"}
        assert self.wallet.reserved == sum((o.reserved for o in self.resting.values()), Decimal(0))
        stored = set(self.session.execute(select(Trade.id).where(Trade.is_open)).scalars())
        waiting = set(self.session.execute(select(Order.trade_id).where(Order.status == "open")).scalars())
        self.session.commit()
        assert (stored, waiting) == (set(by_id), set(self.resting))

    def _write_rates(self) -> None:
        # Not as objects: every pair has a new rate with every candle.
        known = self._new_rates & self._stored_rates
        for statement, pairs in ((_UPDATE_RATE, known), (_INSERT_RATE, self._new_rates - known)):
            if pairs:
                rows = [{"of_pair": pair, "at": self.rates[pair]} for pair in sorted(pairs)]
                self.session.execute(statement, rows)
        self._stored_rates |= self._new_rates
        self._new_rates.clear()

    def _thin_totals(self) -> None:
        self.session.flush()
        oldest = select(WalletTotal.at_ms).order_by(WalletTotal.at_ms).limit(MOST_TOTALS // 2)
        dropped = self._all(oldest)[1::2]
        self.session.execute(delete(WalletTotal).where(WalletTotal.at_ms.in_(dropped)))
        self._totals -= len(dropped)

    def _release(self) -> None:
        """Closed trades, orders and messages would otherwise stay in the session's memory for ever."""
        kept: set[Any] = {self.wallet}
        for rows in (self.open, self.resting, self.signals, self.clocks, self.locks, self.blacklist):
            kept.update(rows.values())
        for row in [row for row in self.session if row not in kept]:
            self.session.expunge(row)


def _source_of(clock: Clock) -> Source:
    return Source(clock.producer, clock.bot, clock.timeframe, clock.candle_type)


def _end_of(clock: Clock) -> int:
    return clock.acted_ms + timeframe_ms(clock.timeframe)
