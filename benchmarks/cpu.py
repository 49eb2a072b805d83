"""CPU time of another process, to the nanosecond: its process clock (clock_getcpuclockid(3)), not the ticks of /proc."""

from __future__ import annotations

import time

__all__ = ["cpu_seconds"]

_PROCESS_CLOCK = 2


def cpu_seconds(pid: int) -> float:
    """User plus system time of a process so far, all its threads. Linux only."""
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
