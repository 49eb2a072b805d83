"""The feed: hands a consumer's deliveries to a local bot, in order, and keeps what the bot has committed.

Theory of operation
-------------------
Deliveries come out of a `Consumer` one at a time and go through a lane (`lane`) to the bot. A ledger message carries its
position. When `handle` returned, or the bot called `delivery.commit` before, the effect counts as durable. What is known of the
ledger is kept by the bot, in the store that `start` returned, or in a file (`bookmarks`).

A bot may ask for its configuration to be read again (`BotContext.reload`). What can be checked is checked at once, so that a mistake
leaves everything as it is. Then the run ends as by a signal, and another one begins with the new configuration: another bot, other
connections, the same data directory, which nobody else can have in between.

Invariants
----------
1. `handle` sees the deliveries of a producer in the order of the producer.
2. A ledger message that is known in its stream, from an earlier run or this one, is not handed over again.
3. `stop` is called once after `start` was called, whatever happened; a bot is not started before the one before it has stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio

from consumer.answering import Answering
from consumer.attachment import Attachment
from consumer.bookmarks import Bookmarks, Marks, read_file
from consumer.client import Consumer
from consumer.config import ConsumerConfig, PublishConfig
from consumer.data import ProducerData
from consumer.errors import BotFailed, ConfigError, ConsumerError
from consumer.lane import Lane, LaneStatistics, failure, lane_to, leaf, stop
from consumer.publisher import Publication, Publisher
from hub.protocol.botapi import BotError
from hub.protocol.envelope import Position
from hub.protocol.known import Known
from hub.protocol.localbot import (
    Advanced,
    AskableBot,
    BotContext,
    Connected,
    Delivery,
    Disconnected,
    LocalBot,
    Lost,
    PositionStore,
)
from hub.protocol.messages import AnalyzedDf, FrameKey

__all__ = ["Feed", "run"]

log = logging.getLogger(__name__)


async def run(
    config: ConsumerConfig,
    bot_factory: Callable[[], LocalBot],
    *,
    data_dir: Path,
    say: Callable[[str], object] | None = None,
    read: Callable[[], ConsumerConfig] | None = None,
) -> int:
    """Feed the bot that `bot_factory` makes until a signal (SIGINT, SIGTERM) or a failure; returns the exit code.

    0 after a signal; 1 after a failure, which is told in one line to `say` (default: standard error). What was not committed is
    delivered again by the next run, as far as its class promises. `read` gives the configuration as it is in its file now, or
    raises ConfigError; it is called in a thread, when the bot asks for it. Without it the bot cannot begin anew by itself.
    """
    try:
        await Feed(config, bot_factory, data_dir=data_dir, read=read).run()
    except ConsumerError as error:
        (say or _to_stderr)(str(error))
        return 1
    return 0


class Feed:
    """The runs of one local bot: one, and another each time that it is to begin anew. `statistics()` is for any thread."""

    def __init__(
        self,
        config: ConsumerConfig,
        bot_factory: Callable[[], LocalBot],
        *,
        data_dir: Path,
        read: Callable[[], ConsumerConfig] | None = None,
    ) -> None:
        self._config = config
        self._factory = bot_factory
        self._data_dir = data_dir
        self._read = read
        self._lane: Lane | None = None
        self._handed: dict[str, Marks] = {}

    async def run(self) -> None:
        """Start the bot, feed it, stop it. Returns after a signal; a cancellation stops the bot, too.

        Raises:
            ConsumerError: what ended the run; BotFailed when the bot did.
        """
        with _exclusive(self._data_dir):
            async with _signals() as signalled:
                following: ConsumerConfig | None = self._config
                while following is not None:
                    self._config = following
                    following = await self._run_once(signalled)

    async def _run_once(self, signalled: asyncio.Event) -> ConsumerConfig | None:
        """One run; returns the configuration to run by next, None after a signal."""
        filed = await asyncio.to_thread(read_file, self._positions)
        context = _Context(self._config, self._data_dir, self._read)
        async with _publishing(self._config.publish, self._data_dir, context.restated) as publisher:
            context.publisher = publisher
            bot = _made(self._factory)
            try:
                await self._feed(bot, context, filed, signalled)
            finally:
                await _stop(bot)
        return None if signalled.is_set() else context.following

    def statistics(self) -> LaneStatistics:
        """What is on its way to the bot."""
        return self._lane.statistics() if self._lane is not None else LaneStatistics(0, 0, 0, 0, 0)

    async def _feed(
        self, bot: LocalBot, context: _Context, filed: dict[str, Known], signalled: asyncio.Event
    ) -> None:
        """Until the signal, or until the bot is to begin anew. Only starting and handing over are cancelled: what closes may take
        its time."""
        start: PositionStore | Position | None = None

        async def begin() -> None:
            nonlocal start
            start = await _started(bot, context)

        await _first(begin(), signalled.wait())
        if signalled.is_set():
            return
        bookmarks = self._bookmarks(start, filed)
        known = bookmarks.known
        self._handed = {name: Marks.of(of) for name, of in known.items()}
        async with Consumer(self._config, positions=known, advances=True) as consumer:
            context.data = consumer.data
            self._lane = lane = lane_to(bot, bookmarks)
            async with lane, _asked(bot, self._config.publish):
                handing = self._hand_over(consumer, lane, bookmarks)
                await _first(handing, lane.failed(), signalled.wait(), context.reloading.wait())

    async def _hand_over(self, consumer: Consumer, lane: Lane, bookmarks: Bookmarks) -> None:
        down: set[str] = set()
        async for delivery in consumer:
            _tell(delivery, down)
            if not self._repeated(delivery):
                delivery.commit = bookmarks.hook(delivery)
                await lane.put(delivery)

    def _bookmarks(self, start: PositionStore | Position | None, filed: dict[str, Known]) -> Bookmarks:
        producers = [producer.name for producer in self._config.producers]
        if start is None:
            return Bookmarks.of_file(self._positions, filed)
        if isinstance(start, Position):
            return Bookmarks.of_position(start, self._positions, filed, producers)
        return Bookmarks.of_store(start, self._positions, filed, producers)

    @property
    def _positions(self) -> Path:
        return self._data_dir / "positions.json"

    def _repeated(self, delivery: Delivery) -> bool:
        """Whether a message of the ledger was handed over before, in this run or, committed, in an earlier one."""
        producer = delivery.producer
        handed = self._handed.get(producer)
        if isinstance(delivery.message, Advanced):
            if handed is None:
                at = delivery.message.position
                self._handed[producer] = Marks(at.epoch, at.offset)
            else:
                handed.advance(delivery.message)
        elif delivery.position is not None:
            if handed is not None and handed.covers(delivery):
                return True
            self._handed.setdefault(producer, Marks.before(delivery)).acted(delivery)
        return False


class _Context:
    """The BotContext of a run. `reloading` is set once the bot is to begin anew, by `following`."""

    def __init__(
        self, config: ConsumerConfig, data_dir: Path, read: Callable[[], ConsumerConfig] | None
    ) -> None:
        self.config = config.raw
        self.data_dir = data_dir
        self.name = _name(config)
        self.data: ProducerData | None = None
        self.publisher: Publisher | None = None
        self.reloading = asyncio.Event()
        self.following: ConsumerConfig | None = None
        self._read = read
        self._whitelist: Any = None

    async def publish(self, topic: str, data: Any, *, mid: str, kept: bool = False) -> Position | None:
        if self.publisher is None:
            return None
        if topic == "whitelist":
            self._whitelist = data
        # That a candle is there is of the moment: a hub without room for it must not hold up a fill.
        expendable = topic == "new_candle"
        ack = await self.publisher.publish(self.name, topic, data, mid=mid, expendable=expendable, kept=kept)
        return ack.position

    def restated(self) -> Iterator[Publication]:
        """What a hub that restarted has forgotten of this bot."""
        if self._whitelist is not None:
            yield Publication(bot=self.name, topic="whitelist", data=self._whitelist)

    async def reload(self, check: Callable[[Mapping[str, Any], str], object] | None = None) -> None:
        if self._read is None:
            raise BotError(
                "this bot was not started from a configuration file, so there is none to read again"
            )
        try:
            self.following = await asyncio.to_thread(_read_again, self._read, check)
        except ConsumerError as error:
            raise BotError(str(error)) from None
        self.reloading.set()

    def get_producer_pairs(self, producer_name: str = "default") -> list[str]:
        return [] if self.data is None else self.data.get_producer_pairs(producer_name)

    def analyzed_df(self, key: FrameKey, producer_name: str = "default") -> AnalyzedDf | None:
        return None if self.data is None else self.data.analyzed_df(key, producer_name)


async def _first(*waits: Awaitable[object]) -> None:
    """Return when the first of `waits` does, or raise what it raised; the others are cancelled and waited for."""
    try:
        async with anyio.create_task_group() as group:

            async def watch(wait: Awaitable[object]) -> None:
                await wait
                group.cancel_scope.cancel()

            for wait in waits:
                group.start_soon(watch, wait)
    except BaseExceptionGroup as errors:
        told = errors.subgroup(ConsumerError)
        raise (errors if told is None else leaf(told)) from None


def _read_again(
    read: Callable[[], ConsumerConfig], check: Callable[[Mapping[str, Any], str], object] | None
) -> ConsumerConfig:
    """The configuration that is there now. Raises ConfigError when a run with it could not begin."""
    config = read()
    name, publish = _name(config), config.publish
    if publish is not None:
        _publisher(publish, None, None)
    if check is not None:
        check(config.raw, name)
    return config


def _name(config: ConsumerConfig) -> str:
    """The bot's own name."""
    publish = config.publish
    return publish.bot if publish is not None else config.bot_name


def _made(factory: Callable[[], LocalBot]) -> LocalBot:
    """A bot with the methods that it needs."""
    try:
        bot = factory()
    except (Exception, SystemExit) as error:
        raise failure(factory, "__init__", error) from error
    missing = [name for name in ("start", "handle", "stop") if not callable(getattr(bot, name, None))]
    if missing:
        raise BotFailed(
            f"{type(bot).__name__}: expected a bot with start, handle and stop; {missing[0]} is missing"
        )
    return bot


async def _started(bot: LocalBot, context: BotContext) -> PositionStore | Position | None:
    try:
        starting: object = bot.start(context)
        begin = await starting if inspect.isawaitable(starting) else starting
    except (Exception, SystemExit) as error:
        raise failure(bot, "start", error) from error
    if begin is None or isinstance(begin, PositionStore):
        return begin
    if not isinstance(begin, Position):
        raise BotFailed(
            f"{type(bot).__name__}.start: expected a PositionStore, a Position or None, got {type(begin).__name__}"
        )
    try:
        Known.at(begin)
    except ValueError as error:
        raise BotFailed(f"{type(bot).__name__}.start: {error}") from None
    return begin


async def _stop(bot: LocalBot) -> None:
    """Call `stop` whatever happened. Its own failure is the run's only when nothing else was."""
    pending = isinstance(sys.exception(), Exception)
    try:
        await stop(bot)
    except ConsumerError:
        if not pending:
            raise


def _tell(delivery: Delivery, down: set[str]) -> None:
    """Log what a user must know even of a bot that does not care: no connection, and messages that are gone."""
    producer, message = delivery.producer, delivery.message
    if isinstance(message, Disconnected):
        down.add(producer)
        log.warning("%s; trying again", message.reason)
    elif isinstance(message, Connected) and producer in down:
        down.remove(producer)
        lost = "; not everything that was missed came back" if message.resumed is False else ""
        log.warning("%s: connected again%s", producer, lost)
    elif isinstance(message, Lost):
        span = (
            ""
            if message.first is None
            else f" {message.first}..{'' if message.last is None else message.last}"
        )
        topics = ", ".join(message.topics) or "messages"
        log.warning("%s: %s%s are lost: %s", producer, topics, span, message.reason)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@contextlib.asynccontextmanager
async def _publishing(
    publish: PublishConfig | None, data_dir: Path, restate: Callable[[], Iterable[Publication]]
) -> AsyncIterator[Publisher | None]:
    if publish is None:
        yield None
        return
    outbox = None if publish.outbox is None else data_dir / publish.outbox
    async with _publisher(publish, outbox, restate) as publisher:
        yield publisher


def _publisher(
    publish: PublishConfig, outbox: Path | None, restate: Callable[[], Iterable[Publication]] | None
) -> Publisher:
    try:
        return Publisher(
            publish.where,
            publish.token,
            outbox=outbox,
            name=publish.bot,
            ca_file=publish.ca_file,
            restate=restate,
        )
    except ConfigError as error:
        raise ConfigError("publish.url", error.expected) from None


@contextlib.asynccontextmanager
async def _asked(bot: LocalBot, publish: PublishConfig | None) -> AsyncIterator[None]:
    """Let the hub ask the bot over REST meanwhile, if it can be asked; what goes wrong there ends nothing else."""
    if publish is None or not publish.attach or not isinstance(bot, AskableBot):
        yield
        return
    answer = Answering(bot.api())
    async with Attachment(publish.where, publish.token, publish.bot, answer, ca_file=publish.ca_file):
        yield


@contextlib.asynccontextmanager
async def _signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set, where the loop can have handlers (the main thread, not on Windows).

    A second signal ends the process at once, as far as the loop still turns: nothing that was committed is lost by that.
    """
    signalled, loop = asyncio.Event(), asyncio.get_running_loop()
    taken: list[signal.Signals] = []

    def stop() -> None:
        signalled.set()
        while taken:
            number = taken.pop()
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop)
            taken.append(number)
    restored = list(taken)
    try:
        yield signalled
    finally:
        stop()
        for number in restored:
            signal.signal(number, before[number] or signal.SIG_DFL)


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
