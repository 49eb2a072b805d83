"""One websocket to a peer: where it goes, how it is opened, and why it ended. The only module that knows `websockets`."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Any, Protocol

import websockets
from websockets.asyncio.client import ClientConnection, connect
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
    """Where a peer listens, and the token for it. `str()` is the URL without the token."""

    host: str
    port: int = 8080
    secure: bool = False
    path: str = DEFAULT_PATH
    token: str = field(default="", repr=False)
    ca_file: str | None = None

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

    async def receive(self) -> str | bytes:
        """The next frame: str of a text frame, bytes of a binary one."""

    async def send(self, payload: bytes, *, text: bool) -> None:
        """Send one frame; waits while the peer does not read."""

    async def ping(self) -> asyncio.Future[Any]:
        """Send a Ping; the future is done when its Pong came."""

    async def pong(self) -> None:
        """Send a Pong that nobody asked for (RFC 6455 section 5.5.3): a sign of life."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close; returns once closed, at most a few seconds later. Never raises."""


Dial = Callable[[Endpoint, Wire, int], Awaitable[Connection]]
"""Opens a connection: endpoint, the wire to speak, and the largest message to accept in bytes."""


class _NoRedirects(connect):
    """A redirect could carry the token to another place, so there is none."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Websocket:
    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket

    @property
    def subprotocol(self) -> str | None:
        return self._websocket.subprotocol

    async def receive(self) -> str | bytes:
        try:
            return await self._websocket.recv()
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def send(self, payload: bytes, *, text: bool) -> None:
        try:
            await self._websocket.send(payload, text=text)
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def ping(self) -> asyncio.Future[Any]:
        try:
            return asyncio.ensure_future(await self._websocket.ping())
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def pong(self) -> None:
        try:
            await self._websocket.pong()
        except ConnectionClosed as error:
            raise _closed(error) from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        cut = reason.encode()[:123].decode(errors="ignore")
        await self._websocket.close(code, cut)


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
    environment are used, but never to this machine. No redirects, no compression, no keepalive of the library's own.

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
            compression=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,
            max_size=max_size,
            max_queue=QUEUED_FRAMES,
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
    return _Websocket(websocket)


class Keepalive:
    """Receives from a connection and notices when its peer is gone.

    After `wait_s` of silence a Ping is sent; anything that comes within `ping_s` is a sign of life. Less than a second counts as
    one. Silence while nobody receives does not count: the reader may be slow, and its peer alive.
    """

    def __init__(self, connection: Connection, endpoint: Endpoint, *, wait_s: float, ping_s: float) -> None:
        self._connection, self._endpoint = connection, endpoint
        self._wait_s, self._ping_s = max(1.0, wait_s), max(1.0, ping_s)
        self._pong: asyncio.Future[Any] | None = None
        self._left_s: float | None = None
        """Of the silence that is put up with, where the last `receive` ended before it did."""

    async def receive(
        self, until: float | None = None, *, heartbeat_s: float | None = None
    ) -> str | bytes | None:
        """The next frame; None once the loop's time is `until`. A peer that sends every `heartbeat_s` is silent after that.

        Raises:
            Closed: the connection ended. ConnectionFailed: no pong.
        """
        loop = asyncio.get_running_loop()
        wait_s = self._wait_s if heartbeat_s is None else min(self._wait_s, max(1.0, heartbeat_s))
        left_s, self._left_s = self._left_s, None
        silent_at = loop.time() + (wait_s if left_s is None else left_s)
        while True:
            try:
                async with asyncio.timeout_at(silent_at if until is None else min(silent_at, until)):
                    payload = await self._connection.receive()
            except TimeoutError:
                if until is not None and loop.time() >= until:
                    # The silence goes on; a reader that has things to do meanwhile must not hide it.
                    self._left_s = max(0.0, silent_at - loop.time())
                    return None
            else:
                self._pong = None
                return payload
            if self._pong is None:
                self._pong, silent_at = await self._connection.ping(), loop.time() + self._ping_s
            elif self._pong.done():
                self._pong, silent_at = None, loop.time() + wait_s
            else:
                raise ConnectionFailed(f"{self._endpoint}: no pong within {self._ping_s:g} s")


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
