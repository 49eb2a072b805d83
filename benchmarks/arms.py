"""The servers of the fan-out benchmark, each as an arm: how it is started, what clients and publisher say to it, what a message is.

Every arm gets its messages over one TCP connection from the load generator, in its own way, so that its CPU has what receiving
them costs and none of what making them costs:

- this hub as its users run it, `tradewire-hub serve` with its defaults (tokens, the SQLite ledger on disk, its statistics), published
  to by a bot over tradewire.v2.msgpack, as `consumer.Publisher` does: each message is checked, stored, synced and acknowledged;
- the C loop, naive Starlette and uWebSockets over a websocket of their own; NATS over its own protocol;
- freqtrade, and this hub embedded in a bot, in process, by a thread that reads the messages from a socket.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgpack

from benchmarks import native
from benchmarks.framing import PATH, handshake, masked, text_frame
from benchmarks.load import Dial
from benchmarks.messages import BOT, Fill, Message, Template, flat, frame_text, publish, template
from benchmarks.processes import (
    ROOT,
    HubProcess,
    PrintingServer,
    ServerProcess,
    free_port,
    nats_server,
)
from benchmarks.servers import PUBLISHER_TOKEN, TOKEN

__all__ = [
    "EMBEDDED",
    "FREQTRADE",
    "HUB",
    "HUB_JSON",
    "HUB_MSGPACK",
    "INTEROP_PYTHON",
    "JOINED",
    "NAIVE",
    "NATS",
    "PLAIN",
    "UWS",
    "Arm",
    "Hub",
    "Wire",
    "versions",
]

INTEROP_PYTHON = Path(os.environ.get("TRADEWIRE_INTEROP_PYTHON", ROOT / ".venv-interop/bin/python"))
SERVERS = ROOT / "benchmarks/servers.py"
Wire = Literal["freqtrade", "json", "msgpack"]
_WITH_TOKEN = f"{PATH}?token={TOKEN}"
_SUBSCRIBE = text_frame({"type": "subscribe", "data": ["entry_fill"]})


class Arm:
    """One server to compare."""

    name: str

    def missing(self) -> str | None:
        """Why it cannot take part here, or None."""
        return None

    def start(self, directory: Path) -> ServerProcess:
        """The server, to be entered."""
        raise NotImplementedError

    def subscriber(self, message: Message, subscription: int = 0) -> Dial:
        """What a client says that wants messages like this one. Where an arm has them, `subscription` numbers distinct sets."""
        return Dial(handshake())

    def publisher(self, server: ServerProcess) -> tuple[int, Dial]:
        """The port at which it is published to, and what the publisher says first."""
        return server.port, Dial(handshake("/publish"))

    def template(self, message: Message) -> Template:
        """What the publisher sends for one message."""
        return template(masked(_text(message), text=True))

    counts_nats = False


def _text(message: Message) -> bytes:
    """A message as the text that every baseline delivers as it is."""
    return flat(message.size) if isinstance(message, Fill) else frame_text(message.size)


@dataclass(frozen=True)
class Hub(Arm):
    """This hub, with its subscribers on one of its wires."""

    wire: Wire = "freqtrade"
    ledger: Literal["sqlite", "memory"] = "sqlite"

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"tradewire, {self.wire_name}" + ("" if self.ledger == "sqlite" else ", ledger in memory")

    @property
    def wire_name(self) -> str:
        """The wire for people."""
        return "freqtrade's wire" if self.wire == "freqtrade" else f"v2.{self.wire}"

    def start(self, directory: Path) -> HubProcess:
        return HubProcess(directory, self.ledger)

    def subscriber(self, message: Message, subscription: int = 0) -> Dial:
        topic = "entry_fill" if isinstance(message, Fill) else "analyzed_df"
        if self.wire == "freqtrade":
            return Dial(handshake(_WITH_TOKEN), text_frame({"type": "subscribe", "data": [topic]}))
        # Everyone wants the bot that publishes; what makes a set distinct is another bot that does not.
        bots = [BOT, f"other-{subscription}"] if subscription else [BOT]
        want = [{"topics": [topic], "bots": bots}]
        return Dial(
            _upgrade(self.wire, TOKEN), self._frame({"type": "subscribe", "id": 1, "data": {"want": want}})
        )

    def publisher(self, server: ServerProcess) -> tuple[int, Dial]:
        return server.port, Dial(_upgrade("msgpack", PUBLISHER_TOKEN))

    def template(self, message: Message) -> Template:
        return template(publish(message, wide=self.wire == "msgpack"))

    def resync(self, pairs: int) -> tuple[Dial, bytes]:
        """Of a client that wants the dataframes of so many pairs: its handshake, and what it says to have them all, each time."""
        if self.wire == "freqtrade":
            subscribe = text_frame({"type": "subscribe", "data": ["analyzed_df"]})
            request = {"type": "analyzed_df", "data": {"limit": 1500, "pair": None}}
            return Dial(handshake(_WITH_TOKEN), subscribe), text_frame(request)
        keys = [[BOT, "analyzed_df", [f"P{i}/USDT", "5m", "spot"]] for i in range(pairs)]
        # The first time it is the subscription that brings them, and later on it changes nothing.
        subscribe = self._frame(
            {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["analyzed_df"]}]}}
        )
        return Dial(_upgrade(self.wire, TOKEN)), subscribe + self._frame(
            {"type": "resync", "id": 2, "data": {"keys": keys}}
        )

    def _frame(self, message: Mapping[str, Any]) -> bytes:
        """A message of a client on this wire."""
        if self.wire == "msgpack":
            return masked(msgpack.packb(message), text=False)
        return text_frame(message)


def _upgrade(wire: Wire, token: str) -> bytes:
    subprotocol = f"tradewire.v2.{wire}"
    return handshake(headers={"Sec-WebSocket-Protocol": subprotocol, "Authorization": f"Bearer {token}"})


@dataclass(frozen=True)
class Loop(Arm):
    """The server in C."""

    mode: Literal["plain", "joined"]

    @property
    def name(self) -> str:  # type: ignore[override]
        return "C, one send() per message" if self.mode == "plain" else "C, joined sends"

    def missing(self) -> str | None:
        return None if native.program("loop") else "there is no C compiler"

    def start(self, directory: Path) -> PrintingServer:
        program = native.program("loop")
        assert program is not None
        return PrintingServer([program, self.mode], directory)


@dataclass(frozen=True)
class Program(Arm):
    """A server of servers.py that is published to over a websocket."""

    name: str
    program: str
    needs: str

    def missing(self) -> str | None:
        return None if importlib.util.find_spec(self.needs) else f"{self.needs} is not installed"

    def start(self, directory: Path) -> PrintingServer:
        return PrintingServer([sys.executable, SERVERS, self.program, directory], directory)


@dataclass(frozen=True)
class InProcess(Arm):
    """A server of servers.py that is published to in process."""

    name: str
    program: str
    python: Path

    def missing(self) -> str | None:
        return None if self.python.exists() else "`make test-interop` has not built its environment"

    def start(self, directory: Path) -> PrintingServer:
        return PrintingServer([self.python, SERVERS, self.program, directory], directory)

    def subscriber(self, message: Message, subscription: int = 0) -> Dial:
        return Dial(handshake(_WITH_TOKEN), _SUBSCRIBE)

    def publisher(self, server: ServerProcess) -> tuple[int, Dial]:
        assert isinstance(server, PrintingServer)
        return server.publisher_port, Dial()

    def template(self, message: Message) -> Template:
        text = _text(message)
        return template(len(text).to_bytes(4, "big") + text)


class Nats(Arm):
    """nats-server: clients at its websocket listener, published to over its own protocol, with a token as the hub has."""

    name = "nats-server"
    counts_nats = True

    def missing(self) -> str | None:
        return None if nats_server() else "nats-server is not installed (dependency group `bench`)"

    def start(self, directory: Path) -> ServerProcess:
        return _NatsServer(directory)

    def subscriber(self, message: Message, subscription: int = 0) -> Dial:
        return Dial(handshake("/"), masked(f"{_CONNECT}SUB {BOT} 1\r\nPING\r\n".encode(), text=False))

    def publisher(self, server: ServerProcess) -> tuple[int, Dial]:
        assert isinstance(server, _NatsServer)
        return server.publisher_port, Dial(first=_CONNECT.encode())

    def template(self, message: Message) -> Template:
        text = _text(message)
        return template(f"PUB {BOT} {len(text)}\r\n".encode() + text + b"\r\n")


_CONNECT = f'CONNECT {{"verbose":false,"auth_token":"{TOKEN}"}}\r\n'


class _NatsServer(ServerProcess):
    """nats-server without JetStream."""

    def __init__(self, directory: Path) -> None:
        binary = nats_server()
        assert binary is not None
        super().__init__([binary, "-c", directory / "nats.conf"], directory)
        self.publisher_port = free_port()

    def prepare(self) -> None:
        (self.directory / "nats.conf").write_text(
            f'host: 127.0.0.1\nport: {self.publisher_port}\nauthorization {{ token: "{TOKEN}" }}\n'
            f'websocket {{ host: "127.0.0.1", port: {self.port}, no_tls: true }}\n'
        )


HUB, HUB_JSON, HUB_MSGPACK = Hub("freqtrade"), Hub("json"), Hub("msgpack")
EMBEDDED = InProcess("tradewire, embedded in the bot", "tradewire", Path(sys.executable))
PLAIN, JOINED = Loop("plain"), Loop("joined")
NATS = Nats()
UWS = Program("uWebSockets (socketify)", "socketify", "socketify")
NAIVE = Program("naive Starlette", "naive", "starlette")
FREQTRADE = InProcess("freqtrade", "freqtrade", INTEROP_PYTHON)


def versions() -> list[str]:
    """What takes part, with its version."""
    found = [
        f"{name} {_version(name)}"
        for name in ("tradewire", "uvicorn", "websockets", "starlette", "socketify")
    ]
    for command in (native.compiler(), nats_server()):
        if command is not None:
            said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
            found.append(said.splitlines()[0])
    if INTEROP_PYTHON.exists():
        code = "import importlib.metadata as m; print('freqtrade', m.version('freqtrade'))"
        said = subprocess.run([INTEROP_PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout
        found.append(said.strip())
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
