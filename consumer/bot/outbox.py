"""Publishing a PaperBot's outbox: in order, until each message is acknowledged.

Messages are published one after the other, since an exit must not overtake its entry. Their mids were stored with them, so
what was published but not yet forgotten when the process died is published again and dropped by the hub as a repetition.

What goes wrong holds everything up and is tried again: with backoff what heals by itself (a busy hub, a locked database), and every
minute what an operator must change at the hub (a right, a token). Only a message that the hub refuses for good is set aside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from consumer.bot.book import Book, Outgoing
from consumer.bot.database import DatabaseFailed
from consumer.errors import ConnectionFailed, ConsumerError, PublishError
from hub.protocol.localbot import BotContext

__all__ = ["OPERATORS", "Outbox"]

log = logging.getLogger(__name__)

_PAGE = 64
_FIRST_S, _LAST_S = 1.0, 60.0
OPERATORS = frozenset({"forbidden", "token_expired"})
"""After these the same message will be refused until the operator changes something, and so will every other."""


class Outbox:
    """One task that publishes what the book puts into its outbox. Start and stop it in the event loop.

    Memory: at most one page of messages; what waits is in the database.
    """

    def __init__(
        self,
        book: Book,
        context: BotContext,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._book = book
        self._context = context
        self._sleep = sleep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._resting = asyncio.Event()
        self._failures = 0
        self._told: str | None = None

    def start(self) -> None:
        """Begin with what an earlier run left."""
        self._loop = asyncio.get_running_loop()
        self._woken.set()
        self._task = asyncio.create_task(self._run(), name="paper outbox")

    def wake(self) -> None:
        """There are new messages. May be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    async def stop(self, grace_s: float) -> None:
        """Publish for at most `grace_s` more, as long as nothing goes wrong, then end; the rest stays in the database. Never raises
        for a message."""
        if self._task is None:
            return
        waiting = asyncio.create_task(self._resting.wait())
        await asyncio.wait({self._task, waiting}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        task, self._task = self._task, None
        for pending in (waiting, task):
            pending.cancel()
        await asyncio.gather(waiting, task, return_exceptions=True)

    def _wake(self) -> None:
        if not self._failures:
            self._resting.clear()
        self._woken.set()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                page = await asyncio.to_thread(self._book.outgoing, _PAGE)
                for message in page:
                    await self._publish(message)
                    self._healed()
            except Exception as error:
                await self._later(error)
                continue
            if not page:
                await self._idle()

    async def _idle(self) -> None:
        if not self._woken.is_set():
            self._resting.set()
        await self._woken.wait()

    async def _publish(self, message: Outgoing) -> None:
        try:
            await self._context.publish(message.topic, message.data, mid=message.mid, kept=True)
        except PublishError as error:
            if error.temporary or error.code in OPERATORS:
                raise
            log.error("%s %s is refused for good: %s", message.topic, message.mid, error)
            await asyncio.to_thread(self._book.refused, message.id, str(error))
            return
        await asyncio.to_thread(self._book.published, message.id)

    async def _later(self, error: Exception) -> None:
        """Wait before the same message is tried again; told once for each reason."""
        heals = isinstance(error, ConnectionFailed | DatabaseFailed) or (
            isinstance(error, PublishError) and error.temporary
        )
        self._failures += 1
        wait_s = min(_LAST_S, _FIRST_S * 2.0 ** min(self._failures - 1, 20)) if heals else _LAST_S
        text = str(error) if isinstance(error, ConsumerError) else f"{type(error).__name__}: {error}"
        if text != self._told:
            self._told = text
            log.error("fills wait, and are tried again for as long as it takes: %s", text)
        self._resting.set()
        await self._sleep(wait_s)
        self._resting.clear()

    def _healed(self) -> None:
        if self._told is not None:
            log.warning("fills are published again")
        self._failures, self._told = 0, None
