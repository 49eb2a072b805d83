"""The servers in Python that the fan-out benchmark compares, and what all benchmarks' servers are configured with.

Run as a program, `servers.py NAME DIRECTORY` keeps what it stores in DIRECTORY, prints the port for websockets, and behind a blank the
port for its publisher where that is another one, and serves until it is ended. A publisher sends websocket frames to /publish, or
to a server that is published to in process JSON behind its length in four bytes. Kept free of our own packages at import, so that the
interpreter of a freqtrade installation can run it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

TOKEN = "benchmark-token-0123456789abcdefgh"
PUBLISHER_TOKEN = "benchmark-publisher-0123456789abcd"
FILL = {
    "trade_id": 7, "buy_tag": "momentum", "enter_tag": "momentum", "exchange": "Binance", "pair": "BTC/USDT",
    "leverage": 1.0, "direction": "Long", "limit": 59530.92, "order_rate": 59530.92, "open_rate": 59530.92,
    "order_type": "limit", "stake_amount": 199.428582, "stake_currency": "USDT", "base_currency": "BTC",
    "quote_currency": "USDT", "fiat_currency": None, "amount": 0.00335,
    "open_date": "2026-11-22T14:01:01.951382+00:00", "current_rate": 59530.92, "sub_trade": False,
}  # fmt: skip
CONFIG: dict[str, dict[str, Any]] = {
    "api_server": {
        "listen_port": 0, "username": "benchmark", "password": "benchmark-password-1", "ws_token": TOKEN,
        "jwt_secret_key": "benchmark-jwt-0123456789abcdefghij",
    },
    "hub": {"default_bot": "bench"},
}  # fmt: skip
LONGEST = 4 << 20


def obey(port: int, publish: Callable[[dict[str, Any]], object]) -> None:
    """Print the ports and publish what a publisher sends, in this thread, as a bot does that holds its server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(port, listener.getsockname()[1], flush=True)
        connection = listener.accept()[0]
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(4):
                publish(json.loads(stream.read(int.from_bytes(head, "big"))))


def tradewire() -> None:
    """This project, embedded in a bot and published to from that bot's thread."""
    from hub.server import Hub

    hub = Hub({**CONFIG, "hub": {**CONFIG["hub"], "state_dir": sys.argv[2]}})
    hub.start()
    obey(hub.port, lambda message: hub.publish(message.pop("type"), message))
    hub.stop()


def naive() -> None:
    """What one writes first with Starlette: a queue and a task per client, JSON encoded per client."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    queues: set[asyncio.Queue[dict[str, Any]]] = set()

    async def subscriber(websocket: WebSocket) -> None:
        await websocket.accept()
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        queues.add(queue)
        reader = asyncio.create_task(drain_reads(websocket))
        try:
            with contextlib.suppress(WebSocketDisconnect):
                while True:
                    await websocket.send_text(json.dumps(await queue.get()))
        finally:
            queues.discard(queue)
            reader.cancel()

    async def drain_reads(websocket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()

    async def publisher(websocket: WebSocket) -> None:
        await websocket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                message = json.loads(await websocket.receive_text())
                for queue in queues:
                    queue.put_nowait(message)

    app = Starlette(
        routes=[
            WebSocketRoute("/api/v1/message/ws", subscriber),
            WebSocketRoute("/publish", publisher),
        ]
    )
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app,
        log_level="critical",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[sock])


def socketify() -> None:
    """uWebSockets, through socketify: its own topics and fan-out, in C++."""
    from socketify import App, CompressOptions, OpCode

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = App()
    options = {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": LONGEST,
        "max_backpressure": 1 << 30,
        "idle_timeout": 0,
    }
    pending: list[bytes] = []

    def receive(_websocket: Any, message: Any, _opcode: Any) -> None:
        # Not from within the handler: there the publisher's socket is corked, and then no other can be, so that what the topics
        # flush meanwhile would take a send() for each message.
        if not pending:
            app.loop.loop.call_soon(flush)
        pending.append(message)

    def flush() -> None:
        for message in pending:
            app.publish("fills", message, OpCode.TEXT)
        pending.clear()

    app.ws("/api/v1/message/ws", {**options, "open": lambda websocket: websocket.subscribe("fills")})
    app.ws("/publish", {**options, "message": receive})
    app.listen({"port": port, "host": "127.0.0.1"}, lambda _: print(port, flush=True))
    app.run()


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
    obey(port, server.send_msg)
    server.cleanup()


if __name__ == "__main__":
    {"tradewire": tradewire, "naive": naive, "socketify": socketify, "freqtrade": freqtrade}[sys.argv[1]]()
