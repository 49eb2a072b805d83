"""CPU time of other processes, to the nanosecond: their process clocks (clock_getcpuclockid(3)), not the ticks of /proc. Linux."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cpu_seconds", "family"]

_PROCESS_CLOCK = 2
_CHILDREN_USER, _CHILDREN_SYSTEM = 13, 14


def cpu_seconds(pid: int) -> float:
    """User plus system time so far of a process, all its threads, its children, and theirs."""
    total = 0.0
    for member in family(pid):
        total += time.clock_gettime((~member << 3) | _PROCESS_CLOCK)
        total += _reaped_seconds(member)
    return total


def family(pid: int) -> Iterator[int]:
    """A process and those that descend from it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = ""
        # A thread may have ended since it was listed.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = (task / "children").read_text()
        for child in children.split():
            yield from family(int(child))


def _reaped_seconds(pid: int) -> float:
    """Of children that ended and were waited for."""
    behind_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(behind_name[_CHILDREN_USER]) + int(behind_name[_CHILDREN_SYSTEM])
    return ticks / os.sysconf("SC_CLK_TCK")
