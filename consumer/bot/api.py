"""PaperAPI: what REST asks of a PaperBot, answered from its book.

Theory of operation
-------------------
The book blocks, so every question to it runs in a thread: AT_ONCE at a time, at most WAITING more wait for their turn, and who comes
after them is told to come again (BotBusy). A question is one transaction of the book, so an answer is of one commit.

Answers over all closed trades (profit, performance, periods and the like) share one reading of them (`ledger`): a dashboard asks
for all of them at once. The profit view, the dearest of them, and the open trades, which dashboards ask for every few seconds, are
kept until the book's revision changes, which is once a candle; of the profit only its "ago" is new.

Commands are the book's; what one answers to a call with a key is kept in the transaction of its effect. Texts of success are
freqtrade 2026.9's, as a running bot answered them. All times are of candles, "28 minutes ago" and which day is today among them; only
before the first candle, for the signs of life and for how long an answer is kept, the time of day counts.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from consumer.bot import balances, book_answers, performance
from consumer.bot.book import Book
from consumer.bot.humanized import ago
from consumer.bot.ledger import Ledger, Trades
from consumer.bot.machine import Machine
from consumer.bot.periods import Scale, periods
from consumer.bot.profit import profit
from consumer.bot.records import BotState, CustomDataRecord, TradeRecord
from consumer.bot.trade_answers import Labels, entered, listed, opened
from consumer.errors import ConsumerError
from consumer.keyed import IN_HAND, KeyedCall
from hub.frames.history import pair_history
from hub.frames.timeframe import timeframe_ms
from hub.protocol.answers import (
    Balances,
    Blacklist,
    Count,
    DeletedTrade,
    EnteredTrade,
    EntryPerformance,
    ExitPerformance,
    Health,
    Locks,
    Logs,
    Markets,
    MixTagPerformance,
    OpenTrade,
    PairHistory,
    PairList,
    PairPerformance,
    Periods,
    Profit,
    ProfitAll,
    ResultText,
    ShowConfig,
    Stats,
    StatusText,
    StrategySource,
    SystemInfo,
    TradeCustomData,
    TradePage,
    Version,
    WalletHistory,
)
from hub.protocol.botapi import (
    BotBusy,
    BotError,
    BotFault,
    BotGone,
    LockOrder,
    MarginMode,
    NotFound,
    OrderType,
    Side,
    TradingMode,
)
from hub.protocol.calls import BotAnswer
from hub.protocol.errors import BadFrame

if TYPE_CHECKING:
    from consumer.bot.paper import PaperBot

__all__ = ["AT_ONCE", "WAITING", "PaperAPI"]

AT_ONCE, WAITING = 4, 64
"""Questions to the book that run, and that may wait for their turn."""

_ALL = "all"
_PAUSED = "paused, no more entries will occur from now. Run /start to enable entries."
_STARTED_PAUSED = (
    "starting bot with trader in paused state, no entries will occur. Run /start to enable entries."
)
Answer = TypeVar("Answer")


class PaperAPI:
    """The BotAPI of a PaperBot that was started. `clock` gives seconds since 1970, for as long as there is no candle.

    Of the configuration it shows, beside the PaperBot's settings, `strategy` (the name of the strategy; default: the bot's class),
    `plot_config`, `entry_pricing` and `exit_pricing`, as freqtrade has them. Amounts in a fiat currency are 0: nothing is converted.

    Raises:
        BotGone: from any, before the bot's start and after its end.
        BotBusy: from any that asks the book, when too many wait already.
        BotError: from any, when the database failed.
    """

    def __init__(self, bot: PaperBot, *, clock: Callable[[], float] = time.time) -> None:
        self._bot = bot
        self._clock = clock
        self._machine = Machine()
        self._limiter: anyio.CapacityLimiter | None = None
        self._waiting = 0
        self._ledger = Ledger()
        self._profit: tuple[int, Profit] | None = None
        self._status: tuple[int, list[OpenTrade]] | None = None

    # --- what it is

    async def version(self) -> Version:
        return Version(version=_version())

    async def show_config(self) -> ShowConfig:
        settings, source = self._bot.settings, self._bot.source
        return book_answers.show_config(
            settings,
            self._bot.config,
            strategy=self._strategy,
            version=_version(),
            timeframe=settings.timeframe if source is None else source.timeframe,
            state=await self._ask(lambda book: book.state),
        )

    async def health(self) -> Health:
        created_ms = (await self._ask(lambda book: book.wallet())).created_ms
        acted_ms, started_ms = self._bot.last_process_ms, self._bot.started_ms
        return Health(
            last_process=None if acted_ms is None else book_answers.moment(acted_ms),
            last_process_ts=None if acted_ms is None else acted_ms // 1000,
            bot_start=book_answers.moment(created_ms),
            bot_start_ts=created_ms // 1000,
            bot_startup=None if started_ms is None else book_answers.moment(started_ms),
            bot_startup_ts=None if started_ms is None else started_ms // 1000,
        )

    async def logs(self, *, limit: int | None = None) -> Logs:
        return self._bot.log_book.logs(limit)

    async def sysinfo(self) -> SystemInfo:
        return self._machine.load()

    async def plot_config(self, *, strategy: str | None = None) -> dict[str, Any]:
        if strategy not in (None, "", self._strategy):
            raise BotFault(f"Impossible to load Strategy '{strategy}'. This bot has only {self._strategy}.")
        told = self._bot.config.get("plot_config")
        return {"main_plot": {}, "subplots": {}, **told} if isinstance(told, dict) and told else {}

    async def strategy(self, *, strategy: str) -> StrategySource:
        if strategy != self._strategy:
            raise NotFound("Only the currently active strategy is available in trade mode")
        try:
            code = inspect.getsource(inspect.getmodule(type(self._bot)) or type(self._bot))
        except (OSError, TypeError) as error:
            raise BotFault(f"the source of {type(self._bot).__name__} cannot be read: {error}") from None
        return StrategySource(strategy=strategy, timeframe=self._timeframe, code=code)

    async def markets(
        self,
        *,
        trading_mode: TradingMode | None = None,
        margin_mode: MarginMode | None = None,
        exchange: str | None = None,
        base: str | None = None,
        quote: str | None = None,
        include_inactive: bool = False,
    ) -> Markets:
        """The pairs that are listed or had candles; like a trading freqtrade, it has one exchange and one mode to tell of."""
        pairs = dict.fromkeys((*self._bot.pairs, *await self._ask(lambda book: book.rates)))
        found = [book_answers.market(pair) for pair in pairs]
        return Markets(
            markets={
                market.symbol: market
                for market in found
                if base in (None, "", market.base) and quote in (None, "", market.quote)
            },
            exchange_id=self._bot.settings.exchange.lower(),
        )

    # --- money and statistics

    async def balance(self) -> Balances:
        def told(book: Book) -> Balances:
            with book.reading() as reading:
                wallet, trades = reading.wallet(), reading.open_trades()
            return balances.balances(wallet, trades, self._ratio)

        return await self._ask(told)

    async def count(self) -> Count:
        def told(book: Book) -> Count:
            with book.reading() as reading:
                state, trades = reading.state, reading.open_trades()
            if state is BotState.STOPPED:
                raise BotError("trader is not running")
            return balances.count(trades, self._bot.settings.max_open_trades)

        return await self._ask(told)

    async def entries(self, *, pair: str | None = None) -> list[EntryPerformance]:
        return await self._of_trades(lambda trades: performance.by_entry(trades.closed, pair or None))

    async def exits(self, *, pair: str | None = None) -> list[ExitPerformance]:
        return await self._of_trades(lambda trades: performance.by_exit(trades.closed, pair or None))

    async def mix_tags(self, *, pair: str | None = None) -> list[MixTagPerformance]:
        return await self._of_trades(lambda trades: performance.by_mix(trades.closed, pair or None))

    async def performance(self) -> list[PairPerformance]:
        return await self._of_trades(lambda trades: performance.by_pair(trades.closed))

    async def profit(self) -> Profit:
        return await self._of_trades(self._profit_of)

    async def profit_all(self) -> ProfitAll:
        return ProfitAll(all=await self.profit())

    async def stats(self) -> Stats:
        return await self._of_trades(lambda trades: performance.stats(trades.closed))

    async def historic_balance(self) -> WalletHistory:
        def told(book: Book) -> WalletHistory:
            with book.reading() as reading:
                points, wallet = reading.wallet_points(), reading.wallet()
            return balances.wallet_history(points, wallet.created_ms)

        return await self._ask(told)

    async def daily(self, *, timescale: int = 7) -> Periods:
        return await self._periods(Scale.DAY, timescale)

    async def weekly(self, *, timescale: int = 4) -> Periods:
        return await self._periods(Scale.WEEK, timescale)

    async def monthly(self, *, timescale: int = 3) -> Periods:
        return await self._periods(Scale.MONTH, timescale)

    # --- trades

    async def status(self) -> list[OpenTrade]:
        labels = self._labels

        def told(book: Book) -> list[OpenTrade]:
            with book.reading() as reading:
                if self._status is None or self._status[0] != reading.revision:
                    trades = [opened(trade, labels) for trade in reading.open_trades()]
                    self._status = reading.revision, trades
                return self._status[1]

        return await self._ask(told)

    async def trades(self, *, limit: int = 500, offset: int = 0, order_by_id: bool = True) -> TradePage:
        labels = self._labels

        def told(book: Book) -> TradePage:
            page = book.trades(_fitting(limit), _fitting(offset), order_by_id=order_by_id)
            trades = [listed(trade, labels) for trade in page.trades]
            return TradePage(trades=trades, trades_count=len(trades), offset=offset, total_trades=page.total)

        return await self._ask(told)

    async def trade(self, *, tradeid: int) -> OpenTrade:
        record = await self._trade(tradeid)
        if record is None:
            raise NotFound("Trade not found.")
        return opened(record, self._labels)

    async def delete_trade(self, *, tradeid: int) -> DeletedTrade:
        def deleted(book: Book) -> DeletedTrade:
            record = book.trade(_fitting(tradeid))
            if record is None:
                raise BotError(f"Trade with id '{tradeid}' not found.")
            cancelled = book.delete_trade(tradeid)
            return DeletedTrade(
                cancel_order_count=cancelled,
                result="success",
                result_msg=f"Deleted trade #{tradeid} for pair {record.pair}. Closed {cancelled} open orders.",
                trade_id=tradeid,
            )

        return await self._command(deleted)

    async def cancel_open_order(self, *, tradeid: int) -> OpenTrade:
        number, labels = _fitting(tradeid), self._labels
        return await self._command(lambda book: opened(book.cancel_open_order(number), labels))

    async def reload_trade(self, *, tradeid: int) -> OpenTrade:
        number = _fitting(tradeid)
        return opened(await self._ask(lambda book: book.reload_trade(number)), self._labels)

    async def open_custom_data(
        self, *, key: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[TradeCustomData]:
        def told(book: Book) -> list[CustomDataRecord]:
            with book.reading() as reading:
                chosen = {trade.id for trade in reading.open_trades()[offset : offset + limit]}
                if not chosen:
                    raise NotFound("No open trades found.")
                return [record for record in reading.open_custom_data(key) if record.trade_id in chosen]

        found = await self._ask(told)
        if not found:
            raise NotFound(f"No custom-data{_with(key)} found for any open trades.")
        return book_answers.custom_data(found)

    async def custom_data(self, *, trade_id: int, key: str | None = None) -> list[TradeCustomData]:
        if await self._trade(trade_id) is None:
            raise NotFound(f"No trade found for trade_id: {trade_id}")
        found = await self._ask(lambda book: book.custom_data(trade_id, key))
        if not found:
            raise NotFound(f"No custom-data{_with(key)} found for Trade ID: {trade_id}.")
        return book_answers.custom_data(found)

    async def force_enter(
        self,
        *,
        pair: str,
        side: Side = Side.LONG,
        price: float | None = None,
        ordertype: OrderType | None = None,
        stakeamount: float | None = None,
        entry_tag: str | None = None,
        leverage: float | None = None,
    ) -> EnteredTrade | StatusText:
        labels = self._labels

        def made(book: Book) -> EnteredTrade:
            record = book.force_enter(
                pair,
                side="short" if side is Side.SHORT else "long",
                price=price,
                order_type=None if ordertype is None else str(ordertype),
                stake=stakeamount,
                tag=entry_tag,
                leverage=leverage,
            )
            return entered(record, labels)

        return await self._command(made)

    async def force_exit(
        self,
        *,
        tradeid: str | int,
        ordertype: OrderType | None = None,
        amount: float | None = None,
        price: float | None = None,
    ) -> ResultText:
        """Leave trades. A trade whose entry waits has nothing to leave: the entry is cancelled, and the text says so.

        freqtrade cancels it too, but answers that it failed.
        """
        number = None if tradeid == _ALL else _trade_number(tradeid)
        order_type = None if ordertype is None else str(ordertype)

        def left(book: Book) -> ResultText:
            record = None if number is None else book.trade(number)
            book.force_exit(number, order_type=order_type, amount=amount, price=price)
            if number is None:
                return ResultText(result="Created exit orders for all open trades.")
            if record is not None and record.open_fill_ms is None:
                return ResultText(result=f"Cancelled the entry order of trade {number}.")
            return ResultText(result=f"Created exit order for trade {number}.")

        return await self._command(left)

    # --- pairs

    async def blacklist(self) -> Blacklist:
        return book_answers.blacklist(await self._ask(lambda book: book.blacklist()))

    async def add_to_blacklist(self, *, blacklist: list[str]) -> Blacklist:
        return await self._command(lambda book: book_answers.blacklist(book.add_to_blacklist(blacklist)))

    async def delete_from_blacklist(self, *, pairs_to_delete: list[str] = []) -> Blacklist:  # noqa: B006
        return await self._command(
            lambda book: book_answers.blacklist(book.delete_from_blacklist(pairs_to_delete))
        )

    async def whitelist(self) -> PairList:
        """The pairs that the followed bot trades."""
        pairs = list(self._bot.pairs)
        return PairList(whitelist=pairs, length=len(pairs), method=[book_answers.METHOD])

    # --- locks

    async def locks(self) -> Locks:
        return book_answers.locks(await self._ask(lambda book: book.locks()))

    async def add_locks(self, *, locks: list[LockOrder]) -> Locks:
        """Lock pairs in the order given; when one is refused those before it stay."""

        def added(book: Book) -> Locks:
            held = book.locks()
            for lock in locks:
                held = book.add_lock(lock.pair, _ms(lock.until), lock.side, lock.reason)
            return book_answers.locks(held)

        return await self._command(added)

    async def delete_lock(self, *, lockid: int) -> Locks:
        return await self._command(lambda book: book_answers.locks(book.delete_lock(lockid)))

    async def delete_locks(self, *, pair: str | None = None, lockid: int | None = None) -> Locks:
        def deleted(book: Book) -> Locks:
            held = book.locks()
            if pair:
                held = book.delete_locks(pair)
            if lockid is not None:
                held = book.delete_lock(lockid)
            return book_answers.locks(held)

        return await self._command(deleted)

    # --- control

    async def start(self) -> StatusText:
        def started(book: Book) -> StatusText:
            running = book.set_state(BotState.RUNNING) is BotState.RUNNING
            return StatusText(status="already running" if running else "starting trader ...")

        return await self._command(started)

    async def stop(self) -> StatusText:
        def stopped(book: Book) -> StatusText:
            already = book.set_state(BotState.STOPPED) is BotState.STOPPED
            return StatusText(status="already stopped" if already else "stopping trader ...")

        return await self._command(stopped)

    async def pause(self) -> StatusText:
        def paused(book: Book) -> StatusText:
            before = book.set_state(BotState.PAUSED)
            return StatusText(status=_STARTED_PAUSED if before is BotState.STOPPED else _PAUSED)

        return await self._command(paused)

    async def reload_config(self) -> StatusText:
        """Refused with the key at fault when the configuration cannot be used; else the bot begins anew once this is answered."""
        await self._bot.reload()
        return StatusText(status="Reloading config ...")

    # --- candles

    async def pair_candles(self, *, pair: str, timeframe: str, limit: int | None = None) -> PairHistory:
        return await self._history(pair, timeframe, limit, None)

    async def chosen_pair_candles(
        self, *, pair: str, timeframe: str, limit: int | None = None, columns: list[str] | None = None
    ) -> PairHistory:
        return await self._history(pair, timeframe, limit, columns)

    async def _history(
        self, pair: str, timeframe: str, limit: int | None, columns: list[str] | None
    ) -> PairHistory:
        chosen = None if columns is None else frozenset(columns)

        def told(book: Book) -> PairHistory:
            found = self._bot.analyzed_df(pair, timeframe)
            la = None if found is None or found.la is None else round(found.la.timestamp() * 1000)
            try:
                return pair_history(
                    None if found is None else found.df,
                    strategy=self._strategy,
                    pair=pair,
                    timeframe=timeframe,
                    analyzed_ms=la,
                    limit=limit,
                    columns=chosen,
                )
            except BadFrame as error:
                raise BotFault(str(error)) from None

        return await self._ask(told)

    # --- the book

    async def answered(self, call: KeyedCall) -> BotAnswer | None:
        """As Remembering: what a command answered to an earlier call, also in an earlier run."""
        kept = await self._ask(lambda book: book.answered(call, self._day_ms()))
        return None if kept is None else BotAnswer(status=kept[0], body=msgspec.Raw(kept[1].encode()))

    async def _command(self, deed: Callable[[Book], Answer]) -> Answer:
        """As `_ask`, of what changes the book; the answer to a call with a key is kept in the same transaction."""
        call = IN_HAND.get()
        if call is None:
            return await self._ask(deed)
        return await self._ask(lambda book: book.once(call, self._day_ms(), lambda: deed(book)))

    def _day_ms(self) -> int:
        return round(self._clock() * 1000)

    async def _ask(self, question: Callable[[Book], Answer]) -> Answer:
        """What `question` says of the book, from a thread. A cancelled caller waits until the thread is done."""
        book = self._bot.book
        if book is None:
            raise BotGone("the bot is not running")
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(AT_ONCE)
        if self._waiting >= AT_ONCE + WAITING:
            raise BotBusy("too many requests wait for the bot already")
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(question, book, limiter=self._limiter)
        except ConsumerError as error:
            raise BotError(str(error)) from None
        finally:
            self._waiting -= 1

    async def _of_trades(self, told: Callable[[Trades], Answer]) -> Answer:
        return await self._ask(lambda book: told(self._ledger.trades(book)))

    def _profit_of(self, trades: Trades) -> Profit:
        now_ms, kept = self._now_ms(), self._profit
        if kept is None or kept[0] != trades.revision:
            made = profit(trades.closed, trades.open, trades.wallet, ratio=self._ratio, now_ms=now_ms)
            self._profit = trades.revision, made
            return made
        if not kept[1].trade_count:
            return kept[1]
        return msgspec.structs.replace(
            kept[1],
            first_trade_humanized=ago(kept[1].first_trade_timestamp, now_ms),
            latest_trade_humanized=ago(kept[1].latest_trade_timestamp, now_ms),
        )

    async def _periods(self, scale: Scale, count: int) -> Periods:
        def told(trades: Trades) -> Periods:
            return periods(
                trades.closed,
                scale=scale,
                count=count,
                tradable=balances.equity(trades.wallet, trades.open) * self._ratio,
                now_ms=self._now_ms(),
                currency=trades.wallet.currency,
            )

        return await self._of_trades(told)

    async def _trade(self, number: int) -> TradeRecord | None:
        return await self._ask(lambda book: book.trade(_fitting(number)))

    @property
    def _ratio(self) -> Decimal:
        return self._bot.settings.tradable_ratio

    @property
    def _strategy(self) -> str:
        told = self._bot.config.get("strategy")
        return told if isinstance(told, str) and told else type(self._bot).__name__

    @property
    def _timeframe(self) -> str | None:
        source = self._bot.source
        return self._bot.settings.timeframe if source is None else source.timeframe

    @property
    def _labels(self) -> Labels:
        settings, timeframe = self._bot.settings, self._timeframe
        minutes = 0 if timeframe is None else timeframe_ms(timeframe) // 60_000
        return Labels(self._strategy, settings.exchange.lower(), minutes, settings.stake_currency)

    def _now_ms(self) -> int:
        """The bot's present, which is that of its candles: in a replay too, today is a day that has trades."""
        book = self._bot.book
        now_ms = None if book is None else book.now_ms
        return self._day_ms() if now_ms is None else now_ms


def _version() -> str:
    try:
        return version("tradewire")
    except PackageNotFoundError:
        return "unknown"


def _trade_number(text: str | int) -> int:
    # int() takes more than digits: "1_0" would leave trade 10.
    if not (isinstance(text, int) or (text.isascii() and text.isdecimal() and len(text) < 20)):
        raise BotError("invalid argument")
    return _fitting(int(text))


def _fitting(number: int) -> int:
    """What a database can hold; nothing has a number beyond it."""
    return max(min(number, 2**63 - 1), -(2**63))


def _with(key: str | None) -> str:
    return "" if key is None else f" with key '{key}'"


def _ms(until: datetime) -> int:
    aware = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
