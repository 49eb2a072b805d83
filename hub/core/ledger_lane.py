"""The ledger's way to a session: entries of the tail and of pages that were read, the claims behind them, and the gaps.

One cursor serves both, so a replay joins live without a gap or a duplicate: what is in memory comes from the tail, what
is below it from a page, and the slots of a page are checked to be contiguous before any is sent. Groups at the same place share
what they are sent (hub.core.runs), and so do sessions that replay the same (hub.core.page_runs). What is deflated for a cursor
counts as the plain bytes that it was made of (hub.core.deflate). What cannot be sent is told as a
gap, behind a position that claims all before it, so that a client takes no more for lost than is. Claims: hub.core.positions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from hub.core import notices, positions
from hub.core.deflate import Deflater
from hub.core.entry import Entry
from hub.core.ledger import Damaged, Page, Read, Tail
from hub.core.page_runs import PageRuns
from hub.core.runs import Runs
from hub.core.session import Cursor, Group, Session, Stream
from hub.protocol.close_codes import CloseCode
from hub.protocol.codec import Wire, frame_of

__all__ = ["LedgerLane"]


class LedgerLane:
    """Serves cursors from the tail; `counters` are the core's."""

    def __init__(self, tail: Tail, deflater: Deflater, counters: dict[str, int]) -> None:
        self._tail = tail
        self._deflater = deflater
        self._counters = counters
        self.runs = Runs(tail, deflater)
        self.page_runs = PageRuns(deflater)
        self._claimed: tuple[Wire, int, int, tuple[tuple[Stream, int], ...]] | None = None
        self._claim = b""

    def send(
        self,
        group: Group,
        cursor: Cursor,
        frames: list[bytes],
        limit: int,
        now: float,
        session: Session | None = None,
    ) -> int:
        """Append what a cursor is owed of the ledger, about `limit` bytes of it, and the position that is due; returns the bytes."""
        if session is None:
            size = self._pass_runs(group, cursor, frames, limit, now)
            return size + self._claim_if_due(group, cursor, frames, now)
        size = 0
        while session.page and size < limit:
            if isinstance(session.page[0], Damaged):
                size += self._tell_damaged(group, cursor, session.page.popleft().offset, frames, now)
            else:
                size += self._pass_page(group, cursor, session, frames, limit - size, now)
        if not session.page:
            session.page = ()
        if size < limit and self._tail.first <= cursor.ledger < self._tail.next:
            size += self._pass(group, cursor, self._tail.since(cursor.ledger), frames, limit - size, now)
        return size + self._claim_if_due(group, cursor, frames, now)

    def _pass_runs(self, group: Group, cursor: Cursor, frames: list[bytes], limit: int, now: float) -> int:
        """Send from the tail what groups at this place share, about `limit` bytes of it."""
        size, tail = 0, self._tail
        while size < limit and tail.first <= cursor.ledger < tail.next:
            claim_at = cursor.claimed + positions.CLAIM_OFFSETS
            run = self.runs.at(cursor.ledger, claim_at, (group.wire, group.deflates), limit)
            cursor.ledger = run.next
            saved = self._deflater.saved_bytes
            joined = run.joined(group.wants, cursor.heads)
            if joined:
                frames.append(joined)
                size += len(joined) + self._deflater.saved_bytes - saved
            if run.next > claim_at:
                size += self.claim(group, cursor, frames, now)
        return size

    def _pass_page(
        self, group: Group, cursor: Cursor, session: Session, frames: list[bytes], limit: int, now: float
    ) -> int:
        """Send of a page what those share who pass it too, or message by message where that is too much at once."""
        page = session.page
        assert isinstance(page, deque)
        run, size = self.page_runs.of(page, (group.wire, group.deflates), now), 0
        if run is not None and run.least_bytes < limit:
            if run.next > cursor.claimed + positions.CLAIM_OFFSETS and positions.has_claim(cursor):
                # Ahead of the page and not in the middle, so that who came from elsewhere shares it.
                size = self.claim(group, cursor, frames, now)
            if run.next <= cursor.claimed + positions.CLAIM_OFFSETS:
                session.page = ()
                cursor.ledger = run.next
                saved = self._deflater.saved_bytes
                joined = run.joined(group.wants, cursor.heads)
                if joined:
                    frames.append(joined)
                return size + len(joined) + self._deflater.saved_bytes - saved
        return size + self._pass(group, cursor, _readable(page), frames, limit - size, now)

    def _pass(
        self,
        group: Group,
        cursor: Cursor,
        entries: Iterator[Entry],
        frames: list[bytes],
        limit: int,
        now: float,
    ) -> int:
        """Send what the group wants of these, about `limit` bytes, and move the cursor behind each."""
        size = 0
        wire, wants, heads = group.wire, group.wants, cursor.heads
        claim_at = cursor.claimed + positions.CLAIM_OFFSETS
        for entry in entries:
            offset, stream = entry.offset, entry.stream
            cursor.ledger = offset + 1
            if wants(stream):
                heads[stream] = offset
                prepared = entry.frame(wire)
                if group.deflates:
                    saved = self._deflater.saved_bytes
                    prepared = self._deflater.frame(prepared)
                    size += self._deflater.saved_bytes - saved
                frames.append(prepared)
                size += len(prepared)
            if offset >= claim_at:
                size += self.claim(group, cursor, frames, now)
                heads, claim_at = cursor.heads, cursor.claimed + positions.CLAIM_OFFSETS
            if size >= limit:
                break
        return size

    def _claim_if_due(self, group: Group, cursor: Cursor, frames: list[bytes], now: float) -> int:
        due = positions.claim_due(cursor, now)
        if cursor is group.cursor:
            due, group.owes_position = due or group.owes_position, False
        elif cursor.replays and cursor.ledger >= self._tail.next:
            due, cursor.replays = due or positions.has_claim(cursor), False
        return self.claim(group, cursor, frames, now) if due else 0

    def claim(self, group: Group, cursor: Cursor, frames: list[bytes], now: float) -> int:
        """Claim what a cursor has passed, behind it; on freqtrade's wire nothing is said of it."""
        same = (group.wire, cursor.claimed, cursor.ledger, tuple(cursor.heads.items()))
        position = positions.claim(cursor, self._tail.epoch, now)
        if group.wire is Wire.FREQTRADE:
            return 0
        self._counters["positions"] += 1
        # Many groups claim the same one after the other.
        if same != self._claimed:
            self._claimed, self._claim = same, frame_of(group.wire, position)
        frames.append(self._claim)
        return len(self._claim)

    def tell_claim(self, session: Session, cursor: Cursor) -> None:
        """Claim to one session what its own cursor has passed, if anything, ahead of what it is told next."""
        if positions.has_claim(cursor):
            self.tell_position(session, cursor)

    def tell_position(self, session: Session, cursor: Cursor) -> None:
        """Tell one session where its own cursor is, also where that says nothing new."""
        position = positions.claim(cursor, self._tail.epoch, cursor.claimed_at)
        if session.wire is not Wire.FREQTRADE:
            self._counters["positions"] += 1
            session.tell(position)

    def _tell_damaged(
        self, group: Group, cursor: Cursor, offset: int, frames: list[bytes], now: float
    ) -> int:
        """A slot that the log cannot read: lost to the session, and nothing else is."""
        self._counters["gaps"] += 1
        size = self.claim(group, cursor, frames, now) if positions.has_claim(cursor) else 0
        cursor.ledger = offset + 1
        cursor.claim_from(offset)
        if group.wire is Wire.FREQTRADE:
            return 0
        gap = notices.gap(self._tail.epoch, offset - 1, offset, reason="damaged")
        frames.append(frame_of(group.wire, gap))
        return size + len(frames[-1])

    # --- below the tail

    def read_for(self, session: Session, cursor: Cursor, limit_bytes: int) -> Read | None:
        """The read that a session needs to go on, unless one is under way, its page is not sent yet, or it ends."""
        if session.reading or session.page or cursor.ledger >= self._tail.first:
            return None
        if session.closing is not None:
            return None
        session.reading = True
        session.read_from = cursor.ledger
        return Read(cursor.ledger, limit_bytes)

    def loaded(self, session: Session, page: Page) -> None:
        """The page of a read. A floor above the cursor is a gap; a page that is not contiguous ends the session."""
        session.reading = False
        cursor = session.cursor
        # Who unsubscribed meanwhile, and began again below, reads anew from there.
        if cursor is None or session.closing is not None or cursor.ledger < session.read_from:
            return
        # What retention took before core was told of it is not lost yet: it comes with its commit.
        floor = min(page.floor, self._tail.next - 1)
        if floor >= cursor.ledger and not self._gap(session, cursor, floor):
            return
        # The log may be ahead of what core was told of; that is delivered when it is.
        entries = [entry for entry in page.entries if cursor.ledger <= entry.offset < self._tail.next]
        stuck = not entries and cursor.ledger == session.read_from < self._tail.first
        numbers = list(range(cursor.ledger, cursor.ledger + len(entries)))
        if stuck or [entry.offset for entry in entries] != numbers:
            session.close(CloseCode.INTERNAL_ERROR, "the log has a hole")
            return
        session.page = deque(entries)
        cursor.replays = True

    def _gap(self, session: Session, cursor: Cursor, floor: int) -> bool:
        """Tell a session what it lost; False when that ends it."""
        self._counters["gaps"] += 1
        if session.wire is Wire.FREQTRADE:
            session.close(CloseCode.SLOW_CONSUMER, "retention overtook this client; fills were lost")
            return False
        self.tell_claim(session, cursor)
        session.tell(notices.gap(self._tail.epoch, cursor.ledger - 1, floor))
        cursor.ledger = floor + 1
        cursor.claim_from(floor)
        return True


def _readable(page: deque[Entry | Damaged]) -> Iterator[Entry]:
    """Takes the entries of a page from it, up to the first slot that is damaged."""
    while page:
        slot = page[0]
        if isinstance(slot, Damaged):
            return
        page.popleft()
        yield slot
