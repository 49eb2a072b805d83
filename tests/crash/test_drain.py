"""SIGTERM under load: the hub refuses what is new, says when to come back, and ends with 0 within its deadline."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from .conftest import World
from .parties import READER
from .reading import LEDGER_TOPICS, ask, dialled, read_ledger
from .writing import burst

pytestmark = pytest.mark.timeout(180)

DRAIN_S = 4
AFTER_DRAIN_S = 4.0  # of a busy machine: the figure is printed, a quiet one needs none
RECONNECT_S = 1.0


class Watcher(threading.Thread):
    """A v2 client that notes what it is told at the end, and when."""

    def __init__(self, websocket: ClientConnection) -> None:
        super().__init__(daemon=True)
        self.websocket = websocket
        self.drain: dict[str, Any] | None = None
        self.closed_at = 0.0
        self.code = 0
        self.reason = ""

    def run(self) -> None:
        try:
            while True:
                message = json.loads(self.websocket.recv(60))
                if message["type"] == "hub.drain":
                    self.drain = message["data"]
        except ConnectionClosed as closed:
            self.closed_at = time.monotonic()
            if closed.rcvd is not None:
                self.code, self.reason = closed.rcvd.code, closed.rcvd.reason


def handshake(port: int) -> http.client.HTTPResponse:
    """The answer to a handshake."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "tradewire.v2.json",
        "Authorization": f"Bearer {READER}",
    }  # fmt: skip
    connection.request("GET", "/api/v1/message/ws", headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_a_drain_under_load(world: World) -> None:
    world.start(drain_s=DRAIN_S, spare=1)
    burst(world.hub.port, 2, messages=1000, padding=4000)
    with dialled(world.hub.port) as watching, dialled(world.hub.port) as stalled:
        watcher = Watcher(watching)
        ask(watching, {"type": "subscribe", "id": 1, "data": {"want": [{"topics": LEDGER_TOPICS}]}})
        watcher.start()
        # It asks for 4 MB and reads nothing: the hub owes it something until the deadline.
        want = {"want": [{"topics": LEDGER_TOPICS}], "from": "earliest"}
        stalled.send(json.dumps({"type": "subscribe", "id": 1, "data": want}))
        time.sleep(0.5)
        begun = time.monotonic()
        assert world.hub.process is not None
        world.hub.process.terminate()
        time.sleep(0.5)
        refused = handshake(world.hub.port)
        assert world.hub.process.wait(DRAIN_S + AFTER_DRAIN_S) == 0, world.hub.output[-2000:]
        took = time.monotonic() - begun
        watcher.join(5)
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert watcher.drain is not None
    assert watcher.drain["reconnect_after_ms"] == 1000 * RECONNECT_S
    assert (watcher.code, watcher.reason) == (1012, f"retry_after_ms={1000 * RECONNECT_S:.0f}")
    print(f"a drain of at most {DRAIN_S} s took {took:.1f} s")
    # Our own clients were told the same; the proxy is where they come back.
    early = [
        at for at in world.proxy.accepted if watcher.closed_at < at < watcher.closed_at + 0.9 * RECONNECT_S
    ]
    assert not early, f"{len(early)} clients came back sooner than asked"
    world.hub.start()
    accounts = world.settle()
    assert all(account.named_lost == 0 and not account.losses for account in accounts)


def test_a_restart_keeps_the_epoch_and_every_offset(world: World) -> None:
    world.start()
    for _ in range(2):
        time.sleep(0.5)
        assert world.hub.stop() == 0, world.hub.output[-2000:]
        world.hub.start()
        before = read_ledger(world.hub.port)
        assert world.hub.stop() == 0, world.hub.output[-2000:]
        world.hub.start()
        after = read_ledger(world.hub.port)
        assert after.epoch == before.epoch
        assert before.fills.items() <= after.fills.items()
    accounts = world.settle()
    assert all(account.named_lost == 0 and not account.losses for account in accounts)
