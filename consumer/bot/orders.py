"""Orders of a PaperBot: how they are placed, rest, fill, time out and are cancelled, and what each does to trade and wallet.

Theory of operation
-------------------
An order is filled wholly or not at all, in candle time. One of a signal or a rule is placed and filled at the same moment, so it
never rests. One of a person rests until the pair's next rows:

- at the market it fills at the open of the pair's next row, however long that takes. An entry buys there what its stake buys;
- with a limit it fills at the first later row that reaches its rate: a purchase whose rate is at or over the low, at the lower of
  rate and open; a sale whose rate is at or under the high, at the higher of both. What the open reaches fills at the open;
- a limit order that is older than `unfilledtimeout` when a candle begins is cancelled before it is tried again, as in freqtrade's
  backtest. So each order sees at least one candle. An entry takes its trade with it; after `exit_timeout_count` exits that
  timed out an exit at the market follows (emergency_exit).

A resting entry reserves stake and fee. It fills at its rate or lower (or, at the market, with the same stake), so it never costs more
than it reserved; the rest returns to the wallet. An entry whose cost would round to nothing is cancelled instead.

A part of a position costs its share of what the whole position cost, to 8 places; the last part costs all that is left. So the
profits of the parts add up to the profit of the trade, exactly.

Invariants
----------
1. A trade has at most one waiting order; a trade whose entry waits holds and ties nothing.
2. wallet.reserved is the sum of what waiting entries reserve.
3. Placing, filling and cancelling keep free + reserved + tied == start + closed_profit + realized profit of open trades.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from consumer.bot import fills, rules
from consumer.bot.candles import Candle
from consumer.bot.fills import Outcome
from consumer.bot.journal import Journal
from consumer.bot.models import Order, Trade
from consumer.bot.records import OrderStatus
from consumer.bot.settings import OrderKind, PaperSettings

__all__ = ["CancelReason", "Orders", "see"]

_NOTHING = Decimal(0)


class CancelReason:
    """freqtrade's words for why an order was cancelled."""

    TIMEOUT = "cancelled due to timeout"
    USER = "user requested order cancel"
    FORCE_EXIT = "forcesold"
    EXCHANGE = "cancelled on exchange"


class Orders:
    """Places, fills and cancels orders. Not thread-safe; changes the journal and leaves the commit to the book.

    Call it within `rules.CONTEXT`. Times are ms of candle time.
    """

    def __init__(self, journal: Journal, settings: PaperSettings) -> None:
        self._journal = journal
        self._settings = settings

    def available(self) -> Decimal:
        """What the tradable balance and the wallet allow to be paid now, fees included; may be under 0."""
        wallet, settings = self._journal.wallet, self._settings
        return rules.available(
            equity=self._journal.equity,
            tied=self._journal.tied,
            free=wallet.free,
            ratio=settings.tradable_ratio,
        )

    def default_stake(self) -> Decimal:
        """The stake of the next entry by the settings, without its fee; 0 when there is no money for it."""
        settings = self._settings
        return rules.stake(
            wanted=settings.stake_amount,
            slots=settings.max_open_trades,
            equity=self._journal.equity,
            tied=self._journal.tied,
            free=self._journal.wallet.free,
            ratio=settings.tradable_ratio,
            fee=settings.fee,
        )

    def rate_of(self, trade: Trade) -> Decimal:
        """The last close of the trade's pair; of one that had no candle yet the rate of its entry."""
        return self._journal.rates.get(trade.pair, trade.open_rate)

    @property
    def slot_free(self) -> bool:
        """Whether one more trade may be opened."""
        slots = self._settings.max_open_trades
        return slots is None or len(self._journal.open) < slots

    # --- placed and filled at the same moment

    def enter_now(self, pair: str, candle: Candle, tag: str | None, date_ms: int) -> Trade | None:
        """Enter at the open of `candle`; None when there is no money."""
        rate = rules.exact(candle.open)
        size = rules.fill(rules.amount_of(self.default_stake(), rate), rate, self._settings.fee)
        if size.cost <= 0:
            return None
        order_type = self._settings.order_types["entry"]
        trade = self.place_entry(pair, size, order_type=order_type, tag=tag, at_ms=date_ms, current_rate=rate)
        self._fill_entry(trade, rate, date_ms)
        return trade

    def leave_now(self, trade: Trade, rate: Decimal, reason: str, kind: OrderKind, date_ms: int) -> None:
        """Leave the whole position at `rate`."""
        order_type = self._settings.order_types[kind]
        self.place_exit(
            trade, trade.amount, rate, order_type=order_type, tag=reason, at_ms=date_ms, current_rate=rate
        )
        self._fill_exit(trade, rate, date_ms)

    # --- resting orders

    def place_entry(
        self,
        pair: str,
        size: rules.Fill,
        *,
        order_type: str,
        tag: str | None,
        at_ms: int,
        current_rate: Decimal,
    ) -> Trade:
        """A trade of which nothing is bought yet; `size` is what is to be bought, and its money is reserved."""
        settings, journal = self._settings, self._journal
        stop = rules.stop_rate(size.rate, settings.stoploss)
        trade = Trade(
            id=journal.wallet.next_trade,
            pair=pair,
            is_open=True,
            open_ms=at_ms,
            open_rate=size.rate,
            open_rate_requested=size.rate,
            amount=size.amount,
            amount_requested=size.amount,
            stake_amount=size.cost,
            max_stake_amount=size.cost,
            paid=_NOTHING,
            tied=_NOTHING,
            fee=settings.fee,
            fee_open_cost=_NOTHING,
            fee_close_cost=_NOTHING,
            stop_rate=stop,
            initial_stop_rate=stop,
            enter_tag=tag,
            last_order=0,
            exit_timeouts=0,
            received=_NOTHING,
            realized_profit=_NOTHING,
        )
        journal.wallet.next_trade += 1
        journal.open[pair] = trade
        journal.session.add(trade)
        order = self._place(
            trade, "entry", size.amount, size.rate, order_type=order_type, tag=tag, at_ms=at_ms
        )
        order.reserved = size.cost + size.fee
        journal.wallet.free -= order.reserved
        journal.wallet.reserved += order.reserved
        journal.tell(trade, order.number, [fills.entry(trade, order, settings, current_rate=current_rate)])
        return trade

    def place_exit(
        self,
        trade: Trade,
        amount: Decimal,
        rate: Decimal,
        *,
        order_type: str,
        tag: str,
        at_ms: int,
        current_rate: Decimal,
    ) -> None:
        """An order that sells `amount` of a position, all of it or less."""
        order = self._place(trade, "exit", amount, rate, order_type=order_type, tag=tag, at_ms=at_ms)
        trade.close_rate_requested = rate
        trade.exit_reason = tag
        trade.exit_order_status = ""
        told = fills.exit_placed(
            trade,
            order,
            self._settings,
            outcome=self._outcome(trade, amount, rate),
            current_rate=current_rate,
            partial=amount < trade.amount,
        )
        self._journal.tell(trade, order.number, [told])

    def cancel(self, trade: Trade, reason: str, at_ms: int) -> None:
        """Cancel the waiting order of a trade. The trade goes too when it was the entry."""
        order = self._journal.resting[trade.id]
        if order.side == "entry":
            self._cancel_entry(trade, order, reason)
        else:
            self._cancel_exit(trade, order, reason, at_ms)

    def release(self, order: Order) -> None:
        """Give back what a waiting entry order reserves."""
        wallet = self._journal.wallet
        wallet.free += order.reserved
        wallet.reserved -= order.reserved
        order.reserved = _NOTHING

    def time_out(self, date_ms: int) -> None:
        """Cancel what is too old when the candle `date_ms` begins."""
        timeout = self._settings.unfilled_timeout
        trades = {trade.id: trade for trade in self._journal.open.values()}
        for trade_id, order in sorted(self._journal.resting.items()):
            side: Literal["entry", "exit"] = "entry" if order.side == "entry" else "exit"
            if order.type == "limit" and date_ms - order.placed_ms > timeout.after_ms(side):
                self.cancel(trades[trade_id], CancelReason.TIMEOUT, date_ms)
                if side == "exit":
                    self._after_timeout(trades[trade_id], order, date_ms)

    def fill_at_open(self, trade: Trade, side: str, candle: Candle, date_ms: int) -> bool:
        """Fill the trade's waiting order of this side when the open of the pair's row does; whether it was filled."""
        order = self._journal.resting.get(trade.id)
        rate = rules.exact(candle.open)
        if order is None or order.side != side or not (order.type == "market" or _reached(order, rate)):
            return False
        self._fill(trade, order, rate, date_ms)
        return True

    def fill_within(self, trade: Trade, candle: Candle, date_ms: int) -> bool:
        """Fill the trade's waiting order when low or high of the pair's row reach its rate; whether it was filled."""
        order = self._journal.resting.get(trade.id)
        if order is None or order.type == "market":
            return False
        if not _reached(order, rules.exact(candle.low if order.side == "entry" else candle.high)):
            return False
        self._fill(trade, order, order.rate, date_ms)
        return True

    # --- their effects

    def _place(
        self,
        trade: Trade,
        side: Literal["entry", "exit"],
        amount: Decimal,
        rate: Decimal,
        *,
        order_type: str,
        tag: str | None,
        at_ms: int,
    ) -> Order:
        trade.last_order += 1
        verb = "buy" if side == "entry" else "sell"
        order = Order(
            trade_id=trade.id,
            number=trade.last_order,
            side=side,
            order_id=f"paper_{verb}_{trade.pair}_{trade.id}_{trade.last_order}",
            type=order_type,
            status=OrderStatus.OPEN.value,
            placed_ms=at_ms,
            rate=rate,
            amount=amount,
            filled=_NOTHING,
            cost=_NOTHING,
            fee=_NOTHING,
            reserved=_NOTHING,
            tag=tag,
        )
        self._journal.resting[trade.id] = order
        self._journal.session.add(order)
        return order

    def _fill(self, trade: Trade, order: Order, rate: Decimal, date_ms: int) -> None:
        if order.side == "entry":
            self._fill_entry(trade, rate, date_ms)
        else:
            self._fill_exit(trade, rate, date_ms)

    def _fill_entry(self, trade: Trade, rate: Decimal, date_ms: int) -> None:
        order = self._journal.resting[trade.id]
        amount = order.amount
        if order.type == "market" and rate != order.rate:
            # The stake is what a purchase at the market is of: at another rate it buys another amount.
            amount = rules.amount_of(trade.stake_amount, rate)
        filled = rules.fill(amount, rate, trade.fee)
        if filled.cost <= 0:
            self._cancel_entry(trade, order, CancelReason.EXCHANGE)
            return
        self.release(order)
        self._close(order, filled, date_ms)
        self._journal.wallet.free -= filled.cost + filled.fee
        trade.paid = trade.tied = filled.cost + filled.fee
        trade.amount = filled.amount
        trade.stake_amount = trade.max_stake_amount = filled.cost
        trade.open_rate, trade.open_fill_ms = rate, date_ms
        trade.fee_open_cost = filled.fee
        trade.stop_rate = trade.initial_stop_rate = rules.stop_rate(rate, self._settings.stoploss)
        trade.min_rate = trade.max_rate = rate
        self._journal.tell(
            trade, order.number, [fills.entry(trade, order, self._settings, current_rate=rate)]
        )

    def _fill_exit(self, trade: Trade, rate: Decimal, date_ms: int) -> None:
        order, wallet = self._journal.resting[trade.id], self._journal.wallet
        filled = rules.fill(order.amount, rate, trade.fee)
        outcome = self._outcome(trade, order.amount, rate)
        partial = order.amount < trade.amount
        self._close(order, filled, date_ms)
        see(trade, rate, rate)
        received = filled.cost - filled.fee
        wallet.free += received
        trade.received += received
        # What the amount cost: see `_outcome`.
        trade.tied -= received - outcome.profit
        trade.realized_profit += outcome.profit
        trade.fee_close_cost += filled.fee
        if partial:
            trade.amount -= order.amount
            trade.stake_amount = rules.fill(trade.amount, trade.open_rate, trade.fee).cost
        else:
            self._close_trade(trade, rate, date_ms)
        told = fills.exit_fill(trade, order, self._settings, outcome=outcome, partial=partial)
        self._journal.tell(trade, order.number, [told])
        # What is left is as if no exit had been asked for.
        if partial:
            trade.exit_reason = trade.close_rate_requested = None

    def _close(self, order: Order, filled: rules.Fill, date_ms: int) -> None:
        del self._journal.resting[order.trade_id]
        order.status = OrderStatus.CLOSED.value
        order.amount = order.filled = filled.amount
        order.average, order.cost, order.fee = filled.rate, filled.cost, filled.fee
        order.filled_ms = date_ms

    def _close_trade(self, trade: Trade, rate: Decimal, date_ms: int) -> None:
        del self._journal.open[trade.pair]
        trade.is_open = False
        trade.close_ms, trade.close_rate = date_ms, rate
        trade.profit = trade.realized_profit
        trade.profit_ratio = rules.profit_ratio(trade.profit, trade.paid)
        trade.exit_order_status = OrderStatus.CLOSED.value
        self._journal.wallet.closed_profit += trade.profit

    def _outcome(self, trade: Trade, amount: Decimal, rate: Decimal) -> Outcome:
        """What selling `amount` of the held one at `rate` brings."""
        filled = rules.fill(amount, rate, trade.fee)
        share = rules.share(trade.tied, amount, trade.amount)
        profit = filled.cost - filled.fee - share
        return Outcome(profit, rules.profit_ratio(profit, share))

    def _cancel_entry(self, trade: Trade, order: Order, reason: str) -> None:
        self.release(order)
        told = fills.entry_cancel(
            trade,
            order,
            self._settings,
            current_rate=self.rate_of(trade),
            reason=f"{reason}, fully cancelled",
        )
        self._journal.tell(trade, order.number, [told])
        self._journal.forget(trade)

    def _cancel_exit(self, trade: Trade, order: Order, reason: str, at_ms: int) -> None:
        rate = self.rate_of(trade)
        told = fills.exit_cancel(
            trade,
            order,
            self._settings,
            outcome=self._outcome(trade, order.amount, order.rate),
            current_rate=rate,
            partial=order.amount < trade.amount,
            reason=reason,
            at_ms=at_ms,
        )
        self._journal.tell(trade, order.number, [told])
        del self._journal.resting[trade.id]
        order.status = OrderStatus.CANCELED.value
        trade.exit_reason = trade.close_rate_requested = None
        trade.exit_order_status = reason

    def _after_timeout(self, trade: Trade, order: Order, date_ms: int) -> None:
        trade.exit_timeouts += 1
        most = self._settings.unfilled_timeout.exit_timeout_count
        if not most or trade.exit_timeouts < most:
            return
        self.place_exit(
            trade,
            trade.amount,
            order.rate,
            order_type=self._settings.order_types["emergency_exit"],
            tag="emergency_exit",
            at_ms=date_ms,
            current_rate=self.rate_of(trade),
        )


def see(trade: Trade, low: Decimal, high: Decimal) -> None:
    """A held position saw these rates."""
    if trade.min_rate is None or low < trade.min_rate:
        trade.min_rate = low
    if trade.max_rate is None or high > trade.max_rate:
        trade.max_rate = high


def _reached(order: Order, rate: Decimal) -> bool:
    """Whether a market at `rate` fills a limit order."""
    return rate <= order.rate if order.side == "entry" else rate >= order.rate
