"""An asyncio loop in virtual time: whenever everything waits, time jumps to the next timer. No sockets, no threads, no clock."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Stuck", "VirtualLoop", "run"]

T = TypeVar("T")
START = 1000.0
HIDDEN_MS = 1_795_392_000_000


class Stuck(AssertionError):
    """Everything waits, and nothing will ever come; or it turns for ever."""


class _Waiting:
    """In the place of a selector: waiting costs no time but virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("every task waits for something that never comes")
        if timeout > 0:
            self._loop.now += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """`on_turn` is called after each turn of the loop, so between any two steps that others can see."""

    def __init__(self, max_turns: int = 200_000) -> None:
        super().__init__()
        self.now = START
        self.turns = 0
        self.on_turn: Callable[[], None] | None = None
        self.unhandled: list[dict[str, Any]] = []
        self._max_turns = max_turns
        self._selector = _Waiting(self)
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        return self.now

    def now_ms(self) -> int:
        """The wall clock of this world, in ms since 1970."""
        return HIDDEN_MS + round(self.now * 1000)

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self.turns += 1
        if self.turns > self._max_turns:
            raise Stuck(f"no end after {self.turns} turns")
        if self.on_turn is not None:
            self.on_turn()

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """What would run in a thread runs at once, and its result comes a turn later."""
        future = self.create_future()
        try:
            future.set_result(contextvars.copy_context().run(func, *args))
        except Exception as error:
            future.set_exception(error)
        return future


def run(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run `main` and leave nothing behind."""
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.on_turn = None
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
