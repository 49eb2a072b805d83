"""What producers sent, as freqtrade's strategies ask for it: get_producer_pairs and get_producer_df.

A `Book` is one producer's whitelists and frames; connections write it, `ProducerData` reads it. One lock guards all books, so a
strategy may read in its own thread while messages arrive. What a reader gets is a copy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from hub.frames.columns import Columns
from hub.frames.store import CandleStore, Change
from hub.protocol.messages import AnalyzedDf, FrameKey

if TYPE_CHECKING:
    import pandas as pd

    from consumer.config import ConsumerConfig

__all__ = ["Book", "ProducerData", "without_signals"]

_LOG = logging.getLogger(__name__)

CAPACITY = 1500
"""Candles kept per key: freqtrade's cap."""

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_SIGNALS = frozenset({"enter_long", "exit_long", "enter_short", "exit_short"})
_TAGS = frozenset({"enter_tag", "exit_tag"})


@dataclass(slots=True)
class _Frame:
    store: CandleStore
    la_ms: int = 0
    rev: int | None = None
    stale: bool = False
    missing: int = 0
    problem: str | None = None


@dataclass(slots=True)
class _Bot:
    pairs: list[str] | None = None
    frames: dict[FrameKey, _Frame] = field(default_factory=dict)


class Book:
    """One producer's whitelists and frames, by bot. Made by `ProducerData.book`.

    On freqtrade's wire the bot is the producer itself, under its configured name. `apply` and what it reads belong to the
    connection's task; `lock` is held for each call only.
    """

    def __init__(
        self, producer: str, lock: threading.RLock, *, bots: Iterable[str] = (), remove_signals: bool = False
    ) -> None:
        self.producer = producer
        self._wanted = tuple(bots)
        self._lock = lock
        self._remove_signals = remove_signals
        self._bots: dict[str, _Bot] = {}
        self._ambiguous_told = False

    def prepared(self, columns: Columns) -> Columns:
        """The rows as they are stored and delivered: without signals where the configuration says so."""
        return without_signals(columns) if self._remove_signals else columns

    def set_pairs(self, bot: str, pairs: list[str]) -> None:
        """The bot's whitelist is `pairs` now; it may be empty."""
        with self._lock:
            self._bot(bot).pairs = list(pairs)

    def apply(
        self,
        bot: str,
        key: FrameKey,
        columns: Columns,
        la_ms: int | None,
        *,
        snapshot: bool,
        rev: int | None = None,
    ) -> Change:
        """Take rows over, or a whole window; the key is current then.

        Raises:
            BadFrame: the rows do not fit the key's grid, or its timeframe is none; nothing changed.
        """
        with self._lock:
            frames = self._bot(bot).frames
            frame = frames.get(key) or _Frame(CandleStore(key.timeframe, CAPACITY))
            change = frame.store.replace(columns) if snapshot else frame.store.upsert(columns)
            frames[key] = frame
            frame.la_ms = max(frame.la_ms, la_ms or 0)
            frame.rev = rev
            frame.stale, frame.missing, frame.problem = False, 0, None
        return change

    def mark_stale(self, bot: str, key: FrameKey, *, missing: int = 0, problem: str | None = None) -> None:
        """The key's rows are no longer the newest: `missing` candles are known to lack, or `problem` says why."""
        with self._lock:
            frame = self._frame(bot, key)
            if frame is not None:
                frame.stale, frame.missing, frame.problem = True, missing, problem

    def mark_all_stale(self) -> None:
        """The producer is out of reach."""
        with self._lock:
            for bot in self._bots.values():
                for frame in bot.frames.values():
                    frame.stale = True

    def mark_fresh(self, bot: str, key: FrameKey) -> None:
        """What is held is what the producer has."""
        with self._lock:
            frame = self._frame(bot, key)
            if frame is not None:
                frame.stale, frame.missing, frame.problem = False, 0, None

    def missing_before(self, bot: str, key: FrameKey, date_ms: int) -> int | None:
        """Candles missing between the last held row and `date_ms`; None when nothing is held."""
        with self._lock:
            frame = self._frame(bot, key)
            return None if frame is None or not frame.store.n else frame.store.missing_before(date_ms)

    def changed_since(self, bot: str, key: FrameKey, rev: int) -> Columns | None:
        """The held rows that changed after the store's revision `rev`; None: all of them may have."""
        with self._lock:
            frame = self._frame(bot, key)
            return None if frame is None else frame.store.changed_since(rev)

    def window(self, bot: str, key: FrameKey) -> Columns | None:
        """All held rows, or None."""
        with self._lock:
            frame = self._frame(bot, key)
            return None if frame is None else frame.store.tail()

    def first_ms(self, bot: str, key: FrameKey) -> int:
        """The date of the oldest row that is held, in ms since 1970 UTC; 0 when nothing is."""
        with self._lock:
            frame = self._frame(bot, key)
            return (frame.store.first_ms or 0) if frame is not None else 0

    def store_rev(self, bot: str, key: FrameKey) -> int:
        """The store's own revision; -1 when nothing is held."""
        with self._lock:
            frame = self._frame(bot, key)
            return -1 if frame is None else frame.store.rev

    def pairs(self, bot: str | None) -> list[str]:
        """The whitelist of `bot`, or of the producer's one bot; [] when unknown."""
        with self._lock:
            found = self._bots.get(self._one_bot() if bot is None else bot)
            return list(found.pairs or ()) if found is not None else []

    def frame(
        self, bot: str | None, pair: str, timeframe: str | None, candle_type: str | None
    ) -> tuple[pd.DataFrame, datetime]:
        """As `ProducerData.get_producer_df`, of one bot."""
        with self._lock:
            found = self._bots.get(self._one_bot() if bot is None else bot)
            keys = [key for key in (found.frames if found is not None else ()) if key.pair == pair]
            matching = [
                key
                for key in keys
                if timeframe in (None, key.timeframe) and candle_type in (None, key.candle_type)
            ]
            if found is None or len(matching) != 1:
                return _nothing(keys)
            return _handed_out(found.frames[matching[0]])

    def analyzed_df(self, bot: str | None, key: FrameKey) -> AnalyzedDf | None:
        """As `ProducerData.analyzed_df`, of one bot."""
        with self._lock:
            found = self._frame(self._one_bot() if bot is None else bot, key)
            if found is None:
                return None
            la = datetime.fromtimestamp(found.la_ms / 1000, UTC) if found.la_ms else None
            return AnalyzedDf(key=key, df=found.store.tail(), la=la)

    def statistics(self) -> dict[str, int]:
        """Keys and bytes held, and how many keys are stale."""
        with self._lock:
            frames = [f for bot in self._bots.values() for f in bot.frames.values()]
            return {
                "bots": len(self._bots),
                "keys": len(frames),
                "stale_keys": sum(f.stale for f in frames),
                "frame_bytes": sum(f.store.nbytes for f in frames),
                "frame_limit_bytes_per_key": CandleStore("1m", CAPACITY).max_bytes,
            }

    def _bot(self, name: str) -> _Bot:
        return self._bots.setdefault(name, _Bot())

    def _frame(self, bot: str, key: FrameKey) -> _Frame | None:
        found = self._bots.get(bot)
        return None if found is None else found.frames.get(key)

    def _one_bot(self) -> str:
        """The bot that the producer's bare name stands for; '' when that cannot be said."""
        if len(self._wanted) == 1:
            return self._wanted[0]
        if self.producer in self._bots or self.producer in self._wanted:
            return self.producer
        if len(self._bots) == 1:
            return next(iter(self._bots))
        if self._bots and not self._ambiguous_told:
            self._ambiguous_told = True
            names = ", ".join(f"{self.producer}/{bot}" for bot in sorted(self._bots))
            _LOG.warning(
                "producer %s has several bots, so its bare name gives nothing; use one of %s",
                self.producer,
                names,
            )
        return ""


def _nothing(keys: list[FrameKey]) -> tuple[pd.DataFrame, datetime]:
    import pandas as pd

    frame = pd.DataFrame()
    frame.attrs = {"as_of": None, "stale": True, "missing": 0, "rev": None}
    if keys:
        frame.attrs["available"] = sorted([key.timeframe, key.candle_type] for key in keys)
    return frame, _NEVER


def _handed_out(held: _Frame) -> tuple[pd.DataFrame, datetime]:
    frame = held.store.frame()
    as_of = datetime.fromtimestamp(held.la_ms / 1000, UTC)
    frame.attrs = {"as_of": as_of, "stale": held.stale, "missing": held.missing, "rev": held.rev}
    if held.problem is not None:
        frame.attrs["problem"] = held.problem
    return frame, as_of


class ProducerData:
    """The newest state of every producer, with freqtrade's names and meanings. Readers may be in any thread.

    `timeframe` and `candle_type` are the defaults of get_producer_df: the consumer's own, as in freqtrade. Where the
    consumer has none, the only one that the producer sends is meant.
    """

    def __init__(
        self, *, timeframe: str | None = None, candle_type: str | None = None, remove_signals: bool = False
    ) -> None:
        self._timeframe = timeframe
        self._candle_type = candle_type
        self._remove_signals = remove_signals
        self._lock = threading.RLock()
        self._books: dict[str, Book] = {}

    @classmethod
    def of(cls, settings: ConsumerConfig) -> ProducerData:
        """With the defaults that a configuration gives."""
        return cls(
            timeframe=settings.timeframe,
            candle_type=settings.candle_type,
            remove_signals=settings.remove_entry_exit_signals,
        )

    def book(self, producer: str, bots: Iterable[str] = ()) -> Book:
        """The producer's book, made on first use. `bots` are those that are consumed, where they are named."""
        with self._lock:
            book = self._books.get(producer)
            if book is None:
                book = Book(producer, self._lock, bots=bots, remove_signals=self._remove_signals)
                self._books[producer] = book
            return book

    def get_producer_pairs(self, producer_name: str = "default") -> list[str]:
        """The producer's whitelist, a copy; [] for an unknown producer.

        `producer_name` is the configured name, which stands for the producer's one bot, or `name/bot` for one of several. With
        several and no bot of the producer's own name, the bare name gives nothing: two bots are never mixed.
        """
        book, bot = self._resolve(producer_name)
        return book.pairs(bot) if book is not None else []

    def get_producer_df(
        self,
        pair: str,
        timeframe: str | None = None,
        candle_type: str | None = None,
        producer_name: str = "default",
    ) -> tuple[pd.DataFrame, datetime]:
        """The producer's frame, a copy, and when the producer analyzed it; (empty, 1970-01-01 UTC) when unknown.

        `attrs` of the frame say more than freqtrade: `as_of`, the same time; `stale`, whether newer rows may exist that
        are not in it; `missing`, how many candles are known to lack at its end; `rev`, the hub's revision (None on
        freqtrade's wire); on an empty one `available`, the [timeframe, candle_type] that do come for this pair.
        """
        book, bot = self._resolve(producer_name)
        if book is None:
            return _nothing([])
        return book.frame(bot, pair, timeframe or self._timeframe, candle_type or self._candle_type)

    def analyzed_df(self, key: FrameKey, producer_name: str = "default") -> AnalyzedDf | None:
        """The producer's held rows of exactly `key` as columns, a copy, and when they were analyzed; None when there are none."""
        book, bot = self._resolve(producer_name)
        return None if book is None else book.analyzed_df(bot, key)

    def statistics(self) -> Mapping[str, Any]:
        """Per producer: keys and bytes held."""
        with self._lock:
            return {name: book.statistics() for name, book in self._books.items()}

    def _resolve(self, name: str) -> tuple[Book | None, str | None]:
        with self._lock:
            if name in self._books:
                return self._books[name], None
            for producer, book in self._books.items():
                if name.startswith(f"{producer}/"):
                    return book, name[len(producer) + 1 :]
        return None, None


def without_signals(columns: Columns) -> Columns:
    """The same rows with entry and exit signals 0 and their tags null, as freqtrade's remove_entry_exit_signals does."""
    names = columns.schema.names
    if not (_SIGNALS | _TAGS) & set(names):
        return columns
    arrays, valid = list(columns.arrays), list(columns.valid)
    for i, spec in enumerate(columns.schema.fields):
        if spec.name not in _SIGNALS | _TAGS:
            continue
        text = spec.dtype == "str"
        arrays[i] = np.full(columns.n, "", object) if text else np.zeros_like(arrays[i])
        valid[i] = np.zeros(columns.n, np.bool_) if text or spec.name in _TAGS else None
    return Columns(columns.schema, arrays, valid)
