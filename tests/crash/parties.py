"""The parties of a crash test as real processes: a hub, publisher bots and consumer bots, each started again after a kill.

Each party has a directory that outlives its process. What it wrote there with O_APPEND or committed is all that a test knows of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["READER", "Consumer", "Effect", "Hub", "Loss", "Party", "Publisher", "publisher_token", "until"]

ROOT = Path(__file__).parent.parent.parent
READER = "reader-token-0123456789abcdefghijkl"
START_S = 30.0
END_S = 30.0


def until(done: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for `done`, which is asked ten times a second.

    Raises:
        AssertionError: it took too long; `what` did not happen.
    """
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.1)


class Party:
    """A process that can be killed and started again. `peak_rss` is the most memory that any of its lives took, in bytes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.lives = 0
        self.kills = 0
        self.peak_rss = 0

    @property
    def name(self) -> str:
        """What messages of a test call it."""
        return self.directory.name

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def output(self) -> str:
        """What it printed, in all its lives."""
        path = self.directory / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    def command(self) -> list[str]:
        """How it is started."""
        raise NotImplementedError

    def start(self, *wrapper: str, env: Mapping[str, str] | None = None) -> None:
        """Start it, behind `wrapper` where that is given."""
        assert not self.running, f"{self.name} runs"
        self.lives += 1
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [*wrapper, *self.command()],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self._note_memory()
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1

    def stop(self, timeout_s: float = END_S) -> int:
        """SIGTERM, once it listens to that; its exit status."""
        assert self.process is not None
        until(lambda: not self.running or self._catches(signal.SIGTERM), START_S, f"{self.name} has started")
        self._note_memory()
        self._signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"{self.name} did not end within {timeout_s} s of SIGTERM") from None

    def close(self) -> None:
        """End it, however, and what a wrapper that ended has left."""
        if self.running:
            self.kill()
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        """To the process and to all that it started: strace does not hand signals on."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signum)

    def _catches(self, signum: int) -> bool:
        caught = self._status("SigCgt")
        return caught is not None and bool(int(caught, 16) >> (signum - 1) & 1)

    def _note_memory(self) -> None:
        peak = self._status("VmHWM")
        if peak is not None:
            self.peak_rss = max(self.peak_rss, 1024 * int(peak.split()[0]))

    def _status(self, name: str) -> str | None:
        """A field of /proc's status; None when the process is gone."""
        assert self.process is not None
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), None)


class Hub(Party):
    """`python -m hub serve` with a SQLite ledger."""

    def __init__(self, directory: Path, *, publishers: int = 2, **section: Any) -> None:
        super().__init__(directory)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        entries = [
            {"name": f"bot{n}", "token": publisher_token(n), "bots": [f"bot{n}"]} for n in range(publishers)
        ]
        config = {
            "api_server": {
                "listen_port": self.port,
                "username": "somebody",
                "password": "a-long-password-1",
                "jwt_secret_key": "jwt-key-0123456789abcdefghijklmnopq",
                "ws_token": READER,
            },
            "hub": {
                "default_bot": "bot0",
                "publishers": entries,
                "state_dir": str(directory / "state"),
                "drain_s": 5,
                **section,
            },
        }
        self._told = 0
        self.config = directory / "config.json"
        self.config.write_text(json.dumps(config))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "hub", "serve", "--config", str(self.config)]

    def start(self, *wrapper: str, env: Mapping[str, str] | None = None, wait: bool = True) -> None:
        self._told = self.output.count("tradewire-hub listens")
        super().start(*wrapper, env=env)
        if wait:
            self.listening()

    def listening(self) -> None:
        """Wait until it serves: the kernel takes connections before that, while the ledger is opened."""

        def listens() -> bool:
            if not self.running:
                raise AssertionError(f"the hub ended: {self.output[-2000:]}")
            return self.output.count("tradewire-hub listens") == self._told + 1

        until(listens, START_S, "the hub listens")

    @property
    def ledger(self) -> Path:
        """The database of its ledger."""
        return next((self.directory / "state").rglob("ledger.sqlite"))


class Publisher(Party):
    """A bot that publishes fills 1, 2, 3 … through a durable outbox (publisher_bot.py)."""

    def __init__(self, directory: Path, number: int, port: int, *, rate: float) -> None:
        super().__init__(directory)
        self.number = number
        self.bot = f"bot{number}"
        self.port = port
        self.rate = rate

    def command(self) -> list[str]:
        url = f"ws://127.0.0.1:{self.port}"
        token = publisher_token(self.number)
        return [sys.executable, "-m", "tests.crash.publisher_bot", url, token, self.bot, str(self.rate)]

    def acknowledged(self) -> dict[int, tuple[str, int]]:
        """Each fill that the hub acknowledged, with its epoch and offset."""
        fills: dict[int, tuple[str, int]] = {}
        for line in _lines(self.directory / "acknowledged"):
            n, epoch, offset, *_ = line.split()
            fills[int(n)] = (epoch, int(offset))
        return fills

    def duplicates(self) -> int:
        """How many acknowledgements said that the hub had the fill before."""
        return sum(line.split()[3] == "True" for line in _lines(self.directory / "acknowledged"))

    def submitted(self) -> int:
        """How many fills it put into its outbox."""
        return max((int(line.split()[0]) for line in _lines(self.directory / "submitted")), default=0)


@dataclass(frozen=True)
class Effect:
    """What a consumer bot did for one fill."""

    bot: str
    n: int
    topic: str
    epoch: str
    offset: int


@dataclass(frozen=True)
class Loss:
    """What a consumer was told is gone. None where that cannot be known."""

    first: int | None
    last: int | None
    reason: str


class Consumer(Party):
    """A bot that writes each fill and its position in one transaction (consumer_bot.py)."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(directory)
        self.port = port

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.crash.consumer_bot", str(self.port), READER]

    def effects(self) -> list[Effect]:
        """Everything that it did, in order."""
        return [
            Effect(*row) for row in self._rows("select bot, n, topic, epoch, offset from effects order by id")
        ]

    def losses(self) -> list[Loss]:
        """Everything that it was told is lost."""
        return [Loss(*row) for row in self._rows("select first, last, reason from losses order by id")]

    def subscribed(self) -> bool:
        """Whether it has a position: everything from there on is owed to it."""
        return bool(self._rows("select 1 from tradewire_positions where epoch <> ''"))

    def count(self) -> int:
        """How many effects there are."""
        rows = self._rows("select count(*) from effects")
        return int(rows[0][0]) if rows else 0

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        path = self.directory / "bot.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as database:
            try:
                return database.execute(query).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise


def publisher_token(number: int) -> str:
    return f"publisher-{number}-token-0123456789abcdef"


def _lines(path: Path) -> Iterator[str]:
    """Whole lines: a kill may have cut the last one."""
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield line
