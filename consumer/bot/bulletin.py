"""What a PaperBot publishes beside its orders: its whitelist, and new_candle of each pair that it acted on.

Both are of the moment, so only the newest counts: what came up while nothing could be sent is told once, and a round of messages
goes out every EVERY_S at most, however many candles a bot acts on meanwhile. One message is unanswered at a time, so a fill waits
for one of these at most; a hub that has no room for them, or knows no right of this bot to publish them, is left alone for LATER_S.
That a hub which restarted knows the whitelist again is the matter of the feed.

Bounds: one whitelist and MOST_CANDLES keys wait; beyond that the keys that came first go.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from threading import Lock
from typing import Any

from consumer.bot.outbox import OPERATORS
from consumer.errors import ConsumerError, PublishError
from hub.protocol.localbot import BotContext
from hub.protocol.messages import FrameKey

__all__ = ["EVERY_S", "MOST_CANDLES", "Bulletin"]

log = logging.getLogger(__name__)

EVERY_S, LATER_S = 0.5, 30.0
MOST_CANDLES = 10_000


class Bulletin:
    """One task that publishes the newest. Start and stop it in the event loop; tell it from any thread, which never waits."""

    def __init__(
        self,
        context: BotContext,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._context = context
        self._sleep = sleep
        self._lock = Lock()
        self._pairs: list[str] | None = None
        self._told_pairs: list[str] | None = None
        self._candles: dict[FrameKey, None] = {}
        self._published = self._refused = self._dropped = 0
        self._told: str | None = None
        self._instance = secrets.token_hex(6)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._waking = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to publish."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="paper bulletin")
        if self._waking:
            self._woken.set()

    async def stop(self) -> None:
        """End at once: what waits is of no use to anybody after the bot."""
        with self._lock:
            self._loop = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def whitelist(self, pairs: Sequence[str]) -> None:
        """The bot follows these pairs now; told when they changed."""
        with self._lock:
            if list(pairs) != self._told_pairs:
                self._pairs = self._told_pairs = list(pairs)
                self._wake()

    def acted(self, keys: Iterable[FrameKey]) -> None:
        """The bot acted on a candle of each of these, and has committed it."""
        with self._lock:
            self._candles.update(dict.fromkeys(keys))
            while len(self._candles) > MOST_CANDLES:
                del self._candles[next(iter(self._candles))]
                self._dropped += 1
            if self._candles:
                self._wake()

    def statistics(self) -> dict[str, int]:
        """What waits with its bound, and what was published, refused by the hub or dropped. From any thread."""
        with self._lock:
            return {
                "waiting": len(self._candles) + (self._pairs is not None),
                "waiting_limit": MOST_CANDLES + 1,
                "published": self._published,
                "refused": self._refused,
                "dropped": self._dropped,
            }

    def _wake(self) -> None:
        # Once until it is taken: while catching up this is called for every batch.
        if not self._waking:
            self._waking = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._woken.set)

    def _take(self) -> list[tuple[str, Any]]:
        with self._lock:
            self._woken.clear()
            self._waking = False
            pairs, candles = self._pairs, self._candles
            self._pairs, self._candles = None, {}
        messages: list[tuple[str, Any]] = [] if pairs is None else [("whitelist", pairs)]
        return messages + [("new_candle", [key.pair, key.timeframe, key.candle_type]) for key in candles]

    async def _run(self) -> None:
        try:
            while True:
                await self._woken.wait()
                await self._sleep(EVERY_S if await self._round() else LATER_S)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            log.warning("whitelist and new_candle are not published until the next start: %s", text)

    async def _round(self) -> bool:
        """Publish what waits; whether the hub has room for more."""
        for topic, data in self._take():
            try:
                if not await self._publish(topic, data):
                    return False
            except ConsumerError as error:
                self._turned_away(topic, data, error)
                return False
        return True

    async def _publish(self, topic: str, data: Any) -> bool:
        mid = f"{self._instance}-{self._published + self._refused}"
        try:
            await self._context.publish(topic, data, mid=mid)
        except PublishError as error:
            if error.code in OPERATORS:
                raise
            # The publisher has told it; the next candle may be another matter.
            self._refused += 1
            return not error.temporary
        self._published += 1
        self._told = None
        return True

    def _turned_away(self, topic: str, data: Any, error: ConsumerError) -> None:
        """An operator must change something: the whitelist is tried again later, told once; candles will be others by then."""
        if str(error) != self._told:
            self._told = str(error)
            log.warning("whitelist and new_candle are not published for now: %s", error)
        with self._lock:
            if topic == "whitelist" and self._pairs is None:
                self._pairs = data
                self._waking = True
                self._woken.set()
