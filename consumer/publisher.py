"""Publish to a hub from another process: idempotent ids, an outbox until acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from hub.protocol.envelope import Position

if TYPE_CHECKING:
    from hub.frames.columns import Columns

__all__ = ["Ack", "Publication", "Publisher"]


@dataclass(frozen=True, slots=True)
class Ack:
    """The hub has the message. `position` for ledger topics, `rev` for state topics; `duplicate`: it had it before."""

    position: Position | None = None
    rev: int | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One message to publish; fields as of `Publisher.publish`."""

    bot: str
    topic: str
    data: Any = None
    key: tuple[str, str, str] | None = None
    frame: Columns | None = None
    replace: bool = False
    la_ms: int | None = None
    mid: str | None = None
    ts: int | None = None


class Publisher:
    """A publisher's connection to a hub."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        name: str = "publisher",
        encoding: Literal["msgpack", "json"] = "msgpack",
        ca_file: str | None = None,
        outbox_bytes: int = 16 * 1024 * 1024,
    ) -> None: ...

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    async def publish(
        self,
        bot: str,
        topic: str,
        data: Any = None,
        *,
        key: tuple[str, str, str] | None = None,
        frame: Columns | None = None,
        replace: bool = False,
        la_ms: int | None = None,
        mid: str | None = None,
        ts: int | None = None,
    ) -> Ack:
        """Publish one message and wait for its acknowledgement."""
        raise NotImplementedError

    async def submit(self, publication: Publication) -> asyncio.Future[Ack]:
        """Put a message into the outbox (waits for room only); the future is its acknowledgement."""
        raise NotImplementedError

    async def publish_many(self, publications: Iterable[Publication]) -> list[Ack]:
        """Publish messages in order, pipelined, and wait for all acknowledgements."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Wait until the outbox is empty."""

    def statistics(self) -> Mapping[str, Any]:
        """Outbox and counters."""
        raise NotImplementedError
