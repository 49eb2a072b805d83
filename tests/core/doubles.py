"""A core with a log that commits at once, and sessions to it: what the unit tests of this package share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from hub.core import requests
from hub.core.engine import Core, CoreLimits
from hub.core.entry import Entry
from hub.core.ledger import Append, LogState, Page, Read
from hub.core.session import Session
from hub.frames.columns import Columns
from hub.log.memory import MemoryLog
from hub.protocol.codec import Wire, encode_body
from hub.protocol.messages import FrameKey
from hub.protocol.principal import Principal
from tests.core.model import decode, frames_of

KEY = FrameKey("BTC/USDT", "5m", "spot")
STEP_MS = 300_000
LIMITS = {"items": 256, "keys": 100}
BIG = 1 << 30


def rows(start: int, n: int = 1, value: float = 1.0, **more: Any) -> Columns:
    """Candles number `start` and following."""
    dates = (np.arange(start, start + n) * STEP_MS).astype(np.int64)
    return Columns.from_mapping({"date": dates, "close": np.full(n, value), **more})


class Rig:
    """Publishes and serves as a node does, without a loop. Positions are seen only `with_positions`."""

    def __init__(self, *, log_bytes: int = BIG, with_positions: bool = False, **limits: Any) -> None:
        self.with_positions = with_positions
        self.log = MemoryLog("e", log_bytes)
        self.core = Core(LogState("e", 0, 0), "r", CoreLimits(**limits))
        self.now = 0.0
        self.number = 0

    def session(self, wire: Wire = Wire.JSON, bot: str | None = "a", **principal: Any) -> Session:
        self.number += 1
        session = Session(
            f"s{self.number}", Principal(name="p", legacy_bot=bot, **principal), wire, "c", self.now
        )
        self.core.connect(session)
        return session

    def subscribed(self, *topics: str, wire: Wire = Wire.JSON, **item: Any) -> Session:
        """A hot session with one item."""
        session = self.session(wire)
        self.subscribe(session, {"topics": list(topics), **item})
        self.served(session)
        assert session.hot
        return session

    def subscribe(self, session: Session, *want: dict[str, Any]) -> None:
        if session.wire is Wire.FREQTRADE:
            self.ask(session, "subscribe", sorted({t for item in want for t in item["topics"]}))
        else:
            self.ask(session, "subscribe", {"want": list(want)}, number=1)

    def ask(self, session: Session, name: str, data: Any = None, number: int | None = None) -> None:
        message = {"type": name, "data": data} | ({"id": number} if number is not None else {})
        self.core.floor = max(self.core.floor, self.log.floor)
        requests.respond(self.core, session, message, 5, LIMITS)

    def fill(self, bot: str = "a", topic: str = "entry_fill", pad: int = 0, *, commit: bool = True) -> Append:
        self.number += 1
        data = {"number": self.number, "pad": "x" * pad}
        entry = Entry(bot, topic, self.number, encode_body(data), mid=f"m{self.number}", publisher=bot)
        append = self.core.accept(entry, None)
        if commit:
            self.core.committed([self.log._append(append)])
        return append

    def event(self, bot: str = "a", topic: str = "status", pad: int = 0) -> None:
        self.number += 1
        data = {"status": f"{self.number}{'x' * pad}"}
        self.core.publish_event(Entry(bot, topic, 1, encode_body(data)))

    def frame(self, columns: Columns, bot: str = "a", key: FrameKey = KEY, *, replace: bool = False) -> int:
        return self.core.publish_frame(bot, key, columns, replace=replace, la_ms=1, ts=1, now=self.now)

    def flush(self, limit: int = BIG) -> dict[str, list[bytes]]:
        """What every hot session gets now."""
        got: dict[str, list[bytes]] = {}
        dirty, self.core.dirty = self.core.dirty, set()
        for group in dirty:
            frames, more = self.core.collect(group, limit, self.now)
            got |= dict.fromkeys([session.id for session in group.hot], self._seen(frames_of(frames)))
            if more:
                self.core.dirty.add(group)
        self.core.check_invariants()
        return got

    def pull(self, session: Session, limit: int = BIG) -> list[dict[str, Any]]:
        """One slice for one session."""
        pulled = self.core.pull(session, limit, self.now)
        if pulled.read is not None:
            self.core.loaded(session, self.page(pulled.read))
        self.core.check_invariants()
        return [decode(session.wire, frame) for frame in self._seen(frames_of(pulled.frames))]

    def _seen(self, frames: list[bytes]) -> list[bytes]:
        return frames if self.with_positions else [f for f in frames if b"hub.position" not in f[:40]]

    def page(self, read: Read) -> Page:
        entries: Sequence[Entry] = [e for e in self.log._entries if e.offset >= read.offset]
        return Page(entries, self.log.floor)

    def served(self, session: Session) -> list[dict[str, Any]]:
        """Everything that a session is owed."""
        got = []
        for _ in range(50):
            hot = self.flush().get(session.id, [])
            got += [decode(session.wire, frame) for frame in hot]
            more = self.pull(session)
            got += more
            busy = session.page or session.reading or session.requests or session.group in self.core.dirty
            if not hot and not more and not busy:
                return got
        raise AssertionError("it never comes to rest")


def split_of(message: dict[str, Any]) -> list[list[Any]]:
    """The rows of an analyzed_df of freqtrade's wire."""
    data: list[list[Any]] = json.loads(message["data"]["df"]["__value__"])["data"]
    return data
