"""The client's side of RFC 6455 as bytes: a handshake, and frames masked with zeros.

A mask of zeros costs the server what any mask costs and this side nothing, and what is put into a frame later needs no mask either.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["PATH", "handshake", "masked", "text_frame"]

PATH = "/api/v1/message/ws"
# Always the same, so that loop.c need not hash it.
KEY = base64.b64encode(b"benchmark-client").decode()


def handshake(path: str = PATH, headers: Mapping[str, str] | None = None) -> bytes:
    """The request of an upgrade."""
    lines = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    return (f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n").encode()


def masked(payload: bytes, *, text: bool) -> bytes:
    """One frame of a client."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return (b"\x81" if text else b"\x82") + length + bytes(4) + payload


def text_frame(message: Any) -> bytes:
    """A message as JSON in one frame of a client."""
    return masked(json.dumps(message, separators=(",", ":")).encode(), text=True)
