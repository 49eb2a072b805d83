"""Resident memory of another process, from /proc. Linux only."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.cpu import family

__all__ = ["forget_peak", "peak_kib", "resident_kib"]


def resident_kib(pid: int) -> int:
    """KiB of a process and its children now."""
    return sum(_status(member, "VmRSS") for member in family(pid))


def peak_kib(pid: int) -> int:
    """The most KiB of a process and of each of its children, since `forget_peak`."""
    return sum(_status(member, "VmHWM") for member in family(pid))


def forget_peak(pid: int) -> None:
    """Begin the peak anew."""
    for member in family(pid):
        Path(f"/proc/{member}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
