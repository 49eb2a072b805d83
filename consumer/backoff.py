"""How long to wait before the next connection: full jitter, doubling, and what the peer asked for.

The n-th failure in a row waits for a random time between 0 and min(cap, 0.5 s x 2^n), so that many clients of one peer do
not come back together. A connection that ends is a failure too, whatever it brought before: only one that held for 60 s ends
the row. So a server that accepts and closes at once is not hit more often than one that refuses.

Source: wire-v2, Closing; "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]

FIRST_S = 0.5
CAP_S = 30.0
HEALTHY_S = 60.0
MAX_ASKED_S = 3600.0


class Backoff:
    """The waits of one connection. `random` gives numbers in [0, 1); `now` is any clock that only goes forward, in s."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._connected_at: float | None = None

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    def connected(self, now: float) -> None:
        """A connection is up."""
        self._connected_at = now

    def failed(self, now: float, *, cap_s: float = CAP_S, asked_s: float | None = None) -> float:
        """A connect failed or a connection ended: the seconds to wait before the next.

        `asked_s` is what the peer asked for: it is kept to, with jitter on top, up to an hour.
        """
        if self._connected_at is not None and now - self._connected_at >= HEALTHY_S:
            self._failures = 0
        self._connected_at = None
        # Beyond 2^20 the cap decides anyway.
        ceiling = min(max(cap_s, FIRST_S), FIRST_S * 2.0 ** min(self._failures, 20))
        self._failures += 1
        return self._random() * ceiling + min(max(asked_s or 0.0, 0.0), MAX_ASKED_S)
