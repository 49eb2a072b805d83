"""Publish to a hub from another process: idempotent ids, an outbox until acknowledged.

Theory of operation
===================

A message goes into the outbox with an id that stays its own (`mid`), and leaves it when the hub answers. Sending is pipelined: up to
the hub's `publish_in_flight` messages are unanswered at a time. What is unanswered when a connection ends may have been stored or
not; silence means unknown. So it is all sent again, in order and with the same mids, and the hub's dedupe makes that harmless for
ledger messages; rows and whitelists are absolute, so twice is as once; an event may come twice.

A temporary refusal stops sending for as long as the hub asks, then the refused go first. A permanent one ends the message with
PublishError and nothing else, and so does a temporary one of a message that is expendable.

Invariants
==========

1. A message is in the outbox from `submit` until it was acknowledged, or refused for good.
2. Messages are sent in the order of submit; after a reconnect or a refusal the lowest unanswered comes first.
3. The outbox holds at most `outbox_bytes`, or one message that is larger by itself.
4. At most the hub's `publish_in_flight` are unanswered.

Source: wire-v2 §6, §8.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from consumer.connection import Dial, Endpoint, dial
from consumer.errors import ConnectionFailed, ConsumerError, PublishError
from consumer.uplink import MESSAGE_BYTES, HubConnection, Sleep, Uplink
from hub.frames import v2
from hub.protocol.codec import CODECS, Wire
from hub.protocol.envelope import Position
from hub.protocol.errors import BadMessage
from hub.protocol.values import plain

if TYPE_CHECKING:
    from hub.frames.columns import Columns

__all__ = ["Ack", "Publication", "Publisher"]

_LOG = logging.getLogger(__name__)

OUTBOX_BYTES = 16 * 1024 * 1024
FLUSH_S = 5.0
IN_FLIGHT = 256
_OVERHEAD_BYTES = 600
_WIRES: Mapping[str, Wire] = {"msgpack": Wire.MSGPACK, "json": Wire.JSON}


@dataclass(frozen=True, slots=True)
class Ack:
    """The hub has the message. `position` for ledger topics, `rev` for state topics; `duplicate`: it had it before."""

    position: Position | None = None
    rev: int | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One message to publish.

    `data` is freqtrade's: the flat fields, or the list of pairs of a whitelist, or the key of a new_candle. A dataframe
    (analyzed_df) has `key` and `frame` instead: its rows join the key's window by date, or are the window with `replace`; `la_ms`
    is when it was analyzed (ms since 1970 UTC). `mid` must be unique for this publisher for ever, 1..64 bytes; made up when not
    given. `ts` is when it happened, in ms; now when not given. `expendable`: of the moment only, so that it is given up rather than
    holding up what follows when the hub refuses it for now.
    """

    bot: str
    topic: str
    data: Any = None
    key: tuple[str, str, str] | None = None
    frame: Columns | None = None
    replace: bool = False
    la_ms: int | None = None
    mid: str | None = None
    ts: int | None = None
    expendable: bool = False


@dataclass(slots=True, eq=False)
class _Item:
    """A message in the outbox. `payload` is its frame; of a dataframe it is made for each connection."""

    number: int
    publication: Publication
    size: int
    done: asyncio.Future[Ack]
    payload: bytes | None = None
    sent: bool = False
    sent_whole_schema: bool = False
    told: bool = False


@dataclass(slots=True)
class _Session:
    """What holds for one connection."""

    hub: HubConnection
    message_bytes: int
    in_flight_limit: int = IN_FLIGHT
    schemas: set[str] = field(default_factory=set)
    unanswered: int = 0


class Publisher:
    """A publisher's connection to a hub: `async with Publisher(url, token) as hub: await hub.publish(...)`.

    It connects and reconnects by itself, with backoff. Leaving the block waits up to 5 s for what is unacknowledged; left by an
    exception, or after that, what is still there is dropped and its futures fail. Belongs to one event loop.

    A hub keeps whitelists and frames in memory only, so one that restarted has none. `restate`, when given, is called at every
    connection but the first, and what it gives is published like any other: whitelists, and windows with `replace` unset, so
    that rows published meanwhile are not undone. A hub that still has them takes equal rows for no change.

    Raises (from publish, submit and flush, once it is known, and for all messages in the outbox):
        Unauthorized: the token is refused, also at a second try. HubRefused: not a hub that speaks this protocol.
        ConfigError: the URL or CA file cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        name: str = "publisher",
        encoding: Literal["msgpack", "json"] = "msgpack",
        ca_file: str | None = None,
        outbox_bytes: int = OUTBOX_BYTES,
        restate: Callable[[], Iterable[Publication]] | None = None,
        dial: Dial = dial,
        sleep: Sleep = asyncio.sleep,
        random: Callable[[], float] = random.random,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.name = name
        self.outbox_bytes = outbox_bytes
        self._endpoint = Endpoint.parse(url, token, ca_file=ca_file)
        self._wire = _WIRES[encoding]
        self._kind: Literal["msgpack", "json"] = encoding
        self._sleep, self._now_ms = sleep, now_ms
        self._uplink = Uplink(
            self._endpoint,
            self._wire,
            client=f"tradewire-publisher {name}",
            dial=dial,
            sleep=sleep,
            random=random,
        )
        self._instance = secrets.token_hex(6)
        self._outbox: dict[int, _Item] = {}
        self._unsent: list[int] = []
        self._bytes = 0
        self._next = 1
        self._order = asyncio.Lock()
        self._freed = asyncio.Event()
        self._work = asyncio.Event()
        self._paused_until = 0.0
        self._message_bytes = MESSAGE_BYTES
        self._session: _Session | None = None
        self._error: BaseException | None = None
        self._counts: Counter[str] = Counter()
        self._restate = restate
        self._restating: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._uplink.run(self._hold), name=f"publisher {self.name}")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        try:
            if error is None:
                async with asyncio.timeout(FLUSH_S):
                    await self.flush()
        except TimeoutError:
            _LOG.warning("%s: %d messages are not acknowledged; given up", self._endpoint, len(self._outbox))
        except ConsumerError:
            pass
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])

    # --- publishing

    async def publish(
        self,
        bot: str,
        topic: str,
        data: Any = None,
        *,
        key: tuple[str, str, str] | None = None,
        frame: Columns | None = None,
        replace: bool = False,
        la_ms: int | None = None,
        mid: str | None = None,
        ts: int | None = None,
        expendable: bool = False,
    ) -> Ack:
        """Publish one message (fields as of `Publication`) and wait for its acknowledgement, through reconnects.

        A ledger message is durable then. Cancelled, the message stays in the outbox and is still sent.

        Raises:
            PublishError: the hub, or a check here, refuses the message for good; or as the class says.
        """
        publication = Publication(
            bot=bot,
            topic=topic,
            data=data,
            key=key,
            frame=frame,
            replace=replace,
            la_ms=la_ms,
            mid=mid,
            ts=ts,
            expendable=expendable,
        )
        return await (await self.submit(publication))

    async def submit(self, publication: Publication) -> asyncio.Future[Ack]:
        """Put a message into the outbox; waits for room only. The future is its acknowledgement, or raises as `publish`.

        Nobody has to await the future: a refusal is logged too.
        """
        parts = self._parts(publication)
        async with self._order:
            futures = [await self._enqueue(part) for part in parts]
        return futures[0] if len(futures) == 1 else _all_of(futures)

    async def publish_many(self, publications: Iterable[Publication]) -> list[Ack]:
        """Publish messages in order, pipelined, and wait for all acknowledgements.

        Raises:
            PublishError: of the first that was refused, once all were answered; the others are published.
        """
        futures = [await self.submit(publication) for publication in publications]
        results = await asyncio.gather(*futures, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Ack)]

    async def flush(self) -> None:
        """Wait until every message was acknowledged or refused."""
        while self._outbox and self._error is None:
            self._freed.clear()
            await self._freed.wait()
        if self._error is not None:
            raise self._error

    def statistics(self) -> Mapping[str, Any]:
        """The outbox with its bound, and counters."""
        session = self._session
        return {
            "connected": session is not None,
            "outbox_messages": len(self._outbox),
            "outbox_bytes": self._bytes,
            "outbox_limit_bytes": self.outbox_bytes,
            "unanswered": session.unanswered if session is not None else 0,
            **self._uplink.counts,
            **self._counts,
        }

    # --- the outbox

    def _parts(self, publication: Publication) -> list[Publication]:
        """A frame that is over the hub's limit as several: the first as it was meant, the others join it."""
        frame = publication.frame
        stamped = replace(publication, ts=self._now_ms() if publication.ts is None else publication.ts)
        # A row of plain values takes less than twice the bytes that it takes in a column.
        if frame is None or frame.n <= 1 or frame.nbytes * 4 < self._message_bytes:
            return [stamped]
        ranges = list(v2.split(frame, self._message_bytes // 2, self._kind))
        if len(ranges) <= 1:
            return [stamped]
        return [
            replace(stamped, frame=frame.slice(a, b), replace=publication.replace and a == 0, mid=None)
            for a, b in ranges
        ]

    async def _enqueue(self, publication: Publication) -> asyncio.Future[Ack]:
        item = self._item(publication)
        while self._outbox and self._bytes + item.size > self.outbox_bytes and self._error is None:
            self._freed.clear()
            await self._freed.wait()
        if self._error is not None:
            raise self._error
        self._outbox[item.number] = item
        self._bytes += item.size
        self._counts["submitted"] += 1
        heapq.heappush(self._unsent, item.number)
        self._work.set()
        return item.done

    def _item(self, publication: Publication) -> _Item:
        number = self._next
        self._next += 1
        mid = publication.mid or f"{self._instance}-{number}"
        item = _Item(number, replace(publication, mid=mid), 0, asyncio.get_running_loop().create_future())
        item.done.add_done_callback(_retrieved)
        if publication.topic == "analyzed_df":
            if publication.frame is None or publication.key is None:
                raise PublishError("bad_message", "analyzed_df: expected a key and a frame")
            item.size = publication.frame.nbytes + _OVERHEAD_BYTES
        else:
            item.payload = self._encoded(item, {"data": self._plain(publication.data)})
            item.size = len(item.payload) + _OVERHEAD_BYTES
        return item

    def _plain(self, data: Any) -> Any:
        try:
            return plain(data)
        except BadMessage as error:
            raise PublishError(str(error.code), str(error)) from None

    def _encoded(self, item: _Item, body: Mapping[str, Any]) -> bytes:
        p = item.publication
        data = {"bot": p.bot, "topic": p.topic, "mid": p.mid, "ts": p.ts, **body}
        try:
            return CODECS[self._wire].encode({"type": "publish", "id": item.number, "data": data})
        except BadMessage as error:
            raise PublishError(str(error.code), str(error)) from None

    def _frame_payload(self, item: _Item, session: _Session) -> bytes:
        p = item.publication
        assert p.frame is not None
        assert p.key is not None
        schema = p.frame.schema
        item.sent_whole_schema = schema.id not in session.schemas
        session.schemas.add(schema.id)
        data: dict[str, Any] = {"la_ms": p.la_ms if p.la_ms is not None else p.ts}
        if p.replace:
            data |= {"n": p.frame.n, "cols": v2.to_columns(p.frame, self._kind)}
        else:
            data["rows"] = v2.to_rows(p.frame, self._kind)
        named = schema.data() if item.sent_whole_schema else schema.id
        return self._encoded(item, {"key": list(p.key), "schema": named, "data": data})

    def _settle(self, item: _Item, result: Ack | ConsumerError) -> None:
        self._outbox.pop(item.number, None)
        self._bytes -= item.size
        self._freed.set()
        if isinstance(result, Ack):
            self._counts["acknowledged"] += 1
            self._counts["duplicates"] += result.duplicate
            if not item.done.done():
                item.done.set_result(result)
            return
        self._counts["refused"] += 1
        p = item.publication
        _LOG.warning("%s: %s of %s refused: %s", self._endpoint, p.topic, p.bot, result)
        if not item.done.done():
            item.done.set_exception(result)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._error = error or ConnectionFailed(f"{self._endpoint}: the publisher was closed")
        for item in self._outbox.values():
            if not item.done.done():
                item.done.set_exception(self._error)
        self._freed.set()
        self._stop_restating()

    # --- the connection

    async def _hold(self, hub: HubConnection) -> None:
        session = self._session = _Session(hub, hub.limits.get("message", MESSAGE_BYTES))
        session.in_flight_limit = hub.limits.get("publish_in_flight", IN_FLIGHT)
        self._message_bytes = session.message_bytes
        try:
            await self._serve(session)
        finally:
            self._session = None
            # All that is unanswered is unknown, so all of it is sent again.
            for item in self._outbox.values():
                item.sent = False
            self._unsent = list(self._outbox)
            heapq.heapify(self._unsent)

    async def _serve(self, session: _Session) -> None:
        if self._restate is not None and self._uplink.counts["connections"] > 1:
            self._stop_restating()
            self._restating = asyncio.create_task(self._say_again(self._restate))
        tasks = [asyncio.create_task(self._read(session)), asyncio.create_task(self._write(session))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        # The reader knows why a connection ended; the writer only that it did.
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _say_again(self, restate: Callable[[], Iterable[Publication]]) -> None:
        try:
            for publication in restate():
                await self.submit(publication)
        except ConsumerError as error:
            _LOG.warning(
                "%s: what the hub may have forgotten is not published again: %s", self._endpoint, error
            )

    def _stop_restating(self) -> None:
        if self._restating is not None:
            self._restating.cancel()

    async def _write(self, session: _Session) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait_s = self._paused_until - loop.time()
            if wait_s > 0:
                await self._sleep(wait_s)
                continue
            if not self._unsent or session.unanswered >= session.in_flight_limit:
                self._work.clear()
                await self._work.wait()
                continue
            item = self._outbox.get(heapq.heappop(self._unsent))
            if item is None or item.sent:
                continue
            try:
                payload = item.payload if item.payload is not None else self._frame_payload(item, session)
            except PublishError as error:
                self._settle(item, error)
                continue
            if len(payload) > session.message_bytes:
                text = f"{len(payload)} bytes, the hub takes {session.message_bytes}"
                self._settle(item, PublishError("too_large", text))
                continue
            item.sent = True
            session.unanswered += 1
            await session.hub.send(payload)
            self._counts["sent"] += 1

    async def _read(self, session: _Session) -> None:
        while True:
            message = await session.hub.receive()
            if message["type"] == "hub.reply":
                item = self._outbox.get(message.get("id", 0))
                if item is not None and item.sent:
                    session.unanswered -= 1
                    self._work.set()
                    self._answered(item, message, session)
            elif message["type"] == "hub.error":
                data = message.get("data")
                if isinstance(data, dict):
                    _LOG.warning(
                        "%s: the hub says %s: %s", self._endpoint, data.get("code"), data.get("message")
                    )

    def _answered(self, item: _Item, reply: Mapping[str, Any], session: _Session) -> None:
        if reply.get("ok") is True:
            self._settle(item, _ack(reply.get("data")))
            return
        error = reply.get("error")
        error = error if isinstance(error, dict) else {}
        frame = item.publication.frame
        by_id = frame is not None and not item.sent_whole_schema
        if frame is not None:
            # Refused with the schema, or for a schema that the hub forgot.
            session.schemas.discard(frame.schema.id)
        temporary = error.get("temporary") is True
        if temporary and not item.publication.expendable:
            after = error.get("retry_after_ms")
            wait_s = after / 1000 if type(after) is int and after >= 0 else 1.0
            self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + wait_s)
            self._counts["retried"] += 1
            self._once_more(item)
        elif by_id and not item.told:
            item.told = True
            self._once_more(item)
        else:
            code, text = str(error.get("code")), str(error.get("message"))
            self._settle(item, PublishError(code, text, temporary=temporary))

    def _once_more(self, item: _Item) -> None:
        item.sent = False
        heapq.heappush(self._unsent, item.number)
        self._work.set()


def _ack(data: Any) -> Ack:
    data = data if isinstance(data, dict) else {}
    epoch, offset, rev = data.get("epoch"), data.get("offset"), data.get("rev")
    position = Position(epoch, offset) if isinstance(epoch, str) and type(offset) is int else None
    if isinstance(rev, list) and rev:
        rev = rev[-1]
    return Ack(position, rev if type(rev) is int else None, data.get("duplicate") is True)


def _retrieved(future: asyncio.Future[Ack]) -> None:
    """Look at the exception, so that a future that nobody awaits is not complained of."""
    if not future.cancelled():
        future.exception()


def _all_of(futures: list[asyncio.Future[Ack]]) -> asyncio.Future[Ack]:
    """A future that has the last one's result once all are done, or the first error."""

    async def last() -> Ack:
        return (await asyncio.gather(*futures))[-1]

    task = asyncio.ensure_future(last())
    task.add_done_callback(_retrieved)
    return task
