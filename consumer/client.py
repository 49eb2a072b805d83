"""Consume one producer: connect, authenticate, subscribe, reconnect; an async iterator of deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from consumer.config import ConsumerConfig, ProducerConfig
from consumer.data import ProducerData
from hub.protocol.envelope import Position
from hub.protocol.localbot import Delivery

__all__ = ["Client", "Consumer"]

Callback = Callable[[Delivery], Awaitable[None] | None]


class Client:
    """One producer's deliveries."""

    def __init__(
        self,
        producer: ProducerConfig,
        settings: ConsumerConfig,
        *,
        data: ProducerData | None = None,
        topics: Iterable[str] | None = None,
        position: Position | None = None,
    ) -> None:
        self.data = data or ProducerData()

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        raise NotImplementedError

    def on(self, topic: str, callback: Callback) -> None:
        """Have `run` call `callback` for every delivery of `topic`; "*" for all."""

    async def run(self) -> None:
        """Connect and call the callbacks until cancelled or refused for good."""

    def statistics(self) -> Mapping[str, Any]:
        """What was received, buffered and lost so far."""
        raise NotImplementedError


class Consumer:
    """Several producers as one async iterator of deliveries."""

    def __init__(
        self,
        settings: ConsumerConfig,
        *,
        topics: Iterable[str] | None = None,
        positions: Mapping[str, Position] | None = None,
    ) -> None:
        self.data = ProducerData()

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        raise NotImplementedError

    def statistics(self) -> Mapping[str, Any]:
        """Per producer: what was received, buffered and lost so far."""
        raise NotImplementedError
