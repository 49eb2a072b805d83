"""Retention: the oldest records leave, by bytes and by age, a bounded step at a time.

What is over by bytes leaves in the transaction of an append, so that it costs no sync of its own, and with some to spare, so that
only one append in many pays for it; what is over by age leaves once a second. Only a prefix leaves. Age is counted from when the
hub stored a record, since a publisher may send what happened long ago.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from hub.log import records
from hub.log.books import Draft

__all__ = ["Retention", "remove"]

SPARED_STEP = 64 << 10


@dataclass(frozen=True, slots=True)
class Retention:
    """`max_bytes` on disk, about; `max_age_ms` since it was stored, None for ever."""

    max_bytes: int
    max_age_ms: int | None = None

    def is_over(self, size: int) -> bool:
        """Whether so many bytes are too many."""
        return size > self.max_bytes

    @property
    def spared_bytes(self) -> int:
        """Where a removal by bytes ends: 1/256 below, in steps of 64 KiB, so that a small ledger is not emptied for it."""
        return self.max_bytes - self.max_bytes // (256 * SPARED_STEP) * SPARED_STEP


def remove(
    connection: sqlite3.Connection, draft: Draft, retention: Retention, now_ms: int, limit: int
) -> int:
    """Remove at most `limit` slots that are due; how many. The newest record leaves for its age only."""
    room = retention.spared_bytes if retention.is_over(draft.bytes) else retention.max_bytes
    before_ms = None if retention.max_age_ms is None else now_ms - retention.max_age_ms
    floor = draft.floor
    passed = 0
    rows = connection.execute(
        f"SELECT {records.COLUMNS} FROM records WHERE offset > ? ORDER BY offset LIMIT ?", (floor, limit)
    )
    for row in rows:
        # A damaged record leaves with the next good one: nothing in it can be believed.
        good = records.is_record(row)
        if good:
            by_bytes = draft.bytes > room and row[0] < draft.head
            if not by_bytes and not (before_ms is not None and row[2] < before_ms):
                break
            draft.remove(row[6].decode(), row[3], records.size_of(row))
            floor = row[0]
        passed += 1
    rows.close()
    if passed == limit and floor == draft.floor:
        # Nothing but damage in a whole step: it leaves, else it would keep all behind it for ever.
        floor = row[0]
    removed = floor - draft.floor
    if removed:
        connection.execute("DELETE FROM records WHERE offset <= ?", (floor,))
        connection.execute("DELETE FROM quarantine WHERE last <= ?", (floor,))
        draft.floor = floor
    return removed
