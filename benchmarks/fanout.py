"""Fan-out: server CPU per delivered message, this hub against a naive Starlette hub and freqtrade's own server.

`python -m benchmarks.fanout [--clients N] [--repeat N]`. Each server is a process of its own; N bare clients in this process count
frames. Saturated: bursts of 64 fills, the next one when all clients have the last. Paced: 20 fills a second. CPU is user plus
system time of the server process; ratios are to this hub in the same run. freqtrade takes part when the interpreter of
`make test-interop` exists.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu import cpu_seconds
from benchmarks.receivers import Receivers
from benchmarks.servers import TOKEN

ROOT = Path(__file__).parent.parent
INTEROP_PYTHON = Path(os.environ.get("TRADEWIRE_INTEROP_PYTHON", ROOT / ".venv-interop/bin/python"))
SUBSCRIBE = {"type": "subscribe", "data": ["entry_fill"]}


@dataclass
class Result:
    """Of one server in one mode: CPU seconds per million deliveries, deliveries a second."""

    cpu: float
    rate: float


class Server:
    """A server process."""

    def __init__(self, name: str) -> None:
        python = INTEROP_PYTHON if name == "freqtrade" else Path(sys.executable)
        self.process = subprocess.Popen(
            [python, ROOT / "benchmarks/servers.py", name],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    async def command(self, line: str) -> None:
        """Say a command and wait until it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        await asyncio.to_thread(self.process.stdout.readline)

    def cpu_seconds(self) -> float:
        """User plus system time so far."""
        return cpu_seconds(self.process.pid)

    def end(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


async def saturated(server: Server, receivers: Receivers, bursts: int) -> Result:
    """Bursts of 64, the next when all have the last."""
    cpu, start, before = server.cpu_seconds(), time.monotonic(), receivers.frames
    for _ in range(bursts):
        target = receivers.frames + 64 * receivers.count
        await server.command("burst 64")
        if not await receivers.reach(target, 120):
            break
    done = receivers.frames - before
    return Result((server.cpu_seconds() - cpu) / max(1, done) * 1e6, done / (time.monotonic() - start))


async def paced(server: Server, receivers: Receivers, count: int, rate: float) -> Result:
    """`count` messages at `rate` a second."""
    cpu, start, before = server.cpu_seconds(), time.monotonic(), receivers.frames
    await server.command(f"pace {count} {rate}")
    await receivers.reach(before + count * receivers.count, 120)
    done = receivers.frames - before
    return Result((server.cpu_seconds() - cpu) / max(1, done) * 1e6, done / (time.monotonic() - start))


async def measure(name: str, clients: int, *, bursts: int, count: int, rate: float) -> tuple[Result, Result]:
    """Both modes of one server."""
    server = Server(name)
    receivers = Receivers(clients)
    try:
        await receivers.connect(server.port, TOKEN, SUBSCRIBE)
        await saturated(server, receivers, 1)
        return await saturated(server, receivers, bursts), await paced(server, receivers, count, rate)
    finally:
        receivers.close()
        await asyncio.to_thread(server.end)


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    names = ["tradewire", "naive"] + (["freqtrade"] if INTEROP_PYTHON.exists() else [])
    results: dict[str, list[tuple[Result, Result]]] = {name: [] for name in names}
    for _ in range(arguments.repeat):
        for name in names:
            bursts = 2 if name == "freqtrade" else 40
            count, rate = (5, 1.0) if name == "freqtrade" else (60, 20.0)
            results[name].append(
                asyncio.run(measure(name, arguments.clients, bursts=bursts, count=count, rate=rate))
            )
    report(results, arguments.clients)


def report(results: dict[str, list[tuple[Result, Result]]], clients: int) -> None:
    """Medians, and ratios to this hub."""
    print(f"{clients} clients, fills of about 400 bytes, medians of {len(next(iter(results.values())))} runs")
    print(
        f"{'server':<12}{'saturated':>12}{'ratio':>8}{'msg/s':>12}{'paced':>12}{'ratio':>8}   (CPU s per million deliveries)"
    )
    base = [statistics.median(pair[mode].cpu for pair in results["tradewire"]) for mode in (0, 1)]
    for name, runs in results.items():
        cpu = [statistics.median(pair[mode].cpu for pair in runs) for mode in (0, 1)]
        rate = statistics.median(pair[0].rate for pair in runs)
        print(
            f"{name:<12}{cpu[0]:>12.2f}{cpu[0] / base[0]:>8.1f}{rate:>12,.0f}{cpu[1]:>12.2f}{cpu[1] / base[1]:>8.1f}"
        )


if __name__ == "__main__":
    main()
