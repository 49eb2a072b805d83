"""Processes of a test: freqtrade's bots and probes, the exchange they trade on, and our hub.

Every one is started with a command, on ports that were free a moment ago, and stopped by its own process id. A process
keeps its files and its log in a directory of its own, so that a restart finds what a user's restart finds.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

__all__ = [
    "ApiServerProbe",
    "ConsumerProbe",
    "FakeExchange",
    "FreqtradeConsumer",
    "FreqtradeProducer",
    "FreqtradeQuiet",
    "HubProcess",
    "Process",
    "WaitTimeout",
    "free_port",
    "wait_for",
]

HERE = Path(__file__).parent
RIG = HERE / "rig"
ROOT = HERE.parents[1]
PAIRS = ["BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"]
USERNAME = "freqtrader"
PASSWORD = "SuperSecret1!"
T = TypeVar("T")
JWT_SECRET = "interop-rig-jwt-secret-0123456789abcdef"


class WaitTimeout(AssertionError):
    """What a test waited for did not come in time; says what, and the end of the process's log."""


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, found: Callable[[], T], seconds: float, *, of: Process | None = None) -> T:
    """The first true answer of `found`, asked five times a second for at most `seconds`.

    Raises WaitTimeout, also at once when the process `of` has ended.
    """
    end = time.monotonic() + seconds
    while True:
        if answer := found():
            return answer
        ended = of is not None and not of.alive
        if ended or time.monotonic() > end:
            tail = f"\nthe end of its log:\n{of.log_tail()}" if of is not None else ""
            raise WaitTimeout(
                f"waited {seconds:.0f} s for {what}{', whose process ended' if ended else ''}{tail}"
            )
        time.sleep(0.2)


def interop_python() -> str:
    """The Python of the freqtrade environment, named by TRADEWIRE_INTEROP_PYTHON (run.sh sets it)."""
    return os.environ.get("TRADEWIRE_INTEROP_PYTHON", str(ROOT / ".venv-interop" / "bin" / "python"))


class Process:
    """One command, its directory and its log."""

    def __init__(self, command: list[str], directory: Path, *, stdin: bool = False) -> None:
        self.command = command
        self.directory = directory
        self.log = directory / "output.log"
        self._stdin = stdin
        self._process: subprocess.Popen[str] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> Self:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                stdin=subprocess.PIPE if self._stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._stdin else log,
                stderr=log,
                text=True,
                start_new_session=True,
                env=_environment(),
            )
        return self

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "not started"
        return self._process

    def stop(self, seconds: float = 20) -> None:
        """Ends it as a user would, and by force when that takes longer than `seconds`."""
        self._end(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """Ends it without a chance to say goodbye."""
        self._end(signal.SIGKILL, 10)

    def restart(self) -> Self:
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _end(self, how: signal.Signals, seconds: float) -> None:
        if self._process is None:
            return
        if self.alive:
            self._process.send_signal(how)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


class Probe(Process):
    """A process that is told things in lines and answers with JSON lines."""

    def __init__(self, script: str, arguments: list[str], directory: Path) -> None:
        super().__init__([interop_python(), str(HERE / script), *arguments], directory, stdin=True)
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.seen: list[dict[str, Any]] = []

    def start(self) -> Self:
        super().start()
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        return self

    def tell(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def expect(
        self, what: str, wanted: Callable[[dict[str, Any]], bool], seconds: float = 30
    ) -> dict[str, Any]:
        """The next event that is wanted; the ones before it are kept in `seen`."""
        end = time.monotonic() + seconds
        while True:
            try:
                event = self.events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise WaitTimeout(f"waited {seconds:.0f} s for {what}\n{self.log_tail()}") from None
            self.seen.append(event)
            if wanted(event):
                return event

    def drain(self) -> list[dict[str, Any]]:
        """Everything so far, also what nobody has waited for."""
        while not self.events.empty():
            self.seen.append(self.events.get_nowait())
        return self.seen

    def _read(self, lines: Iterator[str]) -> None:
        try:
            for line in lines:
                self.events.put(json.loads(line))
        except ValueError:
            return  # the pipe was closed by stop()


class ApiServerProbe(Probe):
    """A real freqtrade API server with made-up frames (apiserver_probe.py)."""

    def __init__(
        self, directory: Path, *, token: str, timeframe: str = "1m", port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self.token = token
        super().__init__("apiserver_probe.py", [str(self.port), token, timeframe], directory)

    def start(self) -> Self:
        super().start()
        self.expect("the API server to listen", lambda event: "port" in event, 60)
        return self

    def do(self, command: str, **arguments: Any) -> None:
        """Runs one command and waits until it is done."""
        self.tell(do=command, **arguments)
        self.expect(f"{command} to be done", lambda event: event.get("done") == command)


class ConsumerProbe(Probe):
    """A real ExternalMessageConsumer and DataProvider (emc_probe.py)."""

    def __init__(
        self, directory: Path, *, port: int, token: str, timeframe: str = "1m", sleep_time: int = 1
    ) -> None:
        arguments = ["127.0.0.1", str(port), token, timeframe, str(sleep_time)]
        super().__init__("emc_probe.py", arguments, directory)

    def pairs(self, wanted: list[str], seconds: float = 30) -> list[str]:
        """Waits until get_producer_pairs() is `wanted`."""
        event = self.expect(f"the pairs {wanted}", lambda event: event.get("pairs") == wanted, seconds)
        return list(event["pairs"])

    def frame(
        self, pair: str, wanted: Callable[[dict[str, Any]], bool] = bool, seconds: float = 30
    ) -> dict[str, Any]:
        """The next get_producer_df() of `pair` (exact_frames form, in "frame") that is wanted."""
        return self.expect(
            f"a frame of {pair}", lambda event: event.get("pair") == pair and wanted(event), seconds
        )

    def connects(self) -> int:
        return sum("connected" in event for event in self.drain())


class FakeExchange(Process):
    """A public REST API like Binance's, whose prices are a function of time (rig/fake_binance.py)."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        super().__init__([interop_python(), str(RIG / "fake_binance.py"), str(self.port)], directory)

    def start(self) -> Self:
        super().start()
        wait_for("the fake exchange", self._answers, 30, of=self)
        return self

    def _answers(self) -> bool:
        return _answers(f"http://127.0.0.1:{self.port}/api/v3/ping")


class FreqtradeBot(Process):
    """A whole `freqtrade trade` in dry run, with its API server on 127.0.0.1."""

    strategy = ""

    def __init__(
        self, directory: Path, *, exchange: FakeExchange, token: str, port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self.token = token
        self.ft_log = directory / "ft.log"
        freqtrade = str(Path(interop_python()).with_name("freqtrade"))
        config = directory / "config.json"
        command = [
            freqtrade, "trade", "--userdir", str(directory / "user_data"), "--strategy", self.strategy,
            "--strategy-path", str(RIG / "strategies"), "--config", str(config),
            "--db-url", f"sqlite:///{directory}/trades.sqlite", "--logfile", str(self.ft_log),
        ]  # fmt: skip
        super().__init__(command, directory)
        (directory / "user_data").mkdir(exist_ok=True)
        config.write_text(json.dumps(self._config(exchange), indent=1))

    def start(self) -> Self:
        super().start()
        wait_for(f"{type(self).__name__} to answer", self._answers, 90, of=self)
        return self

    def api(self, path: str) -> Any:
        """GET /api/v1/<path> of the bot's own API server."""
        answer = httpx.get(
            f"http://127.0.0.1:{self.port}/api/v1/{path}", auth=(USERNAME, PASSWORD), timeout=10
        )
        return answer.raise_for_status().json()

    def lines(self) -> list[str]:
        return self.ft_log.read_text(errors="replace").splitlines() if self.ft_log.exists() else []

    def _answers(self) -> bool:
        return _answers(f"http://127.0.0.1:{self.port}/api/v1/ping")

    def _config(self, exchange: FakeExchange) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((RIG / "config_common.json").read_text())
        for name, url in config["exchange"]["ccxt_config"]["urls"]["api"].items():
            config["exchange"]["ccxt_config"]["urls"]["api"][name] = f"http://127.0.0.1:{exchange.port}{url}"
        config["exchange"]["pair_whitelist"] = PAIRS
        config["api_server"] |= {"listen_port": self.port, "ws_token": self.token}
        config["bot_name"] = type(self).__name__
        return config


class FreqtradeProducer(FreqtradeBot):
    """Analyses four pairs, trades, and broadcasts (rig/strategies/RigProducer.py)."""

    strategy = "RigProducer"


class FreqtradeQuiet(FreqtradeBot):
    """Analyses four pairs and trades when told to (rig/strategies/RigQuiet.py)."""

    strategy = "RigQuiet"


class FreqtradeConsumer(FreqtradeBot):
    """Takes whitelist, frames and signals from whatever speaks freqtrade's wire at `host`:`upstream_port`."""

    strategy = "RigConsumer"

    def __init__(
        self,
        directory: Path,
        *,
        exchange: FakeExchange,
        token: str,
        upstream_port: int,
        host: str = "127.0.0.1",
    ) -> None:
        self.upstream = {
            "name": "default",
            "host": host,
            "port": upstream_port,
            "secure": False,
            "ws_token": token,
        }
        super().__init__(directory, exchange=exchange, token="interop-consumers-own-token-0123456789")

    def reports(self, since: float = 0.0) -> list[dict[str, Any]]:
        """What its strategy saw (the RIGC lines), each with the unix time `at`, from `since` on."""
        found = (line.partition("RIGC ")[2] for line in self.lines() if "RIGC {" in line)
        return [report for report in map(json.loads, found) if report["at"] >= since]

    def trades(self) -> list[dict[str, Any]]:
        """Open and closed ones, oldest first."""
        trades = self.api("trades")["trades"] + self.api("status")
        return sorted(trades, key=lambda trade: trade["trade_id"])

    def _config(self, exchange: FakeExchange) -> dict[str, Any]:
        config = super()._config(exchange)
        config |= json.loads((RIG / "config_consumer.json").read_text())
        config["external_message_consumer"]["producers"] = [self.upstream]
        return config


class HubProcess(Process):
    """`tradewire-hub serve` with a configuration; the port stays the same over restarts."""

    def __init__(self, directory: Path, *, api_server: dict[str, Any], hub: dict[str, Any]) -> None:
        self.port = free_port()
        config = directory / "hub.json"
        command = [str(Path(sys.executable).with_name("tradewire-hub")), "serve", "--config", str(config)]
        super().__init__(command, directory)
        section = {
            "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": self.port, "verbosity": "info",
            "enable_openapi": False, "jwt_secret_key": JWT_SECRET, "CORS_origins": [], "username": USERNAME,
            "password": PASSWORD,
        }  # fmt: skip
        config.write_text(json.dumps({"api_server": section | api_server, "hub": hub}, indent=1))

    def start(self) -> Self:
        super().start()
        wait_for("the hub to answer", self._answers, 30, of=self)
        return self

    def _answers(self) -> bool:
        return _answers(f"http://127.0.0.1:{self.port}/api/v1/ping")


def _environment() -> dict[str, str]:
    """Ours, without what tells freqtrade that it is under test: it then keeps no log file."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "FREQTRADE__"))
    }
    return ours | {"PYTHONUNBUFFERED": "1"}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False
