"""What a person orders of a PaperBot: entries and exits, cancellations, locks, the blacklist, and whether it runs.

Every command is one transaction, from any thread, and is refused before it changes anything. Orders are of the moment of the last
candle acted on, so that the same commands at the same candles give the same trades. Texts and the order of checks are freqtrade's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import select

from consumer.bot import rules
from consumer.bot.bans import Bans
from consumer.bot.candles import LEAST_RATE, MOST_RATE
from consumer.bot.database import storable
from consumer.bot.fills import quote_of
from consumer.bot.journal import Journal
from consumer.bot.models import CustomDatum, Trade
from consumer.bot.orders import CancelReason, Orders
from consumer.bot.queries import Reading
from consumer.bot.records import BlacklistRecord, BotState, LockRecord, TradeRecord
from consumer.bot.settings import PaperSettings
from hub.protocol.botapi import BotError, NotFound

__all__ = ["Commands"]

MOST_DATA, LONGEST_VALUE, LONGEST_TEXT = 100, 16 * 1024, 255
"""Of custom data: keys of a trade, bytes of a value as JSON; and characters of a key or a tag."""

# What MOST_MONEY buys at LEAST_RATE.
_MOST_AMOUNT = Decimal("1e35")
_NOT_RUNNING = "trader is not running"
_CHANGED = {BotState.RUNNING: "started", BotState.PAUSED: "paused", BotState.STOPPED: "stopped"}


class Commands:
    """The commands of a book.

    Raises:
        BotError: from any, when it is refused; nothing has changed then.
        DatabaseFailed: from any (see `Book`).
    """

    _settings: PaperSettings
    _journal: Journal
    _orders: Orders
    _bans: Bans
    _listed: tuple[str, ...]

    def _transaction(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    # --- trades

    def force_enter(
        self,
        pair: str,
        *,
        side: Literal["long", "short"] = "long",
        price: float | Decimal | None = None,
        order_type: str | None = None,
        stake: float | Decimal | None = None,
        tag: str | None = None,
        leverage: float | None = None,
    ) -> TradeRecord:
        """Place an entry order, which rests until the pair's next rows (`orders`); the trade that it begins.

        `price` is the limit of a limit order (default: the last close); `order_type` is market or limit (default: that of
        `order_types.force_entry`). `stake` is in quote currency without the fee (default: that of the settings), and is cut to
        what is available, as in freqtrade, but not to under a hundredth. `tag` is "force_entry" by default. `leverage` means
        nothing in spot. Locks and the blacklist are for signals only.
        """
        with self._transaction():
            self._check_entry(pair, side)
            rate = self._rate(pair, price)
            size = rules.fill(rules.amount_of(self._stake(stake), rate), rate, self._settings.fee)
            if size.cost <= 0:
                raise BotError(f"Failed to enter position for {pair}.")
            self._journal.note(f"{pair}: entry forced by a person")
            trade = self._orders.place_entry(
                pair,
                size,
                order_type=_order_type(order_type, self._settings.order_types["force_entry"]),
                tag=_tag(tag),
                at_ms=self._now(),
                current_rate=self._journal.rates.get(pair, rate),
            )
            return self._record(trade)

    def force_exit(
        self,
        trade_id: int | None,
        *,
        order_type: str | None = None,
        amount: float | Decimal | None = None,
        price: float | Decimal | None = None,
    ) -> None:
        """Place an exit order of a trade, or of all that are open (None), which rests until the pair's next rows.

        A waiting exit is replaced; an entry that waits is cancelled instead, and its trade is gone. `amount` (of one trade) leaves
        that part, in base currency, all of it when it is as much as is held. `price` is the limit of a limit order (default: the
        last close).
        """
        with self._transaction():
            if self._journal.state is BotState.STOPPED:
                raise BotError(_NOT_RUNNING)
            kind = _order_type(order_type, self._settings.order_types["force_exit"])
            if trade_id is None:
                for trade in sorted(self._journal.open.values(), key=lambda trade: trade.id):
                    self._exit(trade, trade.amount, self._orders.rate_of(trade), kind)
                return
            found = self._journal.open_trade(trade_id)
            if found is None:
                raise BotError("invalid argument")
            rate = self._orders.rate_of(found) if price is None else self._rate(found.pair, price)
            self._exit(found, self._exit_amount(found, amount, rate), rate, kind)

    def cancel_open_order(self, trade_id: int) -> TradeRecord:
        """Cancel the waiting order of an open trade.

        Returns the trade as it is then. When its entry never was filled the trade is gone: what is returned is what it was,
        no longer open, its order canceled.
        """
        with self._transaction():
            if self._journal.state is BotState.STOPPED:
                raise BotError(_NOT_RUNNING)
            trade = self._journal.open_trade(trade_id)
            if trade is None:
                raise BotError("Invalid trade_id.")
            order = self._journal.resting.get(trade_id)
            if order is None:
                raise BotError("No open order for trade_id.")
            if order.side == "exit":
                self._orders.cancel(trade, CancelReason.USER, self._now())
                return self._record(trade)
            order.status, trade.is_open = "canceled", False
            gone = self._record(trade)
            self._orders.cancel(trade, CancelReason.USER, self._now())
            return gone

    def delete_trade(self, trade_id: int) -> int:
        """Forget a trade, open or closed, with all that it did to the money. Returns how many open orders went with it.

        Nothing is sold and nothing is told to consumers, as in freqtrade.
        """
        with self._transaction():
            journal, wallet = self._journal, self._journal.wallet
            trade = journal.open_trade(trade_id) or self._stored(trade_id)
            if trade is None:
                raise BotError("invalid argument")
            order = journal.resting.get(trade_id)
            reserved = Decimal(0) if order is None else order.reserved
            if wallet.free + reserved + trade.paid - trade.received < 0:
                raise BotError(f"trade {trade_id} cannot be deleted: the wallet no longer holds its profit")
            if order is not None:
                self._orders.release(order)
            wallet.free += trade.paid - trade.received
            wallet.closed_profit -= trade.profit or 0
            journal.forget(trade)
            journal.note(f"{trade.pair}, trade {trade_id}: deleted by a person")
            return int(order is not None)

    def reload_trade(self, trade_id: int) -> TradeRecord:
        """The trade as the database has it: a dry run has no exchange that knows more."""
        with self._transaction():
            record = self._reading().trade(trade_id)
            if record is None:
                raise BotError(f"Could not find trade with id {trade_id}.")
            return record

    def set_custom_data(self, trade_id: int, key: str, value: Any) -> None:
        """Keep a value with a trade; it replaces that of the same key.

        Raises:
            NotFound: no such trade.
            ValueError: not plain JSON, or more than LONGEST_VALUE bytes of it, or a key that cannot be.
            BotError: the trade has MOST_DATA keys already.
        """
        text = _json(value)
        if not 0 < len(key) <= LONGEST_TEXT or not storable(key):
            raise ValueError(f"expected a key of 1 to {LONGEST_TEXT} characters, none of them null")
        with self._transaction():
            session = self._journal.session
            if self._stored(trade_id) is None:
                raise NotFound("Trade not found.")
            kept = session.scalars(select(CustomDatum).where(CustomDatum.trade_id == trade_id)).all()
            datum = next((datum for datum in kept if datum.key == key), None)
            if datum is not None:
                datum.value, datum.updated_ms = text, self._now()
                return
            if len(kept) >= MOST_DATA:
                raise BotError(f"trade {trade_id} has {MOST_DATA} custom data already")
            datum = CustomDatum(
                trade_id=trade_id, key=key, value=text, created_ms=self._now(), updated_ms=None
            )
            session.add(datum)

    # --- pairs

    def add_lock(
        self, pair: str, until_ms: int, side: str = "*", reason: str | None = None
    ) -> tuple[LockRecord, ...]:
        """Lock a pair (or `*`) for a side (long, short, `*`) until a moment of candle time; the locks that hold then."""
        with self._transaction():
            self._bans.lock(pair, until_ms, side, reason)
            return self._reading().locks()

    def delete_lock(self, lock_id: int) -> tuple[LockRecord, ...]:
        """Take a lock off, if it is there; the locks that hold then."""
        with self._transaction():
            self._bans.unlock([lock_id])
            return self._reading().locks()

    def delete_locks(self, pair: str) -> tuple[LockRecord, ...]:
        """Take the locks of exactly this pair off; the locks that hold then."""
        with self._transaction():
            self._bans.unlock(self._bans.locks_of(pair))
            return self._reading().locks()

    def add_to_blacklist(self, entries: Iterable[str]) -> BlacklistRecord:
        """Add entries; the blacklist then, with a reason for each that was refused."""
        with self._transaction():
            errors = self._bans.add(entries)
            return self._bans.blacklist(self._known(), errors)

    def delete_from_blacklist(self, entries: Iterable[str]) -> BlacklistRecord:
        """Take entries off, also those of the settings; the blacklist then, with a reason for each that was refused."""
        with self._transaction():
            errors = self._bans.remove(entries)
            return self._bans.blacklist(self._known(), errors)

    # --- control

    def set_state(self, state: BotState) -> BotState:
        """Run, pause or stop from the next candle on; returns the state before. What waits goes on waiting while stopped."""
        with self._transaction():
            before = self._journal.state
            if before is not state:
                self._journal.note(f"{_CHANGED[state]} by a person")
            self._journal.wallet.state = state.value
            return before

    # --- checks

    def _check_entry(self, pair: str, side: str) -> None:
        settings, journal = self._settings, self._journal
        if not settings.force_entry:
            raise BotError("Force_entry not enabled.")
        if journal.state is not BotState.RUNNING:
            raise BotError(_NOT_RUNNING)
        if side == "short":
            raise BotError("Can't go short on Spot markets.")
        if pair not in self._listed and pair not in journal.rates:
            raise BotError("Symbol does not exist or market is not active.")
        if quote_of(pair, settings.stake_currency) != settings.stake_currency:
            raise BotError(
                f"Wrong pair selected. Only pairs with stake-currency {settings.stake_currency} allowed."
            )
        if pair in journal.open:
            raise BotError(f"position for {pair} already open - id: {journal.open[pair].id}")
        if not self._orders.slot_free:
            raise BotError("Maximum number of trades is reached.")

    def _stake(self, wanted: float | Decimal | None) -> Decimal:
        if not wanted:
            return self._orders.default_stake()
        stake = _decimal(wanted, "stakeamount")
        most = rules.affordable(self._orders.available(), self._settings.fee)
        # What rounding left over is no stake.
        return min(stake, most) if most * 100 >= stake else Decimal(0)

    def _rate(self, pair: str, price: float | Decimal | None) -> Decimal:
        if price is None:
            rate = self._journal.rates.get(pair)
            if rate is None:
                raise BotError(f"no candle of {pair} has been seen yet: a price is needed")
            return rate
        rate = _decimal(price, "price")
        if not LEAST_RATE <= rate <= MOST_RATE:
            raise BotError(f"expected a price from {LEAST_RATE} to {MOST_RATE}, got {price}")
        return rate

    def _exit_amount(self, trade: Trade, wanted: float | Decimal | None, rate: Decimal) -> Decimal:
        if wanted is None:
            return trade.amount
        amount = rules.base_amount(_decimal(wanted, "amount", _MOST_AMOUNT))
        if amount >= trade.amount:
            return trade.amount
        if not amount:
            raise BotError(f"expected an amount of at least 0.00000001, got {wanted}")
        remaining = rules.fill(trade.amount - amount, rate, trade.fee).cost
        if remaining < rules.LEAST_MONEY:
            raise BotError(f"Remaining amount of {remaining} would be too small.")
        return amount

    def _exit(self, trade: Trade, amount: Decimal, rate: Decimal, order_type: str) -> None:
        now = self._now()
        if trade.id in self._journal.resting:
            self._orders.cancel(trade, CancelReason.FORCE_EXIT, now)
        if trade.open_fill_ms is None:
            return
        self._orders.place_exit(
            trade,
            amount,
            rate,
            order_type=order_type,
            tag="force_exit",
            at_ms=now,
            current_rate=self._journal.rates.get(trade.pair, rate),
        )

    def _now(self) -> int:
        now = self._journal.now_ms
        if now is None:
            raise BotError("no candle has been seen yet")
        return now

    def _known(self) -> list[str]:
        return list(dict.fromkeys((*self._listed, *self._journal.rates)))

    def _stored(self, trade_id: int) -> Trade | None:
        # A number that SQLite has no room for would be an error of the database.
        return self._journal.session.get(Trade, trade_id) if 0 < trade_id < 2**63 else None

    def _record(self, trade: Trade) -> TradeRecord:
        record = self._reading().trade(trade.id)
        assert record is not None
        return record

    def _reading(self) -> Reading:
        """The database as it will be once this transaction is committed."""
        self._journal.session.flush()
        return Reading(self._journal.session.connection())


def _decimal(value: float | Decimal, name: str, most: Decimal = rules.MOST_MONEY) -> Decimal:
    try:
        number = value if isinstance(value, Decimal) else rules.exact(float(value))
    except OverflowError:
        number = Decimal("inf")
    if not (number.is_finite() and 0 < number <= most):
        raise BotError(f"expected a number over 0 and at most {most} as {name}")
    return number


def _order_type(wanted: str | None, default: str) -> str:
    if wanted not in (None, "market", "limit"):
        raise BotError("expected market or limit as the type of an order")
    return default if wanted is None else str(wanted)


def _tag(tag: str | None) -> str:
    if len(tag or "") > LONGEST_TEXT:
        raise BotError(f"expected a tag of at most {LONGEST_TEXT} characters")
    if not storable(tag or ""):
        raise BotError("expected a tag without a null character")
    return tag or "force_entry"


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, RecursionError, UnicodeEncodeError) as error:
        raise ValueError(f"expected plain JSON: {error}") from None
    if size > LONGEST_VALUE:
        raise ValueError(f"expected at most {LONGEST_VALUE} bytes of JSON, got {size}")
    return text
