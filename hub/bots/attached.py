"""The adapter for bots that have attached over their own websocket: REST requests become calls."""

from __future__ import annotations

from typing import Any, Protocol

from hub.protocol.calls import DEADLINE_MS, CallResult

__all__ = ["AttachedBot", "Call"]


class Call(Protocol):
    """Calls an attached bot; what the node does (hub.node.Node.call)."""

    async def __call__(
        self,
        bot: str,
        *,
        method: str,
        path: str,
        query: str,
        body: Any,
        principal: str,
        deadline_ms: int,
        key: str | None,
    ) -> CallResult:
        """The bot's answer. Cancellation cancels the call. Raises CallFailed and other RequestErrors."""


class AttachedBot:
    """One attached bot. Requests wait at most `deadline_ms` (1 to 60000) for their answer."""

    def __init__(self, name: str, call: Call, *, deadline_ms: int = DEADLINE_MS) -> None:
        self.name = name
        self._call = call
        self._deadline_ms = deadline_ms

    async def request(
        self, method: str, path: str, query: str, body: Any, principal: str, key: str | None = None
    ) -> tuple[int, bytes]:
        """The bot's HTTP status and JSON body, its very bytes where it spoke JSON; arguments as of BotRequest.

        Cancelled, the call is cancelled too.

        Raises:
            BotUnreachable: it is not attached, or went away. DeadlinePassed: it did not answer in time. UnknownRequest: it does
            not take this request. Overloaded, Draining: not now. TooLarge: the request, or the answer.
        """
        result = await self._call(
            self.name,
            method=method,
            path=path,
            query=query,
            body=body,
            principal=principal,
            deadline_ms=self._deadline_ms,
            key=key,
        )
        return result.status, result.body
