"""The outbox of a publisher: what is sent next, what is sent again, and when a message is done. No I/O; `now` is an argument.

Theory of operation
===================

A message goes into the outbox with an id that stays its own (`mid`), and leaves it when the hub answers. Sending is pipelined: up to
the hub's `publish_in_flight` messages are unanswered at a time. What is unanswered when a connection ends may have been stored or
not; silence means unknown. So it is all sent again, in order and with the same mids, and the hub's dedupe makes that harmless for
ledger messages; rows and whitelists are absolute, so twice is as once; an event may come twice.

Where the outbox is kept on disk, a ledger message is sent only once it is there (`stored`). So at any moment of a crash it is on
disk, or the hub has not heard of it and `submit` has not returned.

A temporary refusal stops sending for as long as the hub asks; then the refused goes first and alone, until the hub takes it. A
permanent one ends the message and nothing else, and so does a temporary one of a message that is expendable.

A hub that does not answer a message within `ANSWER_S`, and a second more for each 4 KiB of it, though its connection is alive, has
forgotten it or is stuck: the owner gives the connection up (`overdue_at`), and all that is unanswered is sent again on the next one.

Invariants
==========

1. A message is in the outbox from `submit` until it was acknowledged, or refused for good.
2. Messages are sent in the order of submit; after a reconnect or a refusal the lowest unanswered comes first.
3. The outbox holds at most `limit_bytes`, or one message that is larger by itself, or what an earlier run left.
4. At most `in_flight` are unanswered; one after a temporary refusal.
5. A message that is being stored is not sent, nor is any behind it.
6. Two ledger messages in the outbox have different mids.

Source: wire-v2 §6, §8.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from consumer.errors import PublishError
from hub.protocol.envelope import Position

__all__ = ["ANSWER_S", "IN_FLIGHT", "Ack", "Answer", "Item", "Outbox", "Stage"]

IN_FLIGHT = 256
ANSWER_S = 60.0
"""How long an answer may take: far above what a hub with a slow disk, or one that elects a leader, needs (7 s were seen)."""
SLOW_BYTES_PER_S = 4096
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ack:
    """The hub has the message. `position` for ledger topics, `rev` for state topics; `duplicate`: it had it before."""

    position: Position | None = None
    rev: int | None = None
    duplicate: bool = False


Answer = Ack | PublishError
"""What ends a message."""


class Stage(Enum):
    """Where a message in the outbox is."""

    STORING = auto()
    READY = auto()
    UNANSWERED = auto()


@dataclass(slots=True, eq=False)
class Item(Generic[T]):
    """A message in the outbox: its place in the order (also its id on the wire), its bytes there, and what the owner keeps of it.

    `mid` and `body` are those of a ledger message: the id that the hub knows it by, and what a repetition must be equal in.
    """

    number: int
    content: T
    size: int
    mid: str | None = None
    body: bytes = b""
    expendable: bool = False
    stage: Stage = field(default=Stage.READY)
    overdue_at: float = 0.0


class Outbox(Generic[T]):
    """The messages of one publisher that are not done. `first` is the number of the next message.

    The owner calls `submit`, then, where it keeps messages on disk, `stored` or `not_stored`; per connection `connected`, then
    `next_to_send` whenever it can send and `answered` with each `hub.reply`, and `connection_lost` at its end.
    """

    def __init__(self, *, limit_bytes: int, first: int = 1) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.paused_until = 0.0
        self.retried = 0
        self._next = first
        self._items: dict[int, Item[T]] = {}
        self._by_mid: dict[str, Item[T]] = {}
        self._storing: dict[int, Item[T]] = {}
        self._ready: list[int] = []
        self._unanswered: dict[int, Item[T]] = {}
        self._in_flight = 0
        self._refusals = 0

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Item[T]:
        """The message with this number."""
        return self._items[number]

    def __iter__(self) -> Iterator[Item[T]]:
        """All messages, in the order of submit."""
        return iter(list(self._items.values()))

    @property
    def next_number(self) -> int:
        """The number that the next message will have."""
        return self._next

    @property
    def unanswered(self) -> int:
        """Messages that were sent on this connection and not answered."""
        return len(self._unanswered)

    # --- submit

    def has_room(self, size: int) -> bool:
        """Whether a message of `size` may be submitted now. The first always may, whatever its size."""
        return not self._items or self.bytes + size <= self.limit_bytes

    def repeated(self, mid: str, body: bytes) -> Item[T] | None:
        """The ledger message that is in the outbox with this mid and body; None without one.

        Raises:
            PublishError: id_conflict: one with this mid has another body.
        """
        item = self._by_mid.get(mid)
        if item is not None and item.body != body:
            raise PublishError("id_conflict", f"mid {mid!r} is that of another message in the outbox")
        return item

    def submit(
        self,
        content: T,
        size: int,
        *,
        mid: str | None = None,
        body: bytes = b"",
        expendable: bool = False,
        storing: bool = False,
        number: int | None = None,
    ) -> Item[T]:
        """Put a message behind all others; of a ledger message `mid` and `body`, not `repeated`. `storing`: `stored` follows.

        `number`: of a message that an earlier run left, below `first`, in order.
        """
        if number is None:
            number = self._next
            self._next += 1
        assert not self._items or number > next(reversed(self._items))
        item = Item(number, content, size, mid, body, expendable)
        self._items[item.number] = item
        self.bytes += size
        if mid is not None:
            assert mid not in self._by_mid
            self._by_mid[mid] = item
        if storing:
            item.stage = Stage.STORING
            self._storing[item.number] = item
        else:
            self._make_ready(item)
        return item

    def stored(self, item: Item[T]) -> None:
        """The message is on disk."""
        del self._storing[item.number]
        self._make_ready(item)

    def not_stored(self, item: Item[T]) -> None:
        """The message could not be put on disk: it is not in the outbox, and was never sent."""
        del self._storing[item.number]
        self._remove(item)

    # --- a connection

    def connected(self, in_flight: int = IN_FLIGHT) -> None:
        """A connection is up, whose hub takes `in_flight` messages without an answer."""
        self._in_flight = in_flight

    def connection_lost(self) -> None:
        """The connection ended: what is unanswered is unknown, so all of it is to be sent again."""
        self._in_flight = 0
        for item in list(self._unanswered.values()):
            self._make_ready(item)

    def next_to_send(self, now: float) -> Item[T] | None:
        """The message to send now, which counts as sent; None while there is none (see `pause_s`)."""
        limit = min(1, self._in_flight) if self._refusals else self._in_flight
        if now < self.paused_until or len(self._unanswered) >= limit:
            return None
        number = self._first_ready()
        if number is None or (self._storing and next(iter(self._storing)) < number):
            return None
        item = self._items[heapq.heappop(self._ready)]
        item.stage = Stage.UNANSWERED
        item.overdue_at = now + ANSWER_S + item.size / SLOW_BYTES_PER_S
        self._unanswered[number] = item
        return item

    def pause_s(self, now: float) -> float:
        """How long the hub asked not to be sent anything; 0 when only something else can give a message to send."""
        return max(0.0, self.paused_until - now)

    def overdue_at(self) -> float | None:
        """When the connection is to be given up if no answer comes; None while all is answered. Costs a walk."""
        return min((item.overdue_at for item in self._unanswered.values()), default=None)

    # --- answers

    def answered(self, reply: Mapping[str, Any], now: float) -> tuple[Item[T], Answer] | None:
        """Take a `hub.reply`: the message that it ends and how; None when it ends none: it is sent again, or was not asked."""
        item = self.asked(reply)
        if item is None:
            return None
        if reply.get("ok") is True:
            self._taken(now)
            self.end(item)
            return item, _ack(reply.get("data"))
        error = reply.get("error")
        error = error if isinstance(error, Mapping) else {}
        temporary = error.get("temporary") is True
        if temporary and not item.expendable:
            self._pause(error.get("retry_after_ms"), now)
            self.send_again(item)
            return None
        if not temporary:
            self._taken(now)
        self.end(item)
        code, text = str(error.get("code")), str(error.get("message"))
        return item, PublishError(code, text, temporary=temporary)

    def asked(self, reply: Mapping[str, Any]) -> Item[T] | None:
        """The unanswered message that a reply is about."""
        number = reply.get("id")
        return self._unanswered.get(number) if type(number) is int else None

    def send_again(self, item: Item[T]) -> None:
        """An unanswered message is to be sent again on this connection."""
        self._make_ready(item)

    def end(self, item: Item[T]) -> None:
        """The message leaves the outbox, whatever the hub knows of it; it is not being stored."""
        self._unanswered.pop(item.number, None)
        self._remove(item)

    def check_invariants(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        items = list(self._items.values())
        assert [item.number for item in items] == sorted(item.number for item in items)
        assert self.bytes == sum(item.size for item in items)
        assert {n for n, item in self._items.items() if item.stage is Stage.STORING} == set(self._storing)
        assert {n for n, item in self._items.items() if item.stage is Stage.UNANSWERED} == set(
            self._unanswered
        )
        ready = [number for number, item in self._items.items() if item.stage is Stage.READY]
        assert sorted(n for n in self._ready if n in self._items) == ready
        assert {item.mid: item for item in items if item.mid is not None} == self._by_mid
        assert not self._in_flight or len(self._unanswered) <= self._in_flight

    def _taken(self, now: float) -> None:
        """The hub takes messages again. An answer that was under way at the refusal does not say so."""
        if now >= self.paused_until:
            self._refusals = 0

    def _pause(self, asked_ms: Any, now: float) -> None:
        if now >= self.paused_until:
            # Of the messages that were under way at a refusal only the first counts.
            self._refusals += 1
        grown = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._refusals - 1, 20))
        wait_s = asked_ms / 1000 if type(asked_ms) is int and asked_ms >= 0 else grown
        self.paused_until = max(self.paused_until, now + wait_s)
        self.retried += 1

    def _make_ready(self, item: Item[T]) -> None:
        self._unanswered.pop(item.number, None)
        item.stage = Stage.READY
        heapq.heappush(self._ready, item.number)

    def _first_ready(self) -> int | None:
        while self._ready and self._ready[0] not in self._items:
            heapq.heappop(self._ready)
        return self._ready[0] if self._ready else None

    def _remove(self, item: Item[T]) -> None:
        del self._items[item.number]
        self.bytes -= item.size
        if item.mid is not None:
            del self._by_mid[item.mid]


def _ack(data: Any) -> Ack:
    data = data if isinstance(data, Mapping) else {}
    epoch, offset, rev = data.get("epoch"), data.get("offset"), data.get("rev")
    position = Position(epoch, offset) if isinstance(epoch, str) and type(offset) is int else None
    if isinstance(rev, list | tuple) and rev:
        rev = rev[-1]
    return Ack(position, rev if type(rev) is int else None, data.get("duplicate") is True)
