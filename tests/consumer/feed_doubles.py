"""What the tests of the feed, its lane and its bookmarks share: bots that remember, and deliveries."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

from hub.protocol.envelope import Position
from hub.protocol.known import Fingerprint
from hub.protocol.localbot import Advanced, BotContext, Delivery, Lost, PositionStore, Repeated
from hub.protocol.messages import GenericMessage, Status


class Bot:
    """A plain bot; `on` is called with each delivery in the feed's thread."""

    def __init__(self, start: PositionStore | Position | None = None) -> None:
        self.begin = start
        self.seen: list[Delivery] = []
        self.stops = 0
        self.threads: set[int] = set()
        self.context: BotContext | None = None
        self.on: Callable[[Delivery], object] = lambda delivery: None
        self.changed = threading.Condition()

    async def start(self, context: BotContext) -> PositionStore | Position | None:
        self.context = context
        return self.begin

    def handle(self, delivery: Delivery) -> Awaitable[None] | None:
        self.threads.add(threading.get_ident())
        self.on(delivery)
        with self.changed:
            self.seen.append(delivery)
            self.changed.notify()
        return None

    async def stop(self) -> None:
        self.stops += 1


class AsyncBot(Bot):
    async def handle(self, delivery: Delivery) -> None:  # type: ignore[override]
        super().handle(delivery)


def event(text: str = "running") -> Delivery:
    return Delivery(producer="hub", bot="alpha", topic="status", message=Status(status=text))


def fill(
    offset: int,
    *,
    epoch: str = "e1",
    producer: str = "hub",
    bot: str = "alpha",
    topic: str = "entry_fill",
    base: int | None = None,
    mid: str | None = None,
    repeated: bool = False,
) -> Delivery:
    return Delivery(
        producer=producer,
        bot=bot,
        topic=topic,
        message=Repeated() if repeated else GenericMessage(name=topic, data={}),
        position=Position(epoch, offset),
        base=base,
        mid=mid,
        fingerprint=Fingerprint.of("alpha", "entry_fill", mid, {}) if mid is not None else None,
    )


def digest(mid: str) -> str:
    """What an entry_fill of alpha is remembered by."""
    known = Fingerprint.of("alpha", "entry_fill", mid, {})
    assert known is not None
    return known.digest


def advanced(
    offset: int,
    *,
    epoch: str = "e1",
    producer: str = "hub",
    anew: bool = False,
    same: Position | None = None,
) -> Delivery:
    message = Advanced(producer=producer, position=Position(epoch, offset), anew=anew, same=same)
    return Delivery(producer=producer, bot=producer, topic="advanced", message=message)


def lost(first: int, last: int, *, producer: str = "hub") -> Delivery:
    message = Lost(producer=producer, topics=(), first=first, last=last, reason="retention")
    return Delivery(producer=producer, bot=producer, topic="lost", message=message)


async def handled(bot: Bot, count: int) -> None:
    def wait() -> None:
        with bot.changed:
            bot.changed.wait_for(lambda: len(bot.seen) >= count)

    await asyncio.to_thread(wait)
