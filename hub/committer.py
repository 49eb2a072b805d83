"""The commit path: what waits for the log, and who is told when the log has answered.

A ledger message waits here from `accept` until the log has committed or refused it. The committer is one task: it takes all that
waits as one batch, appends it to the log, has core deliver what was stored, and answers the publishers.

Invariants
==========
1. One batch at a time is with the log. What is accepted meanwhile is the next batch, in the order of `accept`.
2. Nothing is delivered or acknowledged before the log has returned from the batch's `append`.
3. A batch that fails takes all that was accepted behind it along: no message is stored ahead of the retry of an earlier one.
4. Each `done` is called once, with the ack, the refusal, or NotDurable at `end`; what the log says after `end` is dropped, and
   neither delivered nor told.
5. What waits is bounded in bytes by core, which refuses in `accept` (`pending_bytes`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from hub.core.engine import Core
from hub.core.entry import Entry
from hub.core.ledger import Append, Appended, Log
from hub.delivery import Delivery
from hub.protocol.errors import NotDurable, RequestError
from hub.tasks import Tasks

__all__ = ["Ack", "Committer", "Done"]

Ack = Mapping[str, Any]
Done = Callable[[Ack | RequestError], None]
"""Called once with what became of a publish; must not wait."""
RETRY_MS = 1000
logger = logging.getLogger("tradewire.node")


class Committer:
    """Batches accepted messages into the log and answers their publishers. On the loop's thread only; `start` before `accept`."""

    def __init__(self, log: Log, delivery: Delivery, tasks: Tasks) -> None:
        self._log = log
        self._delivery = delivery
        self._tasks = tasks
        self._core: Core
        self._appends: deque[Append] = deque()
        self._committing: list[Append] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, core: Core) -> None:
        """Begin to commit; the log is open."""
        self._core = core
        self._task = self._tasks.own(self._commit_forever(), "committer")

    @property
    def running(self) -> bool:
        """Whether what is accepted will be committed."""
        return self._task is not None and not self._task.done()

    @property
    def waiting(self) -> int:
        """Messages that wait for the next commit; those that the log has now are not counted."""
        return len(self._appends)

    def accept(self, entry: Entry, done: Done) -> None:
        """Take a ledger message; `done` is told, once, what became of it.

        Raises:
            TooLarge: above 256 KiB. Overloaded: too much waits for the log. Then `done` is not called.
        """
        self._appends.append(self._core.accept(entry, done))
        self._wake.set()

    def note_floor(self) -> None:
        """Tell core how far retention went: by age it moves between commits too."""
        self._core.floor = max(self._core.floor, self._log.floor)

    def end(self, why: str) -> None:
        """Nothing more is stored; who waits for an answer is told that it is unknown. Idempotent."""
        unanswered = [*self._committing, *self._appends]
        self._committing = []
        self._appends.clear()
        if unanswered and self._task is not None:
            self._task.cancel()
        for append in unanswered:
            _tell(append, NotDurable(f"{why}; retry with the same mid", retry_after_ms=RETRY_MS))

    async def _commit_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._committing = list(self._appends)
            self._appends.clear()
            if self._committing:
                await self._commit(self._committing)
                self._committing = []

    async def _commit(self, batch: list[Append]) -> None:
        try:
            results = await self._log.append(batch)
        except Exception as error:
            # What was accepted behind the batch must not be stored ahead of its retry.
            batch += self._appends
            self._appends.clear()
            refused = _not_durable(error, len(batch))
            results = [Appended(append, refused=refused) for append in batch]
        # `end` has answered them while the log was at work.
        if batch is not self._committing:
            return
        self.note_floor()
        self._core.committed(results)
        self._answer(results)
        self._delivery.flush()

    def _answer(self, results: list[Appended]) -> None:
        """Tell the publishers; the replies of all go out in this turn of the loop."""
        epoch = self._core.epoch
        self._delivery.hold_replies()
        try:
            for result in results:
                if result.refused is not None:
                    _tell(result.append, result.refused)
                else:
                    ack = {"epoch": epoch, "offset": result.offset, "duplicate": result.duplicate}
                    _tell(result.append, ack)
        finally:
            self._delivery.send_replies()


def _not_durable(error: Exception, count: int) -> NotDurable:
    """What publishers are told of a log that could not store. One that says why has also logged it, once."""
    if not isinstance(error, NotDurable):
        logger.error("the log failed; %d messages are not acknowledged", count, exc_info=error)
        error = NotDurable("the log could not store the message")
    return NotDurable(str(error), retry_after_ms=error.retry_after_ms or RETRY_MS)


def _tell(append: Append, result: Ack | RequestError) -> None:
    """Answer one publisher; what its callback does wrong must not keep the others from their answers."""
    done: Any = append.token
    try:
        done(result)
    except Exception:
        logger.exception("a publisher's callback failed")
