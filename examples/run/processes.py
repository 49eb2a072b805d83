"""Child processes: started, listened to line by line, told in one line when they die, and always reaped."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Child", "ChildDied"]

_STOP_S = 15.0
_PR_SET_PDEATHSIG = 1


class ChildDied(Exception):
    """A child ended by itself; one line with its name, how it ended and the last thing it said."""


class Child:
    """One process. Its stderr goes to a file; `on_line` gets each line of its stdout, `on_error` each of its stderr."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log
        self._last = ""
        self._readers: list[asyncio.Task[None]] = []
        self._stopped = False

    @classmethod
    async def start(
        cls,
        name: str,
        *arguments: str,
        directory: Path,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        on_error: Callable[[str], None] = lambda line: None,
    ) -> Child:
        """Start `python arguments...` in a session of its own: Ctrl-C reaches the parent only, which knows the order."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        child = cls(name, process, directory / f"{name}.log")
        assert process.stdout is not None
        assert process.stderr is not None
        child._readers = [
            asyncio.create_task(_each_line(process.stdout, on_line)),
            asyncio.create_task(_each_line(process.stderr, child._logged(on_error))),
        ]
        return child

    async def wait(self) -> int:
        """The exit status, once everything that the child said was read."""
        status = await self.process.wait()
        await asyncio.gather(*self._readers)
        return status

    async def watch(self) -> None:
        """Wait for ever.

        Raises:
            ChildDied: it ended without being told to.
        """
        status = await self.wait()
        if not self._stopped:
            raise ChildDied(self.obituary(status))
        await asyncio.Event().wait()

    def obituary(self, status: int) -> str:
        """How the child ended, in one line."""
        how = f"status {status}"
        if status < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-status).name
        return f"{self.name} ended with {how}" + (f": {self._last}" if self._last else "")

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait, and kill it when it does not end in time. Returns the exit status; idempotent."""
        self._stopped = True
        self._signal(number)
        try:
            async with asyncio.timeout(_STOP_S):
                return await self.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return await self.wait()

    def kill(self) -> None:
        """End it at once, without waiting for the end."""
        self._stopped = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # asyncio's own send_signal polls first: it can reap the child before the child watcher, which then reports status 255.
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def _logged(self, on_error: Callable[[str], None]) -> Callable[[str], None]:
        def keep(line: str) -> None:
            self._last = line.strip() or self._last
            with self._log.open("a") as log:
                log.write(line + "\n")
            on_error(line)

        return keep


async def _each_line(stream: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            # Longer than the stream's limit: nothing of ours; the reader skipped it.
            continue
        if not line:
            return
        on_line(line.decode(errors="replace").rstrip("\n"))


def _die_with_parent() -> None:
    """Have the kernel end this child when the parent is killed. Runs in the child before it becomes Python anew."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
