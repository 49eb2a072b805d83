"""Publishing a PaperBot's outbox: in order, until each message is acknowledged.

Messages are published one after the other, since an exit must not overtake its entry. Their mids were stored with them, so
what was published but not yet forgotten when the process died is published again and dropped by the hub as a repetition.
"""

from __future__ import annotations

import asyncio
import logging

from consumer.bot.book import Book, Outgoing
from consumer.errors import PublishError, Unauthorized
from hub.protocol.localbot import BotContext

__all__ = ["OPERATORS", "Outbox"]

log = logging.getLogger(__name__)

_PAGE = 64
OPERATORS = frozenset({"forbidden", "token_expired"})
"""After these the same message will be refused until the operator changes something, and so will every other."""


class Outbox:
    """One task that publishes what the book puts into its outbox. Start and stop it in the event loop.

    Memory: at most one page of messages; what waits is in the database.
    """

    def __init__(self, book: Book, context: BotContext) -> None:
        self._book = book
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._empty = asyncio.Event()

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
        """Publish for at most `grace_s` more, then end; the rest stays in the database. Never raises for a message."""
        if self._task is None:
            return
        waiting = asyncio.create_task(self._empty.wait())
        await asyncio.wait({self._task, waiting}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        task, self._task = self._task, None
        for pending in (waiting, task):
            pending.cancel()
        await asyncio.gather(waiting, task, return_exceptions=True)

    def _wake(self) -> None:
        self._empty.clear()
        self._woken.set()

    async def _run(self) -> None:
        try:
            while True:
                self._woken.clear()
                page = await asyncio.to_thread(self._book.outgoing, _PAGE)
                if not page:
                    await self._idle()
                for message in page:
                    await self._publish(message)
        except (PublishError, Unauthorized) as error:
            log.error("fills are not published until the next start: %s", error)
        except Exception as error:
            log.error("fills are not published until the next start: %s: %s", type(error).__name__, error)

    async def _idle(self) -> None:
        if not self._woken.is_set():
            self._empty.set()
        await self._woken.wait()

    async def _publish(self, message: Outgoing) -> None:
        try:
            await self._context.publish(message.topic, message.data, mid=message.mid)
        except PublishError as error:
            if error.temporary or error.code in OPERATORS:
                raise
            log.error("%s %s is refused for good: %s", message.topic, message.mid, error)
            await asyncio.to_thread(self._book.refused, message.id, str(error))
            return
        await asyncio.to_thread(self._book.published, message.id)
