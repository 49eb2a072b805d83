"""A state machine over the book: candles, signals, people and kills in any order."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.bot.book import Book
from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.journal import Journal
from consumer.bot.records import BotState, OrderStatus, TradeRecord
from consumer.bot.settings import PaperSettings
from hub.protocol.botapi import BotError
from tests.consumer.bot.desk import SOURCE
from tests.consumer.bot.replay import PAIRS, STEP_MS, at

CONFIG: dict[str, Any] = {
    "dry_run_wallet": 1000,
    "stake_currency": "USD",
    "fee": 0.001,
    "stoploss": -0.2,
    "minimal_roi": {"0": 0.3},
    "force_entry_enable": True,
    "unfilledtimeout": {"entry": 45, "exit": 45, "exit_timeout_count": 2},
    "exchange": {"pair_blacklist": ["NONE/.*"]},
}
CONFIGS = [
    {"stake_amount": "unlimited", "max_open_trades": 2},
    {"stake_amount": 300, "max_open_trades": -1, "tradable_balance_ratio": 0.7},
    {"stake_amount": "unlimited", "max_open_trades": 3, "fee": 0, "order_types": {"force_exit": "limit"}},
]

Command = Callable[[Book], Any]
rates = st.sampled_from(["0.5", "0.9", "0.95", "1", "1.04", "1.1", "1.6"]).map(Decimal)
kinds = st.sampled_from([None, "market", "limit"])
bodies = st.tuples(rates, rates, rates, rates).map(sorted)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Candle]:
    """A candle of some of the pairs, around 100, and now and then one that cannot be traded on."""
    made: dict[str, Candle] = {}
    for pair in draw(st.lists(st.sampled_from(PAIRS), unique=True)):
        low, first, second, high = (float(100 * rate) for rate in draw(bodies))
        if draw(st.booleans()):
            first, second = second, first
        side = draw(st.sampled_from(["", "", "enter", "exit"]))
        made[pair] = Candle(first, high, low, second, enter_long=side == "enter", exit_long=side == "exit")
        if draw(st.integers(0, 19)) == 0:
            made[pair] = made[pair]._replace(low=float("nan"))
    return made


class Killed(BaseException):
    """The process died."""


class BookMachine(RuleBasedStateMachine):
    """Runs each step on a book in a file, keeps it, and does all again on a book in memory at the end."""

    @initialize(config=st.sampled_from(CONFIGS))
    def open(self, config: dict[str, Any]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.config = {**CONFIG, **config}
        self.path = self.folder / "a.sqlite"
        self.copies = 0
        self.next = 0
        self.steps: list[Command] = []
        self.book = self.new_book(f"sqlite:///{self.path}")
        self.steps_done(lambda book: act(book, 0, dict.fromkeys(PAIRS, Candle(100.0, 100.0, 100.0, 100.0))))
        self.next = 1

    def new_book(self, url: str) -> Book:
        config = {**self.config, "db_url": url}
        return Book(PaperSettings.from_config(config, name="paper", data_dir=self.folder))

    def steps_done(self, step: Command) -> None:
        """Do a step, and once more after a kill in the middle of it, as a producer or a person would."""
        self.steps.append(step)
        done(self.book, step)

    @rule(rows=rows())
    def candle(self, rows: dict[str, Candle]) -> None:
        index = self.next
        self.next += 1
        self.steps_done(lambda book: act(book, index, rows))

    @rule(rows=rows())
    def killed_within_a_candle(self, rows: dict[str, Candle]) -> None:
        before = told(self.book)
        commit, Journal.commit = Journal.commit, killed  # type: ignore[method-assign]
        try:
            act(self.book, self.next, rows)
        except Killed:
            pass
        finally:
            Journal.commit = commit  # type: ignore[method-assign]
        self.kill()
        assert told(self.book) == before
        self.candle_again(rows)

    def candle_again(self, rows: dict[str, Candle]) -> None:
        index = self.next
        self.next += 1
        self.steps_done(lambda book: act(book, index, rows))

    @rule()
    def kill(self) -> None:
        """Leave the book as it stands, and open what is on the disk."""
        left, self.copies = self.book, self.copies + 1
        path = self.folder / f"{self.copies}.sqlite"
        for ending in ("", "-wal"):
            if (found := Path(f"{self.path}{ending}")).exists():
                shutil.copy(found, f"{path}{ending}")
        self.path = path
        self.book = self.new_book(f"sqlite:///{path}")
        left.close()

    @rule(
        pair=st.sampled_from((*PAIRS, "NO/USD", "BTC/EUR")),
        kind=kinds,
        price=st.none() | rates,
        stake=st.none() | st.sampled_from([0.001, 50, 400.5, 1e9]),
    )
    def enter(self, pair: str, kind: str | None, price: Decimal | None, stake: float | None) -> None:
        rate = None if price is None else price * 100
        self.steps_done(lambda book: book.force_enter(pair, price=rate, order_type=kind, stake=stake))

    def one(self, number: int) -> int:
        """The number of an open trade, or of none."""
        trades = self.book.open_trades()
        return trades[number % len(trades)].id if trades else number

    @rule(
        number=st.integers(0, 5), kind=kinds, part=st.none() | st.floats(0.01, 1.2), price=st.none() | rates
    )
    def leave(self, number: int, kind: str | None, part: float | None, price: Decimal | None) -> None:
        trade_id, rate = self.one(number), None if price is None else price * 100
        trade = self.book.trade(trade_id)
        amount = None if part is None or trade is None else float(trade.amount) * part
        self.steps_done(lambda book: book.force_exit(trade_id, order_type=kind, amount=amount, price=rate))

    @rule(kind=kinds)
    def leave_all(self, kind: str | None) -> None:
        self.steps_done(lambda book: book.force_exit(None, order_type=kind))

    @rule(number=st.integers(0, 5))
    def cancel(self, number: int) -> None:
        trade_id = self.one(number)
        self.steps_done(lambda book: book.cancel_open_order(trade_id))

    @rule(number=st.integers(1, 8))
    def delete(self, number: int) -> None:
        self.steps_done(lambda book: book.delete_trade(number))

    @rule(pair=st.sampled_from((*PAIRS, "*")), candles=st.integers(-1, 3))
    def lock(self, pair: str, candles: int) -> None:
        until = at(self.next + candles)
        self.steps_done(lambda book: book.add_lock(pair, until))

    @rule(number=st.integers(1, 3))
    def unlock(self, number: int) -> None:
        self.steps_done(lambda book: book.delete_lock(number))

    @rule(entry=st.sampled_from(["BTC/.*", "NONE/.*", "("]), off=st.booleans())
    def blacklist(self, entry: str, off: bool) -> None:
        def change(book: Book) -> None:
            (book.delete_from_blacklist if off else book.add_to_blacklist)([entry])

        self.steps_done(change)

    @rule(state=st.sampled_from(BotState))
    def control(self, state: BotState) -> None:
        self.steps_done(lambda book: book.set_state(state))

    @precondition(lambda self: self.book.state is not BotState.RUNNING)
    @rule()
    def run_again(self) -> None:
        self.steps_done(lambda book: book.set_state(BotState.RUNNING))

    @rule(number=st.integers(0, 3), value=st.sampled_from([1, "x", {"a": [None]}]))
    def note(self, number: int, value: Any) -> None:
        trade_id = self.one(number)
        if self.book.trade(trade_id) is not None:
            self.steps_done(lambda book: book.set_custom_data(trade_id, "k", value))

    @invariant()
    def sound(self) -> None:
        self.book.check_invariants()
        with self.book.reading() as reading:
            trades = (*reading.closed_trades(), *reading.open_trades())
            wallet, now = reading.wallet(), reading.now_ms
        with localcontext(prec=200):
            moved = sum(map(moved_by, trades), Decimal(0))
            assert wallet.free + wallet.reserved == wallet.start + moved
            profits = sum((trade.profit_abs or Decimal(0) for trade in trades), Decimal(0))
            assert wallet.closed_profit == profits
        assert now == at(self.next - 1) + STEP_MS
        for trade in trades:
            check(trade, now)

    def teardown(self) -> None:
        if not hasattr(self, "book"):
            return
        again = self.new_book("sqlite://")
        try:
            for step in self.steps:
                done(again, step)
            assert told(again) == told(self.book)
            check_messages(self.book)
        finally:
            again.close()
            self.book.close()
            shutil.rmtree(self.folder)


def act(book: Book, index: int, rows: dict[str, Candle]) -> None:
    book.act([ReadyCandle(at(index), list(rows.items()))], source=SOURCE, listed=PAIRS)


def done(book: Book, step: Command) -> None:
    with contextlib.suppress(BotError):
        step(book)


def killed(_: Journal) -> None:
    raise Killed


def told(book: Book) -> Any:
    """All that a book tells, but for what is of its database: when it was made, and its name in mids."""
    messages = [(m.topic, m.data, m.mid.partition("/")[2]) for m in book.outgoing(10_000)]
    with book.reading() as reading:
        wallet = reading.wallet()
        return (
            messages,
            reading.closed_trades(),
            reading.open_trades(),
            (wallet.free, wallet.reserved, wallet.closed_profit),
            reading.wallet_points(),
            reading.locks(),
            reading.open_custom_data(),
            reading.rates,
            reading.state,
        )


def moved_by(trade: TradeRecord) -> Decimal:
    """What the filled orders of a trade did to the wallet, counted anew."""
    moved = Decimal(0)
    for order in trade.orders:
        moved += order.cost - order.fee if not order.is_entry else -order.cost - order.fee
    return moved


def check(trade: TradeRecord, now: int) -> None:
    entry, *exits = trade.orders
    assert entry.is_entry
    assert not any(order.is_entry for order in exits)
    assert [order.number for order in trade.orders] == list(range(1, len(trade.orders) + 1))
    waiting = [order for order in trade.orders if order.status is OrderStatus.OPEN]
    assert len(waiting) <= trade.is_open
    sold = [order for order in exits if order.status is OrderStatus.CLOSED]
    held = entry.filled - sum((order.filled for order in sold), Decimal(0))
    assert all(order.placed_ms <= (order.filled_ms or now) <= now for order in trade.orders)
    if not trade.is_open:
        assert held == 0 == trade.tied
        assert trade.profit_abs == trade.realized_profit == moved_by(trade)
    elif trade.open_fill_ms is not None:
        assert trade.amount == held > 0
        assert trade.profit_abs is None
        assert trade.min_rate is not None
        assert trade.max_rate is not None
        assert trade.min_rate <= trade.open_rate <= trade.max_rate
    else:
        assert (trade.paid, trade.tied, len(exits)) == (0, 0, 0)


def check_messages(book: Book) -> None:
    """Each order is told when it is placed, and at most once how it ended, of the same kind."""
    orders: dict[str, list[str]] = {}
    for message in book.outgoing(10_000):
        orders.setdefault(message.mid.rpartition("/")[0], []).append(message.topic)
    for topics in orders.values():
        first, *rest = topics
        assert first in ("entry", "exit")
        assert rest in ([], [f"{first}_fill"], [f"{first}_cancel"])


BookMachine.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestBook = BookMachine.TestCase
