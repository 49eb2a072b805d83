"""Publishers that each wait for their acknowledgement, to a hub or to JetStream: the load of the durability benchmark.

`python -m benchmarks.publishers hub|nats PORT COUNT SECONDS PID`: COUNT connections, one message in flight on each, for SECONDS after
a warm-up; it prints one line of JSON (`Load`). A program of its own, so that its CPU is not the server's, and the same code on both
sides: a message is a template with its id put in, an acknowledgement is looked at but not decoded.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import msgpack

from benchmarks.cpu import cpu_seconds
from benchmarks.framing import handshake, masked
from benchmarks.servers import FILL, PUBLISHER_TOKEN

__all__ = ["STREAM", "SUBJECT", "Load"]

STREAM = "bench"
SUBJECT = "tw.bench.entry_fill"
WARM_UP_S = 0.5
MID_BYTES = 16


@dataclass
class Load:
    """What came of one load. CPU is user plus system seconds within `seconds`."""

    acks: int
    seconds: float
    p50_ms: float
    p99_ms: float
    generator_cpu_s: float
    server_cpu_s: float

    @property
    def rate(self) -> float:
        """Acknowledged messages a second."""
        return self.acks / self.seconds


class _Publisher(asyncio.Protocol):
    """One connection. A message is `before` + mid + `after`."""

    before = b""
    after = b""

    def __init__(self, owner: Publishers, number: int) -> None:
        self.owner = owner
        self.number = number
        self.sent = 0
        self.sent_at = 0.0
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.opened(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.owner.lost(self.number, error)

    def opened(self, transport: asyncio.Transport) -> None:
        """Begin; calls `owner.ready` when messages can be sent."""
        raise NotImplementedError

    def publish(self) -> None:
        """Send the next message."""
        assert self.transport is not None
        self.sent += 1
        self.sent_at = time.perf_counter()
        mid = b"%04d%s%08d" % (self.number, self.owner.run, self.sent)
        self.transport.write(self.before + mid + self.after)

    def acknowledged(self) -> None:
        """The message in flight is durable."""
        self.owner.acknowledged(time.perf_counter() - self.sent_at)
        if not self.owner.ended:
            self.publish()


class _HubPublisher(_Publisher):
    """tradewire.v2.msgpack."""

    def opened(self, transport: asyncio.Transport) -> None:
        mid = "m" * MID_BYTES
        data = {"bot": "bench", "topic": "entry_fill", "mid": mid, "data": FILL}
        payload = msgpack.packb({"type": "publish", "id": 1, "data": data})
        self.before, self.after = masked(payload, text=False).split(mid.encode())
        transport.write(
            handshake(
                headers={
                    "Sec-WebSocket-Protocol": "tradewire.v2.msgpack",
                    "Authorization": f"Bearer {PUBLISHER_TOKEN}",
                }
            )
        )

    def data_received(self, data: bytes) -> None:
        if not self.sent:
            self.buffer += data
            if b"hub.welcome" in self.buffer:
                self.owner.ready(self)
            elif b" 101 " not in self.buffer[:20]:
                raise ConnectionError(self.buffer.split(b"\r\n", 1)[0].decode())
        elif b"hub.reply" in data:
            if b"\xa2ok\xc3" not in data:
                raise ConnectionError(f"refused: {data!r}")
            self.acknowledged()


class _NatsPublisher(_Publisher):
    """NATS's client protocol: HPUB with a Nats-Msg-Id, the PubAck to an inbox."""

    def opened(self, transport: asyncio.Transport) -> None:
        body = json.dumps(FILL, separators=(",", ":")).encode()
        head = b"NATS/1.0\r\nNats-Msg-Id: " + b"m" * MID_BYTES + b"\r\n\r\n"
        line = f"HPUB {SUBJECT} _INBOX.{self.number} {len(head)} {len(head) + len(body)}\r\n".encode()
        self.before, self.after = (line + head + body + b"\r\n").split(b"m" * MID_BYTES)
        options = json.dumps({"verbose": False, "headers": True, "protocol": 1})
        transport.write(f"CONNECT {options}\r\nSUB _INBOX.{self.number} 1\r\nPING\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"PING"):
            assert self.transport is not None
            self.transport.write(b"PONG\r\n")
        if not self.sent:
            if b"PONG" in data:
                self.owner.ready(self)
        elif b"MSG _INBOX" in data:
            if b'"seq":' not in data:
                raise ConnectionError(f"refused: {data!r}")
            self.acknowledged()


_KINDS: dict[str, Callable[[Publishers, int], _Publisher]] = {"hub": _HubPublisher, "nats": _NatsPublisher}


class Publishers:
    """All connections of one load."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Ids of one run are not those of another on the same server.
        self.run = b"%04d" % (time.time_ns() // 10_000_000 % 10_000)
        self.ended = False
        self.latencies: list[float] = []
        self._ready: list[_Publisher] = []
        self._all_ready = asyncio.Event()
        self._failed: Exception | None = None

    def ready(self, publisher: _Publisher) -> None:
        """A connection may send."""
        self._ready.append(publisher)
        if len(self._ready) == self.count:
            self._all_ready.set()

    def acknowledged(self, latency_s: float) -> None:
        """One message is acknowledged."""
        self.latencies.append(latency_s)

    def lost(self, number: int, error: Exception | None) -> None:
        """A connection is gone; before the end that is a failure of the run."""
        if not self.ended:
            self._failed = error or ConnectionError(f"publisher {number} lost its connection")
            self._all_ready.set()

    async def run_load(self, kind: str, port: int, seconds: float, pid: int) -> Load:
        """Connect, warm up, measure."""
        loop = asyncio.get_running_loop()
        for number in range(self.count):
            await loop.create_connection(lambda n=number: _KINDS[kind](self, n), "127.0.0.1", port)  # type: ignore[misc]
        async with asyncio.timeout(30):
            await self._all_ready.wait()
        for publisher in self._ready:
            publisher.publish()
        await asyncio.sleep(WARM_UP_S)
        self.latencies.clear()
        start, own, server = time.perf_counter(), time.process_time(), cpu_seconds(pid)
        await asyncio.sleep(seconds)
        elapsed = time.perf_counter() - start
        own, server = time.process_time() - own, cpu_seconds(pid) - server
        self.ended = True
        if self._failed is not None:
            raise self._failed
        latencies = sorted(self.latencies)
        return Load(
            acks=len(latencies),
            seconds=elapsed,
            p50_ms=1000 * latencies[len(latencies) // 2],
            p99_ms=1000 * latencies[len(latencies) * 99 // 100],
            generator_cpu_s=own,
            server_cpu_s=server,
        )


def main() -> None:
    """Run one load and print it."""
    kind, port, count, seconds, pid = sys.argv[1:]

    async def run() -> Load:
        return await Publishers(int(count)).run_load(kind, int(port), float(seconds), int(pid))

    figures: dict[str, Any] = asdict(asyncio.run(run()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
