"""consumer.bot.commands, over the book: what is refused, with which words, and what changes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from consumer.bot import bans, book_answers, patterns
from consumer.bot.candles import Candle
from consumer.bot.clock import ReadyCandle
from consumer.bot.records import BotState, OrderStatus
from hub.protocol.botapi import BotError, NotFound
from tests.consumer.bot.desk import BUY, SELL, SOURCE, Desk, flat
from tests.consumer.bot.replay import PAIRS, at

D = Decimal


def ready(desks: Any, **config: Any) -> Desk:
    desk: Desk = desks(force_entry_enable=True, **config)
    desk.candle(BTC=flat(100.0), ETH=flat(10.0))
    return desk


def refused(command: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(BotError) as caught:
        command(*args, **kwargs)
    return str(caught.value)


def test_an_entry_is_refused_in_freqtrades_order_and_words(desks: Any) -> None:
    desk = desks()
    enter = desk.book.force_enter
    assert refused(enter, "NO/EUR", side="short") == "Force_entry not enabled."
    desk.book.close()
    desk = desks(force_entry_enable=True, initial_state="stopped", max_open_trades=1)
    enter = desk.book.force_enter
    for state in (BotState.STOPPED, BotState.PAUSED):
        desk.book.set_state(state)
        assert refused(enter, "NO/EUR", side="short") == "trader is not running"
    desk.book.set_state(BotState.RUNNING)
    assert refused(enter, "NO/EUR", side="short") == "Can't go short on Spot markets."
    assert refused(enter, "NO/EUR") == "Symbol does not exist or market is not active."
    desk.book.act([ReadyCandle(at(0), [("A/EUR", flat(1.0))])], source=SOURCE, listed=PAIRS)
    assert refused(enter, "A/EUR") == "Wrong pair selected. Only pairs with stake-currency USD allowed."
    assert refused(enter, "BTC/USD") == "no candle of BTC/USD has been seen yet: a price is needed"
    for price in (0, -1, float("nan"), float("inf"), 1e300, 10**400):
        assert refused(enter, "BTC/USD", price=price).startswith("expected a")
    for stake in (-1, float("nan"), 10**400):
        assert refused(enter, "BTC/USD", price=1, stake=stake).startswith("expected a number over 0")
    assert refused(enter, "BTC/USD", price=1, order_type="stop").startswith("expected market or limit")
    assert refused(enter, "BTC/USD", price=1, stake=1e-9) == "Failed to enter position for BTC/USD."
    assert refused(enter, "BTC/USD", price=1, tag="x" * 256).startswith("expected a tag")
    desk.next = 1
    assert desk.candle() == []
    enter("BTC/USD", price=50, order_type="limit")
    assert refused(enter, "BTC/USD") == "position for BTC/USD already open - id: 1"
    assert refused(enter, "ETH/USD", price=1) == "Maximum number of trades is reached."
    desk.book.check_invariants()


def test_a_forced_stake_is_cut_to_what_is_there(desks: Any) -> None:
    desk = ready(desks, tradable_balance_ratio=0.5)
    assert desk.book.force_enter("BTC/USD", stake=1_000).stake_amount == D("499.50049900")
    assert refused(desk.book.force_enter, "ETH/USD", stake=5) == "Failed to enter position for ETH/USD."


def test_an_exit_is_refused_in_freqtrades_words(desks: Any) -> None:
    desk = ready(desks)
    leave = desk.book.force_exit
    assert refused(leave, 1) == "invalid argument"
    desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(100.0))
    assert refused(leave, 1, amount=0.99999999, price=0.1) == "Remaining amount of 0E-8 would be too small."
    assert refused(leave, 1, amount=-1).startswith("expected a number over 0")
    assert refused(leave, 1, amount=1e-9).startswith("expected an amount")
    desk.book.set_state(BotState.STOPPED)
    assert refused(leave, 1) == refused(leave, None) == "trader is not running"
    desk.book.set_state(BotState.PAUSED)
    leave(1, amount=1e30)
    assert [topic for topic, _ in desk.candle(BTC=flat(90.0))] == ["exit_fill"]
    leave(None)


def test_an_exit_replaces_the_one_that_waits_and_cancels_an_entry_that_waits(desks: Any) -> None:
    desk = ready(desks)
    desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(100.0))
    desk.book.force_enter("ETH/USD", order_type="limit", price=5)
    desk.book.force_exit(1, order_type="limit", price=300)
    known = len(desk.book.outgoing(99))
    desk.book.force_exit(None, order_type="market")
    told = [(m.topic, m.data["trade_id"], m.data.get("reason")) for m in desk.book.outgoing(99)[known:]]
    assert told == [
        ("exit_cancel", 1, "forcesold"),
        ("exit", 1, None),
        ("entry_cancel", 2, "forcesold, fully cancelled"),
    ]
    (trade,) = desk.book.open_trades()
    assert [order.status for order in trade.orders] == [
        OrderStatus.CLOSED,
        OrderStatus.CANCELED,
        OrderStatus.OPEN,
    ]
    assert desk.book.wallet().reserved == 0


def test_cancelling_an_order(desks: Any) -> None:
    desk = ready(desks)
    cancel = desk.book.cancel_open_order
    assert refused(cancel, 1) == "Invalid trade_id."
    desk.book.force_enter("BTC/USD", order_type="limit", price=90)
    gone = cancel(1)
    assert (gone.id, gone.is_open, gone.orders[0].status) == (1, False, OrderStatus.CANCELED)
    assert desk.book.trade(1) is None
    assert desk.book.wallet().free == 1000
    assert desk.book.outgoing(9)[-1].data["reason"] == "user requested order cancel, fully cancelled"
    desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(100.0))
    assert refused(cancel, 2) == "No open order for trade_id."
    desk.book.force_exit(2)
    kept = cancel(2)
    assert (kept.is_open, kept.open_order, kept.exit_order_status) == (
        True,
        None,
        "user requested order cancel",
    )
    assert desk.candle(BTC=flat(100.0)) == []


def test_a_deleted_trade_never_was(desks: Any) -> None:
    desk = ready(desks, fee=0)
    delete = desk.book.delete_trade
    assert refused(delete, 1) == "invalid argument"
    desk.book.force_enter("BTC/USD", order_type="limit", price=90)
    assert delete(1) == 1
    desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(100.0), ETH=flat(10.0))
    desk.book.set_custom_data(2, "k", 1)
    desk.book.force_exit(2, amount=0.5)
    desk.candle(BTC=flat(120.0), ETH=flat(10.0))
    assert desk.book.wallet().free == 960
    assert delete(2) == 0
    assert (desk.book.wallet().free, desk.book.open_trades()) == (1000, ())
    assert desk.book.custom_data(2) == ()
    # A profit that is spent cannot be taken back.
    desk.book.force_enter("BTC/USD", stake=1000)
    desk.candle(BTC=flat(120.0), ETH=flat(10.0))
    desk.book.force_exit(3)
    desk.candle(BTC=flat(240.0), ETH=flat(10.0))
    desk.book.force_enter("ETH/USD", stake=1500)
    desk.candle(BTC=flat(240.0), ETH=flat(10.0))
    assert "cannot be deleted" in refused(delete, 3)
    assert delete(4) == 0
    assert delete(3) == 0
    wallet = desk.book.wallet()
    assert (wallet.free, wallet.closed_profit) == (1000, 0)
    desk.reopen()
    assert desk.book.force_enter("BTC/USD").id == 5
    desk.book.check_invariants()


def test_paused_leaves_and_stopped_does_nothing(desks: Any) -> None:
    desk = ready(desks, stoploss=-0.5)
    desk.candle(BTC=flat(100.0, **BUY), ETH=flat(10.0))
    desk.candle(BTC=flat(100.0, **SELL), ETH=flat(10.0, **BUY))
    assert desk.book.set_state(BotState.PAUSED) is BotState.RUNNING
    desk.reopen()
    assert [topic for topic, _ in desk.candle(BTC=flat(100.0), ETH=flat(10.0))] == ["exit", "exit_fill"]
    assert desk.book.summary().skipped_entries == 1
    desk.book.set_state(BotState.RUNNING)
    desk.book.force_enter("BTC/USD", order_type="limit", price=90)
    desk.candle(BTC=flat(100.0), ETH=flat(10.0, **BUY))
    desk.book.set_state(BotState.STOPPED)
    desk.reopen()
    assert desk.book.state is BotState.STOPPED
    assert desk.candle(BTC=flat(50.0, **BUY), ETH=flat(10.0)) == []
    assert desk.book.now_ms == at(desk.next)
    assert desk.book.rates["BTC/USD"] == 50
    desk.book.set_state(BotState.RUNNING)
    assert [t for t, _ in desk.candle(BTC=flat(80.0), ETH=flat(10.0))] == ["entry_cancel"]


def test_locks_hold_in_candle_time_and_over_a_restart(desks: Any) -> None:
    desk = ready(desks)
    (lock,) = desk.book.add_lock("BTC/USD", at(2) + 1, reason="mine")
    assert (lock.id, lock.locked_ms, lock.reason, lock.side) == (1, at(1), "mine", "*")
    desk.book.add_lock("ETH/USD", at(9), "short")
    desk.reopen()
    desk.candle(BTC=flat(100.0, **BUY), ETH=flat(10.0, **BUY))
    desk.candle(BTC=flat(100.0, **BUY), ETH=flat(10.0))
    assert [trade.pair for trade in desk.book.open_trades()] == ["ETH/USD"]
    assert [lock.pair for lock in desk.book.locks()] == ["ETH/USD"]
    desk.candle(BTC=flat(100.0))
    assert [trade.pair for trade in desk.book.open_trades()] == ["ETH/USD", "BTC/USD"]
    desk.book.add_lock("*", at(99))
    desk.book.add_lock("XRP/USD", at(99))
    assert [lock.id for lock in desk.book.delete_lock(77)] == [2, 3, 4]
    assert [lock.id for lock in desk.book.delete_lock(2)] == [3, 4]
    assert [lock.pair for lock in desk.book.delete_locks("XRP/USD")] == ["*"]
    for pair, until, side in (("BTC/USD", at(0), "*"), ("BTC/USD", at(99), "up"), ("", at(99), "*")):
        refused(desk.book.add_lock, pair, until, side)
    assert len(desk.book.locks()) == 1


def test_the_blacklist_keeps_signals_out_and_lets_people_in(desks: Any) -> None:
    desk = ready(desks, exchange={"pair_blacklist": ["BTC/.*", "x.*"]})
    assert desk.book.blacklist().pairs == ("BTC/USD", "XRP/USD")
    added = desk.book.add_to_blacklist(["eth/usd", "(", "BTC/.*", "(A+)+", "é" * 300])
    assert added.entries == ("BTC/.*", "x.*", "eth/usd", "(A+)+")
    assert list(added.errors.values())[:2] == [
        "Pair ( is not a valid wildcard.",
        "Pair BTC/.* already in pairlist.",
    ]
    desk.candle(BTC=flat(100.0, **BUY), ETH=flat(10.0, **BUY))
    desk.reopen()
    desk.candle(BTC=flat(100.0), ETH=flat(10.0))
    assert desk.book.summary().skipped_entries == 2
    assert desk.book.force_enter("BTC/USD").pair == "BTC/USD"
    less = desk.book.delete_from_blacklist(["BTC/.*", "eth/usd", "no"])
    assert less.entries == ("x.*", "(A+)+")
    assert less.errors == {"no": "Pair no is not in the current blacklist."}
    desk.reopen()
    assert desk.book.blacklist().entries == ("x.*", "(A+)+")
    assert desk.book.add_to_blacklist(["BTC/.*"]).entries == ("BTC/.*", "x.*", "(A+)+")


def test_custom_data(desks: Any) -> None:
    desk = ready(desks)
    with pytest.raises(NotFound):
        desk.book.set_custom_data(1, "k", 1)
    desk.book.force_enter("BTC/USD")
    desk.book.set_custom_data(1, "k", {"a": [1, None]})
    desk.book.set_custom_data(1, "b", "x")
    desk.candle(BTC=flat(100.0))
    desk.reopen()
    desk.book.set_custom_data(1, "k", True)
    first, second = desk.book.custom_data(1)
    assert (first.key, first.value, first.updated_ms) == ("b", "x", None)
    assert (second.value, second.created_ms, second.updated_ms) == (True, at(1), at(2))
    assert desk.book.open_custom_data("b") == desk.book.custom_data(1, "b") == (first,)
    for key, value in (("k", {1, 2}), ("k", float("nan")), ("k", "x" * 20_000), ("", 1), ("k" * 256, 1)):
        with pytest.raises(ValueError):
            desk.book.set_custom_data(1, key, value)
    for number in range(98):
        desk.book.set_custom_data(1, f"key {number}", number)
    assert "already" in refused(desk.book.set_custom_data, 1, "more", 1)
    assert desk.book.reload_trade(1) == desk.book.trade(1)
    assert refused(desk.book.reload_trade, 2) == "Could not find trade with id 2."


def test_people_candles_and_readers_at_the_same_time(desks: Any) -> None:
    desk = ready(desks, max_open_trades=3, stoploss=-0.9)
    errors: list[BaseException] = []

    def run(work: Any) -> None:
        try:
            for index in range(25):
                try:
                    work(index)
                except BotError:
                    pass
        except BaseException as error:
            errors.append(error)

    def act(index: int) -> None:
        row = Candle(100.0, 110.0, 90.0, 100.0, enter_long=index % 2 == 0)
        desk.book.act([ReadyCandle(at(index + 1), [("ETH/USD", row)])], source=SOURCE, listed=PAIRS)

    def read(index: int) -> None:
        with desk.book.reading() as reading:
            held = sum((trade.tied for trade in reading.open_trades()), D(0))
            realized = sum((trade.realized_profit for trade in reading.open_trades()), D(0))
            wallet = reading.wallet()
        assert wallet.free + wallet.reserved + held == wallet.start + wallet.closed_profit + realized

    works = [
        act,
        read,
        lambda index: desk.book.force_enter("ETH/USD"),
        lambda index: desk.book.force_exit(None),
        lambda index: desk.book.outgoing(9),
        lambda index: desk.book.cancel_open_order(index),
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    desk.book.check_invariants()


def test_what_the_database_has_no_room_for_is_refused_and_the_bot_goes_on(desks: Any) -> None:
    desk, half = ready(desks), "\ud800"
    book = desk.book
    book.force_enter("XRP/USD", price=1, order_type="limit")
    for command in (book.delete_trade, book.reload_trade, book.cancel_open_order, book.force_exit):
        refused(command, 2**70)
    refused(book.force_enter, "BTC/USD", tag=half)
    refused(book.add_lock, half, at(99))
    refused(book.add_lock, "BTC/USD", at(99), "*", half)
    assert book.add_to_blacklist([half]).entries == book.delete_from_blacklist([half]).entries == ()
    with pytest.raises(NotFound):
        book.set_custom_data(2**70, "k", 1)
    with pytest.raises(ValueError):
        book.set_custom_data(1, half, 1)
    with pytest.raises(ValueError):
        book.set_custom_data(1, "k", half)
    assert book.trade(2**70) is None
    assert book.custom_data(2**70) == book.custom_data(1, half) == ()
    assert book.trades(2**70, 2**70).trades == ()
    # Its pair never had a candle.
    book.force_exit(None)
    assert book.open_trades() == ()
    desk.candle(BTC=flat(100.0))


def test_leaving_all_trades_needs_no_candle_of_one_whose_entry_waits(desks: Any) -> None:
    desk = ready(desks, max_open_trades=2)
    desk.book.force_enter("BTC/USD")
    desk.candle(BTC=flat(100.0))
    desk.book.force_enter("XRP/USD", price=1.0)
    desk.book.force_exit(None)
    assert [trade.pair for trade in desk.book.open_trades()] == ["BTC/USD"]
    desk.candle(BTC=flat(100.0))
    assert desk.book.open_trades() == ()


def test_a_text_that_a_database_may_not_keep_is_refused(desks: Any) -> None:
    desk = ready(desks)
    for text in ("a\0b", "\ud800"):
        assert refused(desk.book.force_enter, "BTC/USD", tag=text).startswith("expected a tag")
        assert refused(desk.book.add_lock, text, 2**41).startswith("expected a pair")
        assert refused(desk.book.add_lock, "*", 2**41, "*", text).startswith("expected a pair")
        assert list(desk.book.add_to_blacklist([text]).errors) == [text.replace("\ud800", "?")]
        with pytest.raises(ValueError, match="key"):
            desk.book.set_custom_data(1, text, 0)
    assert desk.book.locks() == ()
    desk.candle(BTC=flat(100.0))


def test_a_long_blacklist_is_compiled_once(desks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Counted(patterns.Pattern):
        def __init__(self, text: str) -> None:
            made.append(text)
            super().__init__(text)

    desk = ready(desks, exchange={"pair_blacklist": ["BNB/.*"]})
    monkeypatch.setattr(bans, "Pattern", Counted)
    entries = [f"C{i}/USD" for i in range(200)]
    told = desk.book.add_to_blacklist([*entries, "C1/USD"])
    assert (told.entries, list(told.errors)) == (("BNB/.*", *entries), ["C1/USD"])
    told = desk.book.delete_from_blacklist(["BNB/.*", *entries[:100], "C1/USD"])
    assert (told.entries, list(told.errors)) == (tuple(entries[100:]), ["C1/USD"])
    assert desk.book.add_to_blacklist(["BNB/.*"]).entries == ("BNB/.*", *entries[100:])
    assert made == [*entries, "BNB/.*"]
    desk.reopen()
    assert desk.book.blacklist().entries == ("BNB/.*", *entries[100:])


def test_a_lock_ends_at_a_moment_that_can_be_written(desks: Any) -> None:
    desk = ready(desks)
    last = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
    until_ms = round(last.timestamp() * 1000)
    assert "before the year 10000" in refused(desk.book.add_lock, "BTC/USD", until_ms + 1)
    held = book_answers.locks(desk.book.add_lock("BTC/USD", until_ms))
    assert held.locks[0].lock_end_time == "9999-12-31 23:59:59"
