"""Calls of bots over their own websockets: who is attached, which calls wait for an answer, and how each ends.

Theory of operation
-------------------
A session attaches as a bot. A call becomes one frame in that session's control queue and is remembered under a number until it
ends, which happens once: with the bot's result, at its deadline, when its owner cancels it or leaves, or when the bot's
session ends. `done` is told then, last of all, so it may call back in. Nothing is ever sent twice: whether to repeat a call is
its caller's decision.

A frame that the transport has not taken yet is still in the control queue; a call that ends before that is taken out of it, so
that the bot never sees it and its caller knows that nothing was done. Of any other call the outcome is unknown.

Time is an argument (seconds, monotonic). `next_deadline` tells when `tick` is due. After every method that changes something the
node looks at `touched` (sessions to be served) and `news` (bots that came or went) and empties both.

Invariants
----------
1. A bot has at most one attachment, and it is of a session that has not been told to close.
2. A call is in `_calls`, in `_of[its session]` and in `_of[its owner]` until `done` is called, and never after.
3. At most `in_flight` calls and `bytes_per_bot` bytes of frames per bot, and `bytes` in all, are in flight.
4. `_due` holds the deadline of every call in flight; of those that ended it holds no more than as many again and a few whenever a
   call begins.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from hub.core import notices
from hub.core.session import Session
from hub.protocol.calls import IN_FLIGHT, RESULT_BYTES, BotRequest, BotResult, CallResult, Paths
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import CODECS, frame
from hub.protocol.errors import (
    BotUnreachable,
    CallCancelled,
    DeadlinePassed,
    Overloaded,
    RequestError,
    TooLarge,
    UnknownRequest,
)

__all__ = ["UNKNOWN_OUTCOME", "CallLimits", "Calls", "Done"]

Done = Callable[[CallResult | RequestError], None]
"""Told once how a call ended."""

UNKNOWN_OUTCOME = {"outcome": "unknown"}
RETRY_AFTER_MS = 1000
_SPARE_DEADLINES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """The bounds of calls in flight; the bytes are of the frames to bots."""

    in_flight: int = IN_FLIGHT
    bytes_per_bot: int = 8 << 20
    bytes: int = 64 << 20
    attachments_per_session: int = 64


class _Call:
    """A call in flight. `name` is its owner's for it; `frame` is what the bot's session was told."""

    __slots__ = ("bot", "deadline", "deadline_ms", "done", "frame", "name", "number", "owner", "session")

    def __init__(
        self, number: int, bot: str, session: Session, owner: Hashable, name: Hashable, done: Done
    ) -> None:
        self.number = number
        self.bot = bot
        self.session = session
        self.owner = owner
        self.name = name
        self.done = done
        self.deadline = 0.0
        self.deadline_ms = 0
        self.frame = b""


@dataclass(frozen=True, slots=True)
class _Attachment:
    session: Session
    paths: Paths


class Calls:
    """All attachments and calls of one node."""

    def __init__(self, limits: CallLimits | None = None) -> None:
        self.limits = limits or CallLimits()
        self.touched: set[Session] = set()
        self.news: list[tuple[str, bool]] = []
        self.counters: dict[str, int] = dict.fromkeys(
            (
                "called",
                "answered",
                "refused",
                "late",
                "deadline",
                "cancelled",
                "bot_gone",
                "too_large",
                "replaced",
            ),
            0,
        )
        self._attachments: dict[str, _Attachment] = {}
        self._calls: dict[int, _Call] = {}
        self._of: dict[Hashable, dict[_Call, None]] = {}
        self._due: list[tuple[float, int]] = []
        self._numbers = 0
        self._in_flight: Counter[str] = Counter()
        self._bytes_of: Counter[str] = Counter()
        self._bytes = 0

    # --- attachments

    def attached(self) -> set[str]:
        """The bots that can be called now."""
        return {bot for bot, a in self._attachments.items() if a.session.closing is None}

    def attach(self, session: Session, bot: str, paths: Paths) -> None:
        """Let a session answer for a bot. Another one that did is closed with 4409; the same one gets new paths.

        Raises:
            Overloaded: this session is attached as too many bots.
        """
        old = self._attachments.get(bot)
        if old is None or old.session is not session:
            mine = sum(a.session is session for a in self._attachments.values()) if session.attached else 0
            if mine >= self.limits.attachments_per_session:
                raise Overloaded(
                    f"attach: expected at most {self.limits.attachments_per_session} bots a connection"
                )
        self._attachments[bot] = _Attachment(session, paths)
        session.attached = True
        if old is None:
            self.news.append((bot, True))
        elif old.session is not session:
            self._replace(old.session, bot)

    def _replace(self, session: Session, bot: str) -> None:
        self.counters["replaced"] += 1
        session.close(CloseCode.REPLACED, f"a newer attachment of {bot} took this one's place")
        self.touched.add(session)
        self.gone(session)

    def detach(self, session: Session, bot: str) -> bool:
        """No more calls of this bot; those in flight may still be answered. Whether the session was attached as it."""
        attachment = self._attachments.get(bot)
        if attachment is None or attachment.session is not session:
            return False
        del self._attachments[bot]
        self.news.append((bot, False))
        return True

    def gone(self, session: Session) -> None:
        """A session ends, as a bot and as a caller. Idempotent."""
        if session.attached:
            for bot in [b for b, a in self._attachments.items() if a.session is session]:
                self.detach(session, bot)
        for call in list(self._of.get(session, ())):
            # An earlier one's `done` may have ended it.
            if call.number not in self._calls:
                continue
            if call.session is session:
                sent = not _unsend(call)
                self._end(call, BotUnreachable(f"bot {call.bot} went away", sent=sent), "bot_gone")
            else:
                self._withdraw(call, "cancelled")

    # --- calls

    def call(
        self, owner: Hashable, bot: str, request: BotRequest, done: Done, now: float, *, name: Hashable = None
    ) -> None:
        """Send a request to a bot; `done` is told how it ends, unless this raises. `owner` and `name` are for `cancel`.

        Raises:
            BotUnreachable: nobody is attached as this bot. UnknownRequest: it does not take this path. Overloaded: too much
            is in flight. TooLarge: the frame is over what the bot takes.
        """
        try:
            session = self._session_for(bot, request)
            prepared = self._prepared(session, bot, request)
        except RequestError:
            self.counters["refused"] += 1
            raise
        call = _Call(self._numbers, bot, session, owner, name, done)
        call.frame = prepared
        call.deadline_ms = request.deadline_ms
        call.deadline = now + request.deadline_ms / 1000
        self._begin(call)

    def _session_for(self, bot: str, request: BotRequest) -> Session:
        attachment = self._attachments.get(bot)
        if attachment is None or attachment.session.closing is not None:
            raise BotUnreachable(f"bot {bot} is not attached")
        if not attachment.paths.take(request.method, request.path):
            raise UnknownRequest(f"bot {bot} does not answer {request.method} {request.path}")
        if self._in_flight[bot] >= self.limits.in_flight:
            raise Overloaded(
                f"bot {bot}: {self.limits.in_flight} calls wait for their answer",
                retry_after_ms=RETRY_AFTER_MS,
            )
        return attachment.session

    def _prepared(self, session: Session, bot: str, request: BotRequest) -> bytes:
        self._numbers += 1
        codec = CODECS[session.wire]
        prepared = frame(codec.encode(notices.call(self._numbers, request)), text=codec.text)
        size = len(prepared)
        if size > session.max_message:
            raise TooLarge(f"bot {bot} takes messages of at most {session.max_message} bytes, got {size}")
        if self._bytes_of[bot] + size > self.limits.bytes_per_bot or self._bytes + size > self.limits.bytes:
            raise Overloaded("too many bytes of calls wait for their answer", retry_after_ms=RETRY_AFTER_MS)
        return prepared

    def _begin(self, call: _Call) -> None:
        self.counters["called"] += 1
        self._calls[call.number] = call
        for key in (call.session, call.owner):
            self._of.setdefault(key, {})[call] = None
        self._in_flight[call.bot] += 1
        self._bytes_of[call.bot] += len(call.frame)
        self._bytes += len(call.frame)
        if len(self._due) > 2 * len(self._calls) + _SPARE_DEADLINES:
            self._due = [(c.deadline, c.number) for c in self._calls.values()]
            heapq.heapify(self._due)
        else:
            heapq.heappush(self._due, (call.deadline, call.number))
        call.session.tell_frame(call.frame)
        self.touched.add(call.session)

    def in_flight(self, owner: Hashable, name: Hashable) -> bool:
        """Whether this owner has a call of this name in flight."""
        return any(c.owner == owner and c.name == name for c in self._of.get(owner, ()))

    def awaits(self, session: Session, number: int) -> bool:
        """Whether this session's bot has a call of this number to answer."""
        call = self._calls.get(number)
        return call is not None and call.session is session

    def result(self, session: Session, result: BotResult) -> None:
        """A bot's result ends the call of its number. One that nobody waits for is counted and dropped.

        Raises:
            RequestError: it cannot be read; the call has ended all the same.
        """
        call = self._calls.get(result.call)
        if call is None or call.session is not session:
            self.counters["late"] += 1
        elif result.size > RESULT_BYTES:
            error = TooLarge(
                f"bot {call.bot}: expected a result of at most {RESULT_BYTES} bytes, got {result.size}",
                data=UNKNOWN_OUTCOME,
            )
            self._end(call, error, "too_large")
            raise error
        elif result.result is None:
            self._end(
                call,
                BotUnreachable(f"bot {call.bot} gave an answer that cannot be read", sent=True),
                "bot_gone",
            )
            raise RequestError("result: expected a status from 200 to 599 and a body that JSON can carry")
        else:
            self._end(call, result.result, "answered")

    def cancel(self, owner: Hashable, name: Hashable = None) -> bool:
        """End this owner's call of this name; the bot is told. Whether there was one."""
        for call in self._of.get(owner, ()):
            if call.owner == owner and call.name == name:
                self._withdraw(call, "cancelled")
                return True
        return False

    def tick(self, now: float) -> None:
        """End the calls whose deadline has come."""
        while self._due and self._due[0][0] <= now:
            call = self._calls.get(heapq.heappop(self._due)[1])
            if call is not None:
                self._withdraw(call, "deadline")

    @property
    def next_deadline(self) -> float | None:
        """When `tick` is due: not later than the first deadline of a call in flight."""
        while self._due and self._due[0][1] not in self._calls:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def stop(self) -> None:
        """End every call; the node has stopped."""
        for call in list(self._calls.values()):
            if call.number in self._calls:
                self._end(call, BotUnreachable("the hub stopped", sent=not _unsend(call)), "bot_gone")

    def _withdraw(self, call: _Call, why: str) -> None:
        """End a call that its bot has not answered, and tell the bot if it may have got it."""
        sent = not _unsend(call)
        if sent and call.session.closing is None:
            call.session.tell(notices.cancel(call.number))
            self.touched.add(call.session)
        error: RequestError
        if why == "deadline":
            error = DeadlinePassed(f"bot {call.bot}: no answer within {call.deadline_ms} ms", sent=sent)
        else:
            error = CallCancelled(f"the call of bot {call.bot} was cancelled", sent=sent)
        self._end(call, error, why)

    def _end(self, call: _Call, outcome: CallResult | RequestError, counted: str) -> None:
        del self._calls[call.number]
        for key in (call.session, call.owner):
            mine = self._of.get(key)
            if mine is not None:
                mine.pop(call, None)
                if not mine:
                    del self._of[key]
        self._in_flight[call.bot] -= 1
        self._bytes_of[call.bot] -= len(call.frame)
        self._bytes -= len(call.frame)
        if not self._in_flight[call.bot]:
            del self._in_flight[call.bot], self._bytes_of[call.bot]
        self.counters[counted] += 1
        call.done(outcome)

    # --- figures

    def statistics(self) -> dict[str, int]:
        """What is attached and in flight, with the bounds, and how calls ended since the start."""
        return {
            "attached": len(self._attachments),
            "in_flight": len(self._calls),
            "in_flight_limit_per_bot": self.limits.in_flight,
            "bytes": self._bytes,
            "limit_bytes": self.limits.bytes,
            "limit_bytes_per_bot": self.limits.bytes_per_bot,
            **self.counters,
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if an invariant of the module's docstring is broken."""
        assert all(a.session.attached for a in self._attachments.values())
        held = {c for mine in self._of.values() for c in mine}
        assert held == set(self._calls.values())
        assert all(c in self._of[c.session] and c in self._of[c.owner] for c in held)
        assert all(self._of.values())
        assert self._bytes == sum(len(c.frame) for c in held) <= self.limits.bytes
        assert self._in_flight == Counter(c.bot for c in held)
        assert all(n <= self.limits.in_flight for n in self._in_flight.values())
        assert self._bytes_of.total() == self._bytes
        assert all(n <= self.limits.bytes_per_bot for n in self._bytes_of.values())
        assert {(c.deadline, c.number) for c in held} <= set(self._due)


def _unsend(call: _Call) -> bool:
    """Take a call's frame out of its session's control queue; False when the transport has it."""
    control = call.session.control
    for place, waiting in enumerate(control):
        if waiting is call.frame:
            del control[place]
            call.session.control_bytes -= len(waiting)
            return True
    return False
