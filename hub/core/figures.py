"""Figures of one topic and of one session. Nothing is counted for a session in the fan-out: what a group was sent is a difference."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hub.core.engine import Core
from hub.core.session import Session, Stream
from hub.protocol.messages import DeliveryClass, delivery_class

__all__ = ["SessionFigures", "TopicFigures", "session_figures", "topic_figures"]


class TopicFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One topic of one bot. `messages` and `bytes` (of payload) were published since the hub started; `last` is the newest offset of
    a ledger topic, and the newest number of an event topic.

    `kept` and `kept_bytes`: events of its ring, or keys of its state; of ledger topics 0, since they have one log together.
    `sessions` take it now, `behind` of them do not keep up.
    """

    bot: str
    topic: str
    kind: str
    messages: int
    bytes: int
    last: int
    kept: int
    kept_bytes: int
    sessions: int
    behind: int


class SessionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One websocket. `state` is "unsubscribed", "hot" (it keeps up) or "behind" (it is served alone).

    Its lag: `lag_messages` of the ledger, whether it takes them or not, with the events that it is owed; `lag_keys` of state; and
    `lag_bytes`, what is not handed to the kernel of both: in the transport, waiting replies, and of the ledger, where what is no
    longer in memory is estimated by what is. Times are seconds ago.
    """

    id: str
    client: str
    principal: str
    wire: str
    topics: tuple[str, ...]
    state: str
    lag_messages: int
    lag_keys: int
    lag_bytes: int
    unsent_bytes: int
    sent_bytes: int
    control_bytes: int
    unanswered: int
    conflated: int
    connected_s: float
    sent_s: float
    progress_s: float


def topic_figures(core: Core) -> Iterator[TopicFigures]:
    """Of each topic that was published to since the hub started."""
    kept: dict[Stream, tuple[int, int]] = {}
    for cell in [*core.values.values(), *core.cells.values()]:
        stream = cell.state_key[:2]
        keys, size = kept.get(stream, (0, 0))
        kept[stream] = (keys + 1, size + cell.nbytes)
    for stream, traffic in core.traffic.items():
        bot, topic = stream
        ring = core.events.rings.get(stream)
        if ring is not None:
            kept[stream] = (len(ring.entries), sum(entry.size for _, entry in ring.entries))
        groups = core.groups_of(stream)
        keys, size = kept.get(stream, (0, 0))
        yield TopicFigures(
            bot=bot,
            topic=topic,
            kind=_kind(topic),
            messages=traffic.messages,
            bytes=traffic.bytes,
            last=traffic.last,
            kept=keys,
            kept_bytes=size,
            sessions=sum(len(group.hot) + len(group.stragglers) for group in groups),
            behind=sum(len(group.stragglers) for group in groups),
        )


def _kind(topic: str) -> str:
    kind = DeliveryClass.STATE if topic.startswith("hub.") else delivery_class(topic)
    return kind.name.lower()


def session_figures(core: Core, session: Session, unsent_bytes: int, now: float) -> SessionFigures:
    """Of one session, with what its transport holds."""
    group = session.group
    cursor = session.cursor if session.cursor is not None or group is None else group.cursor
    level = cursor is None or (session.hot and group is not None and group.level)
    messages = keys = size = 0
    if cursor is not None and not level:
        messages = core.tail.next - cursor.ledger
        size = core.unsent_bytes(session, cursor)
        keys = len(cursor.due) + (cursor.sending is not None)
    if cursor is not None and group is not None and cursor.events_seen != core.events.count:
        messages += sum(ring.next - cursor.events.get(stream, 1) for stream, ring in group.rings(core.events))
    return SessionFigures(
        id=session.id,
        client=session.client,
        principal=session.principal.name,
        wire=str(session.wire),
        topics=() if group is None else tuple(sorted(group.subscription.topics)),
        state="unsubscribed" if group is None else "hot" if session.hot else "behind",
        lag_messages=messages,
        lag_keys=keys,
        lag_bytes=size + session.control_bytes + unsent_bytes,
        unsent_bytes=unsent_bytes,
        sent_bytes=session.total_sent_bytes,
        control_bytes=session.control_bytes,
        unanswered=session.unanswered,
        conflated=session.merged,
        connected_s=round(now - session.connected_at, 3),
        sent_s=round(now - session.last_sent_at, 3),
        progress_s=round(now - session.progress_at, 3),
    )
