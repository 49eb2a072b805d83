"""Answers over HTTP on servers other than our uvicorn classes: in pieces that wait for who reads them (hub.asgi.unsent)."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.asgi.unsent import PIECE_BYTES, STALL_S, Unsent

__all__ = ["InPieces"]


class InPieces:
    """An application whose bodies go out in pieces of PIECE_BYTES, each when the server has taken the one before.

    A client for which the server takes nothing for STALL_S, or that `unsent` drops, loses its answer: the application is
    cancelled, and the server ends a connection whose answer is not complete. Websockets pass as they are.
    """

    def __init__(self, app: ASGIApp, unsent: Unsent) -> None:
        self._app = app
        self._unsent = unsent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._unsent)
        try:
            with answer.scope:
                await self._app(scope, receive, answer.send)
        finally:
            self._unsent.leave(answer)


class _Answer:
    """One answer on its way."""

    def __init__(self, send: Send, unsent: Unsent) -> None:
        self.scope = anyio.CancelScope()
        self._send = send
        self._unsent = unsent

    def abort(self) -> None:
        self.scope.cancel()

    async def send(self, message: Any) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
            await self._put(message)
            return
        self._unsent.enter(self, len(body))
        for first in range(0, len(body), PIECE_BYTES):
            piece = body[first : first + PIECE_BYTES]
            more = first + len(piece) < len(body) or message.get("more_body", False)
            await self._put({"type": "http.response.body", "body": piece, "more_body": more})
            self._unsent.sent(self, len(piece))

    async def _put(self, message: Any) -> None:
        with anyio.move_on_after(STALL_S) as patience:
            await self._send(message)
        if patience.cancelled_caught:
            self.abort()
            # Where the application ends: nobody is to go on after a body that was cut.
            await checkpoint()
