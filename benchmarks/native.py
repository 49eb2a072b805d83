"""The programs in C of the benchmarks: built on first use into benchmarks/build, and again when their source is newer."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["compiler", "program"]

SOURCES = Path(__file__).parent
BUILD = SOURCES / "build"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")


def compiler() -> str | None:
    """$CC, or what the machine has; None without any."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


@functools.cache
def program(name: str) -> Path | None:
    """The program built of `NAME.c`; None where there is no compiler.

    Raises:
        RuntimeError: the compiler refuses the source, with what it said.
    """
    source, built, using = SOURCES / f"{name}.c", BUILD / name, compiler()
    if built.exists() and built.stat().st_mtime > source.stat().st_mtime:
        return built
    if using is None:
        return None
    BUILD.mkdir(exist_ok=True)
    # Of its own name until it is whole: two runs may build at once.
    fresh = BUILD / f"{name}.{os.getpid()}"
    done = subprocess.run([using, *FLAGS, "-o", fresh, source], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{source.name} cannot be built: {done.stderr}")
    fresh.replace(built)
    return built
