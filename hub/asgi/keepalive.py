"""When a peer that is silent is pinged, and when it is gone.

A peer is heard when bytes of it are read. After `interval_s` of silence it is pinged; it is gone `timeout_s` after the last of

- the Ping;
- progress: the peer took bytes while it was owed some, up to the Ping or beyond what this machine has sent.

So a Ping that waits behind a backlog on a slow link costs nobody the connection as long as the backlog moves. A peer that takes
nothing for `timeout_s` is gone, though its kernel may answer (its window is closed: the program does not read). A peer that has
taken the Ping, and all else that could be sent, has `timeout_s` to answer: to acknowledge is not enough.

What this side does not read by its own choice is no silence: then a peer that has taken everything passes for alive.

Sans-I/O: the owner reads, pings, closes and has the timer. All times are its loop's seconds.
"""

from __future__ import annotations

from enum import Enum

from hub.asgi.progress import Progress

__all__ = ["Keepalive", "Verdict"]

# How often a peer that owes a Pong is looked at within `timeout_s`: progress is known to a fifth of it.
LOOKS = 5
PING_BYTES = 2


class Verdict(Enum):
    """What is to be done about a peer now."""

    WAIT = "wait"
    PING = "ping"
    GONE = "gone"


class Keepalive:
    """Judges one peer. The owner sets `heard_at` whenever bytes of it came, and calls `judge` when it asked to be called."""

    __slots__ = (
        "_deadline",
        "_interval_s",
        "_moves",
        "_owed",
        "_ping_end",
        "_pinged_at",
        "_progress",
        "_timeout_s",
        "heard_at",
    )

    def __init__(self, progress: Progress, *, interval_s: float, timeout_s: float, now: float) -> None:
        self._progress = progress
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self.heard_at = now
        self._pinged_at: float | None = None
        self._deadline = 0.0
        self._moves = 0
        self._ping_end = 0
        self._owed = False

    def judge(self, now: float, *, deaf: bool) -> tuple[Verdict, float]:
        """What to do now, and in how many seconds to judge again (after GONE: never).

        Args:
            deaf: this side does not read, so that nothing of the peer can be heard.
        """
        if self._pinged_at is not None and self.heard_at >= self._pinged_at:
            self._pinged_at = None
        if self._pinged_at is not None:
            return self._await_pong(now, deaf)
        due = self.heard_at + self._interval_s
        if now < due:
            return Verdict.WAIT, due - now
        self._pinged_at = now
        self._deadline = now + self._timeout_s
        taken = self._progress.look()
        self._moves = taken.moves
        self._ping_end = taken.total + taken.owed + PING_BYTES
        self._owed = taken.owed > 0
        return Verdict.PING, self._timeout_s / LOOKS

    def _await_pong(self, now: float, deaf: bool) -> tuple[Verdict, float]:
        taken = self._progress.look()
        if self._owed and taken.moves > self._moves:
            self._deadline = now + self._timeout_s
        self._moves = taken.moves
        # What is sent and not taken yet is no backlog: on a busy connection there is always some.
        self._owed = taken.total < self._ping_end or taken.unsent > 0
        if deaf and not taken.owed:
            self.heard_at = now
            return Verdict.WAIT, self._interval_s
        if now >= self._deadline:
            return Verdict.GONE, 0.0
        return Verdict.WAIT, min(self._timeout_s / LOOKS, self._deadline - now)
