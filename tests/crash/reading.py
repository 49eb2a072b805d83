"""The whole ledger as a cold client reads it: no state, from the earliest, over a bare websocket."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from .parties import READER

__all__ = ["Ledger", "ask", "dialled", "read_ledger"]

LEDGER_TOPICS = ["entry_fill", "exit_fill"]


@dataclass
class Ledger:
    """What is in a ledger: for each offset the bot and the number of its fill; `gone` are offsets that the hub named as lost."""

    epoch: str
    floor: int
    head: int
    fills: dict[int, tuple[str, int]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)


def dialled(port: int, token: str = READER) -> ClientConnection:
    """A client of the JSON wire; its welcome is the next message."""
    return connect(
        f"ws://127.0.0.1:{port}/api/v1/message/ws",
        subprotocols=[Subprotocol("tradewire.v2.json")],
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        max_size=None,
        proxy=None,
    )


def ask(websocket: ClientConnection, request: dict[str, Any], timeout_s: float = 15) -> dict[str, Any]:
    """Send a request; its reply. What comes before it is thrown away."""
    websocket.send(json.dumps(request))
    while True:
        message: dict[str, Any] = json.loads(websocket.recv(timeout_s))
        if message.get("id") == request["id"]:
            return message


def read_ledger(port: int) -> Ledger:
    """Read everything up to the head, and check each claim on the way."""
    with dialled(port) as websocket:
        welcome = json.loads(websocket.recv(15))["data"]
        ledger = Ledger(welcome["epoch"], welcome["floor"], welcome["head"])
        request = {"want": [{"topics": LEDGER_TOPICS}], "from": "earliest"}
        answer = ask(websocket, {"type": "subscribe", "id": 1, "data": request})
        assert answer["ok"], answer
        at, last = answer["data"]["offset"], {}
        while at < ledger.head:
            message = json.loads(websocket.recv(15))
            if message["type"] in LEDGER_TOPICS:
                offset, stream = message["offset"], (message["bot"], message["type"])
                assert offset > at, f"{message} came after {at}"
                assert message["prev"] <= max(last.get(stream, 0), answer["data"]["offset"]), message
                ledger.fills[offset] = (message["bot"], message["data"]["trade_id"])
                at = last[stream] = offset
            elif message["type"] == "hub.gap":
                ledger.gone.update(range(message["from"] + 1, message["to"] + 1))
                last = dict.fromkeys(last, message["to"])
                at = max(at, message["to"])
            elif message["type"] == "hub.position":
                at = max(at, message["offset"])
        return ledger
