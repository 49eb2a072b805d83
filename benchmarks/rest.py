"""REST: requests a second and p99 of this hub against freqtrade's own server, and what its load does to fills.

`python -m benchmarks.rest [--seconds S] [--repeat N]`. Each server is a process of its own with 200 open trades and a frame of 1500
rows and 42 columns: this hub with its bot in process, this hub with its bot attached from another process, and freqtrade's
ApiServer where the interpreter of `make test-interop` exists. 8 kept connections ask one thing in a loop. Then fills are published
at 20 a second and their way to a websocket is timed, first alone and then while each request loop runs. Ratios are to
freqtrade (of requests a second: more is better), in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets

from benchmarks.requesters import Requesters, Run, percentile
from benchmarks.servers import TOKEN

ROOT = Path(__file__).parent.parent
INTEROP_PYTHON = Path(os.environ.get("TRADEWIRE_INTEROP_PYTHON", ROOT / ".venv-interop/bin/python"))
CONNECTIONS = 8
FILLS_A_SECOND = 20
PATHS = {
    "ping": "/ping",
    "status": "/status",
    "pair_candles": "/pair_candles?pair=BTC/USDT&timeframe=5m&limit=1500",
}


class Server:
    """A server process of `rest_servers.py`."""

    def __init__(self, name: str) -> None:
        python = INTEROP_PYTHON if name == "freqtrade" else Path(sys.executable)
        self.process = subprocess.Popen(
            [python, ROOT / "benchmarks/rest_servers.py", name],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/interop'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.port: int = said["port"]
        self.prefix: str = said["prefix"]
        self._basic = base64.b64encode(f"{said['username']}:{said['password']}".encode()).decode()

    def request(self, path: str) -> bytes:
        """The bytes of a GET."""
        return (
            f"GET {self.prefix}/api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Basic {self._basic}\r\n\r\n"
        ).encode()

    @asynccontextmanager
    async def fills(self) -> AsyncIterator[list[float]]:
        """Seconds that fills took from publish to a websocket, filled while the body runs."""
        latencies: list[float] = []
        url = f"ws://127.0.0.1:{self.port}{self.prefix}/api/v1/message/ws?token={TOKEN}"
        async with websockets.connect(url) as socket:
            await socket.send(json.dumps({"type": "subscribe", "data": ["entry_fill"]}))
            await asyncio.sleep(0.3)
            reading = asyncio.create_task(_read(socket, latencies))
            pacing = asyncio.create_task(self._pace())
            try:
                yield latencies
            finally:
                for task in (pacing, reading):
                    task.cancel()
                await asyncio.gather(pacing, reading, return_exceptions=True)

    async def _pace(self) -> None:
        assert self.process.stdin is not None
        while True:
            self.process.stdin.write("fill\n")
            self.process.stdin.flush()
            await asyncio.sleep(1 / FILLS_A_SECOND)

    def end(self) -> None:
        """End the process, and with it what it started."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


async def _read(socket: websockets.ClientConnection, latencies: list[float]) -> None:
    async for text in socket:
        message = json.loads(text)
        if message.get("type") == "entry_fill":
            # The monotonic clock is one for all processes of the machine.
            latencies.append(time.monotonic() - message["sent_at"])


async def measure(name: str, seconds: float) -> dict[str, Run | float]:
    """Every figure of one server: runs by request, p99 of fills in ms alone and under each."""
    server = Server(name)
    try:
        figures: dict[str, Run | float] = {}
        async with server.fills() as latencies:
            await asyncio.sleep(seconds)
        figures["fills"] = percentile(latencies, 0.99) * 1000
        for what, path in PATHS.items():
            asking = Requesters(server.port, server.request(path), CONNECTIONS)
            await asking.run(min(1.0, seconds))
            figures[what] = await asking.run(seconds)
            async with server.fills() as latencies:
                await asking.run(seconds)
            figures[f"fills under {what}"] = percentile(latencies, 0.99) * 1000
        return figures
    finally:
        await asyncio.to_thread(server.end)


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    names = ["in-process", "attached"] + (["freqtrade"] if INTEROP_PYTHON.exists() else [])
    figures: dict[str, list[dict[str, Run | float]]] = {name: [] for name in names}
    for _ in range(arguments.repeat):
        for name in names:
            figures[name].append(asyncio.run(measure(name, arguments.seconds)))
    report(figures)


def report(figures: dict[str, list[dict[str, Run | float]]]) -> None:
    """Medians, and ratios to freqtrade where it took part."""
    baseline = figures.get("freqtrade")
    print(
        f"{CONNECTIONS} connections, medians of {len(next(iter(figures.values())))} runs; ratio: to freqtrade"
    )
    print(f"{'request':<14}{'server':<12}{'bytes':>9}{'req/s':>10}{'ratio':>8}{'p99 ms':>10}{'ratio':>8}")
    for what in PATHS:
        for name, runs in figures.items():
            rate, p99 = _rate(runs, what), _p99(runs, what)
            base = (_rate(baseline, what), _p99(baseline, what)) if baseline else (rate, p99)
            last = runs[-1][what]
            assert isinstance(last, Run)
            failed = f"  {last.failures} failed" if last.failures else ""
            print(
                f"{what:<14}{name:<12}{last.body_bytes:>9}{rate:>10.0f}{rate / base[0]:>8.1f}{p99:>10.1f}{p99 / base[1]:>8.2f}{failed}"
            )
    print(f"\n{'fills, p99 ms':<26}" + "".join(f"{name:>12}" for name in figures))
    for when in ("fills", *(f"fills under {what}" for what in PATHS)):
        row = [statistics.median(float(run[when]) for run in runs) for runs in figures.values()]  # type: ignore[arg-type]
        print(f"{when:<26}" + "".join(f"{value:>12.1f}" for value in row))


def _rate(runs: list[dict[str, Run | float]], what: str) -> float:
    return statistics.median(run[what].rate for run in runs)  # type: ignore[union-attr]


def _p99(runs: list[dict[str, Run | float]], what: str) -> float:
    return statistics.median(run[what].p99_ms for run in runs)  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
