"""The typed consumer against a server that does nothing but send: how many fills a second `consumer.Client` takes on one core.

`Consuming` measures it with two processes. `python -m benchmarks.consuming serve WIRE COUNT` prints its port and sends COUNT fills of
400 bytes, whose frames are made before, to the one client that subscribes. `consume WIRE COUNT PORT` is that client: it iterates over
typed deliveries, as a bot does, and prints one line of JSON (`Consumed`). WIRE is json or msgpack.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from websockets.sync.server import ServerConnection, serve

from benchmarks.messages import BOT, flat
from benchmarks.processes import ROOT, PrintingServer
from benchmarks.sessions import Drive, Figures
from consumer import Client, ConsumerConfig, ProducerConfig
from hub.protocol.codec import CODECS, Wire, frame_of

__all__ = ["CONSUME", "Consumed", "Consuming"]

SIZE = 400
FIRST = 1_000_000_001
"""Offsets of equal width, so that one frame is like the other."""
OFFSET, PREV = 1_111_111_111, 1_222_222_222
WARM_UP = 2000
TIMEOUT_S = 60.0
AT_ONCE = 1 << 16
EPOCH = "benchmark"
WIRES: dict[str, Wire] = {"json": Wire.JSON, "msgpack": Wire.MSGPACK}


@dataclass
class Consumed:
    """`messages` in `seconds`; CPU of the consumer's process, user and system."""

    messages: int
    seconds: float
    cpu_s: float


# --- as a measurement


@dataclass(frozen=True)
class _Consume:
    """As fast as it can."""

    name: str = "as fast as it can"

    def run(self, load: object) -> None:
        """Nothing is put on a server here."""


CONSUME = _Consume()


@dataclass(frozen=True)
class Consuming:
    """The consumer on one of its wires."""

    wire: str
    count: int = 150_000
    descriptors: int = 100
    block: str = "consumer"

    @property
    def name(self) -> str:
        """In tables."""
        return f"consumer, v2.{self.wire}"

    def missing(self) -> str | None:
        """Nothing can be."""
        return None

    def measure(self, drives: Sequence[Drive], directory: Path) -> dict[Drive, Figures]:
        """`rate`: messages a second; `cpu_us`: of the consumer, per message.

        Raises:
            RuntimeError: not all messages came.
        """
        program = [sys.executable, "-m", "benchmarks.consuming"]
        with PrintingServer([*program, "serve", self.wire, str(self.count)], directory) as server:
            done = subprocess.run(
                [*program, "consume", self.wire, str(self.count), str(server.port)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=2 * TIMEOUT_S,
            )
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        consumed = Consumed(**json.loads(done.stdout))
        figures = {
            "rate": consumed.messages / consumed.seconds,
            "cpu_us": 1e6 * consumed.cpu_s / consumed.messages,
        }
        return dict.fromkeys(drives, figures)


# --- the server


def frames(wire: Wire, count: int) -> bytes:
    """The frames of `count` fills with contiguous offsets."""
    data = json.loads(flat(SIZE))
    message = {
        "type": data.pop("type"), "bot": BOT, "ts": 1_795_386_906_821, "epoch": EPOCH, "offset": OFFSET, "prev": PREV,
        "mid": f"bench-{OFFSET}", "data": data,
    }  # fmt: skip
    frame = frame_of(wire, message)
    block = np.tile(np.frombuffer(frame, np.uint8), (count, 1))
    for stand_in, first in ((OFFSET, FIRST), (PREV, FIRST - 1)):
        _number(block, frame, stand_in, np.arange(first, first + count))
    return block.tobytes()


def _number(block: np.ndarray[Any, Any], frame: bytes, stand_in: int, values: np.ndarray[Any, Any]) -> None:
    """Put numbers in place of their stand-in, in digits and in msgpack's four bytes."""
    digits = str(stand_in)
    for at in _places(digits.encode(), frame):
        for place in range(len(digits)):
            block[:, at + place] = ord("0") + values // 10 ** (len(digits) - 1 - place) % 10
    for at in _places(b"\xce" + stand_in.to_bytes(4, "big"), frame):
        block[:, at + 1 : at + 5] = values.astype(">u4").view(np.uint8).reshape(-1, 4)


def _places(needle: bytes, frame: bytes) -> Iterator[int]:
    return (match.start() for match in re.finditer(re.escape(needle), frame))


def send_all(wire: Wire, count: int) -> None:
    """Serve one client."""
    codec, ready = CODECS[wire], memoryview(frames(wire, count))

    def handle(connection: ServerConnection) -> None:
        limits = {"message": 1 << 20, "items": 256, "keys": 10_000, "in_flight": 64, "publish_in_flight": 256}
        welcome = {
            "hub": "benchmark", "protocol": 2, "node": "n1", "session": "s", "now_ms": 0, "epoch": EPOCH, "floor": 0,
            "head": FIRST - 1, "principal": {"name": "bench", "scopes": ["read:*"]}, "expires_ms": None,
            "heartbeat_ms": 20_000, "features": [], "limits": limits,
        }  # fmt: skip
        _say(connection, wire, {"type": "hub.welcome", "data": welcome})
        while (request := codec.decode(connection.recv(TIMEOUT_S)))["type"] != "subscribe":
            pass
        data = {
            "epoch": EPOCH, "offset": FIRST - 1, "recovered": None, "unknown": [], "missing": [], "missing_keys": [],
            "denied": [],
        }  # fmt: skip
        _say(connection, wire, {"type": "hub.reply", "id": request["id"], "ok": True, "data": data})
        for start in range(0, len(ready), AT_ONCE):
            connection.socket.sendall(ready[start : start + AT_ONCE])
        for _ in connection:
            pass

    with serve(handle, "127.0.0.1", 0, subprotocols=[wire.value], compression=None) as server:  # type: ignore[list-item]
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()


def _say(connection: ServerConnection, wire: Wire, message: dict[str, Any]) -> None:
    codec = CODECS[wire]
    payload = codec.encode(message)
    connection.send(payload.decode() if codec.text else payload)


# --- the client


async def consume(encoding: Literal["json", "msgpack"], count: int, port: int) -> Consumed:
    """Take all, and measure behind the first ones.

    Raises:
        RuntimeError: not all came.
    """
    producer = ProducerConfig(
        name="bench",
        host="127.0.0.1",
        port=port,
        ws_token="none",
        protocol="v2",
        encoding=encoding,
        topics=["entry_fill"],
    )
    taken, start, cpu = 0, 0.0, 0.0
    async with asyncio.timeout(TIMEOUT_S), Client(producer, ConsumerConfig(producers=(producer,))) as client:
        async for delivery in client:
            if delivery.topic == "entry_fill":
                taken += 1
                if taken == WARM_UP:
                    start, cpu = time.perf_counter(), time.process_time()
                if taken == count:
                    return Consumed(count - WARM_UP, time.perf_counter() - start, time.process_time() - cpu)
            elif delivery.topic in ("lost", "disconnected"):
                raise RuntimeError(f"after {taken} messages: {delivery.message}")
    raise RuntimeError(f"{taken} of {count} messages came")


def main() -> None:
    """Serve, or consume and print what it took."""
    role, encoding, count = sys.argv[1:4]
    if role == "serve":
        send_all(WIRES[encoding], int(count))
    elif encoding in ("json", "msgpack"):
        print(json.dumps(asdict(asyncio.run(consume(encoding, int(count), int(sys.argv[4]))))))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
