"""Sessions, the groups they share, and the cursors that say what is still owed to whom."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from hub.core.entry import Entry
from hub.core.events import EventRing, Events
from hub.core.ledger import Damaged
from hub.core.state import Parts, StateKey
from hub.protocol.codec import Wire, frame_of
from hub.protocol.messages import FrameKey
from hub.protocol.principal import Principal
from hub.protocol.subscription import Projection, Subscription

__all__ = ["Cursor", "FrameRequest", "Group", "Session"]

Stream = tuple[str, str]

REMEMBERED = 256


class Cursor:
    """What is still owed.

    ledger: the next offset to send. claimed: where its last claim ends, or the subscription began; heads: of each wanted stream
    the last offset passed since then; claimed_at: when a position was last sent (hub.core.positions). replays: it reads the
    ledger's past, and a position will say where that ends. events: the next number of each ring (1 where it is not named).
    events_seen: how many events the hub had when this cursor was last level with all of them (saves looking at every ring).
    due: state keys that changed and the revision the receiver holds (None: it needs a snapshot), in the order of sending.
    sending: a snapshot under way, as (key, its revision, the parts to come).
    """

    __slots__ = (
        "claimed",
        "claimed_at",
        "due",
        "events",
        "events_seen",
        "heads",
        "ledger",
        "replays",
        "sending",
    )

    def __init__(self, ledger: int, *, replays: bool = False) -> None:
        self.ledger = ledger
        self.claimed = ledger - 1
        self.claimed_at = float("-inf")
        self.heads: dict[Stream, int] = {}
        self.replays = replays
        self.events: dict[Stream, int] = {}
        self.events_seen = -1
        self.due: dict[StateKey, int | None] = {}
        self.sending: tuple[StateKey, int, Parts] | None = None

    def copy(self) -> Cursor:
        """A cursor at the same place, in a snapshot under way too."""
        twin = Cursor(self.ledger, replays=self.replays)
        twin.take_claim(self)
        twin.events = dict(self.events)
        twin.events_seen = self.events_seen
        if self.sending is not None:
            key, rev, parts = self.sending
            twin.sending = (key, rev, parts.fork())
        twin.due = dict(self.due)
        return twin

    def claim_from(self, offset: int) -> None:
        """The next claim begins at `offset`: the base of every client that this cursor stands for is assured to be there."""
        self.claimed = offset
        self.heads = {}

    def take_claim(self, other: Cursor) -> None:
        """Go on with the claim of a cursor at the same place of the ledger."""
        self.claimed, self.claimed_at, self.heads = other.claimed, other.claimed_at, dict(other.heads)


GroupKey = tuple[Wire, bool, Subscription]


class Group:
    """The sessions of one wire with an equal subscription, which all negotiated deflate or none.

    `hot` ones are level and share `cursor` and its frames; `stragglers` each have a cursor of their own. While `level` the hot ones
    are owed nothing: `cursor` then stands for the tail's next offset, wherever it was left, since a message that nobody here wants
    does not touch the group. `linger_s`: how long all that the hot ones are owed may wait.
    """

    __slots__ = (
        "_projections",
        "_rings",
        "_rings_seen",
        "_wants",
        "cursor",
        "deflates",
        "hot",
        "level",
        "linger_s",
        "owes_position",
        "sent_at",
        "sent_bytes",
        "stragglers",
        "subscription",
        "wire",
    )

    def __init__(self, key: GroupKey, cursor: Cursor) -> None:
        wire, deflates, subscription = key
        self.wire = wire
        self.deflates = deflates
        self.subscription = subscription
        self.cursor = cursor
        self.level = True
        self.linger_s = 0.0
        self.owes_position = False
        self.sent_at = float("-inf")
        self.sent_bytes = 0
        self.hot: dict[Session, None] = {}
        self.stragglers: set[Session] = set()
        self._wants: dict[Stream, bool] = {}
        self._projections: dict[StateKey, Projection | None] = {}
        self._rings: list[tuple[Stream, EventRing]] = []
        self._rings_seen = 0

    @property
    def key(self) -> GroupKey:
        """What its sessions have in common."""
        return (self.wire, self.deflates, self.subscription)

    def rings(self, events: Events) -> list[tuple[Stream, EventRing]]:
        """The event rings that are delivered here; each of the hub's is looked at once, when it is new."""
        if self._rings_seen < len(events.listed):
            new = events.listed[self._rings_seen :]
            self._rings += [(stream, ring) for stream, ring in new if self.subscription.wants(*stream)]
            self._rings_seen = len(events.listed)
        return self._rings

    def wants(self, stream: Stream) -> bool:
        """Whether this stream is delivered here; remembered."""
        wanted = self._wants.get(stream)
        if wanted is None:
            _make_room(self._wants)
            wanted = self._wants[stream] = self.subscription.wants(*stream)
        return wanted

    def projection(self, key: StateKey) -> Projection | None:
        """The part of this state key that is delivered here, None for nothing; remembered."""
        try:
            return self._projections[key]
        except KeyError:
            _make_room(self._projections)
            frame_key = key.key if isinstance(key.key, FrameKey) else None
            found = self._projections[key] = self.subscription.projection(key.bot, key.topic, frame_key)
            return found


def _make_room(remembered: dict[Any, Any]) -> None:
    # Any number of groups may see every key: what each remembers is bounded, and matching again is cheap.
    if len(remembered) >= REMEMBERED:
        remembered.clear()


class FrameRequest:
    """A freqtrade client's `analyzed_df` request for one key, which may not exist: the newest `limit` rows (None: all).

    `parts` is the answer once it is begun.
    """

    __slots__ = ("key", "limit", "parts")

    def __init__(self, key: FrameKey, limit: int | None) -> None:
        self.key = key
        self.limit = limit
        self.parts: Iterator[bytes] | None = None


class Session:
    """One authenticated connection's state in core. `cursor` is None while it is hot (or has no subscription).

    `deflates` tells that it negotiated permessage-deflate, `attached` that it has attached as a bot, so that its results may be
    large. `untold` are keys that it holds from before this connection, so that it has not heard their schema here yet. `features`
    are those that the client named in hello. `sent_bytes`: alone; while it is hot less what its group had been sent before
    (`total_sent_bytes`).
    """

    __slots__ = (
        "attached",
        "client",
        "closing",
        "conflated",
        "connected_at",
        "control",
        "control_bytes",
        "cursor",
        "deflates",
        "expiring_told",
        "features",
        "group",
        "id",
        "lagging_told",
        "max_message",
        "merged",
        "page",
        "principal",
        "progress_at",
        "read_from",
        "reading",
        "requests",
        "schemas",
        "sent_at",
        "sent_bytes",
        "unanswered",
        "untold",
        "wire",
        "young",
    )

    def __init__(
        self,
        session_id: str,
        principal: Principal,
        wire: Wire,
        client: str,
        now: float,
        *,
        deflates: bool = False,
    ) -> None:
        self.id = session_id
        self.deflates = deflates
        self.principal = principal
        self.wire = wire
        self.client = client
        self.max_message = 1 << 20
        self.features: frozenset[str] = frozenset()
        self.group: Group | None = None
        self.cursor: Cursor | None = None
        self.control: list[bytes] = []
        self.control_bytes = 0
        self.requests: list[FrameRequest] = []
        self.page: deque[Entry | Damaged] | tuple[()] = ()
        self.reading = False
        self.read_from = 0
        self.schemas: set[str] = set()
        self.untold: set[StateKey] = set()
        self.merged = 0
        self.conflated: set[StateKey] = set()
        self.expiring_told = False
        self.unanswered = 0
        self.attached = False
        self.progress_at = now
        self.sent_at = now
        self.connected_at = now
        self.sent_bytes = 0
        self.lagging_told = False
        self.closing: tuple[int, str] | None = None
        self.young: dict[FrameKey, tuple[int, int]] = {}

    @property
    def owed_alone(self) -> bool:
        """Whether anything may be owed to it beside what its group is sent."""
        return self.cursor is not None or bool(self.control) or bool(self.requests)

    @property
    def last_sent_at(self) -> float:
        """When something was last sent to it, alone or with its group."""
        if self.group is None or self.cursor is not None:
            return self.sent_at
        return max(self.sent_at, self.group.sent_at)

    @property
    def total_sent_bytes(self) -> int:
        """Bytes of frames that were written to it."""
        group = self.group
        return self.sent_bytes + (group.sent_bytes if group is not None and self.cursor is None else 0)

    @property
    def hot(self) -> bool:
        """Whether it shares its group's cursor."""
        return self.group is not None and self.cursor is None

    def tell(self, message: dict[str, Any]) -> None:
        """Queue a frame for this session alone: a reply or a notice."""
        self.tell_frame(frame_of(self.wire, message))

    def tell_frame(self, prepared: bytes) -> None:
        """Queue a prepared frame for this session alone."""
        self.control.append(prepared)
        self.control_bytes += len(prepared)

    def close(self, code: int, reason: str) -> None:
        """Decide that it ends; the node acts on it. The first decision stands."""
        if self.closing is None:
            self.closing = (int(code), reason)
