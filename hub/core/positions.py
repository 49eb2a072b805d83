"""Positions: where a subscription starts in the ledger, and what the hub claims of what it has sent.

Theory of operation
===================
`hub.position {epoch, from, offset, heads}` claims of a subscription: its last messages in (from, offset] are the heads, and streams
that are not named have none there. A client that has every head moves its base to `offset`, which is all it needs to resume; one
that lacks a head, or whose base is below `from`, has found a hole. So a lost tail, which no later message betrays, is found too.

A cursor carries what the next claim needs: `claimed`, the end of its last one; `heads`, the last offset that it passed of each wanted
stream since; `claimed_at`. Passing a message costs one entry of a dict per cursor, and the sessions that keep up share their
group's cursor: nothing is counted or built for a client alone as long as it keeps up.

A position is sent behind ledger messages when CLAIM_S passed since the last one, in the same write (the tick brings those that no
later message follows); at each heartbeat; after CLAIM_OFFSETS offsets, sent or skipped, so that a replay that is cut goes on
where it was; at the end of a replay; before a gap and before a change of subscription, which both begin a new claim; at a drain.

Invariants
==========
1. Everything of the subscription in (claimed, ledger) is in `heads` or older than a head of its stream: it was sent.
2. The client's base is at or above its cursor's `claimed` once it has read what was sent: `claimed` moves only with a position, a
   gap or the reply to subscribe, each of which moves the base as far.
3. The base of every hot session of a group is at or above the group's `claimed`, so one frame is true for all of them and
   raises no alarm. Proof: who joins has a `claimed` of its own at or above the group's, or is given a position up to the tail first
   (`joins_with_a_position`), and no cursor is beyond the tail. From then on every position of the group moves all its bases as far
   as its `claimed`. Who falls behind takes a copy of the group's cursor, and with it a claim that is true for it. A group without hot
   sessions moves its claim to the tail (nobody is there of whom it could be wrong) or takes over that of the one who joins.
4. The heads of a group are complete for whoever joined late: its cursor passed them, and those at or below a base are known.

A replay is a run of its own over the log: it ends with a position before the first shared frame, also where the claims would
allow to join without, so that a log which knows no exact `prev` may claim its own run's beginning for live messages.

After a cut
===========
A log that lost what it had told begins a new epoch, and remembers the earlier ones (`Ended`): up to where their numbers mean the
same messages, and how far they were told. A client that named the feature `lineage` and comes back with one of them goes on from
there: `same` is the lowest `upto` between its epoch and this one. What it cannot have any more is named by epoch in `cut`. Of its own
epoch that is all above `same` that was told and that it has not got; of each later one that ended, what that brought above the end
of the one before and did not keep.

Source: wire-v2 §4 and §5 (H4'), checked there by an exhaustive model and here by tests/core/test_ledger_model.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hub.core import notices
from hub.core.ledger import Ended
from hub.core.session import Cursor
from hub.protocol.subscription import Resume

__all__ = [
    "CLAIM_OFFSETS",
    "CLAIM_S",
    "Start",
    "claim",
    "claim_due",
    "has_claim",
    "joins_with_a_position",
    "start",
]

CLAIM_S = 1.0
CLAIM_OFFSETS = 1000


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins: all with a greater offset follows. `recovered` is None where nothing was to be resumed.

    True: nothing was missed. False says why in `reason`; `lost` are the offsets (first, last) of which retention left none. To
    a client of an earlier epoch: offsets up to `same` are the same messages in its epoch and in this one; `cut` are those that went
    with the end of an epoch, as (epoch, first, last), where `last` is None if nobody knows how far it had come.
    """

    offset: int
    recovered: bool | None = None
    reason: str | None = None
    lost: tuple[int, int] | None = None
    same: int | None = None
    cut: tuple[tuple[str, int, int | None], ...] = ()

    def as_data(self, epoch: str) -> dict[str, Any]:
        """Its part of the reply to subscribe."""
        data: dict[str, Any] = {"epoch": epoch, "offset": self.offset, "recovered": self.recovered}
        if self.reason is not None:
            data["reason"] = self.reason
        if self.lost is not None:
            data["lost"] = list(self.lost)
        if self.same is not None:
            data["same"] = self.same
        if self.cut:
            data["cut"] = [list(part) for part in self.cut]
        return data


def start(
    epoch: str,
    floor: int,
    head: int,
    resume: Resume | None,
    *,
    earliest: bool,
    lineage: Sequence[Ended] = (),
) -> Start:
    """Where a subscription begins on a ledger that holds (floor, head]. `lineage` is for a client that understands it."""
    fresh = floor if earliest else head
    if resume is None:
        return Start(fresh)
    if resume.epoch != epoch:
        at = next((i for i, ended in enumerate(lineage) if ended.epoch == resume.epoch), None)
        if at is None:
            return Start(fresh, False, "epoch")
        return _after_cuts(floor, resume.offset, lineage[at:])
    if resume.offset > head:
        return Start(fresh, False, "future")
    if resume.offset < floor:
        return Start(floor, False, "retention", (resume.offset + 1, floor))
    return Start(resume.offset, True)


def _after_cuts(floor: int, offset: int, ended: Sequence[Ended]) -> Start:
    """Where a client goes on that was at `offset` of the first of these epochs, of which the last was followed by today's."""
    cut: list[tuple[str, int, int | None]] = []
    had = offset
    for i, one in enumerate(ended):
        had = max(had, min(later.upto for later in ended[i:]))
        if one.told is None or one.told > had:
            cut.append((one.epoch, had + 1, one.told))
        # What the next epoch has of its own begins there.
        had = one.upto
    same = min(one.upto for one in ended)
    offset = min(offset, same)
    lost = (offset + 1, floor) if offset < floor else None
    reason = "cut" if cut else "retention" if lost else None
    return Start(max(offset, floor), reason is None, reason, lost, same, tuple(cut))


def claim_due(cursor: Cursor, now: float) -> bool:
    """Whether a position is to follow, by now, what this cursor has sent. (The lane counts the offsets as it passes them.)"""
    return bool(cursor.heads) and now - cursor.claimed_at >= CLAIM_S


def claim(cursor: Cursor, epoch: str, now: float) -> dict[str, Any]:
    """The position up to where this cursor is; the next claim begins there."""
    heads = [[bot, topic, offset] for (bot, topic), offset in cursor.heads.items()]
    position = notices.position(epoch, cursor.claimed, cursor.ledger - 1, heads)
    cursor.claim_from(cursor.ledger - 1)
    cursor.claimed_at = now
    return position


def has_claim(cursor: Cursor) -> bool:
    """Whether a position would move any base."""
    return cursor.ledger - 1 > cursor.claimed


def joins_with_a_position(cursor: Cursor, group: Cursor) -> bool:
    """Whether a session at the tail needs a position of its own before it gets the frames of its group."""
    return cursor.claimed < group.claimed
