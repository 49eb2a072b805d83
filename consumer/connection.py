"""One websocket to a peer: where it goes, how it is opened, and why it ended. The only module that knows `websockets`."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Any, Protocol, cast

import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)

from consumer.config import DEFAULT_PATH, ProducerConfig
from consumer.errors import ConfigError, ConnectionFailed, HandshakeFailed, HubRefused, Unauthorized
from consumer.listening import Listening
from consumer.progress import Progress, Taken
from hub.protocol.codec import Wire

__all__ = [
    "Closed",
    "Connection",
    "Dial",
    "Endpoint",
    "Keepalive",
    "connect_reason",
    "dial",
    "retry_after",
    "retry_after_in",
    "software_version",
    "tls",
]

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
# How often a peer that owes a Pong is looked at within `ping_s`, while something it has to take waits.
LOOKS = 5
# Of the silence after which a peer would be pinged: what it hears of this side comes sooner.
SIGN_SHARE = 2 / 3
QUEUED_FRAMES = 8
"""Frames that `websockets` may hold unread; with `max_size` this bounds its buffer."""

# `websockets` logs the request line and headers at DEBUG, so with the token: this logger never gets that far.
_QUIET = logging.getLogger("consumer.websocket")
_QUIET.setLevel(logging.INFO)


class Closed(ConnectionFailed):
    """The connection ended. `local` tells that this side closed it, because the peer broke a rule named by `code`."""

    def __init__(self, code: int, reason: str, *, local: bool) -> None:
        super().__init__(f"closed with {code}{': ' + reason if reason else ''}")
        self.code = code
        self.reason = reason
        self.local = local


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a peer listens, and the token for it. `str()` is the URL without the token. `compression`: offer permessage-deflate."""

    host: str
    port: int = 8080
    secure: bool = False
    path: str = DEFAULT_PATH
    token: str = field(default="", repr=False)
    ca_file: str | None = None
    compression: bool = False

    @classmethod
    def of(cls, producer: ProducerConfig) -> Endpoint:
        """The endpoint of a configured producer."""
        return cls(
            host=producer.host,
            port=producer.port,
            secure=producer.secure,
            path=producer.path,
            token=producer.ws_token,
            ca_file=producer.ca_file,
            compression=producer.compression,
        )

    @classmethod
    def parse(cls, url: str, token: str | None = None, *, ca_file: str | None = None) -> Endpoint:
        """An endpoint from `ws://host:port`, `http://host:port/path`, `host:port` and the like.

        Without a path: freqtrade's. Without a port: 8080, or 443 with wss and https. A token in the URL's query counts when
        `token` is None.

        Raises:
            ConfigError: not such a URL. The text does not repeat it, since a token may be part of it.
        """
        parts = urllib.parse.urlsplit(url if "://" in url else f"ws://{url}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("URL", "expected a port from 1 to 65535 behind the colon") from None
        if parts.scheme not in ("ws", "wss", "http", "https") or not host or port == 0:
            raise ConfigError("URL", "expected ws://host:port, wss://, http://, https:// or host:port")
        if parts.username or parts.password:
            raise ConfigError(
                "URL", "expected no user or password; a token goes into --token or TRADEWIRE_TOKEN"
            )
        secure = parts.scheme in ("wss", "https")
        query = urllib.parse.parse_qs(parts.query).get("token", [""])[0]
        return cls(
            host=host,
            port=port or (443 if secure else 8080),
            secure=secure,
            path=parts.path if parts.path not in ("", "/") else DEFAULT_PATH,
            token=token if token is not None else query,
            ca_file=ca_file,
        )

    def __str__(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self._authority()}"

    def _authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL with its path, without the token."""
        return f"{self}{self.path}"

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Connection(Protocol):
    """An open websocket. Every method raises Closed once it has ended; `receive` may be cancelled without a loss."""

    @property
    def subprotocol(self) -> str | None:
        """What the peer selected."""

    @property
    def heard_at(self) -> float:
        """The loop's time when bytes last came, be they a part of a message, or a Pong."""

    def taken(self) -> Taken:
        """How much of what was sent the peer has taken by now, as far as it is known."""

    async def receive(self) -> str | bytes:
        """The next frame: str of a text frame, bytes of a binary one."""

    def ready(self) -> str | bytes | None:
        """The next frame, if it has come already."""

    async def send(self, payload: bytes, *, text: bool) -> None:
        """Send one frame; waits while the peer does not read."""

    async def ping(self) -> None:
        """Send a Ping. Does not wait, also when the peer does not read."""

    async def pong(self) -> None:
        """Send a Pong that nobody asked for (RFC 6455 section 5.5.3): a sign of life. Does not wait."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close; returns once closed, at most a few seconds later. Never raises."""


Dial = Callable[[Endpoint, Wire, int], Awaitable[Connection]]
"""Opens a connection: endpoint, the wire to speak, and the largest message to accept in bytes."""


class _NoRedirects(connect):
    """A redirect could carry the token to another place, so there is none."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Websocket:
    def __init__(self, websocket: Listening) -> None:
        self._websocket = websocket
        self._progress = Progress(websocket.transport)

    @property
    def subprotocol(self) -> str | None:
        return self._websocket.subprotocol

    @property
    def heard_at(self) -> float:
        return self._websocket.heard_at

    def taken(self) -> Taken:
        return self._progress.look()

    async def receive(self) -> str | bytes:
        try:
            return await self._websocket.next()
        except ConnectionClosed as error:
            raise _closed(error) from None

    def ready(self) -> str | bytes | None:
        return self._websocket.take()

    async def send(self, payload: bytes, *, text: bool) -> None:
        try:
            await self._websocket.send(payload, text=text)
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def ping(self) -> None:
        await self._without_waiting(self._websocket.ping())

    async def pong(self) -> None:
        await self._without_waiting(self._websocket.pong())

    async def _without_waiting(self, sending: Awaitable[Any]) -> None:
        # It is written before the library waits for room in the buffer, and a peer that is gone makes none.
        try:
            async with asyncio.timeout(0):
                await sending
        except TimeoutError:
            pass
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        cut = reason.encode()[:123].decode(errors="ignore")
        try:
            # The library counts its own time from when the Close is out of the buffer.
            async with asyncio.timeout(CLOSE_TIMEOUT_S + 0.1):
                await self._websocket.close(code, cut)
        except TimeoutError:
            self._websocket.transport.abort()


def _closed(error: ConnectionClosed) -> Closed:
    # The closing handshake runs in both directions; what counts is who began it.
    by_peer = error.rcvd is not None and (error.rcvd_then_sent or error.sent is None)
    close = error.rcvd if by_peer else error.sent or error.rcvd
    if close is None:
        return Closed(1006, "the connection was lost", local=False)
    return Closed(close.code, close.reason, local=not by_peer)


async def dial(endpoint: Endpoint, wire: Wire, max_size: int) -> Connection:
    """Open a websocket and complete its handshake within 10 s.

    On a v2 wire the token goes into the Authorization header, on freqtrade's into the query, as each wants it. Proxies of the
    environment are used, but never to this machine. No redirects, no keepalive of the library's own, and
    compression where the endpoint says so: a message may then have `max_size` bytes when it is inflated.

    Raises:
        ConnectionFailed: not reachable. HandshakeFailed: an HTTP status that may change. Unauthorized: 401 or 403.
        HubRefused: 400, with the peer's reason. ConfigError: the CA file cannot be used, or the address is none.
    """
    legacy = wire is Wire.FREQTRADE
    query = f"?token={urllib.parse.quote(endpoint.token, safe='')}" if legacy else ""
    # A direct connection to this machine, even where a proxy is set for the rest of the world.
    direct: dict[str, Any] = {"proxy": None} if endpoint.loopback else {}
    if endpoint.secure:
        direct["ssl"] = tls(endpoint.ca_file)
    try:
        websocket = await _NoRedirects(
            endpoint.url + query,
            subprotocols=None if legacy else [websockets.Subprotocol(wire.value)],
            additional_headers=None if legacy else {"Authorization": f"Bearer {endpoint.token}"},
            user_agent_header=f"tradewire-consumer/{software_version()}",
            compression="deflate" if endpoint.compression else None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,
            max_size=max_size,
            max_queue=QUEUED_FRAMES,
            create_connection=Listening,
            logger=_QUIET,
            **direct,
        )
    except InvalidStatus as error:
        raise _refused(endpoint, error) from None
    except (InvalidURI, InvalidProxy, UnicodeError):
        raise ConfigError("host", f"{endpoint.host!r} is no host name that can be reached") from None
    except (InvalidHandshake, ProxyError) as error:
        raise ConnectionFailed(f"{endpoint}: no websocket there: {_plainly(error, endpoint)}") from None
    except TimeoutError:
        raise ConnectionFailed(f"{endpoint}: no answer within {OPEN_TIMEOUT_S:g} s") from None
    except ConnectionClosed as error:
        raise _closed(error) from None
    except OSError as error:
        raise ConnectionFailed(f"{endpoint}: cannot connect: {connect_reason(error)}") from None
    except ValueError as error:
        raise ConfigError("ws_token", f"cannot be sent to {endpoint}: {_plainly(error, endpoint)}") from None
    return _Websocket(cast(Listening, websocket))


class Keepalive:
    """Receives from a connection, notices when its peer is gone, and lets the peer notice that this side is not.

    After `wait_s` of silence a Ping is sent. Any byte that comes is a sign of life, parts of a message too. The peer is gone
    `ping_s` after the last of

    - the Ping;
    - progress: the peer took bytes while some waited, that were sent before the Ping or that have not left this machine.

    So a Ping that waits behind a large message on a slow link costs nobody the connection as long as that message moves, and who
    has taken the Ping has `ping_s` to answer: to acknowledge is not enough. Less than a second counts as one. Silence while nobody
    receives does not count: the reader may be slow, and its peer alive.

    A peer that is not silent is sent a Pong unasked before it could miss one for so long: its own Ping may stand behind a large
    message, and a proxy between hides from it whether that moves.
    """

    def __init__(self, connection: Connection, endpoint: Endpoint, *, wait_s: float, ping_s: float) -> None:
        self.connection, self._endpoint = connection, endpoint
        self._wait_s, self._ping_s = max(1.0, wait_s), max(1.0, ping_s)
        self._heard_at = connection.heard_at
        self._quiet_at: float | None = None
        """Since when nothing came, later by what passed while nobody received."""
        self._pinged_at: float | None = None
        """When the Ping was sent that nothing came after, or there was progress since; later as above."""
        self._taken_total = 0
        """As of the last look, of which there is one with the Ping."""
        self._ping_end = 0
        """The total from which on the peer has all that was sent before the Ping."""
        self._waits = False
        """Whether the last look saw something that progress is to be seen of."""
        self._signed_at = asyncio.get_running_loop().time()
        """When this side last sent something here."""
        self._left_at: float | None = None
        """When the last `receive` ended."""

    async def receive(
        self, until: float | None = None, *, heartbeat_s: float | None = None
    ) -> str | bytes | None:
        """The next frame; None once the loop's time is `until`. A peer that sends every `heartbeat_s` is silent after that.

        Raises:
            Closed: the connection ended. ConnectionFailed: no pong.
        """
        loop = asyncio.get_running_loop()
        wait_s = self._wait_s if heartbeat_s is None else min(self._wait_s, max(1.0, heartbeat_s))
        self._resume(loop.time())
        # Before a message is taken: one that was taken must not be lost to a cancellation.
        await self._sign(loop.time(), wait_s)
        try:
            while True:
                look_at = self._look_at(loop.time(), wait_s)
                wake_at = look_at if until is None else min(look_at, until)
                try:
                    async with asyncio.timeout_at(wake_at):
                        payload = await self.connection.receive()
                except TimeoutError:
                    # A timer may be early by the resolution of the clock.
                    now = max(loop.time(), wake_at)
                else:
                    self._quiet_at, self._pinged_at = loop.time(), None
                    return payload
                if until is not None and now >= until:
                    return None
                await self._judge(now, wait_s)
        finally:
            self._left_at = loop.time()

    async def send(self, payload: bytes, *, text: bool) -> None:
        """Send one frame by the task that receives: while the peer does not read, nothing else would notice that it is gone.

        Raises:
            Closed: the connection ended. ConnectionFailed: for as long as it may be silent nothing came and it took nothing.
        """
        loop = asyncio.get_running_loop()
        self._signed_at = loop.time()
        sending = asyncio.ensure_future(self.connection.send(payload, text=text))
        signs, since = self._signs(), loop.time()
        try:
            while not (await asyncio.wait((sending,), timeout=self._ping_s / LOOKS))[0]:
                if self._signs() != signs:
                    signs, since = self._signs(), loop.time()
                elif loop.time() - since >= self._wait_s + self._ping_s:
                    raise ConnectionFailed(f"{self._endpoint}: takes nothing")
            await sending
        finally:
            sending.cancel()

    def _signs(self) -> tuple[float, int]:
        return self.connection.heard_at, self.connection.taken().total

    def _resume(self, now: float) -> None:
        """The silence goes on where the last `receive` left it: a reader that has things to do must not hide it."""
        if self._quiet_at is None or self._left_at is None:
            self._quiet_at = now
            return
        away_s = now - self._left_at
        self._quiet_at += away_s
        if self._pinged_at is not None:
            self._pinged_at += away_s

    def _look_at(self, now: float, wait_s: float) -> float:
        """When to judge, if nothing comes before."""
        silent_at = self._silent_at(wait_s)
        if self._pinged_at is None:
            return min(silent_at, self._signed_at + wait_s * SIGN_SHARE)
        return min(silent_at, now + self._ping_s / LOOKS) if self._waits else silent_at

    def _silent_at(self, wait_s: float) -> float:
        """When the silence will have lasted too long: for a Ping, or for a peer that was sent one."""
        heard_at = self.connection.heard_at
        assert self._quiet_at is not None
        if heard_at != self._heard_at:
            self._heard_at = heard_at
            self._quiet_at, self._pinged_at = max(self._quiet_at, heard_at), None
        return self._quiet_at + wait_s if self._pinged_at is None else self._pinged_at + self._ping_s

    async def _judge(self, now: float, wait_s: float) -> None:
        """Nothing came for a while."""
        if self._pinged_at is not None:
            self._note_progress(now)
        if now < self._silent_at(wait_s):
            await self._sign(now, wait_s)
        elif self._pinged_at is not None:
            raise ConnectionFailed(f"{self._endpoint}: no pong within {self._ping_s:g} s")
        else:
            taken = self.connection.taken()
            self._taken_total, self._ping_end = taken.total, taken.total + taken.owed
            self._waits = taken.owed > 0
            self._pinged_at = self._signed_at = now
            await self.connection.ping()

    def _note_progress(self, now: float) -> None:
        taken = self.connection.taken()
        if self._waits and taken.total > self._taken_total:
            self._pinged_at = now
        self._taken_total = taken.total
        self._waits = taken.total < self._ping_end or taken.unsent > 0

    async def _sign(self, now: float, wait_s: float) -> None:
        if self._pinged_at is None and now >= self._signed_at + wait_s * SIGN_SHARE:
            self._signed_at = now
            # What came before the end is still to be received, and then the end.
            with suppress(Closed):
                await self.connection.pong()


def software_version() -> str:
    """The version of tradewire that is installed."""
    try:
        return version("tradewire")
    except PackageNotFoundError:
        return "0"


def tls(ca_file: str | None) -> ssl.SSLContext:
    """What to trust: the system's authorities, and those of the PEM file `ca_file`.

    Raises:
        ConfigError: the file is none.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigError("ca_file", f"{ca_file}: expected a PEM file of certificates") from None
    return context


def _refused(endpoint: Endpoint, error: InvalidStatus) -> Exception:
    response = error.response
    status = response.status_code
    said = _first_line(response.body)
    if status in (401, 403):
        return Unauthorized(f"{endpoint}: the token is not accepted (HTTP {status})")
    if status == 400:
        return HubRefused(f"{endpoint}: refused (HTTP 400){': ' + said if said else ''}")
    after = retry_after(response.headers.get("Retry-After"))
    return HandshakeFailed(
        f"{endpoint}: refused (HTTP {status}){': ' + said if said else ''}",
        status=status,
        retry_after_s=after,
    )


def _first_line(body: bytes | bytearray | None) -> str:
    text = bytes(body or b"").decode("utf-8", "replace").strip().partition("\n")[0]
    return "".join(c for c in text[:200] if c.isprintable()) if not text.startswith("<") else ""


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110 section 10.2.3): a number, or a date."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def retry_after_in(reason: str) -> float | None:
    """Seconds that a close reason asks to wait (`retry_after_ms=N`), or None."""
    found = re.search(r"retry_after_ms=(\d{1,9})", reason)
    return int(found[1]) / 1000 if found else None


def connect_reason(error: OSError) -> str:
    """Why there is no connection, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "no TLS there"
    return _short_os_error(error)


def _short_os_error(error: OSError) -> str:
    known = {
        111: "connection refused",
        61: "connection refused",
        113: "no route to host",
        101: "network unreachable",
    }
    if error.errno in known:
        return known[error.errno]
    if "Multiple exceptions" in str(error) and "Connect call failed" in str(error):
        return "connection refused"
    return error.strerror or type(error).__name__


def _plainly(error: Exception, endpoint: Endpoint) -> str:
    text = str(error).partition("\n")[0] or type(error).__name__
    for secret in (endpoint.token, urllib.parse.quote(endpoint.token, safe="")):
        text = text.replace(secret, "***") if secret else text
    return text
