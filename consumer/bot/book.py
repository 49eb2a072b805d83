"""The book of a PaperBot: acts on candles and writes every effect in the same transaction.

Theory of operation
-------------------
The state (wallet, open trades, waiting signals, clock) lives in the rows of the database; the book keeps the few that can
still change in memory. `act` takes candles in the order of the clock, changes state and commits once: trades, orders,
wallet, signals, the clock, and in the outbox the messages that tell of it. A kill before the commit leaves nothing, and the
candles come again from the producer's snapshot; a kill after it leaves everything, and the clock skips the candles.

Within a candle three rounds go over the pairs, each in pair order, so that nothing uses what comes later in time:

1. at the open: exits that the previous candle of the pair asked for (they free money and slots), then entries
2. within the candle: stoploss, then ROI, also of positions entered at this open, as freqtrade's backtest does
3. at the close: the signals of the row, carried out at the open of the pair's next row, whenever that is

A row with enter_long and exit_long together asks for nothing, as in freqtrade. A signal is used up by the pair's next row:
an entry without a free slot, or without money, is skipped and counted. A row without usable rates is skipped, counted, and
uses up nothing. Exits within a candle are dated at its beginning, as freqtrade dates them.

Invariants
----------
1. wallet.free >= 0, and free + what open trades cost == start + closed_profit, exactly.
2. At most one open trade per pair, at most `max_open_trades` in all.
3. Trade numbers rise by one in the order of entries; same candles, same numbers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from threading import Lock
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from consumer.bot import rules
from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.database import one_line, open_database, open_wallet
from consumer.bot.fills import entry_messages, exit_messages, quote_of
from consumer.bot.models import Clock, Order, OutboxEntry, Signal, Trade
from consumer.bot.settings import PaperSettings

__all__ = ["Book", "Outgoing", "Position", "Source", "Summary"]

log = logging.getLogger(__name__)

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Source:
    """Whose frames are traded."""

    producer: str
    bot: str
    timeframe: str
    candle_type: str


@dataclass(frozen=True, slots=True)
class Position:
    """An open trade; rates and amounts exact."""

    trade_id: int
    pair: str
    open_ms: int
    open_rate: Decimal
    amount: Decimal
    stake_amount: Decimal
    enter_tag: str | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that waits to be published."""

    id: int
    topic: str
    mid: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a PaperBot stands. `refused` messages were turned down for good and are kept in the outbox."""

    name: str
    currency: str
    start: Decimal
    free: Decimal
    closed_profit: Decimal
    closed_trades: int
    open_trades: tuple[Position, ...]
    acted_ms: int | None
    skipped_entries: int
    bad_rows: int
    outbox: int
    refused: int


class Book:
    """The trades of one bot. Every method is atomic and may be called from any thread; one book per database.

    Raises:
        ConfigError: the database cannot be used (see `database`).
        DatabaseFailed: from any method; state in memory is then not to be trusted and the book is to be closed.
    """

    def __init__(self, settings: PaperSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._engine = open_database(settings.db_url)
        self._session = Session(self._engine, expire_on_commit=False, autoflush=False)
        try:
            with one_line():
                self._load()
        except BaseException:
            self.close()
            raise
        self._skipped = 0
        self._bad_rows = 0
        self._foreign: set[str] = set()

    def _load(self) -> None:
        self._wallet = open_wallet(self._session, self._settings)
        self._open = {t.pair: t for t in self._session.scalars(select(Trade).where(Trade.is_open))}
        self._signals = {signal.pair: signal for signal in self._session.scalars(select(Signal))}
        self._clocks = {_source_of(clock): clock for clock in self._session.scalars(select(Clock))}
        self._next_trade = (self._session.scalar(select(func.max(Trade.id))) or 0) + 1
        self._next_message = (self._session.scalar(select(func.max(OutboxEntry.id))) or 0) + 1
        self._session.commit()

    def close(self) -> None:
        """Release the database."""
        with self._lock:
            self._session.close()
            self._engine.dispose()

    @property
    def sources(self) -> dict[Source, int]:
        """The last candle acted on, in ms, of each source so far."""
        return {source: clock.acted_ms for source, clock in self._clocks.items()}

    def act(self, candles: Sequence[ReadyCandle], *, source: Source, listed: Collection[str]) -> int:
        """Act on `candles` in their order, in one transaction; pairs not `listed` are only left, never entered.

        Returns how many messages were put into the outbox.
        """
        with self._lock, one_line(), localcontext(rules.CONTEXT):
            try:
                before = self._next_message
                for candle in candles:
                    self._act(candle, listed)
                    self._tick(source, candle.date_ms)
                self._session.commit()
            except BaseException:
                self._session.rollback()
                raise
            self._forget_closed()
            return self._next_message - before

    def outgoing(self, limit: int) -> list[Outgoing]:
        """The oldest messages that wait to be published, at most `limit`."""
        query = select(OutboxEntry).where(OutboxEntry.refused.is_(None)).order_by(OutboxEntry.id).limit(limit)
        with self._lock, one_line(), Session(self._engine) as session:
            rows = session.scalars(query).all()
            return [Outgoing(row.id, row.topic, row.mid, json.loads(row.data)) for row in rows]

    def published(self, message_id: int) -> None:
        """A message is acknowledged: forget it."""
        with self._lock, one_line(), Session(self._engine) as session:
            session.execute(delete(OutboxEntry).where(OutboxEntry.id == message_id))
            session.commit()

    def refused(self, message_id: int, reason: str) -> None:
        """A message is turned down for good: keep it with the reason, publish it no more."""
        with self._lock, one_line(), Session(self._engine) as session:
            session.execute(update(OutboxEntry).where(OutboxEntry.id == message_id).values(refused=reason))
            session.commit()

    def summary(self) -> Summary:
        """How the bot stands, as of the last commit."""
        with self._lock, one_line(), Session(self._engine) as session:
            return Summary(
                name=self._settings.name,
                currency=self._wallet.currency,
                start=self._wallet.start,
                free=self._wallet.free,
                closed_profit=self._wallet.closed_profit,
                closed_trades=_count(session, Trade.is_open.is_(False)),
                open_trades=tuple(map(_position, sorted(self._open.values(), key=lambda trade: trade.id))),
                acted_ms=max((clock.acted_ms for clock in self._clocks.values()), default=None),
                skipped_entries=self._skipped,
                bad_rows=self._bad_rows,
                outbox=_count(session, OutboxEntry.refused.is_(None)),
                refused=_count(session, OutboxEntry.refused.is_not(None)),
            )

    def check_invariants(self) -> None:
        """Assert what the module's docstring promises."""
        with self._lock, localcontext(rules.CONTEXT):
            paid = sum((trade.paid for trade in self._open.values()), Decimal(0))
            wallet = self._wallet
            assert wallet.free >= 0, "1"
            assert wallet.free + paid == wallet.start + wallet.closed_profit, "1"
            slots = self._settings.max_open_trades
            assert slots is None or len(self._open) <= slots, "2"
            assert all(trade.is_open and trade.pair == pair for pair, trade in self._open.items()), "2"

    def _act(self, ready: ReadyCandle, listed: Collection[str]) -> None:
        rows = [(pair, candle) for pair, candle in ready.rows if candle.usable]
        self._bad_rows += len(ready.rows) - len(rows)
        signals = {pair: self._use_signal(pair) for pair, _ in rows}
        for pair, candle in rows:
            signal = signals[pair]
            if signal is not None and signal.side == "exit" and pair in self._open:
                self._leave(pair, rules.exact(candle.open), signal.tag or "exit_signal", ready.date_ms)
        for pair, candle in rows:
            signal = signals[pair]
            if signal is not None and signal.side == "entry" and pair not in self._open and pair in listed:
                self._enter(pair, rules.exact(candle.open), signal.tag, ready.date_ms)
        for pair, candle in rows:
            if pair in self._open:
                self._leave_within(pair, candle, ready.date_ms)
        for pair, candle in rows:
            self._note_signal(pair, candle, ready.date_ms)

    def _use_signal(self, pair: str) -> Signal | None:
        signal = self._signals.pop(pair, None)
        if signal is not None:
            self._drop(signal)
        return signal

    def _note_signal(self, pair: str, candle: Candle, date_ms: int) -> None:
        if candle.enter_long == candle.exit_long:
            return
        if candle.exit_long == (pair in self._open):
            side, tag = ("exit", candle.exit_tag) if candle.exit_long else ("entry", candle.enter_tag)
            self._signals[pair] = signal = Signal(pair=pair, side=side, tag=tag, candle_ms=date_ms)
            self._session.add(signal)

    def _drop(self, signal: Signal) -> None:
        if signal in self._session.new:
            self._session.expunge(signal)
        else:
            self._session.delete(signal)

    def _enter(self, pair: str, rate: Decimal, tag: str | None, date_ms: int) -> None:
        filled = self._size(pair, rate)
        if filled is None:
            self._skipped += 1
            return
        trade = Trade(
            id=self._next_trade,
            pair=pair,
            is_open=True,
            open_ms=date_ms,
            open_rate=rate,
            amount=filled.amount,
            stake_amount=filled.cost,
            paid=filled.cost + filled.fee,
            fee=self._settings.fee,
            stop_rate=rules.stop_rate(rate, self._settings.stoploss),
            enter_tag=tag,
        )
        self._next_trade += 1
        self._open[pair] = trade
        self._wallet.free -= trade.paid
        self._session.add(trade)
        self._record(trade, 1, "entry", date_ms, filled)
        self._tell(trade, 1, entry_messages(trade, self._settings))

    def _size(self, pair: str, rate: Decimal) -> rules.Fill | None:
        """What an entry would buy now; None when there is no slot, no money, or the pair costs another currency."""
        settings = self._settings
        if quote_of(pair, settings.stake_currency) != settings.stake_currency:
            if pair not in self._foreign:
                self._foreign.add(pair)
                log.warning("%s is not traded: stake_currency is %s", pair, settings.stake_currency)
            return None
        if settings.max_open_trades is not None and len(self._open) >= settings.max_open_trades:
            return None
        stake = rules.stake(
            wanted=settings.stake_amount,
            slots=settings.max_open_trades,
            equity=self._wallet.start + self._wallet.closed_profit,
            tied=sum((trade.paid for trade in self._open.values()), Decimal(0)),
            free=self._wallet.free,
            ratio=settings.tradable_ratio,
            fee=settings.fee,
        )
        amount = rules.amount_of(stake, rate)
        filled = rules.fill(amount, rate, settings.fee)
        return filled if filled.cost > 0 else None

    def _leave_within(self, pair: str, candle: Candle, date_ms: int) -> None:
        trade = self._open[pair]
        ratio = rules.roi_ratio(self._settings.minimal_roi, (date_ms - trade.open_ms) // _MINUTE_MS)
        roi = None if ratio is None else rules.roi_rate(trade.open_rate, ratio, trade.fee)
        leave = rules.leave_within(candle, stop=trade.stop_rate, roi=roi)
        if leave is not None:
            self._leave(pair, leave.rate, leave.reason, date_ms)

    def _leave(self, pair: str, rate: Decimal, reason: str, date_ms: int) -> None:
        trade = self._open.pop(pair)
        filled = rules.fill(trade.amount, rate, trade.fee)
        trade.is_open = False
        trade.close_ms = date_ms
        trade.close_rate = rate
        trade.received = filled.cost - filled.fee
        trade.profit = trade.received - trade.paid
        trade.profit_ratio = rules.profit_ratio(trade.profit, trade.paid)
        trade.exit_reason = reason
        self._wallet.free += trade.received
        self._wallet.closed_profit += trade.profit
        self._record(trade, 2, "exit", date_ms, filled)
        self._tell(trade, 2, exit_messages(trade, self._settings))

    def _record(self, trade: Trade, number: int, side: str, date_ms: int, filled: rules.Fill) -> None:
        self._session.add(
            Order(
                trade_id=trade.id,
                number=number,
                side=side,
                filled_ms=date_ms,
                rate=filled.rate,
                amount=filled.amount,
                cost=filled.cost,
                fee=filled.fee,
            )
        )

    def _tell(self, trade: Trade, number: int, messages: Sequence[tuple[str, dict[str, Any]]]) -> None:
        for topic, data in messages:
            # The same after every crash, and never that of another database of the same bot.
            mid = f"{self._wallet.instance}/{trade.id}/{number}/{topic}"
            self._session.add(
                OutboxEntry(id=self._next_message, topic=topic, mid=mid, data=json.dumps(data), refused=None)
            )
            self._next_message += 1

    def _tick(self, source: Source, date_ms: int) -> None:
        clock = self._clocks.get(source)
        if clock is None:
            self._clocks[source] = clock = Clock(
                producer=source.producer,
                bot=source.bot,
                timeframe=source.timeframe,
                candle_type=source.candle_type,
                acted_ms=date_ms,
            )
            self._session.add(clock)
        clock.acted_ms = date_ms

    def _forget_closed(self) -> None:
        """Closed trades, orders and messages would otherwise stay in the session's memory for ever."""
        kept = {*self._open.values(), *self._signals.values(), *self._clocks.values(), self._wallet}
        for row in [row for row in self._session if row not in kept]:
            self._session.expunge(row)


def _source_of(clock: Clock) -> Source:
    return Source(clock.producer, clock.bot, clock.timeframe, clock.candle_type)


def _position(trade: Trade) -> Position:
    return Position(
        trade.id,
        trade.pair,
        trade.open_ms,
        trade.open_rate,
        trade.amount,
        trade.stake_amount,
        trade.enter_tag,
    )


def _count(session: Session, condition: Any) -> int:
    return session.scalar(select(func.count()).where(condition)) or 0
