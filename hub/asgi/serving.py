"""How uvicorn is to serve the hub: the one place that knows its settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from hub.asgi.descriptors import ACCEPT_BATCH, MAX_WAITING, Waiting
from hub.asgi.prepared import PreparedWebSocketProtocol, check_uvicorn
from hub.asgi.prepared_http import HEADER_BYTES, PreparedHTTPProtocol
from hub.asgi.unsent import Unsent

__all__ = ["BACKLOG", "log_config", "uvicorn_config"]

KEEP_ALIVE_S = 5
BACKLOG = 2048


def uvicorn_config(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    heartbeat_ms: int,
    pong_timeout_ms: int,
    message_bytes: int,
    deflate: bool = False,
    verbosity: str = "error",
    logging_config: dict[str, Any] | None = None,
    shutdown_s: int = 5,
    waiting: Waiting | None = None,
    unsent: Unsent | None = None,
    trusted_proxies: Sequence[str] = (),
) -> uvicorn.Config:
    """A `uvicorn.Config` with our protocol classes and no Server header.

    Args:
        heartbeat_ms: silence of a client after which it is pinged; `pong_timeout_ms` later it is closed with 4512.
        message_bytes: the largest message that a client may send; beyond it 1009.
        deflate: whether permessage-deflate is agreed with clients that offer it (hub.asgi.deflate).
        verbosity: freqtrade's `api_server.verbosity`. "info" logs each request and handshake, "error" warnings and worse.
        logging_config: for `logging.config.dictConfig`, or None to leave the process's logging as it is (a bot that embeds
            the hub has its own).
        shutdown_s: how long uvicorn waits for requests at its shutdown. Drain the node before it.
        waiting: the sockets that are no accepted websocket (hub.asgi.descriptors).
        unsent: the answers that clients have not taken (hub.asgi.unsent).
        trusted_proxies: IP addresses and networks of proxies. A request from there is its X-Forwarded-For's last address that
            is none of them; without any, that header is not read and `scope["client"]` is the socket's peer.

    To asyncio `backlog` is also how many sockets it accepts in one turn: whoever listens sets the kernel's own to BACKLOG again
    once the server has started.

    Raises:
        ConfigError: the installed uvicorn does not fit (see hub.asgi.prepared.check_uvicorn).

    The loop is asyncio's: uvloop drains a flooding socket before it yields, which cost other clients 0.9-2.6 s against 0.1 s
    in our measurement, and gained nothing in fan-out.
    """
    check_uvicorn()
    verbose = verbosity == "info"
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",
        http=PreparedHTTPProtocol,
        ws=PreparedWebSocketProtocol,
        ws_max_size=message_bytes,
        ws_ping_interval=heartbeat_ms / 1000,
        ws_ping_timeout=pong_timeout_ms / 1000,
        ws_per_message_deflate=deflate,
        lifespan="auto",
        interface="asgi3",
        log_config=logging_config,
        log_level="info" if verbose else "warning",
        access_log=verbose,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        server_header=False,
        backlog=ACCEPT_BATCH,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=shutdown_s,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    # Read by our protocol classes: uvicorn gives them nothing else of ours.
    config.waiting = Waiting(MAX_WAITING) if waiting is None else waiting  # type: ignore[attr-defined]
    config.unsent = Unsent() if unsent is None else unsent  # type: ignore[attr-defined]
    # At uvicorn's TRACE level this logger prints whole scopes, query strings and headers included.
    logging.getLogger("uvicorn.asgi").setLevel(logging.INFO)
    return config


def log_config(verbosity: str) -> dict[str, Any]:
    """The logging of a hub that is its own process: one handler to stderr, stdout stays free."""
    level = "INFO" if verbosity == "info" else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
        },
        "root": {"handlers": ["stderr"], "level": level},
        # httpx has a line at INFO for each request; uvicorn's access log has it already.
        "loggers": {"uvicorn": {"level": level}, "httpx": {"level": "WARNING"}},
    }
