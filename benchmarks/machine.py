"""What figures were measured on, for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

__all__ = ["file_system", "hardware"]


def hardware() -> Iterator[str]:
    """Processor, kernel and interpreter."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    yield f"{os.cpu_count()} x {model}, Linux {platform.release()}"
    yield f"Python {platform.python_version()}"


def file_system(path: Path) -> str:
    """Type of the file system that holds `path`."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    whole = str(path.resolve())
    holding = [(len(fields[1]), fields[2]) for fields in mounts if _holds(fields[1], whole)]
    return max(holding)[1]


def _holds(mount: str, path: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")
