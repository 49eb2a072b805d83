"""The load of the machine under the bot, from /proc and the standard library.

Where there is no /proc the figures of cores are empty and that of the memory is 0: no library is needed for what a dashboard shows
beside the trades.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from threading import Lock

from hub.protocol.answers import CpuInfo, SystemInfo

__all__ = ["Machine"]

_PROC = Path("/proc")
_IDLE, _IOWAIT = 3, 4


class Machine:
    """Loads between one question and the next, at the first since the machine was started. From any thread."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._lock = Lock()
        self._last: list[tuple[int, int]] = []

    def load(self) -> SystemInfo:
        """Cores, load averages and memory, as they are now."""
        with self._lock:
            cores = self._cores()
        loads = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
        return SystemInfo(
            cpu_pct=cores,
            cpu_load=[CpuInfo(cpu=number, pct=pct) for number, pct in enumerate(cores)],
            cpu_load_avg=dict(zip(("1m", "5m", "15m"), loads, strict=True)),
            cpu_count=os.cpu_count() or len(cores) or 1,
            cpu_avg=round(sum(cores) / len(cores), 1) if cores else 0.0,
            ram_pct=self._memory(),
        )

    def _cores(self) -> list[float]:
        """Per cent of the time in which each core was busy."""
        now = [_busy(line) for line in self._lines("stat") if line[:3] == "cpu" and line[3:4].isdigit()]
        before = self._last if len(self._last) == len(now) else [(0, 0)] * len(now)
        self._last = now
        return [_percent(busy - b, total - t) for (busy, total), (b, t) in zip(now, before, strict=True)]

    def _memory(self) -> float:
        sizes = dict(line.split(":", 1) for line in self._lines("meminfo") if ":" in line)
        try:
            total, free = (int(sizes[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        except (KeyError, IndexError, ValueError):
            return 0.0
        return _percent(total - free, total)

    def _lines(self, name: str) -> list[str]:
        with contextlib.suppress(OSError):
            return (self._proc / name).read_text().splitlines()
        return []


def _busy(line: str) -> tuple[int, int]:
    """Busy and all ticks of a line of /proc/stat, which are of user, nice, system, idle, iowait and others."""
    # Guest time, the ninth and tenth, is in user time already.
    ticks = [int(text) for text in line.split()[1:9]]
    return sum(ticks) - sum(ticks[_IDLE : _IOWAIT + 1]), sum(ticks)


def _percent(part: int, whole: int) -> float:
    return round(min(max(part / whole, 0.0), 1.0) * 100, 1) if whole > 0 else 0.0
