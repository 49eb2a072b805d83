"""One server under one load: what is set up, what is then published and how, and the figures that come of it.

A setup is a server with its clients; drives are the ways in which it is published to, one after the other on the same connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.arms import Arm, Hub, Wire
from benchmarks.cpu import cpu_seconds
from benchmarks.load import Load, Measured
from benchmarks.memory import forget_peak, peak_kib, resident_kib
from benchmarks.messages import BOT, Fill, Message, columns
from benchmarks.processes import ServerProcess
from benchmarks.servers import PUBLISHER_TOKEN
from consumer import Publication, Publisher

__all__ = ["IDLE", "Drive", "Figures", "Idle", "Pace", "Resyncing", "Setup", "Window", "clients_for"]

Figures = Mapping[str, float]
"""`cpu_us`: of the server, user and system, per delivery. `rate`: deliveries a second. `p50_ms`, `p99_ms`: from publish to receipt.
`bytes`: on the wire, per delivery. `load`: share of one core that the load generator took. `growth_kib`: of the server's resident
memory, at its peak. `connection_kib`: resident, per connection. `asked`: how often the client that resyncs did."""

FIRST_CLIENTS = 20
"""Connected before the memory of the others is looked at: what a server allocates once is not a connection's."""
SAMPLED = 25
TIMEOUT_S = 60.0
ASK_QUIET_MS = 30
SPARE_FILES = 200
LEAST_FRAME_BYTES = 16_000
"""Of a dataframe's parts the last may be small; what else a server says is smaller than this."""


def files_for(clients: int) -> int:
    """How many open files there have to be for so many clients."""
    return SPARE_FILES + clients * 4 // 3


def clients_for(files: int) -> int:
    """How many clients there can be with so many open files."""
    return (files - SPARE_FILES) * 3 // 4


class Drive(Protocol):
    """A way of publishing."""

    @property
    def name(self) -> str:
        """In tables."""

    def run(self, load: Load) -> Measured | None:
        """Publish, and wait for all to come. None: there is nothing to measure but memory."""


@dataclass(frozen=True)
class Window:
    """`size` messages, the next ones when all clients have the last; for `seconds`, or until `most` are out."""

    size: int
    seconds: float = 1.2
    most: int = 1 << 40

    @property
    def name(self) -> str:
        return f"saturated, {self.size} outstanding"

    def run(self, load: Load) -> Measured:
        return load.window(self.size, seconds=self.seconds, timeout_s=TIMEOUT_S, most=self.most)


@dataclass(frozen=True)
class Pace:
    """`count` messages at `rate` a second."""

    rate: float
    count: int

    @property
    def name(self) -> str:
        return f"{self.rate:g} msg/s"

    def run(self, load: Load) -> Measured:
        return load.pace(self.rate, self.count, timeout_s=self.count / self.rate + TIMEOUT_S / 2)


@dataclass(frozen=True)
class Idle:
    """Nothing."""

    name: str = "idle"

    def run(self, load: Load) -> None:
        load.rest(1.0)


IDLE = Idle()


@dataclass(frozen=True)
class Resyncing:
    """Dataframes that the hub holds, and the wire of a further client that asks for all of them again and again, if there is one."""

    pairs: int
    rows: int
    columns: int
    asker: Wire | None


@dataclass(frozen=True)
class Setup:
    """A server, `clients` that read, in `sets` distinct subscription sets, and `stalled` that never do."""

    arm: Arm
    message: Message
    clients: int
    sets: int = 1
    stalled: int = 0
    resyncing: Resyncing | None = None

    @property
    def name(self) -> str:
        """Of the server, and what is special about its clients."""
        special = [self.arm.name]
        if self.sets > 1:
            special.append(f"{self.sets} sets")
        if self.stalled:
            special.append(f"{self.stalled} more never read")
        if self.resyncing is not None and self.resyncing.asker is not None:
            special.append(f"one asks on {Hub(self.resyncing.asker).wire_name}")
        return "; ".join(special)

    @property
    def block(self) -> object:
        """Those of one block take turns."""
        return self.message, self.clients

    @property
    def descriptors(self) -> int:
        """How many open files a server wants for them: the hub keeps a quarter for sockets that are no websocket yet."""
        return files_for(self.clients + self.stalled)

    def missing(self) -> str | None:
        """Why it cannot be measured here, or None."""
        return self.arm.missing()

    def measure(
        self, drives: Sequence[Drive], directory: Path, *, fallback: bool = False
    ) -> dict[Drive, Figures]:
        """The figures of each drive, on a server of its own.

        Raises:
            LoadError: a server did not take the load. RuntimeError: it did not start.
        """
        with self.arm.start(directory) as server:
            if self.resyncing is not None:
                asyncio.run(_publish_frames(server.port, self.resyncing))
            with Load(fallback=fallback) as load:
                publisher_port, dial = self.arm.publisher(server)
                load.publisher(publisher_port, dial)
                connection_kib = self._connect(load, server)
                if any(not isinstance(drive, Idle) for drive in drives):
                    self._warm_up(load)
                self._connect_others(load, server)
                return {
                    drive: {"connection_kib": connection_kib, **_drive(drive, load, server.pid)}
                    for drive in drives
                }

    def _connect(self, load: Load, server: ServerProcess) -> float:
        """Connect everyone; the KiB that a connection takes of the server."""
        first = min(FIRST_CLIENTS, self.clients)
        self._connect_clients(load, server, 0, first)
        load.rest(0.2)
        before = resident_kib(server.pid)
        self._connect_clients(load, server, first, self.clients)
        load.rest(0.4)
        taken = resident_kib(server.pid) - before
        return taken / max(1, self.clients - first)

    def _connect_others(self, load: Load, server: ServerProcess) -> None:
        """Those that are not counted. What the asker is sent first is made for it: nobody had it before."""
        if self.stalled:
            load.connect(self.stalled, server.port, self.arm.subscriber(self.message), "stalls")
        if self.resyncing is not None and self.resyncing.asker is not None:
            dial, again = Hub(self.resyncing.asker).resync(self.resyncing.pairs)
            load.connect(1, server.port, dial, "asks", again=again, quiet_ms=ASK_QUIET_MS)
            load.rest(0.3)

    def _connect_clients(self, load: Load, server: ServerProcess, start: int, stop: int) -> None:
        if self.sets == 1 and stop > start:
            load.connect(stop - start, server.port, self.arm.subscriber(self.message))
        elif self.sets > 1:
            for i in range(start, stop):
                load.connect(1, server.port, self.arm.subscriber(self.message, 1 + i % self.sets))

    def _warm_up(self, load: Load) -> None:
        load.publishes(self.arm.template(self.message))
        load.sample(max(1, self.clients // SAMPLED))
        if self.arm.counts_nats:
            load.count_nats()
        else:
            # With room for another encoding of the same message; notices are smaller.
            least = self.message.size * 6 // 10 if isinstance(self.message, Fill) else LEAST_FRAME_BYTES
            load.count_frames(least)
        # One at a time: of a dataframe the hub delivers only the newest of those that come at once.
        load.window(1, seconds=0.05, timeout_s=TIMEOUT_S)


def _drive(drive: Drive, load: Load, pid: int) -> dict[str, float]:
    forget_peak(pid)
    kib, cpu = resident_kib(pid), cpu_seconds(pid)
    measured = drive.run(load)
    cpu = cpu_seconds(pid) - cpu
    growth: dict[str, float] = {"growth_kib": peak_kib(pid) - kib}
    if measured is None:
        return growth
    return growth | {
        "cpu_us": 1e6 * cpu / measured.deliveries,
        "rate": measured.deliveries / measured.seconds,
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "bytes": measured.bytes / measured.deliveries,
        "load": measured.load_cpu_s / measured.seconds,
        "asked": measured.asked,
    }


async def _publish_frames(port: int, resyncing: Resyncing) -> None:
    """Give the hub what there is to resync."""
    frame = columns(resyncing.rows, resyncing.columns)
    async with Publisher(f"ws://127.0.0.1:{port}", PUBLISHER_TOKEN) as hub:
        pairs = [f"P{i}/USDT" for i in range(resyncing.pairs)]
        await hub.publish(BOT, "whitelist", pairs)
        for pair in pairs:
            await hub.submit(
                Publication(bot=BOT, topic="analyzed_df", key=(pair, "5m", "spot"), frame=frame, replace=True)
            )
        await hub.flush()
