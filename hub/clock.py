"""The node's time: a clock, given so that tests can give another, and a timer on the loop for what is due next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock", "Timer"]

TIMER_SLACK_S = 0.001


class Clock(Protocol):
    """What tells the time."""

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Timer:
    """Calls `act`, once for each `set`, when the next of many deadlines is due or a little before: who is called sets the next."""

    def __init__(self, clock: Clock, act: Callable[[], None]) -> None:
        self._clock = clock
        self._act = act
        self._handle: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> bool:
        """Whether it will call."""
        return self._handle is not None

    def set(self, due: float | None) -> None:
        """Call at `due`, of the clock's monotonic seconds, and no more at what was set before; None for never."""
        handle = self._handle
        if due is not None:
            loop = asyncio.get_running_loop()
            when = loop.time() + due - self._clock.monotonic()
            # One that fires too early is set again.
            if handle is not None and handle.when() <= when + TIMER_SLACK_S:
                return
            self._handle = loop.call_at(when, self._fire)
        else:
            self._handle = None
        if handle is not None:
            handle.cancel()

    def _fire(self) -> None:
        self._handle = None
        self._act()
