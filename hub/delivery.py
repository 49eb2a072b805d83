"""Delivery: when bytes go to which outlet.

Core decides what each session is owed; here is when it is written. There are two ways to a socket:

- *The fan-out.* What was published marks groups dirty. `flush_soon` flushes them once a turn of the loop: `collect` makes one
  piece of bytes for all hot sessions of a group, and each outlet gets that very object in one write. Who is full then falls behind.
- *Alone.* `drive` sends one session what is owed to it alone: replies and notices, and for who is behind a slice of what it missed.
  Those who are behind wait in one queue, and a few are served each turn, so that a commit never waits for all.
  What is no longer in memory is read from the log by a short task.

A slow client costs a cursor and no copies. It is closed where `_act` sees that core has decided so (`session.closing`: it was
too far behind for too long, by `Core.tick`, or a request broke the protocol).

Back-pressure: a session with too much unanswered is not read from (`Connection.readable`).

Invariants
==========
1. Alone, a session is served only while its outlet is writable. The fan-out writes to a full outlet at most once, and the session
   falls behind; it is hot again when it was sent all that it is owed.
2. What a group's cursor passed was written to all of its hot sessions, or those sessions end.
3. A session is scheduled at most once (`driving`), and a flush too.
4. Replies that answer one commit go out in its turn, and its fan-out behind them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from hub.clock import Clock, Timer
from hub.core.engine import Core
from hub.core.intake import PublishOrder
from hub.core.ledger import Log, Read
from hub.core.session import Group, Session
from hub.fan_out import FanOut, Outlet
from hub.gate import Gate
from hub.limits import NodeLimits
from hub.log.page_cache import PageCache
from hub.protocol.close_codes import CloseCode
from hub.protocol.errors import LedgerUnreadable
from hub.tasks import Tasks

__all__ = ["Connection", "Delivery"]

FLUSH_BYTES = 256 * 1024
PULL_BYTES = 64 * 1024
PULLS_A_TURN = 4
"""Stragglers that are served in one turn of the loop: however many replay, a commit waits for so many slices, not for all."""
QUIET_S = 5.0
"""After which a client that was given something, and took no more from its session, is looked at: its transport may still move."""
logger = logging.getLogger("tradewire.node")


class Connection:
    """A session with its outlet, and what the node keeps beside them; listens to the outlet.

    `readable` is set while its client may send more. `address` is whose wrong tokens are counted, None when unknown.
    `moves` is its outlet's count as last looked at. `shares` is the group whose fan-out it takes part in, while it does.
    """

    __slots__ = (
        "_delivery",
        "_lost",
        "address",
        "driving",
        "moves",
        "order",
        "outlet",
        "readable",
        "session",
        "shares",
    )

    def __init__(
        self,
        session: Session,
        outlet: Outlet,
        address: str | None,
        delivery: Delivery,
        lost: Callable[[Session], None],
    ) -> None:
        self.session = session
        self.outlet = outlet
        self.address = address
        self.order = PublishOrder()
        self.driving = False
        self.moves = 0
        self.shares: Group | None = None
        self.readable = Gate()
        self._delivery = delivery
        self._lost = lost

    def on_writable(self) -> None:
        self._delivery.drive_soon(self)

    def on_lost(self) -> None:
        self._lost(self.session)


class Delivery:
    """Writes what core owes. On the loop's thread only; `start` before use.

    `connections` are by session id; the node adds and removes them.
    """

    def __init__(
        self,
        log: Log,
        clock: Clock,
        limits: NodeLimits,
        connections: Mapping[str, Connection],
        tasks: Tasks,
    ) -> None:
        self._core: Core
        self.pages = PageCache(log, limits.replay_bytes, tasks.own, clock.monotonic)
        self._clock = clock
        self._limits = limits
        self._connections = connections
        self._tasks = tasks
        self._fan_outs: dict[Group, FanOut] = {}
        self._flush_scheduled = False
        self._lingering: dict[Group, float] = {}
        self._linger_timer = Timer(clock, self.flush)
        self._behind: deque[Connection] = deque()
        self._behind_scheduled = False
        self._replies: dict[Connection, None] | None = None

    def start(self, core: Core) -> None:
        """Deliver for this core, from now on."""
        self._core = core

    def stop(self) -> None:
        """Nobody waits for anything any more."""
        self._linger_timer.set(None)

    # --- the fan-out

    def flush_soon(self) -> None:
        """Flush with the loop's next turn: however many messages are published until then, each client gets one write."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self, *, linger: bool = True) -> None:
        """Write to the hot sessions of each dirty group what is owed to them, FLUSH_BYTES a group; the rest with the next turn.

        With `linger` not to those whose messages all may wait, until they are due or FLUSH_BYTES.
        """
        self._flush_scheduled = False
        dirty, self._core.dirty = self._core.dirty, set()
        now = self._clock.monotonic()
        for group in dirty:
            if linger and group.linger_s and self._lingers(group, now):
                continue
            try:
                self._flush_group(group, now)
            except Exception:
                logger.exception("a group could not be served; its sessions end and may resume")
                self._end_group(group)
        if self._core.dirty:
            self.flush_soon()
        if self._lingering:
            self._core.dirty |= self._lingering.keys()
            self._linger_timer.set(min(self._lingering.values()))

    def _lingers(self, group: Group, now: float) -> bool:
        """Whether it waits on; from the first time on it is due after its `linger_s`, or earlier."""
        due = min(self._lingering.get(group, now + group.linger_s), now + group.linger_s)
        if due > now and self._core.tail.bytes_since(group.cursor.ledger) < FLUSH_BYTES:
            self._lingering[group] = due
            return True
        return False

    def _end_group(self, group: Group) -> None:
        """What the group's cursor passed may not have been written: nobody goes on with a silent hole."""
        for session in [*group.hot, *group.stragglers]:
            session.close(CloseCode.INTERNAL_ERROR, "internal error; resume when you can")
            self._act(self._connections[session.id])

    def _flush_group(self, group: Group, now: float) -> None:
        self._lingering.pop(group, None)
        before = set(group.stragglers) if group.stragglers else None
        frames, more = self._core.collect(group, FLUSH_BYTES, now)
        if frames:
            self._write_hot(group, frames[0] if len(frames) == 1 else b"".join(frames), now)
        if more:
            self._core.dirty.add(group)
        if group.stragglers:
            for session in group.stragglers - (before or set()):
                self.drive_soon(self._connections[session.id])

    def _write_hot(self, group: Group, data: bytes, now: float) -> None:
        if self._core.moved:
            self._move()
        group.sent_at = now
        group.sent_bytes += len(data)
        for session in self._fan_outs[group].write(data):
            self._core.fall_behind(session)

    def _move(self) -> None:
        """Bring the fan-outs up to who is hot now."""
        moved, self._core.moved = self._core.moved, set()
        for session in moved:
            connection = self._connections[session.id]
            self._leave_fan_out(connection)
            group = session.group
            if session.hot and group is not None:
                connection.shares = group
                self._fan_outs.setdefault(group, FanOut()).add(session, connection.outlet)

    def _leave_fan_out(self, connection: Connection) -> None:
        group, connection.shares = connection.shares, None
        if group is not None:
            fan_out = self._fan_outs[group]
            fan_out.remove(connection.outlet)
            if not fan_out:
                del self._fan_outs[group]

    def gone(self, connection: Connection) -> None:
        """This connection has ended: nothing is written to it any more."""
        self._leave_fan_out(connection)

    # --- one session alone

    def drive_soon(self, connection: Connection) -> None:
        """Serve it with the loop's next turn, or in its turn when it is behind."""
        if not connection.driving:
            connection.driving = True
            if connection.session.cursor is None:
                asyncio.get_running_loop().call_soon(self._drive_scheduled, connection)
            else:
                self._behind.append(connection)
                self._drive_behind_soon()

    def drive_sessions_soon(self, sessions: Iterable[Session]) -> None:
        """`drive_soon` each of them that is still connected."""
        for session in sessions:
            connection = self._connections.get(session.id)
            if connection is not None:
                self.drive_soon(connection)

    def _drive_behind_soon(self) -> None:
        if self._behind and not self._behind_scheduled:
            self._behind_scheduled = True
            asyncio.get_running_loop().call_soon(self._drive_behind)

    def _drive_behind(self) -> None:
        """Serve the next few stragglers, in turn."""
        self._behind_scheduled = False
        try:
            for _ in range(min(len(self._behind), PULLS_A_TURN)):
                self._drive_scheduled(self._behind.popleft())
        finally:
            self._drive_behind_soon()

    def _drive_scheduled(self, connection: Connection) -> None:
        connection.driving = False
        self.drive(connection)

    def drive(self, connection: Connection) -> None:
        """Send a session what is owed to it alone, as far as its transport takes it, a slice a turn."""
        session, outlet = connection.session, connection.outlet
        if session.id not in self._connections:
            return
        if not session.owed_alone:
            pass
        elif outlet.writable:
            pulled = self._core.pull(session, PULL_BYTES, self._clock.monotonic())
            if pulled.frames:
                outlet.write(b"".join(pulled.frames))
            if pulled.read is not None:
                self._load(connection, pulled.read)
            elif not pulled.level and not session.reading and outlet.writable and session.closing is None:
                self.drive_soon(connection)
                if session.group in self._core.dirty:
                    self.flush_soon()
        elif session.hot and session.control:
            self._core.fall_behind(session)
        self._bound_reading(connection)
        self._act(connection)

    def _bound_reading(self, connection: Connection) -> None:
        session, limits = connection.session, self._limits
        full = (
            session.unanswered >= limits.publish_in_flight
            or session.control_bytes > limits.control_bytes
            or len(session.requests) > limits.in_flight
        )
        if full:
            connection.readable.clear()
        else:
            connection.readable.set()

    def _act(self, connection: Connection) -> None:
        """Close it if core has decided so."""
        closing = connection.session.closing
        if closing is not None:
            connection.outlet.close(*closing)

    def _load(self, connection: Connection, read: Read) -> None:
        """Give a session the page that it needs to go on: at once where it is kept, and else by a task."""
        page = self.pages.kept(read)
        if page is None:
            self._tasks.own(self._read(connection, read), "replay")
        else:
            self._core.loaded(connection.session, page)
            self.drive_soon(connection)

    async def _read(self, connection: Connection, read: Read) -> None:
        session = connection.session
        try:
            page = await self.pages.read(read)
        except LedgerUnreadable:
            session.close(CloseCode.INTERNAL_ERROR, "the log cannot be read; resume when you can")
            self._act(connection)
            return
        self._core.loaded(session, page)
        # Many wait for one page: they are served in turns, as all who are behind.
        self.drive_soon(connection)

    def note_progress(self, now: float) -> None:
        """A client on a slow link takes seconds for what it was given at once: as long as it takes some of it, it goes on."""
        for group in self._core.groups.values():
            for session in group.stragglers:
                if now - session.progress_at >= QUIET_S:
                    connection = self._connections[session.id]
                    moves = connection.outlet.moves
                    if moves > connection.moves:
                        connection.moves = moves
                        session.progress_at = now

    # --- replies of one commit

    def hold_replies(self) -> None:
        """Keep who has a reply until `send_replies`."""
        self._replies = {}

    def replied(self, connection: Connection) -> None:
        """A publisher has its reply in `control`: it goes out with the others of its commit, or soon."""
        if self._replies is None:
            self.drive_soon(connection)
        else:
            self._replies[connection] = None

    def send_replies(self) -> None:
        """In this turn of the loop: what publishers wait for goes ahead of the fan-out."""
        held, self._replies = self._replies, None
        for connection in held or ():
            try:
                self.drive(connection)
            except Exception:
                logger.exception("a session could not be served; it ends")
                connection.session.close(CloseCode.INTERNAL_ERROR, "internal error")
                self._act(connection)

    # --- the end

    def owes_anything(self) -> bool:
        """Whether anybody has not got all: not written yet, or still in a transport's buffer."""
        return bool(self._core.dirty) or any(
            c.session.control or (c.session.group and not c.session.hot) or c.outlet.unsent_bytes
            for c in self._connections.values()
        )

    def tell_last_positions(self) -> None:
        """Write to each v2 client its position, behind the last message that it was sent; nothing is written afterwards."""
        for group in self._core.groups.values():
            self._core.owe_position(group)
        self.flush(linger=False)
        for connection in list(self._connections.values()):
            frames = self._core.last_words(connection.session)
            if frames:
                connection.outlet.write(b"".join(frames))
