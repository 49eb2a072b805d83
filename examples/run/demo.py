"""One run of the main job: hub, consumer and producer as processes, from their start to the figures of the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumer.client import Client
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.errors import ConsumerError
from examples.run.candles import CandleFile, read_directory
from examples.run.processes import Child, ChildDied
from examples.run.settings import PAPER, PRODUCER, Settings, write_consumer, write_hub
from examples.run.standing import ShownFill, Standing
from examples.run.view import View
from hub.frames.timeframe import timeframe_ms
from hub.protocol.localbot import Connected
from hub.protocol.messages import EntryFill, ExitFill

__all__ = ["Demo", "Options"]

_LISTENS = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")
_DRAW_EVERY_S = 0.25
_STALL_S = 60.0
_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Options:
    """What a run does. `candles` and `seconds` end it before the data does; `port` None takes a free one; `ui` is served at /."""

    data: Path
    speed: float = 5.0
    candles: int | None = None
    seconds: float | None = None
    port: int | None = None
    ui: Path | None = None


class Demo:
    """The processes of a run and what they said. `standing` is shown by `view` while `run` goes on.

    Raises:
        ChildDied: a process ended by itself, or nothing moves any more; one line.
        BadData: there is nothing to replay.
    """

    def __init__(self, options: Options, settings: Settings, view: View) -> None:
        self.standing = Standing()
        self.url = ""
        self._options = options
        self._settings = settings
        self._view = view
        self._files: list[CandleFile] = []
        self._children: dict[str, Child] = {}
        self._moved = time.monotonic()
        self._finished = asyncio.Event()

    async def run(self, started: Callable[[Demo], None] = lambda demo: None) -> dict[str, Any]:
        """Run to the end of the replay, or until cancelled; the children are gone when it returns."""
        self._read()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stop)
            port = await self._start_hub()
            self.url = f"http://127.0.0.1:{port}"
            await stack.enter_async_context(self._fills(port))
            await self.start_consumer(port)
            await self._start_producer()
            started(self)
            await self._until_finished()
        return self.figures()

    def figures(self) -> dict[str, Any]:
        """What the run came to so far."""
        producer, bot = self.standing.producer, self.standing.bot
        return {
            "candles": producer.get("rows", 0),
            "published": producer.get("published", 0),
            "delivered": bot.get("delivered", 0),
            "fills": dict(sorted(self.standing.fills.items())),
            "gaps": producer.get("gaps", 0),
            "closed_profit": bot.get("closed_profit", 0.0),
        }

    async def start_consumer(self, port: int) -> Child:
        """Start the consumer, at first or again; what it said before is forgotten."""
        self.standing.bot = {}
        currency = self._files[0].pair.partition("/")[2] or "USD"
        write_consumer(self._settings, port, currency)
        arguments = ["--config", str(self._settings.consumer_file)]
        arguments += ["--bot", "examples.run.bot:ReportingBot"]
        arguments += ["--data-dir", str(self._settings.bot_directory)]
        return await self._start("consumer", "-m", "consumer", "run", *arguments, on_line=self._from_bot)

    @property
    def serves_ui(self) -> bool:
        """Whether the hub serves a UI at its own address."""
        return self._options.ui is not None

    def child(self, name: str) -> Child:
        """A process that was started: hub, consumer or producer."""
        return self._children[name]

    def kill(self) -> None:
        """End all processes at once; `run`, when it is being cancelled, then has nobody to wait for."""
        for child in self._children.values():
            child.kill()

    def _read(self) -> None:
        self._files = read_directory(self._options.data)
        self.standing.step_ms = timeframe_ms(self._files[0].timeframe)
        for file in self._files:
            for problem in file.problems[:_PROBLEMS_SHOWN]:
                self._view.say(problem)
            if len(file.problems) > _PROBLEMS_SHOWN:
                self._view.say(f"{file.pair}: {len(file.problems) - _PROBLEMS_SHOWN} more lines like these")

    async def _start_hub(self) -> int:
        write_hub(self._settings, self._options.port, self._options.ui)
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def read(line: str) -> None:
            found = _LISTENS.search(line)
            if found and not listening.done():
                listening.set_result(int(found[1]))

        arguments = ["-m", "hub", "serve", "--config", str(self._settings.hub_file)]
        hub = await self._start("hub", *arguments, on_error=read)
        ended = asyncio.create_task(hub.watch())
        try:
            waits: set[asyncio.Future[Any]] = {listening, ended}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                await ended
        finally:
            ended.cancel()
        return listening.result()

    async def _start_producer(self) -> None:
        options = self._options
        arguments = ["-m", "examples.run.replay", "--url", self.url.replace("http", "ws", 1)]
        arguments += ["--bot", PRODUCER, "--data", str(options.data), "--speed", str(options.speed)]
        if options.candles is not None:
            arguments += ["--candles", str(options.candles)]
        if options.seconds is not None:
            arguments += ["--seconds", str(options.seconds)]
        token = {"TRADEWIRE_TOKEN": self._settings.producer}
        await self._start("producer", *arguments, env=token, on_line=self._from_producer)

    async def _start(self, name: str, *arguments: str, **options: Any) -> Child:
        child = await Child.start(name, *arguments, directory=self._settings.directory, **options)
        self._children[name] = child
        return child

    async def _stop(self) -> None:
        # The producer first, so that nothing new comes; the hub last, so that the others can say goodbye.
        for name in ("producer", "consumer", "hub"):
            if name in self._children:
                await self._children[name].stop()

    async def _until_finished(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            watches = [asyncio.create_task(self._watch(name)) for name in ("hub", "consumer", "producer")]
            stack.push_async_callback(_cancelled, watches)
            while not self._finished.is_set():
                self._view.show(self.standing)
                await asyncio.wait(watches, timeout=_DRAW_EVERY_S, return_when=asyncio.FIRST_EXCEPTION)
                for watch in watches:
                    if watch.done():
                        await watch
                if time.monotonic() - self._moved > _STALL_S:
                    raise ChildDied(f"nothing moves any more: {self.standing.line().strip()}")
        self._view.show(self.standing)

    async def _watch(self, name: str) -> None:
        if name != "producer":
            await self._children[name].watch()
        status = await self._children[name].wait()
        if status or not self.standing.producer.get("done"):
            raise ChildDied(self._children[name].obituary(status))
        await asyncio.Event().wait()

    # --- what the processes say

    def _from_producer(self, line: str) -> None:
        self.standing.producer = json.loads(line)
        self._move()

    def _from_bot(self, line: str) -> None:
        self.standing.bot = json.loads(line)
        self._move()

    def _move(self) -> None:
        self._moved = time.monotonic()
        producer, bot, fills = self.standing.producer, self.standing.bot, self.standing.fills
        if not producer.get("done") or bot.get("acted_ms") != producer["date_ms"] or bot["outbox"]:
            return
        entries = bot["closed_trades"] + len(bot["open"])
        if fills.get("entry_fill", 0) >= entries and fills.get("exit_fill", 0) >= bot["closed_trades"]:
            self._finished.set()

    @contextlib.asynccontextmanager
    async def _fills(self, port: int) -> AsyncIterator[None]:
        """Count the bot's fills as any other consumer of the hub gets them; begins once it is subscribed."""
        producer = ProducerConfig(
            name="hub",
            host="127.0.0.1",
            port=port,
            ws_token=self._settings.reader,
            protocol="v2",
            bots=[PAPER],
        )
        async with Client(producer, ConsumerConfig(), topics=["entry_fill", "exit_fill"]) as client:
            async for delivery in client:
                if isinstance(delivery.message, Connected):
                    break
            counting = asyncio.create_task(self._count(client))
            try:
                yield
            finally:
                await _cancelled([counting])

    async def _count(self, client: Client) -> None:
        with contextlib.suppress(ConsumerError):
            async for delivery in client:
                if isinstance(delivery.message, EntryFill | ExitFill):
                    fills = self.standing.fills
                    fills[delivery.topic] = fills.get(delivery.topic, 0) + 1
                    fill = _shown(delivery.topic, delivery.message)
                    self.standing.newest_fills.appendleft(fill)
                    self._view.fill(fill)
                    self._move()


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _shown(topic: str, fill: EntryFill | ExitFill) -> ShownFill:
    date, profit, reason = (
        (fill.close_date, fill.profit_amount, fill.exit_reason)
        if isinstance(fill, ExitFill)
        else (fill.open_date, None, fill.enter_tag)
    )
    return ShownFill(
        date=date,
        pair=str(fill.pair),
        topic=topic,
        amount=fill.amount or 0.0,
        rate=fill.order_rate or 0.0,
        profit=profit,
        currency=str(fill.stake_currency),
        reason=reason or "-",
    )
