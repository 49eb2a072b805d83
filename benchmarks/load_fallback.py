"""load.c in Python, for a machine without a compiler: the same commands and answers, at several times the CPU.

It is then more likely to be what limits a saturated server, which changes messages a second and latencies; a server's CPU per
delivery it changes little. The standard library alone.
"""

from __future__ import annotations

import json
import re
import resource
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import BinaryIO

AT_ONCE = 32
READ = 1 << 18
HEARD = 240
PROBE_QUIET_S, PROBE_S = 0.3, 10.0
NATS_MESSAGE = re.compile(rb"MSG [^\r\n]* (\d+)\r\n")
PING = 9
RESET = struct.pack("ii", 1, 0)


class Failed(Exception):
    """The end of this program; the text is its last answer."""


@dataclass(eq=False)
class Client:
    """One connection, and where in the stream of its frames it is."""

    sock: socket.socket
    reads: bool = True
    counted: bool = False
    sampled: bool = False
    publishes: bool = False
    raw: bool = False
    upgraded: bool = False
    lost: bool = False
    buffer: bytes = b""
    count: int = 0
    last: float = 0.0
    left: int = 0
    counts: bool = False
    inner: bytes = b""
    body: int = 0


def header_at(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Of a frame its opcode, where its payload begins, and the payload's length; None while the header is not whole."""
    have = len(data) - at
    if have < 2:
        return None
    length, start = data[at + 1] & 127, at + 2
    if length >= 126:
        wide = 2 if length == 126 else 8
        if have < 2 + wide:
            return None
        length, start = int.from_bytes(data[start : start + wide], "big"), start + wide
    return data[at] & 15, start, length


@dataclass
class Generator:
    """All connections and what is counted of them."""

    blobs: dict[str, bytes] = field(default_factory=lambda: {"request": b"", "first": b""})
    places: list[tuple[str, int, int]] = field(default_factory=list)
    made_ns: list[int] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    publisher: Client | None = None
    asker: Client | None = None
    quiet_s: float = 0.0
    low: int = 1
    high: int = 1 << 62
    per: int = 1
    nats: bool = False
    number: int = 1_000_000_000
    out: bytearray = field(default_factory=bytearray)
    heard: str = ""
    lost: int = 0
    broken: bool = False
    upgraded: int = 0
    target: int = 0
    waiting: int = 0
    deliveries: int = 0
    received: int = 0
    asked: int = 0
    now_ns: int = 0
    latencies: list[int] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    # --- what comes

    def pump(self, seconds: float) -> None:
        """Handle what comes within `seconds`, or the first of it."""
        for key, events in self.selector.select(min(seconds, 0.005) if self.asker else seconds):
            if events & selectors.EVENT_WRITE:
                self.send_out()
            if events & selectors.EVENT_READ:
                self.readable(key.data)

    def readable(self, client: Client) -> None:
        """Take one read of a connection."""
        try:
            data = client.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if not client.upgraded:
                raise Failed("a connection was closed before its handshake was answered")
            self.lose(client)
            return
        self.now_ns = time.monotonic_ns()
        client.last = self.now_ns / 1e9
        self.received += len(data)
        if client.publishes:
            self.heard = re.sub(r"[^ -~]|[\"\\]", ".", data[-HEARD:].decode("latin-1"))
        if client.raw:
            return
        if client.upgraded:
            self.feed(client, data)
        else:
            self.greet(client, data)

    def lose(self, client: Client) -> None:
        """A connection is gone."""
        client.lost = True
        self.lost += 1
        self.broken |= client.counted or client.publishes
        self.selector.unregister(client.sock)

    def greet(self, client: Client, data: bytes) -> None:
        """Read the answer to the handshake."""
        head, found, rest = (client.buffer + data).partition(b"\r\n\r\n")
        if not found:
            client.buffer = head
            return
        if not head.startswith(b"HTTP/1.1 101"):
            raise Failed(head.split(b"\r\n")[0].decode("latin-1"))
        client.upgraded, client.buffer = True, b""
        self.upgraded += 1
        client.sock.sendall(self.blobs["first"])
        self.feed(client, rest)
        if not client.reads:
            self.selector.unregister(client.sock)

    def feed(self, client: Client, data: bytes) -> None:
        """Walk over frames by the lengths in their headers."""
        data, at = client.buffer + data, 0
        size = len(data)
        while True:
            if client.left:
                stop = min(at + client.left, size)
                if self.nats and client.counted:
                    self.feed_nats(client, data[at:stop])
                client.left -= stop - at
                at = stop
                if client.left:
                    break
                if client.counts:
                    self.whole(client)
            header = header_at(data, at)
            if header is None:
                break
            opcode, at, client.left = header
            stop = min(at + client.left, size)
            client.counts = (
                client.counted and not self.nats and opcode < 8 and self.low <= client.left <= self.high
            )
            if opcode == PING and stop == at + client.left:
                self.pong(client, data[at:stop])
        client.buffer = data[at:]

    def feed_nats(self, client: Client, data: bytes) -> None:
        """The protocol within NATS's frames: lines, and behind a MSG its bytes."""
        data = client.inner + data
        at, size = 0, len(data)
        while at < size:
            if client.body:
                take = min(client.body, size - at)
                client.body -= take
                at += take
                if not client.body:
                    self.whole(client)
                continue
            end = data.find(b"\n", at)
            if end < 0:
                break
            line = NATS_MESSAGE.fullmatch(data, at, end + 1)
            at = end + 1
            if line is not None:
                client.body = int(line[1]) + 2
        client.inner = data[at:]

    def whole(self, client: Client) -> None:
        """A message came to its end."""
        self.deliveries += 1
        client.count += 1
        if client.count == self.target:
            self.waiting -= 1
        messages, part = divmod(client.count, self.per)
        if client.sampled and not part and messages <= len(self.made_ns):
            self.latencies.append(self.now_ns - self.made_ns[messages - 1])

    def pong(self, client: Client, payload: bytes) -> None:
        """Answer a ping."""
        client.sock.send(bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload)

    # --- what goes out

    def make_message(self) -> None:
        """Put the next message behind what the publisher has not sent yet."""
        self.number += 1
        message = bytearray(self.blobs["message"])
        for kind, offset, width in self.places:
            message[offset : offset + width] = (
                self.number.to_bytes(width, "big") if kind == "b" else b"%0*d" % (width, self.number)
            )
        self.out += message
        self.made_ns.append(time.monotonic_ns())

    def send_out(self) -> None:
        """Send what the publisher's socket takes."""
        assert self.publisher is not None
        try:
            while self.out:
                del self.out[: self.publisher.sock.send(self.out)]
        except BlockingIOError:
            pass
        except OSError:
            self.broken = True
            self.out.clear()
        if not self.publisher.lost:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
            self.selector.modify(self.publisher.sock, events, self.publisher)

    def ask(self) -> None:
        """Have the client that asks do so again, if it had nothing for a while."""
        asker, now = self.asker, time.monotonic()
        if asker is not None and now - asker.last >= self.quiet_s:
            asker.last = now
            self.asked += 1
            asker.sock.sendall(self.blobs["again"])

    # --- connecting

    def dial(self, port: int) -> Client:
        """A connection of which nothing was said yet."""
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.setblocking(False)
        client = Client(sock)
        self.selector.register(sock, selectors.EVENT_READ, client)
        return client

    def connect(self, count: int, port: int, how: str, quiet_ms: float) -> None:
        """Open connections that subscribe."""
        self.upgraded = 0
        for i in range(count):
            client = self.dial(port)
            client.reads = how != "stalls"
            client.counted = how == "reads"
            if how == "asks":
                self.asker, self.quiet_s = client, quiet_ms / 1000
            self.clients.append(client)
            client.sock.sendall(self.blobs["request"])
            while i + 1 - self.upgraded >= AT_ONCE:
                self.pump(1.0)
        while self.upgraded < count:
            self.pump(1.0)

    def connect_publisher(self, port: int, how: str) -> None:
        """Open the connection that publishes."""
        client = self.publisher = self.dial(port)
        client.publishes = True
        self.upgraded = 0
        if how == "raw":
            client.raw = client.upgraded = True
            client.sock.sendall(self.blobs["first"])
            return
        client.sock.sendall(self.blobs["request"])
        while not self.upgraded:
            self.pump(1.0)

    # --- measuring

    def begin(self) -> None:
        """Count from zero."""
        for client in self.clients:
            client.count = 0
        self.deliveries = self.received = self.asked = self.target = 0
        self.latencies, self.made_ns = [], []

    def expect(self, messages: int) -> None:
        """Wait for all clients to have so many."""
        self.target = messages * self.per
        self.waiting = sum(client.counted and client.count < self.target for client in self.clients)

    def window(self, size: int, seconds: float, timeout_s: float, most: float) -> dict[str, object]:
        """As the command."""
        start, cpu, messages = time.monotonic(), time.process_time(), 0
        self.begin()
        while True:
            for _ in range(size):
                self.make_message()
            messages += size
            self.expect(messages)
            self.send_out()
            while self.waiting and not self.broken and time.monotonic() < start + timeout_s:
                self.pump(0.1)
                self.ask()
            if self.waiting or time.monotonic() >= start + seconds or messages >= most:
                return self.report(messages, start, cpu)

    def pace(self, rate: float, count: int, timeout_s: float) -> dict[str, object]:
        """As the command."""
        start, cpu, done = time.monotonic(), time.process_time(), 0
        self.begin()
        self.expect(count)
        while (self.waiting or done < count) and not self.broken:
            now = time.monotonic()
            if now > start + timeout_s:
                break
            due = start + done / rate
            if done < count and now >= due:
                self.make_message()
                self.send_out()
                done += 1
                continue
            self.pump(due - now if done < count else 0.1)
            self.ask()
        return self.report(done, start, cpu)

    def report(self, messages: int, start: float, cpu: float) -> dict[str, object]:
        """The answer of a measurement."""
        taken = sorted(self.latencies)

        def quantile(part: float) -> float:
            return taken[int((len(taken) - 1) * part)] / 1e6 if taken else 0.0

        return {
            "messages": messages,
            "deliveries": self.deliveries // self.per,
            "bytes": self.received,
            "seconds": time.monotonic() - start,
            "load_cpu_s": time.process_time() - cpu,
            "late": self.waiting > 0,
            "lost": self.lost,
            "asked": self.asked,
            "samples": len(taken),
            "p50_ms": quantile(0.5),
            "p99_ms": quantile(0.99),
            "most_ms": quantile(1.0),
            "heard": self.heard if self.waiting else "",
        }

    def rest(self, seconds: float, quiet_s: float = float("inf")) -> None:
        """Read until `seconds` are over or nothing came for `quiet_s`."""
        end = time.monotonic() + seconds
        last, seen = time.monotonic(), self.received
        while time.monotonic() < end and time.monotonic() - last < quiet_s:
            self.pump(0.02)
            if self.received != seen:
                last, seen = time.monotonic(), self.received

    def probe(self) -> dict[str, object]:
        """As the command."""
        self.begin()
        self.make_message()
        self.send_out()
        while not self.deliveries and not self.broken:
            self.pump(1.0)
        self.rest(PROBE_S, PROBE_QUIET_S)
        counts = [client.count for client in self.clients if client.counted]
        return {"least": min(counts), "most": max(counts), "bytes": self.received, "heard": self.heard}

    # --- commands

    def obey(self, words: list[str], stream: BinaryIO) -> dict[str, object] | None:
        """Do one command; its answer."""
        name, *rest = words
        if name == "blob":
            self.blobs[rest[0]] = stream.read(int(rest[1]))
            return None
        if name == "count":
            self.nats = rest[0] == "nats"
            self.low, self.high, self.per = map(int, rest[1:]) if not self.nats else (1, 1 << 62, 1)
        elif name == "connect":
            self.connect(int(rest[0]), int(rest[1]), rest[2], float(rest[3]))
        elif name == "publisher":
            self.connect_publisher(int(rest[0]), rest[1])
        elif name == "number":
            self.places = [] if rest[0] == "n" else [*self.places, (rest[0], int(rest[1]), int(rest[2]))]
        elif name == "sample":
            every = int(rest[0])
            for i, client in enumerate(self.clients):
                client.sampled = client.counted and i % every == every - 1
        elif name == "probe":
            return self.probe()
        elif name == "window":
            return self.window(int(rest[0]), float(rest[1]), float(rest[2]), float(rest[3]))
        elif name == "pace":
            return self.pace(float(rest[0]), int(rest[1]), float(rest[2]))
        elif name == "rest":
            self.rest(float(rest[0]))
        else:
            raise Failed("not a command")
        return {"clients": len(self.clients), "lost": self.lost}


def main() -> None:
    """Obey until stdin ends."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    generator = Generator()
    while line := sys.stdin.buffer.readline():
        try:
            answer = generator.obey(line.decode().split(), sys.stdin.buffer)
        except (Failed, OSError) as error:
            print(json.dumps({"error": str(error)}), flush=True)
            return
        if answer is not None:
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
