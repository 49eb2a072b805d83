"""The servers that the fan-out benchmark compares. Run as a program: `servers.py NAME`; it prints its port, then obeys stdin.

`burst N` publishes N fills at once; `pace N RATE` publishes N fills at RATE a second; an empty line ends it. Kept free of our own
packages at import, so that the interpreter of a freqtrade installation can run it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

TOKEN = "benchmark-token-0123456789abcdefgh"
FILL = {
    "trade_id": 7, "buy_tag": "momentum", "enter_tag": "momentum", "exchange": "Binance", "pair": "BTC/USDT",
    "leverage": 1.0, "direction": "Long", "limit": 59530.92, "order_rate": 59530.92, "open_rate": 59530.92,
    "order_type": "limit", "stake_amount": 199.428582, "stake_currency": "USDT", "base_currency": "BTC",
    "quote_currency": "USDT", "fiat_currency": None, "amount": 0.00335,
    "open_date": "2026-11-22T14:01:01.951382+00:00", "current_rate": 59530.92, "sub_trade": False,
}  # fmt: skip
Publish = Callable[[int], None]


def obey(publish: Publish) -> None:
    """Read commands from stdin until it ends."""
    for line in sys.stdin:
        words = line.split()
        if not words:
            return
        if words[0] == "burst":
            for i in range(int(words[1])):
                publish(i)
        else:
            count, rate = int(words[1]), float(words[2])
            start = time.monotonic()
            for i in range(count):
                time.sleep(max(0.0, start + i / rate - time.monotonic()))
                publish(i)
        print("done", flush=True)


def tradewire() -> None:
    """This project, published to from another thread as a bot does that embeds it."""
    from hub.server import Hub

    config = {
        "api_server": {
            "listen_port": 0, "username": "benchmark", "password": "benchmark-password-1", "ws_token": TOKEN,
            "jwt_secret_key": "benchmark-jwt-0123456789abcdefghij",
        },
        "hub": {"default_bot": "bench", "ledger": {"kind": "memory"}},
    }  # fmt: skip
    hub = Hub(config)
    hub.start()
    print(hub.port, flush=True)
    obey(lambda i: _ignore(hub.publish("entry_fill", {**FILL, "trade_id": i})))
    hub.stop()


def naive() -> None:
    """What one writes first with Starlette: a queue and a task per client, JSON encoded per client."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    queues: set[asyncio.Queue[dict[str, Any]]] = set()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        queues.add(queue)
        reader = asyncio.create_task(_drain_reads(websocket))
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.send_text(json.dumps(await queue.get()))
        reader.cancel()

    async def _drain_reads(websocket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()

    app = Starlette(routes=[WebSocketRoute("/api/v1/message/ws", endpoint)])
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", ws="websockets-sansio", ws_per_message_deflate=False)
    server = uvicorn.Server(config)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(server.serve(sockets=[sock])), daemon=True
    )
    thread.start()

    def publish(i: int) -> None:
        message = {"type": "entry_fill", **FILL, "trade_id": i}
        loop.call_soon_threadsafe(_put_all, queues, message)

    print(sock.getsockname()[1], flush=True)
    obey(publish)


def _put_all(queues: set[asyncio.Queue[dict[str, Any]]], message: dict[str, Any]) -> None:
    for queue in queues:
        queue.put_nowait(message)


def freqtrade() -> None:
    """freqtrade's own API server with its websocket, published to as its bot does."""
    logging.disable(logging.CRITICAL)
    from unittest.mock import MagicMock

    from freqtrade.persistence import init_db
    from freqtrade.rpc.api_server import ApiServer
    from freqtrade.rpc.rpc import RPC

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    section = {
        "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": port, "username": "benchmark",
        "password": "benchmark-password-1", "verbosity": "error", "ws_token": TOKEN,
        "jwt_secret_key": "benchmark-jwt-0123456789abcdefghij",
    }  # fmt: skip
    init_db("sqlite://")
    bot = MagicMock()
    bot.config = {"api_server": section, "runmode": MagicMock(), "exchange": {"name": "binance"}}
    server = ApiServer(bot.config)
    server.add_rpc_handler(RPC(bot))
    print(port, flush=True)
    obey(lambda i: server.send_msg({"type": "entry_fill", **FILL, "trade_id": i}))
    server.cleanup()


def _ignore(_: object) -> None:
    """A result that the benchmark does not wait for."""


if __name__ == "__main__":
    {"tradewire": tradewire, "naive": naive, "freqtrade": freqtrade}[sys.argv[1]]()
