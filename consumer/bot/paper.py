"""PaperBot: a dry-run bot on a producer's signals, the embedded default LocalBot."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from threading import Lock
from typing import Any

from consumer.bot.api import PaperAPI
from consumer.bot.book import Book, Source, Summary
from consumer.bot.bulletin import Bulletin
from consumer.bot.candles import read_candles
from consumer.bot.clock import CandleClock, ClockStatistics, ReadyCandle
from consumer.bot.database import check_currency
from consumer.bot.logbook import LogBook, secrets_of
from consumer.bot.outbox import Outbox
from consumer.bot.settings import PaperSettings
from hub.frames.columns import Columns
from hub.frames.timeframe import timeframe_ms
from hub.protocol.botapi import BotAPI, BotGone
from hub.protocol.envelope import Position
from hub.protocol.localbot import BotContext, CandleComplete, Delivery
from hub.protocol.messages import AnalyzedDf, FrameKey, Whitelist

__all__ = ["PaperBot"]

log = logging.getLogger(__name__)

# Of senders whose names are kept: they come from peers, and must not fill memory or the log.
_MOST_NAMES = 100
# Candles of one transaction while catching up: the commit, not the rules, is what takes time.
_BATCH = 64
_GRACE_S = 2.0
_PATIENCE_S = 60.0


class PaperBot:
    """Trades the signals of one producing bot with a dry-run wallet, in candle time.

    It follows the first bot, timeframe and candle type whose frames arrive, or those of the settings (`settings`), and
    goes on with the same ones after a restart. It acts on a candle once all pairs of the whitelist are in or known to be
    missing (`clock`), by freqtrade's rules of a backtest (`rules`, `book`), and publishes entry, entry_fill, exit and
    exit_fill with freqtrade's fields until they are acknowledged (`outbox`), and its whitelist and new_candle (`bulletin`).

    Guarantees: the same rows give the same trades, whatever the speed, batching, lag or number of restarts; a kill at any
    point neither loses nor repeats a fill. See `clock` for what is beyond that promise.
    """

    def __init__(self) -> None:
        self._context: BotContext | None = None
        self._log_book = LogBook()
        self._started_ms: int | None = None
        self._handled_ms: int | None = None
        self._stopped = False
        self._settings: PaperSettings | None = None
        self._book: Book | None = None
        self._outbox: Outbox | None = None
        self._bulletin: Bulletin | None = None
        self._followed: tuple[str, str] | None = None
        self._source: Source | None = None
        self._clock: CandleClock | None = None
        self._pairs: list[str] | None = None
        self._whitelists: dict[tuple[str, str], list[str]] = {}
        self._ignored: set[str] = set()
        self._lock = Lock()
        self._waiting: tuple[int | None, float] = (None, 0.0)

    async def start(self, context: BotContext) -> Position | None:
        """Open the trades and begin to publish what an earlier run left.

        Returns None: a PaperBot acts on frames only, whose place is its clock's.

        Raises:
            ConfigError: a setting or the database cannot be used.
        """
        self._context, self._started_ms = context, _now_ms()
        self._log_book = LogBook(secrets_of(context.config))
        logging.getLogger().addHandler(self._log_book)
        self._settings = PaperSettings.from_config(
            context.config, name=context.name, data_dir=context.data_dir
        )
        self._book = book = await asyncio.to_thread(Book, self._settings)
        self._bulletin = Bulletin(context)
        self._bulletin.start()
        self._resume(book)
        self._outbox = Outbox(book, context)
        self._outbox.start()
        book.on_outgoing = self._outbox.wake
        state = await asyncio.to_thread(lambda: book.state)
        log.info("%s starts, %s: %s", context.name, state.value, self._terms)
        return None

    def handle(self, delivery: Delivery) -> None:
        """Take in one message and act on every candle whose turn has come. Plain, so it runs in the feed's thread.

        Raises:
            DatabaseFailed: nothing that was not committed has happened.
        """
        with self._lock:
            self._handle(delivery)
            self._handled_ms = _now_ms()

    def _handle(self, delivery: Delivery) -> None:
        message = delivery.message
        if isinstance(message, Whitelist):
            self._on_whitelist(delivery, list(message.data))
        elif isinstance(message, AnalyzedDf):
            if isinstance(message.df, Columns) and self._follows(delivery) and self._keyed(message.key):
                self._on_rows(message.key.pair, message.df, snapshot=delivery.snapshot)
        elif isinstance(message, CandleComplete):
            if self._follows(delivery) and self._clock is not None and self._is_timeframe(message.timeframe):
                self._clock.complete(message.candle_ms, message.pairs, message.missing)
        else:
            return
        self._advance()

    async def stop(self) -> None:
        """Publish what is left for a few seconds and close the database."""
        self._stopped = True
        logging.getLogger().removeHandler(self._log_book)
        if self._bulletin is not None:
            await self._bulletin.stop()
        if self._outbox is not None:
            await self._outbox.stop(_GRACE_S)
        if self._book is not None:
            self._book.on_outgoing = None
            await asyncio.to_thread(self._book.close)

    def api(self) -> BotAPI:
        """What REST asks of this bot. It may be had before `start`, and answers between start and stop; of the loop's thread."""
        return PaperAPI(self)

    async def reload(self) -> None:
        """Begin anew with the configuration read again, soon after this returned (BotContext.reload).

        Raises:
            BotError: the configuration cannot be used, or there is no file; this run goes on.
        """
        if self._context is None or self._stopped:
            raise BotGone("the bot is not running")
        await self._context.reload(self._check)

    def _check(self, config: Mapping[str, Any], name: str) -> None:
        """Raise ConfigError when a start with this configuration would, as far as that can be known before."""
        assert self._context is not None
        settings = PaperSettings.from_config(config, name=name, data_dir=self._context.data_dir)
        if settings.db_url == self._config.db_url:
            check_currency(self._config.stake_currency, settings)

    @property
    def book(self) -> Book | None:
        """The trades, between start and stop. From any thread, like all that follows."""
        return None if self._stopped else self._book

    @property
    def settings(self) -> PaperSettings:
        """What the bot runs by. Raises BotGone before the start."""
        if self._settings is None:
            raise BotGone("the bot is not running")
        return self._settings

    @property
    def config(self) -> Mapping[str, Any]:
        """The whole configuration, secrets among it; empty before the start."""
        return {} if self._context is None else self._context.config

    @property
    def source(self) -> Source | None:
        """Whose frames are traded; None until the first has come."""
        return self._source

    @property
    def pairs(self) -> tuple[str, ...]:
        """The whitelist of the bot that is followed."""
        return tuple(self._pairs or ())

    @property
    def log_book(self) -> LogBook:
        """The newest log rows of the process."""
        return self._log_book

    @property
    def started_ms(self) -> int | None:
        """When this run was started, in ms of the time of day."""
        return self._started_ms

    @property
    def last_process_ms(self) -> int | None:
        """When the last delivery was handled, in ms of the time of day."""
        return self._handled_ms

    def analyzed_df(self, pair: str, timeframe: str) -> AnalyzedDf | None:
        """The newest frame of a pair from the bot that is followed."""
        source, context = self._source, self._context
        if source is None or context is None:
            return None
        key = FrameKey(pair, timeframe, source.candle_type)
        return context.analyzed_df(key, f"{source.producer}/{source.bot}")

    def summary(self) -> Summary:
        """How the bot stands: wallet, open trades, closed profit, outbox. From any thread, between start and stop."""
        return self._opened.summary()

    def statistics(self) -> dict[str, Any]:
        """The clock's and the bulletin's figures, and whose frames are traded. From any thread."""
        with self._lock:
            clock = self._clock.statistics() if self._clock is not None else ClockStatistics()
            bulletin = self._bulletin.statistics() if self._bulletin is not None else {}
            ignored = sorted(self._ignored)
            return {"source": self._source, "clock": clock, "ignored": ignored, "bulletin": bulletin}

    def set_custom_data(self, trade_id: int, key: str, value: Any) -> None:
        """Keep plain JSON of up to 16 KiB with a trade, for a subclass and for those who ask over REST. From any thread.

        Raises:
            NotFound: no such trade.
            ValueError: not plain JSON, too long, or a key that cannot be.
            BotError: too many keys. RuntimeError: the bot was not started.
        """
        self._opened.set_custom_data(trade_id, key, value)

    def get_custom_data(self, trade_id: int, key: str, default: Any = None) -> Any:
        """What `set_custom_data` kept, or `default`. From any thread."""
        kept = self._opened.custom_data(trade_id, key)
        return kept[0].value if kept else default

    @property
    def _opened(self) -> Book:
        if self._book is None:
            raise RuntimeError("the bot was not started")
        return self._book

    def _resume(self, book: Book) -> None:
        known = [(acted, source) for source, acted in book.sources.items() if self._wanted(source)]
        if known:
            acted_ms, source = max(known, key=lambda item: item[0])
            self._followed = (source.producer, source.bot)
            self._set_source(source, acted_ms)

    def _wanted(self, source: Source) -> bool:
        settings = self._config
        return (
            settings.producer in (None, source.producer)
            and settings.bot in (None, source.bot)
            and settings.timeframe in (None, source.timeframe)
            and settings.candle_type in (None, source.candle_type)
        )

    def _follows(self, delivery: Delivery) -> bool:
        """Whether a message is of the bot that is traded; the first that fits the settings becomes it."""
        settings = self._config
        sender = (delivery.producer, delivery.bot)
        if (
            self._followed is None
            and settings.producer in (None, sender[0])
            and settings.bot in (None, sender[1])
        ):
            self._followed = sender
            self._list(self._whitelists.get(sender))
            self._whitelists.clear()
        if self._followed != sender:
            self._ignore(
                f"bot {delivery.bot!r} of producer {delivery.producer!r}", "paper.producer and paper.bot"
            )
        return self._followed == sender

    def _on_whitelist(self, delivery: Delivery, pairs: list[str]) -> None:
        """Take over the pairs of the bot that is followed; until there is one, keep those of each that it may be.

        A whitelist alone does not make a bot the one to follow, unless the settings name it: bots that send no frames publish
        theirs as well, this one among them.
        """
        sender = (delivery.producer, delivery.bot)
        if self._followed is None and self._config.bot != delivery.bot:
            if sender in self._whitelists or len(self._whitelists) < _MOST_NAMES:
                self._whitelists[sender] = pairs
        elif self._follows(delivery):
            self._list(pairs)

    def _list(self, pairs: list[str] | None) -> None:
        self._pairs = pairs
        if pairs is None:
            return
        if self._clock is not None:
            self._clock.whitelist(pairs)
        assert self._bulletin is not None
        self._bulletin.whitelist(pairs)

    def _keyed(self, key: FrameKey) -> bool:
        """Whether a frame is of the timeframe and candle type that are traded; the first that fits decides."""
        settings, source = self._config, self._source
        if source is None:
            if settings.timeframe in (None, key.timeframe) and settings.candle_type in (
                None,
                key.candle_type,
            ):
                assert self._followed is not None
                self._set_source(Source(*self._followed, key.timeframe, key.candle_type), None)
                return True
        elif (source.timeframe, source.candle_type) == (key.timeframe, key.candle_type):
            return True
        self._ignore(f"frames of {key.timeframe} {key.candle_type}", "timeframe and paper.candle_type")
        return False

    def _set_source(self, source: Source, acted_ms: int | None) -> None:
        settings = self._config
        self._source = source
        self._clock = CandleClock(
            timeframe_ms=timeframe_ms(source.timeframe),
            acted_ms=acted_ms,
            start_from=settings.start_from,
            wait_candles=settings.wait_candles,
        )
        if self._pairs is not None:
            self._clock.whitelist(self._pairs)

    def _is_timeframe(self, timeframe: str) -> bool:
        return self._source is not None and self._source.timeframe == timeframe

    def _ignore(self, what: str, keys: str) -> None:
        if what not in self._ignored and len(self._ignored) < _MOST_NAMES:
            self._ignored.add(what)
            log.info("%s is not traded: this bot follows another; %s choose", what, keys)

    def _on_rows(self, pair: str, frame: Columns, *, snapshot: bool) -> None:
        assert self._clock is not None
        self._clock.rows(pair, read_candles(frame), snapshot=snapshot)

    def _advance(self) -> None:
        clock, source = self._clock, self._source
        if clock is None or source is None:
            return
        assert self._book is not None
        while ready := _take(clock):
            self._book.act(ready, source=source, listed=clock.pairs or ())
            pairs = dict.fromkeys(pair for candle in ready for pair, _ in candle.rows)
            assert self._bulletin is not None
            self._bulletin.acted(FrameKey(pair, source.timeframe, source.candle_type) for pair in pairs)
        self._tell_waiting(clock)

    def _tell_waiting(self, clock: CandleClock) -> None:
        """Say once per candle that a silent pair holds the others up. Only the log depends on the time of day."""
        oldest_ms, now = clock.waiting_ms, time.monotonic()
        if oldest_ms is None or oldest_ms != self._waiting[0]:
            self._waiting = (oldest_ms, now)
        elif now - self._waiting[1] > _PATIENCE_S:
            self._waiting = (oldest_ms, math.inf)
            silent = ", ".join(clock.statistics().waiting_for) or "the whitelist"
            log.warning("waiting for %s: other pairs are %d candles ahead", silent, clock.ahead)

    @property
    def _terms(self) -> str:
        """What the bot runs by, in a few words."""
        settings = self._config
        slots = "any number of" if settings.max_open_trades is None else f"at most {settings.max_open_trades}"
        stake = "an equal share" if settings.stake_amount is None else f"{settings.stake_amount:f}"
        return f"{slots} trades of {stake} {settings.stake_currency}, stoploss {settings.stoploss:f}"

    @property
    def _config(self) -> PaperSettings:
        assert self._settings is not None, "start comes first"
        return self._settings


def _take(clock: CandleClock) -> list[ReadyCandle]:
    ready: list[ReadyCandle] = []
    while len(ready) < _BATCH and (candle := clock.ready()) is not None:
        ready.append(candle)
    return ready


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
