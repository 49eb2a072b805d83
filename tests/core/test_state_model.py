"""Revisions and conflation: the state model's schedules against the real core, with its broken variants planted.

One key of a dataframe whose rows are appended and patched, clients that stall (so that their changes are merged), ask for
snapshots, are cut and come back with the revision that they hold. The receivers (`tests.core.model`) hold what they
were told against the producer's table at every revision, and take every false claim for an error. The receiver's own variants
are planted in tests/consumer/test_revisions.py.
"""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import patch

import pytest

from hub.core import engine, requests
from hub.core.engine import Core
from hub.core.session import Cursor, Session
from hub.core.state import FrameCell, StateKey
from hub.protocol.codec import Wire
from hub.protocol.principal import Principal
from hub.protocol.subscription import Subscription, parse_want
from tests.core.doubles import KEY, LIMITS, Rig, rows
from tests.core.model import Truth, V2Receiver

WANT = [{"topics": ["analyzed_df"]}]
STATE_KEY = StateKey("a", "analyzed_df", KEY)


class Walk:
    """One schedule."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rig = Rig(with_positions=True)
        self.core = self.rig.core
        self.truth = Truth(self.core)
        self.count = 0
        self.last = 0
        self.receivers: list[V2Receiver] = []
        self.change()
        for _ in range(2):
            session = self._session()
            receiver = V2Receiver(self.truth, session)
            self.receivers.append(receiver)
            self._subscribe(receiver, None)

    def _session(self) -> Session:
        self.count += 1
        session = Session(f"s{self.count}", Principal(name="p"), Wire.MSGPACK, "c", 0.0)
        self.core.connect(session)
        return session

    def _subscribe(self, receiver: V2Receiver, resume: dict[str, Any] | None) -> None:
        items, _ = parse_want(WANT)
        new = Subscription(items, receiver.session.principal.reads)
        self.count += 1
        receiver.asked[self.count] = new
        receiver.subscribing(new)
        data = {"want": WANT, "resume": resume}
        message = {"type": "subscribe", "id": self.count, "data": data}
        requests.respond(self.core, receiver.session, message, 1, LIMITS)

    def change(self) -> None:
        """A new row, or several, or a patch of an older one."""
        back = self.random.choice([0, 0, 0, 1, 3])
        start = max(1, self.last + 1 - back)
        count = self.random.choice([1, 1, 1, 3])
        self.last = max(self.last, start + count - 1)
        n = self.rig.frame(rows(start, count, value=self.random.random()))
        self.truth.tables[STATE_KEY, n] = self.core.cells[STATE_KEY].store.tail()

    def flush(self) -> None:
        dirty, self.core.dirty = self.core.dirty, set()
        for group in dirty:
            frames, _ = self.core.collect(group, 1 << 20, 0.0)
            for receiver in self.receivers:
                if receiver.session in group.hot:
                    receiver.take(frames)

    def pull(self, receiver: V2Receiver) -> None:
        receiver.take(self.core.pull(receiver.session, 1 << 20, 0.0).frames)

    def stall(self, receiver: V2Receiver) -> None:
        self.core.fall_behind(receiver.session)

    def resync(self, receiver: V2Receiver) -> None:
        self.core.resync(receiver.session, STATE_KEY)

    def connect_anew(self, receiver: V2Receiver) -> None:
        if receiver.subscription is None:
            return
        receiver.cut()
        self.core.disconnect(receiver.session)
        receiver.session = self._session()
        items, _ = parse_want(WANT)
        self._subscribe(receiver, receiver.resume(receiver.session, Subscription(items)))

    def play(self, steps: int) -> None:
        for _ in range(steps):
            receiver = self.random.choice(self.receivers)
            step = self.random.choices(
                ["change", "flush", "pull", "stall", "resync", "connect"], [4, 3, 4, 1, 0.3, 0.5]
            )[0]
            if step == "change":
                self.change()
            elif step == "flush":
                self.flush()
            elif step == "pull":
                self.pull(receiver)
            elif step == "stall":
                self.stall(receiver)
            elif step == "resync":
                self.resync(receiver)
            else:
                self.connect_anew(receiver)
            self.core.check_invariants()
        for _ in range(4):
            self.flush()
            for receiver in self.receivers:
                self.pull(receiver)
        for receiver in self.receivers:
            receiver.at_rest()


real_rows_frame = FrameCell.rows_frame
real_take_held = Core._take_held


def _owe_the_newest(cursor: Cursor, key: StateKey, have: int | None, *, marker: bool) -> bool:
    was = key in cursor.due
    cursor.due[key] = have
    return was


def _last_row_only(
    self: FrameCell, wire: Wire, projection: Any, have: int | None, limit_bytes: int
) -> bytes | None:
    store = self.store
    with patch.object(store, "changed_since", lambda rev: _tail(type(store).changed_since(store, rev))):
        return real_rows_frame(self, wire, projection, have, limit_bytes)


def _tail(changed: Any) -> Any:
    return None if changed is None else changed.tail(1)


def _held_is_current(self: Core, session: Session, cursor: Cursor, resume: Any) -> None:
    real_take_held(self, session, cursor, resume)
    for key, have in cursor.due.items():
        if have is not None:
            cursor.due[key] = self.cells[key].n


def _held_in_any_cache(self: Core, session: Session, cursor: Cursor, resume: Any) -> None:
    for key in cursor.due:
        cursor.due[key] = min(self.cells[key].n, resume.keys.get(key, ("", 0))[1] + 1)
        session.untold.add(key)


PLANTED = {
    "newest prev": (engine, "_owe", _owe_the_newest),
    "last row only": (FrameCell, "rows_frame", _last_row_only),
    "what is held is taken for current": (Core, "_take_held", _held_is_current),
    "one revision more than is held": (Core, "_take_held", _held_in_any_cache),
    "no schema for what is held": (Core, "_tell_schema", lambda *_: 0),
}


def play(seed: int) -> None:
    try:
        Walk(seed).play(60)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


def test_what_a_client_holds_is_the_producers() -> None:
    for seed in range(60):
        play(seed)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str) -> None:
    with patch.object(*PLANTED[name]):
        for seed in range(60):
            try:
                play(seed)
            except AssertionError:
                return
    pytest.fail(f"{name} was not caught in 60 schedules")
