"""The book of a PaperBot: acts on candles and commands, and writes every effect in the same transaction.

Theory of operation
-------------------
The state (wallet, open trades, waiting orders and signals, locks, clock) lives in the rows of the database; the `journal` keeps
those that can still change in memory. `act` takes candles in the order of the clock, changes state and commits once: trades,
orders, wallet, signals, the clock, and in the outbox the messages that tell of it. A kill before the commit leaves nothing, and
the candles come again from the producer's snapshot; a kill after it leaves everything, and the clock skips the candles. A
command of a person (`commands`) is such a transaction too, between two candles. Readers (`queries`) have transactions of their own.

Within a candle these rounds go over the pairs, each in pair order, so that nothing uses what comes later in time:

1. when it begins: waiting orders that are too old are cancelled (`orders`)
2. at the open: exits that wait or that the previous candle of the pair asked for (they free money and slots), then entries
3. within the candle: waiting limit orders, then stoploss, then ROI, also of positions entered at this open, as freqtrade's
   backtest does. While an order of a trade waits no rule places another; in a candle within which an order was filled only the
   stoploss is looked at, since the high may have come before
4. at the close: the signals of the row, carried out at the open of the pair's next row, whenever that is

A row with enter_long and exit_long together asks for nothing, as in freqtrade. A signal is used up by the pair's next row: an
entry without a free slot, without money, of a locked or blacklisted pair or while paused is skipped and counted. A row without
usable rates is skipped, counted, and uses up nothing. Orders within a candle are dated at its beginning, as freqtrade dates them.
While stopped candles only move the clock and the rates: signals are dropped and orders wait.

Invariants
----------
1. wallet.free >= 0, and free + reserved + what open trades tie == start + closed_profit + what open trades realized, exactly.
2. At most one open trade per pair, at most `max_open_trades` in all, those whose entry waits included.
3. Trade numbers rise by one in the order of entries and never come again; same candles and commands, same numbers.
4. What is in memory is what the last commit wrote (`Journal.check`), and orders keep theirs (`orders`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, localcontext
from threading import RLock
from typing import Any, TypeVar

import msgspec
from sqlalchemy import StaticPool, delete, func, select, update
from sqlalchemy.orm import Session

from consumer.bot import orders, rules
from consumer.bot.bans import Bans
from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.commands import Commands
from consumer.bot.database import DatabaseFailed, one_line, open_database
from consumer.bot.fills import quote_of
from consumer.bot.journal import Journal, Source
from consumer.bot.models import OutboxEntry, Signal, Trade
from consumer.bot.narration import narrated
from consumer.bot.orders import Orders
from consumer.bot.queries import Queries, Reading
from consumer.bot.records import BlacklistRecord, BotState, TradeRecord
from consumer.bot.settings import OrderKind, PaperSettings
from consumer.keyed import KeyedCall
from hub.protocol.botapi import BotError, NotFound, refusal

__all__ = ["Book", "Outgoing", "Position", "Source", "Summary"]

log = logging.getLogger(__name__)

_MINUTE_MS = 60_000
Answer = TypeVar("Answer")


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


class Book(Queries, Commands):
    """The trades of one bot. Every method is atomic and may be called from any thread; one book per database.

    Raises:
        ConfigError: the database cannot be used (see `database`).
        DatabaseFailed: from any method. Once a transaction failed state in memory is not to be trusted, so that every later one
            fails too: the book is to be closed.

    `on_outgoing` is called after each commit that put messages into the outbox, in the thread of the caller.
    """

    def __init__(self, settings: PaperSettings) -> None:
        self.on_outgoing: Callable[[], None] | None = None
        self._settings = settings
        # Of one thread within `reading` of a database in memory a second use fails instead of waiting for ever.
        self._lock = RLock()
        self._engine = open_database(settings.db_url)
        self._session = Session(self._engine, expire_on_commit=False, autoflush=False)
        try:
            with one_line():
                self._journal = Journal(self._session, settings)
        except BaseException:
            self.close()
            raise
        self._orders = Orders(self._journal, settings)
        self._bans = Bans(self._journal, settings)
        self._failed = False
        self._within_once = False
        self._kept: dict[int, TradeRecord] = {}
        self._listed: tuple[str, ...] = ()
        self._skipped = 0
        self._bad_rows = 0
        self._foreign: set[str] = set()

    def close(self) -> None:
        """Release the database."""
        with self._lock:
            self._session.close()
            self._engine.dispose()

    @property
    def sources(self) -> dict[Source, int]:
        """The last candle acted on, in ms, of each source so far."""
        return {source: clock.acted_ms for source, clock in self._journal.clocks.items()}

    @property
    def revision(self) -> int:
        """Rises with every commit that changes anything that is told; asks no database."""
        return self._journal.revision

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Several answers of the same commit: `with book.reading() as reading: ...`. Do not call the book within it."""
        if isinstance(self._engine.pool, StaticPool):
            # A database in memory has one connection for all.
            with self._lock, self._read() as reading:
                yield reading
        else:
            with self._read() as reading:
                yield reading

    def blacklist(self) -> BlacklistRecord:
        """The blacklist, and which known pairs it matches: those that are listed or ever had a row."""
        with self._lock:
            return self._bans.blacklist(self._known())

    def act(self, candles: Sequence[ReadyCandle], *, source: Source, listed: Collection[str]) -> int:
        """Act on `candles` in their order, in one transaction; pairs not `listed` are only left, never entered.

        Returns how many messages were put into the outbox.
        """
        with self._transaction():
            before = self._journal.next_message
            self._listed = tuple(listed)
            for candle in candles:
                self._act(candle, source, listed)
            return self._journal.next_message - before

    def once(self, call: KeyedCall, now_ms: int, deed: Callable[[], Answer]) -> Answer:
        """Do a deed, of commands of this book, in one transaction that keeps its answer too, a refusal among them.

        Raises what the deed raises; a refusal of a later command leaves those before it done, as without a call.
        """
        refused: BotError | NotFound | None = None
        with self._transaction():
            self._within_once = True
            try:
                answer = deed()
                status, body = 200, msgspec.json.encode(answer)
            except (BotError, NotFound) as error:
                refused, told = error, refusal(error, call.path)
                status, body = told.status, msgspec.json.encode(told.body)
            finally:
                self._within_once = False
            self._journal.keep_answer(call.id, status, body.decode(), now_ms)
        if refused is not None:
            raise refused
        return answer

    def answered(self, call: KeyedCall, now_ms: int) -> tuple[int, str] | None:
        """The status and JSON body that `once` kept, within KEY_S before `now_ms`."""
        with self._lock, one_line(), Session(self._engine) as session:
            return self._journal.answered(session, call.id, now_ms)

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
        """How the bot stands, as of the last commit. A trade whose entry waits is not told."""
        journal = self._journal
        with self._lock, one_line(), Session(self._engine) as session:
            held = [trade for trade in journal.open.values() if trade.open_fill_ms is not None]
            return Summary(
                name=self._settings.name,
                currency=journal.wallet.currency,
                start=journal.wallet.start,
                free=journal.wallet.free,
                closed_profit=journal.wallet.closed_profit,
                closed_trades=_count(session, Trade.is_open.is_(False)),
                open_trades=tuple(map(_position, sorted(held, key=lambda trade: trade.id))),
                acted_ms=max((clock.acted_ms for clock in journal.clocks.values()), default=None),
                skipped_entries=self._skipped,
                bad_rows=self._bad_rows,
                outbox=_count(session, OutboxEntry.refused.is_(None)),
                refused=_count(session, OutboxEntry.refused.is_not(None)),
            )

    def check_invariants(self) -> None:
        """Assert what the module's docstring promises."""
        with self._lock, localcontext(rules.CONTEXT):
            journal, wallet = self._journal, self._journal.wallet
            held = sum((trade.tied for trade in journal.open.values()), Decimal(0))
            assert wallet.free >= 0, "1"
            assert wallet.free + wallet.reserved + held == journal.equity, "1"
            slots = self._settings.max_open_trades
            assert slots is None or len(journal.open) <= slots, "2"
            assert all(trade.id < wallet.next_trade for trade in journal.open.values()), "3"
            journal.check()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, one_line(), localcontext(rules.CONTEXT):
            if self._failed:
                raise DatabaseFailed("the bot's database: an earlier transaction failed")
            if self._within_once:
                with self._part():
                    yield
                return
            before = self._journal.next_message
            try:
                yield
                self._journal.commit()
            except BaseException as error:
                unchanged = not any((self._session.dirty, self._session.new, self._session.deleted))
                if isinstance(error, BotError | NotFound) and unchanged:
                    # A refusal: this only ends the transaction of what was read.
                    self._session.commit()
                else:
                    self._failed = True
                    self._session.rollback()
                self._journal.told.clear()
                raise
            self._narrate()
            if self.on_outgoing is not None and self._journal.next_message > before:
                self.on_outgoing()

    @contextmanager
    def _part(self) -> Iterator[None]:
        """A command of a larger transaction, which ends it; what it said before it was refused is not told."""
        told = len(self._journal.told)
        try:
            yield
        except (BotError, NotFound):
            del self._journal.told[told:]
            raise

    def _narrate(self) -> None:
        """Say in the log what was committed."""
        told, self._journal.told = self._journal.told, []
        if told and log.isEnabledFor(logging.INFO):
            for line in narrated(told):
                log.info("%s", line)

    @contextmanager
    def _read(self) -> Iterator[Reading]:
        with one_line(), self._engine.connect() as connection:
            if connection.dialect.name != "sqlite":
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield Reading(connection, self._kept)

    def _act(self, ready: ReadyCandle, source: Source, listed: Collection[str]) -> None:
        rows = [(pair, candle) for pair, candle in ready.rows if candle.usable]
        self._bad_rows += len(ready.rows) - len(rows)
        signals = {pair: self._use_signal(pair) for pair, _ in rows}
        if self._journal.state is not BotState.STOPPED:
            self._trade(rows, signals, listed, ready.date_ms)
        for pair, candle in rows:
            self._journal.note_rate(pair, rules.exact(candle.close))
        self._journal.tick(source, ready.date_ms)
        if self._journal.total_due:
            self._journal.note_total(self._worth())

    def _trade(
        self,
        rows: Sequence[tuple[str, Candle]],
        signals: Mapping[str, Signal | None],
        listed: Collection[str],
        date_ms: int,
    ) -> None:
        self._orders.time_out(date_ms)
        for pair, candle in rows:
            self._leave_at_open(pair, candle, signals[pair], date_ms)
        for pair, candle in rows:
            self._enter_at_open(pair, candle, signals[pair], listed, date_ms)
        for pair, candle in rows:
            trade = self._journal.open.get(pair)
            if trade is not None:
                self._within(trade, candle, date_ms)
        for pair, candle in rows:
            self._note_signal(pair, candle, date_ms)

    def _use_signal(self, pair: str) -> Signal | None:
        signal = self._journal.signals.pop(pair, None)
        if signal is not None:
            self._journal.drop(signal)
        return signal

    def _note_signal(self, pair: str, candle: Candle, date_ms: int) -> None:
        if candle.enter_long == candle.exit_long:
            return
        if candle.exit_long == (pair in self._journal.open):
            side, tag = ("exit", candle.exit_tag) if candle.exit_long else ("entry", candle.enter_tag)
            signal = Signal(pair=pair, side=side, tag=tag, candle_ms=date_ms)
            self._journal.signals[pair] = signal
            self._session.add(signal)

    def _leave_at_open(self, pair: str, candle: Candle, signal: Signal | None, date_ms: int) -> None:
        trade = self._journal.open.get(pair)
        if trade is None:
            return
        self._orders.fill_at_open(trade, "exit", candle, date_ms)
        # A person's exit may have been of a part: the signal is for what is left.
        free = trade.is_open and trade.id not in self._journal.resting
        if signal is not None and signal.side == "exit" and free:
            rate = rules.exact(candle.open)
            self._orders.leave_now(trade, rate, signal.tag or "exit_signal", "exit", date_ms)

    def _enter_at_open(
        self, pair: str, candle: Candle, signal: Signal | None, listed: Collection[str], date_ms: int
    ) -> None:
        trade = self._journal.open.get(pair)
        if trade is not None:
            self._orders.fill_at_open(trade, "entry", candle, date_ms)
        elif signal is not None and signal.side == "entry" and pair in listed:
            entered = self._may_enter(pair, date_ms) and self._orders.enter_now(
                pair, candle, signal.tag, date_ms
            )
            self._skipped += not entered

    def _may_enter(self, pair: str, date_ms: int) -> bool:
        """Whether a signal may enter a pair: running, nothing forbids it, a free slot, and it costs our currency."""
        settings = self._settings
        if quote_of(pair, settings.stake_currency) != settings.stake_currency:
            if pair not in self._foreign:
                self._foreign.add(pair)
                log.warning("%s is not traded: stake_currency is %s", pair, settings.stake_currency)
            return False
        running = self._journal.state is BotState.RUNNING
        return running and not self._bans.forbids(pair, date_ms) and self._orders.slot_free

    def _within(self, trade: Trade, candle: Candle, date_ms: int) -> None:
        at_open = trade.open_fill_ms is not None
        filled = self._orders.fill_within(trade, candle, date_ms)
        if trade.open_fill_ms is None:
            return
        leave = None
        if trade.is_open and trade.id not in self._journal.resting:
            roi = None if filled else self._roi(trade, date_ms)
            leave = rules.leave_within(candle, stop=trade.stop_rate, roi=roi)
        self._watch(trade, candle, at_open=at_open, to_close=trade.is_open and leave is None)
        if leave is not None:
            kind: OrderKind = "stoploss" if leave.reason == "stop_loss" else "exit"
            self._orders.leave_now(trade, leave.rate, leave.reason, kind, date_ms)

    def _roi(self, trade: Trade, date_ms: int) -> Decimal | None:
        assert trade.open_fill_ms is not None
        age = (date_ms - trade.open_fill_ms) // _MINUTE_MS
        ratio = rules.roi_ratio(self._settings.minimal_roi, age)
        return None if ratio is None else rules.roi_rate(trade.open_rate, ratio, trade.fee)

    def _watch(self, trade: Trade, candle: Candle, *, at_open: bool, to_close: bool) -> None:
        """Keep the lowest and highest rate that a position surely saw: held since the open, up to the close, or both.

        Of a candle within which it was entered the high may have come before, of one within which it was left both may have come
        after; the rates of its own orders count anyway.
        """
        if to_close:
            orders.see(trade, rules.exact(candle.low), rules.exact(candle.high if at_open else candle.close))
        elif at_open:
            orders.see(trade, rules.exact(candle.open), rules.exact(candle.open))

    def _worth(self) -> Decimal:
        """Money and what is held, at the last close of each pair."""
        journal = self._journal
        held = [trade for trade in journal.open.values() if trade.open_fill_ms is not None]
        values = [rules.fill(t.amount, journal.rates.get(t.pair, t.open_rate), t.fee).cost for t in held]
        return journal.wallet.free + journal.wallet.reserved + sum(values, Decimal(0))


def _position(trade: Trade) -> Position:
    assert trade.open_fill_ms is not None
    return Position(
        trade.id,
        trade.pair,
        trade.open_fill_ms,
        trade.open_rate,
        trade.amount,
        trade.stake_amount,
        trade.enter_tag,
    )


def _count(session: Session, condition: Any) -> int:
    return session.scalar(select(func.count()).where(condition)) or 0
