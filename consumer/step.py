"""What a receiver wants done after a message or after time passed; the interface of both wires' receivers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from consumer.errors import ConsumerError
from hub.protocol.localbot import Delivery

__all__ = ["Receiver", "Step"]


class Step(msgspec.Struct):
    """Deliver `deliveries` in order, send `requests` in order, then close with `close` (code, reason) if it is set.

    `refused` is an error to close and to judge by, as the client does.
    """

    deliveries: list[Delivery] = []
    requests: list[dict[str, Any]] = []
    close: tuple[int, str] | None = None
    refused: ConsumerError | None = None


class Receiver(Protocol):
    """The sans-I/O side of one producer. It outlives connections; `now` is a monotonic time in s."""

    @property
    def deadline(self) -> float | None:
        """When `tick` is due, or None."""

    def start(self, now: float) -> Step:
        """A connection is open."""

    def receive(self, message: Mapping[str, Any], size: int, now: float) -> Step:
        """A decoded frame of `size` bytes came."""

    def tick(self, now: float) -> Step:
        """Time passed."""

    def lost(self) -> None:
        """The connection ended."""

    def statistics(self) -> Mapping[str, Any]:
        """Counters and buffers."""
