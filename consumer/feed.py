"""The feed: hands a consumer's deliveries to a local bot, in order, and keeps what the bot has committed.

Theory of operation
-------------------
Deliveries come out of a `Consumer` one at a time and go through a *lane* to the bot: a coroutine `handle` is awaited in the
event loop, a plain one runs in one thread of its own. Either way the order is that of arrival and a bot that is slow slows the
reading of the sockets; nothing is dropped on the way. The thread's lane holds at most HAND_OVER_BYTES (and one delivery that
is larger than that by itself).

What is committed: a ledger message carries its position. When `handle` returned, or the bot called `delivery.commit` before,
the effect counts as durable. A bot that stores the position in the same transaction as its effect returns it from `start` and
acts exactly once. For a bot that returns None the feed keeps the position in a file, written after the commit: such a bot sees
a message again when the process dies in between, so at least once.

Invariants
----------
1. `handle` never runs twice at the same time, and sees the deliveries of a producer in the order of the producer.
2. A ledger message at or below the committed position is not handed over again.
3. The file never holds a position whose message the bot has not committed.
4. `stop` is called once after `start` was called, whatever happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import anyio

from consumer.client import Consumer
from consumer.config import ConsumerConfig
from consumer.errors import ConfigError, ConsumerError
from consumer.publisher import Publisher
from hub.frames.columns import Columns
from hub.protocol.envelope import Position
from hub.protocol.localbot import BotContext, Delivery, LocalBot
from hub.protocol.messages import AnalyzedDf

__all__ = ["HAND_OVER_BYTES", "BotFailed", "Feed", "LaneStatistics", "run"]

log = logging.getLogger(__name__)

HAND_OVER_BYTES = 8 * 1024 * 1024
_DELIVERY_BYTES = 1024
_COMMITS_PER_WRITE = 100
_STOP_S = 30.0


class BotFailed(ConsumerError):
    """The local bot raised an exception; the text names the bot, the message and the exception."""


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A snapshot of the way to the bot: handed over, handled, and what waits in between."""

    handed: int
    handled: int
    waiting: int
    waiting_bytes: int
    limit_bytes: int


async def run(
    config: ConsumerConfig,
    bot_factory: Callable[[], LocalBot],
    *,
    data_dir: Path,
    say: Callable[[str], object] | None = None,
) -> int:
    """Feed the bot that `bot_factory` makes until a signal (SIGINT, SIGTERM) or a failure; returns the exit code.

    0 after a signal; 1 after a failure, which is told in one line to `say` (default: standard error). What was not committed is
    delivered again by the next run, as far as its class promises.
    """
    try:
        await Feed(config, bot_factory, data_dir=data_dir).run()
    except ConsumerError as error:
        (say or _to_stderr)(str(error))
        return 1
    return 0


class Feed:
    """One run of one local bot. `statistics()` may be called from any thread."""

    def __init__(
        self, config: ConsumerConfig, bot_factory: Callable[[], LocalBot], *, data_dir: Path
    ) -> None:
        self._config = config
        self._factory = bot_factory
        self._data_dir = data_dir
        self._lane: _Lane | None = None
        self._handed: dict[str, Position] = {}

    async def run(self) -> None:
        """Start the bot, feed it, stop it. Returns after a signal; a cancellation stops the bot, too.

        Raises:
            ConsumerError: what ended the run; BotFailed when the bot did.
        """
        with _exclusive(self._data_dir):
            bookmarks = _Bookmarks.load(self._data_dir / "positions.json")
            async with _publishing(self._config.raw) as publish:
                context = _Context(self._config.raw, self._data_dir, publish)
                bot = self._factory()
                try:
                    await self._feed(bot, context, bookmarks)
                finally:
                    await _stop(bot)

    def statistics(self) -> LaneStatistics:
        """What is on its way to the bot."""
        return self._lane.statistics() if self._lane is not None else LaneStatistics(0, 0, 0, 0, 0)

    async def _feed(self, bot: LocalBot, context: _Context, bookmarks: _Bookmarks) -> None:
        start = await _started(bot, context)
        if start is not None:
            bookmarks.take_over(start, [producer.name for producer in self._config.producers])
        self._handed = dict(bookmarks.positions)
        async with Consumer(self._config, positions=bookmarks.positions) as consumer:
            context.pairs = consumer.data.get_producer_pairs
            self._lane = lane = _lane(bot, bookmarks)
            async with lane, _signals() as signalled:
                await _first(self._hand_over(consumer, lane, bookmarks), lane.failed(), signalled.wait())

    async def _hand_over(self, consumer: Consumer, lane: _Lane, bookmarks: _Bookmarks) -> None:
        async for delivery in consumer:
            if not self._repeated(delivery):
                await lane.put(replace(delivery, commit=bookmarks.hook(delivery)))

    def _repeated(self, delivery: Delivery) -> bool:
        """Whether a message of the ledger was handed over before. One order per hub, so one number tells."""
        position = delivery.position
        if position is None:
            return False
        known = self._handed.get(delivery.producer)
        if known is not None and known.epoch == position.epoch and position.offset <= known.offset:
            return True
        self._handed[delivery.producer] = position
        return False


class _Context:
    """The BotContext of a feed."""

    def __init__(self, config: Mapping[str, Any], data_dir: Path, publish: _Publish | None) -> None:
        # freqtrade's key for where a bot keeps its files.
        self.config: Mapping[str, Any] = {"user_data_dir": str(data_dir), **config}
        self.name = publish.bot if publish is not None else _bot_name(config)
        self.pairs: Callable[[str], list[str]] = lambda producer_name: []
        self._publish = publish

    async def publish(self, topic: str, data: Any, *, mid: str) -> Position | None:
        if self._publish is None:
            return None
        ack = await self._publish.publisher.publish(self.name, topic, data, mid=mid)
        return ack.position

    def get_producer_pairs(self, producer_name: str = "default") -> list[str]:
        return self.pairs(producer_name)


@dataclass(frozen=True, slots=True)
class _Publish:
    publisher: Publisher
    bot: str


class _Bookmarks:
    """The committed positions, by producer. `path` is None when the bot keeps its own. Thread-safe."""

    def __init__(self, path: Path, positions: dict[str, Position]) -> None:
        self.positions = positions
        self._path: Path | None = path
        self._lock = threading.Lock()
        self._unwritten = 0

    @classmethod
    def load(cls, path: Path) -> _Bookmarks:
        try:
            stored = json.loads(path.read_text())
            positions = {name: Position(str(e), int(o)) for name, (e, o) in stored["positions"].items()}
        except FileNotFoundError:
            positions = {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise ConfigError(
                "--data-dir", f"{path} cannot be read; without it the bot begins with what is live"
            ) from None
        return cls(path, positions)

    def take_over(self, start: Position, producers: list[str]) -> None:
        """The bot stores its position itself. It belongs to the producers known by its epoch, or else to any."""
        known = [name for name in producers if self._epoch(name) == start.epoch]
        self.positions = dict.fromkeys(known or producers, start)
        self._path = None

    def hook(self, delivery: Delivery) -> Callable[[], None]:
        """What the bot calls when the effect of `delivery` is durable; more than once is once."""
        if delivery.position is None:
            return _nothing
        producer, position = delivery.producer, delivery.position

        def commit() -> None:
            with self._lock:
                known = self.positions.get(producer)
                if known is None or known.epoch != position.epoch or known.offset < position.offset:
                    self.positions[producer] = position
                    self._unwritten += 1

        return commit

    def write(self, *, idle: bool) -> None:
        """Store what is committed, when nothing else waits or enough has come together. Blocks for the disk."""
        with self._lock:
            if (
                self._path is None
                or not self._unwritten
                or not (idle or self._unwritten >= _COMMITS_PER_WRITE)
            ):
                return
            stored = {"version": 1, "positions": {n: [p.epoch, p.offset] for n, p in self.positions.items()}}
            try:
                _write_atomically(self._path, json.dumps(stored))
            except OSError as error:
                raise BotFailed(f"{self._path}: the position cannot be stored: {error.strerror}") from error
            self._unwritten = 0

    def _epoch(self, producer: str) -> str | None:
        position = self.positions.get(producer)
        return None if position is None else position.epoch


class _Lane(Protocol):
    """The way from the consumer to `handle`."""

    async def __aenter__(self) -> _Lane: ...

    async def __aexit__(self, kind: object, *_: object) -> None: ...

    async def put(self, delivery: Delivery) -> None:
        """Hand over; waits while too much waits in the lane."""

    async def failed(self) -> None:
        """Waits for ever, or raises BotFailed as soon as the bot failed."""

    def statistics(self) -> LaneStatistics: ...


def _lane(bot: LocalBot, bookmarks: _Bookmarks) -> _Lane:
    return (_LoopLane if inspect.iscoroutinefunction(bot.handle) else _ThreadLane)(bot, bookmarks)


class _LoopLane:
    """Awaits `handle` in the event loop: nothing waits here."""

    def __init__(self, bot: LocalBot, bookmarks: _Bookmarks) -> None:
        self._bot = bot
        self._bookmarks = bookmarks
        self._handled = 0
        self._unwritten = False

    async def __aenter__(self) -> _LoopLane:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A cancellation must not undo that the bot has committed.
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(self._bookmarks.write, idle=True)

    async def put(self, delivery: Delivery) -> None:
        try:
            result = self._bot.handle(delivery)
            if result is not None:
                await result
        except Exception as error:
            raise _failure(self._bot, delivery, error) from error
        delivery.commit()
        self._handled += 1
        if delivery.position is not None:
            await asyncio.to_thread(self._bookmarks.write, idle=True)

    async def failed(self) -> None:
        await anyio.sleep_forever()

    def statistics(self) -> LaneStatistics:
        return LaneStatistics(self._handled, self._handled, 0, 0, 0)


class _ThreadLane:
    """Runs a plain `handle` in one thread, behind a queue that is bounded in bytes."""

    def __init__(self, bot: LocalBot, bookmarks: _Bookmarks, *, limit_bytes: int = HAND_OVER_BYTES) -> None:
        self._bot = bot
        self._bookmarks = bookmarks
        self._limit_bytes = limit_bytes
        self._queue: deque[tuple[Delivery, int]] = deque()
        self._bytes = self._handed = self._handled = 0
        self._closing = False
        self._changed = threading.Condition()
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._failure: ConsumerError | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="local bot", daemon=True)

    async def __aenter__(self) -> _ThreadLane:
        self._thread.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_STOP_S) as waited:
            await self._over.wait()
        if waited.cancelled_caught:
            raise BotFailed(f"{_name(self._bot)}.handle did not return within {_STOP_S:.0f} s after the stop")
        if self._failure is not None and kind is None:
            raise self._failure

    async def put(self, delivery: Delivery) -> None:
        size = _size(delivery)
        while True:
            with self._changed:
                if not self._bytes or self._bytes + size <= self._limit_bytes:
                    self._queue.append((delivery, size))
                    self._bytes += size
                    self._handed += 1
                    self._changed.notify()
                    return
                self._room.clear()
            await self._room.wait()

    async def failed(self) -> None:
        await self._over.wait()
        if self._failure is not None:
            raise self._failure

    def statistics(self) -> LaneStatistics:
        with self._changed:
            return LaneStatistics(
                self._handed, self._handled, len(self._queue), self._bytes, self._limit_bytes
            )

    def _work(self) -> None:
        try:
            while (item := self._take()) is not None:
                self._handle(*item)
        except ConsumerError as error:
            self._failure = error
        try:
            self._bookmarks.write(idle=True)
        except ConsumerError as error:
            self._failure = self._failure or error
        finally:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._over.set)

    def _take(self) -> tuple[Delivery, int] | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            # What still waits was not committed: the next run gets it again.
            return None if self._closing else self._queue.popleft()

    def _handle(self, delivery: Delivery, size: int) -> None:
        try:
            result = self._bot.handle(delivery)
            if result is not None and inspect.isawaitable(result):
                asyncio.run_coroutine_threadsafe(_awaited(result), self._loop).result()
        except Exception as error:
            raise _failure(self._bot, delivery, error) from error
        delivery.commit()
        with self._changed:
            self._bytes -= size
            self._handled += 1
            idle = not self._queue
        if not self._room.is_set():
            self._loop.call_soon_threadsafe(self._room.set)
        self._bookmarks.write(idle=idle)


async def _awaited(result: Awaitable[None]) -> None:
    await result


async def _first(*waits: Awaitable[object]) -> None:
    """Return when the first of `waits` does, or raise what it raised; the others are cancelled and waited for."""
    try:
        async with anyio.create_task_group() as group:

            async def watch(wait: Awaitable[object]) -> None:
                await wait
                group.cancel_scope.cancel()

            for wait in waits:
                group.start_soon(watch, wait)
    except* ConsumerError as errors:
        raise _leaf(errors) from None


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _started(bot: LocalBot, context: BotContext) -> Position | None:
    try:
        return await bot.start(context)
    except ConsumerError:
        raise
    except Exception as error:
        log.debug("the bot's start failed", exc_info=True)
        raise BotFailed(f"{_name(bot)}.start: {_described(error)}") from error


async def _stop(bot: LocalBot) -> None:
    """Call `stop` whatever happened. Its own failure is the run's only when nothing else was."""
    pending = sys.exception() is not None
    try:
        with anyio.CancelScope(shield=True):
            await bot.stop()
    except Exception as error:
        log.debug("the bot's stop failed", exc_info=True)
        if not pending:
            raise BotFailed(f"{_name(bot)}.stop: {_described(error)}") from error


def _failure(bot: LocalBot, delivery: Delivery, error: Exception) -> ConsumerError:
    if isinstance(error, ConsumerError):
        return error
    log.debug("the bot's handle failed", exc_info=True)
    return BotFailed(f"{_name(bot)}.handle: {delivery.topic} of {delivery.bot}: {_described(error)}")


def _described(error: Exception) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _name(bot: LocalBot) -> str:
    return type(bot).__name__


def _size(delivery: Delivery) -> int:
    message = delivery.message
    if isinstance(message, AnalyzedDf) and isinstance(message.df, Columns):
        return _DELIVERY_BYTES + message.df.nbytes
    return _DELIVERY_BYTES


def _nothing() -> None:
    return None


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _bot_name(config: Mapping[str, Any]) -> str:
    name = config.get("bot_name")
    return name if isinstance(name, str) and name else "bot"


@contextlib.asynccontextmanager
async def _publishing(config: Mapping[str, Any]) -> AsyncIterator[_Publish | None]:
    """The Publisher of the section `publish`: {"url" | "host", "port", "secure", "token", "bot", "ca_file"}."""
    section = config.get("publish")
    if section is None:
        yield None
        return
    if not isinstance(section, Mapping):
        raise ConfigError("publish", f"expected a map, got {type(section).__name__}")
    token = section.get("token")
    if not isinstance(token, str) or not token:
        raise ConfigError("publish.token", "expected the token of a publisher of the hub")
    bot = section.get("bot", _bot_name(config))
    if not isinstance(bot, str) or not bot:
        raise ConfigError("publish.bot", "expected the name to publish under")
    ca_file = section.get("ca_file")
    async with Publisher(_publish_url(section), token, name=bot, ca_file=ca_file) as publisher:
        yield _Publish(publisher, bot)


def _publish_url(section: Mapping[str, Any]) -> str:
    url, host = section.get("url"), section.get("host")
    if isinstance(url, str) and url and host is None:
        return url
    if url is not None or not isinstance(host, str) or not host:
        raise ConfigError("publish.url", "expected either a URL or publish.host")
    port, secure = section.get("port", 8080), section.get("secure", False)
    if type(port) is not int or not 0 < port < 65536:
        raise ConfigError("publish.port", f"expected a number from 1 to 65535, got {port!r}")
    if not isinstance(secure, bool):
        raise ConfigError("publish.secure", f"expected true or false, got {secure!r}")
    shown = f"[{host}]" if ":" in host else host
    return f"{'wss' if secure else 'ws'}://{shown}:{port}"


@contextlib.asynccontextmanager
async def _signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set, where the loop can have handlers (the main thread, not on Windows)."""
    signalled, loop = asyncio.Event(), asyncio.get_running_loop()
    taken = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, signalled.set)
            taken.append(number)
    try:
        yield signalled
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: two runs on the same trades would act twice."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a")
    except OSError as error:
        raise ConfigError("--data-dir", f"{data_dir} cannot be used: {error.strerror}") from None
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            log.debug("no file locks on this system")
        except OSError:
            raise ConfigError("--data-dir", f"{data_dir} is in use by another run") from None
        yield


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
