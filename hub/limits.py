"""The bounds of a node."""

from __future__ import annotations

from dataclasses import dataclass, field

from hub.core.calls import CallLimits
from hub.core.engine import CoreLimits

__all__ = ["NodeLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLimits:
    """The bounds of a node; the message limits are announced in hub.welcome."""

    connections: int = 10_000
    message: int = 1 << 20
    items: int = 256
    keys: int = 10_000
    in_flight: int = 64
    publish_in_flight: int = 256
    requests_per_s: int = 50
    control_bytes: int = 1 << 20
    replay_bytes: int = 32 << 20
    """Of pages of the ledger that were read for sessions that are behind, and are kept for others."""
    searches: int = 8
    """Of the ledger, by clients, that run or wait at once."""
    dedupe_ms: int = 86_400_000
    heartbeat_ms: int = 15_000
    pong_timeout_ms: int = 10_000
    core: CoreLimits = field(default_factory=CoreLimits)
    calls: CallLimits = field(default_factory=CallLimits)

    def announced(self) -> dict[str, int]:
        """`limits` of hub.welcome."""
        return {
            "message": self.message,
            "items": self.items,
            "keys": self.keys,
            "in_flight": self.in_flight,
            "publish_in_flight": self.publish_in_flight,
            "dedupe_ms": self.dedupe_ms,
            "requests_per_s": self.requests_per_s,
        }
