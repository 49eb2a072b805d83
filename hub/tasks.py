"""The tasks of one node: each is owned until it ends, and all are ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

__all__ = ["Tasks"]

logger = logging.getLogger("tradewire.node")


class Tasks:
    """Tasks that run now. One that fails is logged, and no other feels it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[asyncio.Task[None]]:
        return iter(self._running)

    def own(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run it as a task until it returns, or until `end`."""
        task = asyncio.get_running_loop().create_task(coroutine, name=f"tradewire-{name}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("task %s failed", task.get_name(), exc_info=task.exception())

    async def end(self, timeout_s: float) -> None:
        """Cancel all, and wait for them `timeout_s` together; who does not end by then is named in the log and left."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=timeout_s)
            for task in left:
                logger.error("task %s does not end", task.get_name())
