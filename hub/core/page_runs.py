"""Page runs: what sessions that replay the same past are sent, joined once for all of them.

Many come back at once and pass the same slices of the ledger, one with each pull. What lies between two offsets never changes,
so a slice is known by these and its form; of each selection of its streams that some session takes, its frames are joined once
(hub.core.runs). The one that nobody has used for longest leaves first, and all of them when none was used for IDLE_S.

Invariant: `bytes` is what the slices may cost in memory, their entries and what is joined of them, at most LIMIT_BYTES unless one
alone costs more; what is joined of one is at most RUN_BYTES.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from hub.core.deflate import Deflater
from hub.core.entry import Entry
from hub.core.ledger import Damaged
from hub.core.runs import Form, Run

__all__ = ["IDLE_S", "LIMIT_BYTES", "RUN_BYTES", "PageRun", "PageRuns"]

LIMIT_BYTES = 16 << 20
RUN_BYTES = 4 << 20
IDLE_S = 30.0


class PageRun(Run):
    """A slice of a page. `least_bytes`: of its bodies but the last; `entry_bytes`, `joined_bytes`: what it costs by now."""

    __slots__ = ("entry_bytes", "joined_bytes", "least_bytes")

    def __init__(self, runs: PageRuns, form: Form, entries: list[Entry]) -> None:
        super().__init__(runs, form, entries)
        self.least_bytes = sum([len(entry.body) for entry in entries]) - len(entries[-1].body)
        self.entry_bytes = sum([entry.size for entry in entries])
        self.joined_bytes = 0


class PageRuns:
    """The slices that sessions passed last."""

    def __init__(self, deflater: Deflater) -> None:
        self.deflater = deflater
        self._runs: OrderedDict[tuple[int, int, Form], PageRun] = OrderedDict()
        self._used_at = float("-inf")
        self.bytes = 0

    def of(self, page: deque[Entry | Damaged], form: Form, now: float) -> PageRun | None:
        """The run of these slots, some and without a hole; None where one is damaged. It is joined before another is asked for."""
        self._used_at = now
        place = (page[0].offset, page[-1].offset, form)
        run = self._runs.get(place)
        if run is not None:
            self._runs.move_to_end(place)
            return run
        entries = [slot for slot in page if isinstance(slot, Entry)]
        if len(entries) < len(page):
            return None
        run = self._runs[place] = PageRun(self, form, entries)
        self.bytes += run.entry_bytes
        self._bound()
        return run

    def keep(self, size: int) -> bool:
        """Whether so many bytes more of the run that was asked for last may be remembered."""
        run = next(reversed(self._runs.values()))
        if run.joined_bytes + size > RUN_BYTES:
            return False
        run.joined_bytes += size
        self.bytes += size
        self._bound()
        return True

    def _bound(self) -> None:
        while self.bytes > LIMIT_BYTES and len(self._runs) > 1:
            _, run = self._runs.popitem(last=False)
            self.bytes -= run.entry_bytes + run.joined_bytes

    def forget_idle(self, now: float) -> None:
        """Let go of all when none was used for IDLE_S."""
        if now - self._used_at > IDLE_S:
            self._runs.clear()
            self.bytes = 0
