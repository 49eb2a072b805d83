"""What a PaperBot's database tells, as records.

A `Reading` is one transaction of its own: all its answers are of the same commit, and the book acts on meanwhile. A closed trade never
changes, so that its record is kept once it was read: the figures over all trades are asked for again and again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, func, select

from consumer.bot.database import storable
from consumer.bot.models import Clock, CustomDatum, Lock, Order, Rate, Trade, Wallet, WalletTotal
from consumer.bot.records import (
    BotState,
    CustomDataRecord,
    LockRecord,
    OrderRecord,
    OrderStatus,
    TradePageRecord,
    TradeRecord,
    WalletPoint,
    WalletRecord,
)
from hub.frames.timeframe import timeframe_ms

__all__ = ["Queries", "Reading"]

# Numbers of trades in one IN (...): SQLite takes 32,766 variables, others fewer.
_CHUNK = 500
# The first number that SQLite has no room for.
_NO_INTEGER = 2**63
MOST_KEPT = 20_000
"""Records of closed trades in memory, about 2 KB each; older ones are read anew each time."""

_TRADES, _ORDERS = Trade.__table__, Order.__table__


class Reading:
    """The database at one commit. Use it within its `with` only, in one thread.

    Raises:
        DatabaseFailed: from any method, when the database cannot be read.
    """

    def __init__(self, connection: Connection, kept: dict[int, TradeRecord] | None = None) -> None:
        """`kept` are records of closed trades by number, which readings share: from any thread, none waits for another."""
        self._connection = connection
        self._kept = {} if kept is None else kept
        self._rates: dict[str, Decimal] | None = None

    @property
    def revision(self) -> int:
        """Rises with every commit that changes anything that is told here."""
        return int(self._connection.execute(select(Wallet.revision)).scalar_one())

    @property
    def state(self) -> BotState:
        """Running, paused or stopped."""
        return BotState(self._connection.execute(select(Wallet.state)).scalar_one())

    @property
    def now_ms(self) -> int | None:
        """The end of the last candle acted on; None before the first."""
        clocks = self._connection.execute(select(Clock.acted_ms, Clock.timeframe)).all()
        return max((acted_ms + timeframe_ms(timeframe) for acted_ms, timeframe in clocks), default=None)

    @property
    def rates(self) -> Mapping[str, Decimal]:
        """The last close of every pair that ever had a usable row."""
        if self._rates is None:
            rows = self._connection.execute(select(Rate.pair, Rate.close))
            self._rates = {row.pair: row.close for row in rows}
        return self._rates

    def trade(self, trade_id: int) -> TradeRecord | None:
        """One trade, open or closed; None without it."""
        if not 0 < trade_id < _NO_INTEGER:
            return None
        return next(self._records(select(_TRADES).where(Trade.id == trade_id)), None)

    def open_trades(self) -> tuple[TradeRecord, ...]:
        """Trades that are open, with those whose entry is not filled yet, by number."""
        return tuple(self._records(select(_TRADES).where(Trade.is_open).order_by(Trade.id)))

    def closed_trades(self) -> tuple[TradeRecord, ...]:
        """All closed trades, by number."""
        numbers = self.closed_numbers()
        # Deleted ones go. One that a reading of an older commit puts back goes the next time.
        for number in set(self._kept) - set(numbers):
            self._kept.pop(number, None)
        return self.closed(numbers)

    def closed_numbers(self) -> Sequence[int]:
        """The numbers of all closed trades, rising."""
        closed = select(Trade.id).where(Trade.is_open.is_(False)).order_by(Trade.id)
        return self._connection.execute(closed).scalars().all()

    def trades(self, limit: int, offset: int = 0, *, order_by_id: bool = True) -> TradePageRecord:
        """A page of closed trades, by number or, newest first, by the date of their end (as freqtrade's /trades)."""
        closed = Trade.is_open.is_(False)
        order = (Trade.id,) if order_by_id else (Trade.close_ms.desc(), Trade.id.desc())
        limit, offset = min(limit, _NO_INTEGER - 1), min(offset, _NO_INTEGER - 1)
        page = select(Trade.id).where(closed).order_by(*order).limit(limit).offset(offset)
        total = self._connection.execute(select(func.count()).where(closed)).scalar_one()
        return TradePageRecord(self.closed(self._connection.execute(page).scalars().all()), total)

    def wallet(self) -> WalletRecord:
        """The wallet."""
        row = self._connection.execute(select(Wallet.__table__)).one()
        return WalletRecord(
            currency=row.currency,
            start=row.start,
            free=row.free,
            reserved=row.reserved,
            closed_profit=row.closed_profit,
            created_ms=row.created_ms,
        )

    def wallet_points(self) -> tuple[WalletPoint, ...]:
        """The wallet over time, oldest first (`totals`)."""
        rows = self._connection.execute(
            select(WalletTotal.at_ms, WalletTotal.total).order_by(WalletTotal.at_ms)
        )
        return tuple(WalletPoint(at_ms, total) for at_ms, total in rows)

    def locks(self) -> tuple[LockRecord, ...]:
        """The locks that hold now, by number."""
        now = self.now_ms
        holding = select(Lock.__table__).order_by(Lock.id)
        rows = self._connection.execute(holding if now is None else holding.where(Lock.until_ms > now))
        return tuple(lock_record(row) for row in rows)

    def custom_data(self, trade_id: int, key: str | None = None) -> tuple[CustomDataRecord, ...]:
        """What is kept with a trade, by key; empty also without such a trade."""
        if not 0 < trade_id < _NO_INTEGER:
            return ()
        return self._custom_data(select(CustomDatum.__table__).where(CustomDatum.trade_id == trade_id), key)

    def open_custom_data(self, key: str | None = None) -> tuple[CustomDataRecord, ...]:
        """What is kept with open trades, by trade and key."""
        own = CustomDatum.trade_id.in_(select(Trade.id).where(Trade.is_open))
        return self._custom_data(select(CustomDatum.__table__).where(own), key)

    def _custom_data(self, query: Select[Any], key: str | None) -> tuple[CustomDataRecord, ...]:
        if key is not None and not storable(key):
            return ()
        if key is not None:
            query = query.where(CustomDatum.key == key)
        rows = self._connection.execute(query.order_by(CustomDatum.trade_id, CustomDatum.key))
        return tuple(
            CustomDataRecord(
                trade_id=row.trade_id,
                key=row.key,
                value=json.loads(row.value),
                created_ms=row.created_ms,
                updated_ms=row.updated_ms,
            )
            for row in rows
        )

    def closed(self, numbers: Sequence[int]) -> tuple[TradeRecord, ...]:
        """The closed trades of these numbers, in this order."""
        found = {number: record for number in numbers if (record := self._kept.get(number)) is not None}
        missing = [number for number in numbers if number not in found]
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            found.update((r.id, r) for r in self._records(select(_TRADES).where(Trade.id.in_(chunk))))
        self._kept.update((number, found[number]) for number in missing)
        for number in sorted(self._kept)[:-MOST_KEPT]:
            self._kept.pop(number, None)
        return tuple(found[number] for number in numbers)

    def _records(self, query: Select[Any]) -> Iterator[TradeRecord]:
        trades = self._connection.execute(query).all()
        for start in range(0, len(trades), _CHUNK):
            chunk = trades[start : start + _CHUNK]
            orders = self._orders(trade.id for trade in chunk)
            for trade in chunk:
                rate = self.rates.get(trade.pair) if trade.is_open else trade.close_rate
                yield trade_record(trade, orders.get(trade.id, ()), rate)

    def _orders(self, trade_ids: Iterable[int]) -> dict[int, tuple[OrderRecord, ...]]:
        query = (
            select(_ORDERS).where(Order.trade_id.in_(list(trade_ids))).order_by(Order.trade_id, Order.number)
        )
        rows = self._connection.execute(query)
        return {key: tuple(map(order_record, mine)) for key, mine in groupby(rows, lambda row: row.trade_id)}


class Queries:
    """A reading's answers one by one, each in a transaction of its own. From any thread."""

    def reading(self) -> AbstractContextManager[Reading]:
        """Several answers of the same commit: `with book.reading() as reading: ...`."""
        raise NotImplementedError

    @property
    def revision(self) -> int:
        """Rises with every commit that changes anything that is told here."""
        with self.reading() as reading:
            return reading.revision

    @property
    def state(self) -> BotState:
        """Running, paused or stopped."""
        with self.reading() as reading:
            return reading.state

    @property
    def now_ms(self) -> int | None:
        """The end of the last candle acted on; None before the first."""
        with self.reading() as reading:
            return reading.now_ms

    @property
    def rates(self) -> Mapping[str, Decimal]:
        """The last close of every pair that ever had a usable row."""
        with self.reading() as reading:
            return reading.rates

    def trade(self, trade_id: int) -> TradeRecord | None:
        """One trade, open or closed; None without it."""
        with self.reading() as reading:
            return reading.trade(trade_id)

    def open_trades(self) -> tuple[TradeRecord, ...]:
        """Trades that are open, with those whose entry is not filled yet, by number."""
        with self.reading() as reading:
            return reading.open_trades()

    def closed_trades(self) -> tuple[TradeRecord, ...]:
        """All closed trades, by number."""
        with self.reading() as reading:
            return reading.closed_trades()

    def trades(self, limit: int, offset: int = 0, *, order_by_id: bool = True) -> TradePageRecord:
        """A page of closed trades, by number or, newest first, by the date of their end (as freqtrade's /trades)."""
        with self.reading() as reading:
            return reading.trades(limit, offset, order_by_id=order_by_id)

    def wallet(self) -> WalletRecord:
        """The wallet."""
        with self.reading() as reading:
            return reading.wallet()

    def wallet_points(self) -> tuple[WalletPoint, ...]:
        """The wallet over time, oldest first."""
        with self.reading() as reading:
            return reading.wallet_points()

    def locks(self) -> tuple[LockRecord, ...]:
        """The locks that hold now, by number."""
        with self.reading() as reading:
            return reading.locks()

    def custom_data(self, trade_id: int, key: str | None = None) -> tuple[CustomDataRecord, ...]:
        """What is kept with a trade, by key; empty also without such a trade."""
        with self.reading() as reading:
            return reading.custom_data(trade_id, key)

    def open_custom_data(self, key: str | None = None) -> tuple[CustomDataRecord, ...]:
        """What is kept with open trades, by trade and key."""
        with self.reading() as reading:
            return reading.open_custom_data(key)


def trade_record(trade: Any, orders: Sequence[OrderRecord], rate: Decimal | None) -> TradeRecord:
    """The record of a row of `trades`."""
    return TradeRecord(
        id=trade.id,
        pair=trade.pair,
        is_open=trade.is_open,
        enter_tag=trade.enter_tag,
        open_ms=trade.open_ms,
        open_fill_ms=trade.open_fill_ms,
        open_rate=trade.open_rate,
        open_rate_requested=trade.open_rate_requested,
        amount=trade.amount,
        amount_requested=trade.amount_requested,
        stake_amount=trade.stake_amount,
        max_stake_amount=trade.max_stake_amount,
        paid=trade.paid,
        tied=trade.tied,
        fee=trade.fee,
        fee_open_cost=trade.fee_open_cost,
        fee_close_cost=trade.fee_close_cost,
        stop_rate=trade.stop_rate,
        initial_stop_rate=trade.initial_stop_rate,
        min_rate=trade.min_rate,
        max_rate=trade.max_rate,
        close_ms=trade.close_ms,
        close_rate=trade.close_rate,
        close_rate_requested=trade.close_rate_requested,
        realized_profit=trade.realized_profit,
        profit_abs=trade.profit,
        profit_ratio=trade.profit_ratio,
        exit_reason=trade.exit_reason,
        exit_order_status=trade.exit_order_status,
        current_rate=rate,
        orders=tuple(orders),
    )


def order_record(order: Any) -> OrderRecord:
    """The record of a row of `orders`."""
    return OrderRecord(
        number=order.number,
        order_id=order.order_id,
        is_entry=order.side == "entry",
        order_type=order.type,
        status=OrderStatus(order.status),
        rate=order.rate,
        amount=order.amount,
        filled=order.filled,
        average=order.average,
        cost=order.cost,
        fee=order.fee,
        tag=order.tag,
        placed_ms=order.placed_ms,
        filled_ms=order.filled_ms,
    )


def lock_record(lock: Any) -> LockRecord:
    """The record of a row of `locks`."""
    return LockRecord(
        id=lock.id,
        pair=lock.pair,
        side=lock.side,
        locked_ms=lock.locked_ms,
        until_ms=lock.until_ms,
        reason=lock.reason,
    )
