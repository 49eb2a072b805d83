"""One websocket from upgrade to end: reads messages for the node, and turns every fault into one close code.

The node owns what is written (through the outlet) and what a message means; this module owns the connection's life.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from hub.asgi.fallback import FallbackOutlet, specified
from hub.asgi.handshake import authenticate, refuse
from hub.asgi.outlet import EXTENSION, EdgeOutlet, Statistics
from hub.auth.authenticator import Authenticator
from hub.core.session import Session
from hub.node import Node
from hub.protocol.calls import RESULT_BYTES, BotResult, read_result
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import CODECS, Codec, Wire
from hub.protocol.errors import HandshakeRefused, NotAMessage, ProtocolError
from hub.protocol.principal import Principal

__all__ = ["MESSAGE_PATH", "MessageEndpoint", "RequestBudget"]

MESSAGE_PATH = "/api/v1/message/ws"
BURST_S = 2.0
SLOW_REQUEST_S = 0.002
REST_FACTOR = 9
LONGEST_REST_S = 5.0
RESTART_REASON = "retry_after_ms=1000"
_PUBLISH, _RESULT = "publish", "result"

logger = logging.getLogger("tradewire.asgi")


class RequestBudget:
    """A token bucket: `rate` requests a second, with BURST_S seconds' worth saved at most. `now` is in seconds."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._left = rate * BURST_S
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more request is within the budget."""
        self._left = min(self._rate * BURST_S, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Fault(Exception):
    """The client's: the connection ends with this code and text."""

    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class MessageEndpoint:
    """The ASGI application behind MESSAGE_PATH.

    Guarantees: `node.connect` is followed by exactly one `node.disconnect`, whatever ends the connection, cancellation
    included. A client's fault never logs a traceback; the hub's own is logged once, without any payload, and closes 1011.

    Args:
        knows: whether there is a bot of this name; every name, when left out.
        clock: seconds, monotonic; the loop's own when left out. sleep: waits so many seconds.
    """

    def __init__(
        self,
        node: Node,
        authenticator: Authenticator,
        *,
        knows: Callable[[str], bool] = lambda _bot: True,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._node = node
        self._authenticator = authenticator
        self._knows = knows
        self._clock = clock
        self._sleep = sleep
        self._open: set[EdgeOutlet] = set()
        self._accepted = 0
        self._messages = 0
        self._slow_requests = 0
        self._refused: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()

    def statistics(self) -> Statistics:
        """Connections now and ever, refusals by HTTP status, faults by close code, and the bytes that wait in buffers."""
        return {
            "connections": len(self._open),
            "accepted": self._accepted,
            "messages": self._messages,
            "slow_requests": self._slow_requests,
            "refused": dict(self._refused),
            "faults": dict(self._faults),
            "unsent_bytes": sum(outlet.unsent_bytes for outlet in self._open),
            "unread_bytes": sum(outlet.unread_bytes for outlet in self._open),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send, bot: str | None = None) -> None:
        """Serve one websocket. A client of freqtrade's wire sees `bot` where the path names one; on v2 a client names its own."""
        event = await receive()
        if event["type"] != "websocket.connect":
            return
        offered: EdgeOutlet | None = (scope.get("extensions") or {}).get(EXTENSION)
        if offered is None:
            send = specified(send)
        # The peer may be gone before its answer: OSError by the ASGI specification.
        with suppress(OSError):
            admitted = await self._handshake(scope, send, bot)
            if admitted is not None:
                outlet, receive = self._writing_side(offered, receive, send)
                await self._live(outlet, *admitted, scope, receive)

    async def _handshake(self, scope: Scope, send: Send, bot: str | None) -> tuple[Wire, Principal] | None:
        client = _client(scope)
        try:
            wire, principal = self._admit(dict(scope), bot)
        except HandshakeRefused as refusal:
            self._refused[str(refusal.status)] += 1
            logger.info("refused %s with %d: %s", client, refusal.status, refusal)
            await refuse(dict(scope), send, refusal)
            return None
        accept: dict[str, Any] = {"type": "websocket.accept"}
        if wire is not Wire.FREQTRADE:
            accept["subprotocol"] = str(wire)
        await send(accept)
        return wire, principal

    def _writing_side(
        self, offered: EdgeOutlet | None, receive: Receive, send: Send
    ) -> tuple[EdgeOutlet, Receive]:
        """The outlet, and the `receive` that goes with it."""
        if offered is not None:
            return offered, receive
        limits = self._node.limits
        silence_s = (limits.heartbeat_ms + limits.pong_timeout_ms) / 1000
        outlet = FallbackOutlet(send, receive, silence_s=silence_s)
        return outlet, outlet.receive

    def _admit(self, scope: dict[str, Any], bot: str | None) -> tuple[Wire, Principal]:
        try:
            wire, principal = authenticate(scope, self._authenticator)
            if bot is not None and wire is Wire.FREQTRADE:
                principal = self._seeing(principal, bot)
            self._node.admit(principal)
        except HandshakeRefused:
            raise
        except Exception as error:
            _log_internal("handshake", error)
            raise HandshakeRefused(500, "internal error") from None
        return wire, principal

    def _seeing(self, principal: Principal, bot: str) -> Principal:
        # One answer for both: whether a bot exists is nobody's business who may not read it.
        if not principal.may_read(bot) or not self._knows(bot):
            raise HandshakeRefused(403, "no bot of this name, or this credential may not read it")
        return msgspec.structs.replace(principal, legacy_bot=bot)

    async def _live(
        self, outlet: EdgeOutlet, wire: Wire, principal: Principal, scope: Scope, receive: Receive
    ) -> None:
        self._accepted += 1
        self._open.add(outlet)
        try:
            async with outlet.running():
                await self._session(outlet, wire, principal, scope, receive)
        finally:
            self._open.discard(outlet)

    async def _session(
        self, outlet: EdgeOutlet, wire: Wire, principal: Principal, scope: Scope, receive: Receive
    ) -> None:
        session: Session | None = None
        client = _client(scope)
        address = scope["client"][0] if scope.get("client") else None
        try:
            if _publishes(wire, principal):
                # It may attach, and the parser must know the largest message before it comes; _message knows who has attached.
                outlet.expect_messages(self._node.limits.message + RESULT_BYTES)
            session = self._node.connect(
                principal, wire, outlet, client=client, address=address, deflates=outlet.deflates
            )
            await self._read(session, outlet, receive)
        except _Fault as fault:
            self._end(outlet, fault.code, str(fault), client)
        except asyncio.CancelledError:
            outlet.close(CloseCode.SERVICE_RESTART, RESTART_REASON)
            raise
        except Exception as error:
            _log_internal(f"connection of {client}", error)
            self._end(outlet, CloseCode.INTERNAL_ERROR, "internal error", client)
        finally:
            if session is not None:
                self._node.disconnect(session)

    async def _read(self, session: Session, outlet: EdgeOutlet, receive: Receive) -> None:
        now = self._clock or asyncio.get_running_loop().time
        limits = self._node.limits
        budget = RequestBudget(limits.requests_per_s, now())
        codec = CODECS[session.wire]
        # Publishes are bounded by what may be unanswered (`readable`), results by what the hub asked: not by the second.
        publishes = _publishes(session.wire, session.principal)
        while not outlet.closed:
            event = await receive()
            if event["type"] != "websocket.receive":
                if self._node.draining:
                    # A server that ends may say so before the client knows (granian); it then still sends a Close.
                    outlet.close(CloseCode.SERVICE_RESTART, RESTART_REASON)
                return
            self._messages += 1
            begun = now()
            message = self._message(session, codec, event, limits.message)
            result = message.get("data") if session.attached and message["type"] == _RESULT else None
            asked_for = isinstance(result, BotResult) and self._node.awaits(session, result.call)
            exempt = asked_for or (publishes and message["type"] == _PUBLISH)
            # A result that comes too late costs no budget, for its callers may all have gone; but it costs the bot its time.
            if not exempt and result is None and not budget.take(begun):
                raise _Fault(
                    CloseCode.TOO_MANY_REQUESTS, f"expected at most {limits.requests_per_s} requests a second"
                )
            self._node.receive(session, message)
            spent_s = now() - begun
            # Who is idle from now on keeps its last message from nobody's memory.
            del event, message, result
            if spent_s > SLOW_REQUEST_S:
                await self._rest(spent_s, exempt=exempt)
            await self._node.readable(session)

    def _message(self, session: Session, codec: Codec, event: Any, limit: int) -> dict[str, Any]:
        text = event.get("text")
        payload: str | bytes = text if text is not None else event["bytes"]
        if session.attached:
            # Servers of others may have a larger bound, or none.
            _check_size(payload, limit + RESULT_BYTES)
            awaited = functools.partial(self._node.awaits, session)
            result = read_result(codec.wire, payload, awaited)
            if result is not None:
                return {"type": _RESULT, "data": result}
        return _decode(codec, payload, limit)

    async def _rest(self, spent_s: float, *, exempt: bool) -> None:
        """Whoever asks for much waits: no client's requests, cheap as they are to send, take more than a tenth of the loop.

        Behind a publish that took long the loop turns once: of what one read brought, the next would follow at once.
        """
        self._slow_requests += not exempt
        await self._sleep(0 if exempt else min(REST_FACTOR * spent_s, LONGEST_REST_S))

    def _end(self, outlet: EdgeOutlet, code: CloseCode, text: str, client: str) -> None:
        self._faults[str(int(code))] += 1
        logger.info("closed %s with %d: %s", client, code, text)
        outlet.close(code, text)


def _publishes(wire: Wire, principal: Principal) -> bool:
    return wire is not Wire.FREQTRADE and bool(principal.publishes)


def _check_size(payload: str | bytes, limit: int) -> None:
    size = len(payload)
    if isinstance(payload, str) and not payload.isascii():
        size = len(payload.encode(errors="surrogatepass"))
    if size > limit:
        raise _Fault(CloseCode.MESSAGE_TOO_BIG, f"expected at most {limit} bytes, got {size}")


def _decode(codec: Codec, payload: str | bytes, limit: int) -> dict[str, Any]:
    _check_size(payload, limit)
    try:
        return codec.decode(payload)
    except NotAMessage as error:
        if codec.wire is Wire.FREQTRADE and isinstance(payload, str) and payload.lstrip()[:1] == "{":
            # freqtrade answers an object without a usable type as it answers an unknown type, and stays.
            return {"type": "None"}
        raise _Fault(error.close_code, str(error)) from None
    except ProtocolError as error:
        raise _Fault(error.close_code, str(error)) from None


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "unknown"


def _log_internal(where: str, error: Exception) -> None:
    # The frames only: the text of an exception may quote what the client sent.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("internal error in the %s: %s\n%s", where, type(error).__name__, frames.rstrip())
