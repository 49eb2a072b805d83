"""Where a consumer stands in a hub's ledger: duplicates, holes, and the one number to resume with.

Theory of operation
===================

`offset` numbers the whole ledger of a hub; this consumer sees some of its streams (bot, topic). `prev` of a message is a
claim: no message of its stream has an offset in (prev, offset). `hub.position` is a claim too: of this subscription, the last
messages in (from, offset] are the named heads. From claims alone follows what was missed, without any state at the hub.

State: `epoch`, `base`, and `last` of each stream. known(s) = max(base, last[s]). Everything of s up to known(s) was delivered
here or declared lost.

Invariants
==========

1. known(s) never falls within an epoch, and rises only by a delivery, a declared loss, or a claim that nothing lay between.
2. A message is acted on at most once: only if offset > known(s).
3. A message is acted on only if prev <= known(s), or what lies between was declared lost.
4. `last` holds no stream at or below `base`, so it is bounded by the streams since the last position.

An epoch ends when the hub's ledger lost what it had told. A hub with the feature `lineage` says up to where the numbers of both mean
the same messages (`moves`): known(s) is then min(known(s), same) in the new one, which keeps 1 to 4 for what is still there.

Source: wire-v2 §5, "Client state"; checked there by an exhaustive model, and here against a model hub (tests/consumer).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hub.protocol.envelope import Position
from hub.protocol.known import Known, Stream

__all__ = ["Loss", "Positions", "Verdict"]

_SKIPPED = "the hub skipped them, also after a resume"


class Verdict(Enum):
    """What to do with a message of the ledger."""

    ACT = "act"
    DUPLICATE = "duplicate"
    HOLE = "hole"
    OTHER_EPOCH = "other epoch"


@dataclass(frozen=True, slots=True)
class Loss:
    """Offsets from `first` to `last` of `streams` (empty: of any) are gone for good. Both None where they cannot be known, `last`
    alone where nobody knows how far they went. `epoch`: of which they are, if not of that which the position is in now."""

    streams: tuple[Stream, ...]
    first: int | None
    last: int | None
    reason: str
    epoch: str | None = None


class Positions:
    """The position of one consumer in one hub's ledger. `start` is where an earlier run got to."""

    def __init__(self, start: Known | None = None) -> None:
        self.epoch = start.epoch if start is not None else None
        self.base = start.base if start is not None else 0
        self._last = {s: n for s, n in start.last.items() if n > start.base} if start is not None else {}
        self._hole: tuple[str | None, Stream | None, int] | None = None

    def known(self, stream: Stream) -> int:
        """Up to where everything of `stream` was delivered or declared lost."""
        return max(self.base, self._last.get(stream, 0))

    @property
    def resume(self) -> dict[str, Any] | None:
        """What to send with subscribe: one number for any filter. None at the first time."""
        return None if self.epoch is None else {"epoch": self.epoch, "offset": self.base}

    @property
    def standing(self) -> Position | None:
        """Where to resume: epoch and base. None at the first time."""
        return None if self.epoch is None else Position(self.epoch, self.base)

    @property
    def streams(self) -> int:
        """How many streams are remembered beyond `base`."""
        return len(self._last)

    def message(
        self, epoch: str, stream: Stream, offset: int, prev: int | None
    ) -> tuple[Verdict, Loss | None]:
        """Judge a message with an offset, of whatever type. ACT moves the position; act on the message then.

        A hole is HOLE the first time, so that the consumer resumes; when the same one comes back, the hub cannot close
        it: it is declared lost and the message is to be acted on.
        """
        if self.epoch is None:
            # The reply to subscribe comes first; a hub that breaks this rule still means what it says of `prev`.
            self.epoch, self.base = epoch, prev if prev is not None else max(0, offset - 1)
        if epoch != self.epoch:
            return Verdict.OTHER_EPOCH, None
        known = max(self.base, self._last.get(stream, 0))
        if offset <= known:
            return Verdict.DUPLICATE, None
        loss = None
        if prev is not None and prev > known:
            if not self._again(stream, known):
                return Verdict.HOLE, None
            loss = Loss((stream,), known + 1, min(prev, offset - 1), _SKIPPED)
        self._last[stream] = offset
        return Verdict.ACT, loss

    def position(
        self, epoch: str, start: int, offset: int, heads: Iterable[tuple[Stream, int]]
    ) -> tuple[Verdict, Loss | None]:
        """Judge a hub.position. ACT moves the base; HOLE as in `message`."""
        if epoch != self.epoch:
            return Verdict.OTHER_EPOCH, None
        missing = [(stream, head) for stream, head in heads if head > self.known(stream)]
        loss = None
        if start > self.base:
            if not self._again(None, self.base):
                return Verdict.HOLE, None
            loss = Loss((), self.base + 1, max([start, *(head for _, head in missing)]), _SKIPPED)
        elif missing:
            first = min(self.known(stream) for stream, _ in missing)
            if not self._again(missing[0][0], self.known(missing[0][0])):
                return Verdict.HOLE, None
            streams = tuple(stream for stream, _ in missing)
            loss = Loss(streams, first + 1, max(head for _, head in missing), _SKIPPED)
        self._advance(offset)
        return Verdict.ACT, loss

    def _again(self, stream: Stream | None, known: int) -> bool:
        """Whether a hole above `known` was met before: that it was resumed since, and begins at the same place, makes it the same."""
        hole = (self.epoch, stream, known)
        again, self._hole = hole == self._hole, hole
        return again

    def gap(self, epoch: str, to: int, reason: str) -> Loss | None:
        """Everything up to `to` that did not come is lost: retention overtook this session, or a record is damaged."""
        if epoch != self.epoch or to <= self.base:
            return None
        loss = Loss((), self.base + 1, to, reason)
        self._advance(to)
        return loss

    def subscribed(
        self, epoch: str, offset: int, recovered: bool | None, reply: Mapping[str, Any]
    ) -> Loss | None:
        """The reply to subscribe: everything with a greater offset than `offset` follows.

        A hub that does not resume answers `recovered: null` also to a consumer that asked for it: what lies between the
        last message and `offset` is lost then.
        """
        loss = None
        if self.epoch is None:
            self.epoch = epoch
        elif epoch != self.epoch or (offset < self.base and recovered is not True):
            loss = Loss((), None, None, str(reply.get("reason") or "the hub has a new ledger"))
            self.epoch, self.base = epoch, 0
            self._last.clear()
        elif recovered is True:
            # A session's cursor is never beyond what was asked for, unless the hub has a bug; rule 1 finds that.
            return None
        else:
            loss = self._skipped(offset, recovered, reply)
        self._advance(offset)
        return loss

    def moves(self, epoch: str, offset: int, same: int, reply: Mapping[str, Any]) -> list[Loss]:
        """The reply to subscribe, of a ledger that lost its end: `epoch` is a new one, in which offsets up to `same` are the same.

        All that is known up to there stays known, so nothing of it acts again. What lies above is of other messages.
        """
        assert self.epoch is not None
        known = Known(self.epoch, self.base, self._last).moved(epoch, min(self.base, same), same)
        losses = _cuts(reply)
        self.epoch, self.base, self._last = known.epoch, known.base, dict(known.last)
        if offset > self.base:
            losses.append(Loss((), self.base + 1, offset, "retention"))
            self._advance(offset)
        return losses

    def _skipped(self, offset: int, recovered: bool | None, reply: Mapping[str, Any]) -> Loss | None:
        # A hub that resumes also sends positions: only up to the base is nothing missed (§5, rule 4). Without them the base
        # never moves, and what came last is taken as the end of what came: one cursor sends in order.
        seen = self.base if recovered is False else max([self.base, *self._last.values()])
        if offset <= seen:
            return None
        lost = reply.get("lost")
        first = lost[0] if isinstance(lost, list) and lost and type(lost[0]) is int else 0
        reason = str(reply.get("reason") or "the hub did not resume")
        return Loss((), max(first, seen + 1), offset, reason)

    def _advance(self, base: int) -> None:
        if base > self.base:
            self.base = base
            self._last = {stream: last for stream, last in self._last.items() if last > base}


def _cuts(reply: Mapping[str, Any]) -> list[Loss]:
    """What went with the end of an epoch, as [epoch, first, last] each; a `last` of null is not known."""
    cuts = reply.get("cut")
    losses = [
        Loss((), cut[1], cut[2] if type(cut[2]) is int else None, "cut", cut[0])
        for cut in (cuts if isinstance(cuts, list) else ())
        if isinstance(cut, list) and len(cut) >= 3 and isinstance(cut[0], str) and type(cut[1]) is int
    ]
    if not losses and reply.get("recovered") is not True and "lost" not in reply:
        losses.append(Loss((), None, None, str(reply.get("reason") or "the hub has a new ledger")))
    return losses
