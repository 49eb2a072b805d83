"""Publish to a hub from another process: idempotent ids, an outbox until acknowledged, on disk if wanted.

What is sent when is `outbox`'s to decide, and what is on disk `outbox_file`'s; here are the tasks, the socket and the futures.

On disk are ledger messages only. A whitelist and rows are absolute and are stated again by whoever publishes them (`restate`), and
events are best effort: what an earlier process had to say of the moment is of no use to anybody.

An id that is made up here is a random number of 80 bits, drawn for each Publisher, and the message's number. Of a million Publishers
of one name two have the same with a probability of 4e-13, and within one no number comes twice; so what is in the file does not
matter, a copy from a backup included.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from consumer.connection import Dial, Endpoint, dial
from consumer.errors import ConnectionFailed, ConsumerError, NotStored, PublishError
from consumer.outbox import ANSWER_S, IN_FLIGHT, Ack, Answer, Item, Outbox, Stage
from consumer.outbox_file import OutboxFile, Stored
from consumer.uplink import MESSAGE_BYTES, HubConnection, Sleep, Uplink
from hub.frames import v2
from hub.protocol.codec import CODECS, Wire, decode_body, encode_body
from hub.protocol.errors import PublishRefused
from hub.protocol.messages import LEDGER_TOPICS, check_name
from hub.protocol.values import plain

if TYPE_CHECKING:
    from hub.frames.columns import Columns

__all__ = ["Ack", "Publication", "Publisher"]

_LOG = logging.getLogger(__name__)

OUTBOX_BYTES = 16 * 1024 * 1024
FLUSH_S = 5.0
AGAIN_S = 60.0
"""After a refusal of the token, or of all that this client says: when to try again. The hub may have been given it by then."""
MOST_MS = (1 << 53) - 1
_OVERHEAD_BYTES = 600
_COUNTS = ("submitted", "sent", "acknowledged", "duplicates", "refused", "overdue", "not_stored")
_WIRES: Mapping[str, Wire] = {"msgpack": Wire.MSGPACK, "json": Wire.JSON}


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One message to publish.

    `data` is freqtrade's: the flat fields, or the list of pairs of a whitelist, or the key of a new_candle. A dataframe
    (analyzed_df) has `key` and `frame` instead: its rows join the key's window by date, or are the window with `replace`; `la_ms`
    is when it was analyzed (ms since 1970 UTC). `mid` must be unique for this publisher for ever, 1..64 bytes; made up when not
    given. `ts` is when it happened, in ms; now when not given. `expendable`: of the moment only, so that it is given up rather than
    holding up what follows when the hub refuses it for now. `kept`: the caller keeps it by itself until it is acknowledged, so that
    it need not be on disk here as well.
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
    kept: bool = False


@dataclass(slots=True, eq=False)
class _Message:
    """What is kept of a message in the outbox.

    `payload` is its frame; of a dataframe it is made for each connection. `waiting`: who wants to know its end. `row` is what is on
    disk of it, until it is there; `on_disk` that it is, or is on its way there. `behind` is what kept one before it off the disk while
    it was on its way: it must not be published ahead of the repetition of that one.
    """

    publication: Publication
    payload: bytes | None = None
    waiting: list[asyncio.Future[Ack]] = field(default_factory=list)
    storing: asyncio.Future[None] | None = None
    row: Stored | None = None
    body_bytes: int = 0
    on_disk: bool = False
    behind: NotStored | None = None
    sent_whole_schema: bool = False
    told: bool = False


@dataclass(slots=True)
class _Session:
    """What holds for one connection."""

    hub: HubConnection
    message_bytes: int
    schemas: set[str] = field(default_factory=set)


class Publisher:
    """A publisher's connection to a hub: `async with Publisher(url, token) as hub: await hub.publish(...)`.

    It connects and reconnects by itself, with backoff. Leaving the block waits up to 5 s for what is unacknowledged; left by an
    exception, or after that, what is still there is dropped and its futures fail. Belongs to one event loop.

    `outbox` names a file (SQLite) in which ledger messages are kept from `submit` until the hub acknowledged them, so that they
    survive this process: the next Publisher with that file, at this hub or another node of it, sends first and in order what was
    left, with the same mids and times. Nothing of them is dropped then at the end of the block. One publisher at a time has the file.
    What a hub refuses for good stays in it with the reason, as far as there is room. With or without, `outbox_bytes` is the bound of
    what waits: `submit` waits for room.

    A hub keeps whitelists and frames in memory only, so one that restarted has none. `restate`, when given, is called at every
    connection but the first, and what it gives is published like any other: whitelists, and windows with `replace` unset, so
    that rows published meanwhile are not undone. A hub that still has them takes equal rows for no change.

    Raises (from publish, submit and flush, once it is known, and for all messages in the outbox that are not on disk, which wait):
        Unauthorized: the token is refused, also at a second try. HubRefused: not a hub that speaks this protocol.
        ConfigError: the URL or CA file cannot be used; at the begin of the block: the outbox cannot.
    It tries again every minute, since a hub may be given the token or be replaced meanwhile.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        outbox: Path | str | None = None,
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
        self._instance = secrets.token_hex(10)
        self._outbox: Outbox[_Message] = Outbox(limit_bytes=outbox_bytes)
        self._file = OutboxFile(Path(outbox), self._committed) if outbox is not None else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._order = asyncio.Lock()
        self._freed = asyncio.Event()
        self._work = asyncio.Event()
        self._message_bytes = MESSAGE_BYTES
        self._session: _Session | None = None
        self._error: BaseException | None = None
        self._told: str | None = None
        self._closed = False
        self._counts = Counter(dict.fromkeys(_COUNTS, 0))
        self._restate = restate
        self._restating: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if self._file is not None:
            self._take_over(self._file)
        self._task = asyncio.create_task(self._run(), name=f"publisher {self.name}")
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
            stay = sum(item.content.on_disk for item in self._outbox)
            what = f"{stay} of them stay in {self._file.path}" if self._file is not None else "given up"
            _LOG.warning("%s: %d messages are not acknowledged; %s", self._endpoint, len(self._outbox), what)
        except ConsumerError:
            pass
        finally:
            self._closed = True
            self._task.cancel()
            await asyncio.wait([self._task])
            if self._file is not None:
                await asyncio.to_thread(self._file.close)

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
        kept: bool = False,
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
            kept=kept,
        )
        return await (await self.submit(publication))

    async def submit(self, publication: Publication) -> asyncio.Future[Ack]:
        """Put a message into the outbox; waits for room, and for the disk. The future is its acknowledgement, or raises as `publish`.

        With an outbox on disk a ledger message is there when this returns; cancelled, it may be. One with a `mid` that is still in the
        outbox is the same message: its end is this one's, too. Nobody has to await the future: a refusal is logged too.

        Raises:
            PublishError: a check here refuses it; id_conflict: another message in the outbox has this mid.
            NotStored: the disk is full, or the like; the message is not sent, and neither is any that was on its way to the disk
                behind it.
        """
        put = await self._put(publication)
        for message, _ in put:
            if message.storing is not None:
                await asyncio.shield(message.storing)
        return _all_of([future for _, future in put])

    async def publish_many(self, publications: Iterable[Publication]) -> list[Ack]:
        """Publish messages in order, pipelined, and wait for all acknowledgements.

        Raises:
            PublishError: of the first that was refused, once all were answered; the others are published.
        """
        put = [await self._put(publication) for publication in publications]
        ends = [_all_of([future for _, future in parts]) for parts in put]
        results = await asyncio.gather(*ends, return_exceptions=True)
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
        """The outbox with its bound, and counters; of one on disk its commits and what is kept of refused messages."""
        return {
            "connected": self._session is not None,
            "outbox_messages": len(self._outbox),
            "outbox_bytes": self._outbox.bytes,
            "outbox_limit_bytes": self.outbox_bytes,
            "unanswered": self._outbox.unanswered,
            "retried": self._outbox.retried,
            **self._uplink.counts,
            **self._counts,
            **(self._file.statistics() if self._file is not None else {}),
        }

    # --- into the outbox

    async def _put(self, publication: Publication) -> list[tuple[_Message, asyncio.Future[Ack]]]:
        if self._task is None and not self._closed:
            raise ConnectionFailed(
                f"{self._endpoint}: the publisher is not open: publish within `async with`"
            )
        parts = self._parts(publication)
        async with self._order:
            return [await self._enqueue(part) for part in parts]

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

    async def _enqueue(self, publication: Publication) -> tuple[_Message, asyncio.Future[Ack]]:
        """Of one caller at a time, so the next number is this message's."""
        number = self._outbox.next_number
        publication = replace(publication, mid=publication.mid or f"{self._instance}-{number}")
        message, size, body = self._made(number, publication)
        mid = publication.mid if body else None
        while True:
            if mid is not None and (same := self._outbox.repeated(mid, body)) is not None:
                return same.content, self._told_to(same.content)
            if self._closed or (self._error is not None and not message.on_disk):
                raise self._error or ConnectionFailed(f"{self._endpoint}: the publisher was closed")
            if self._outbox.has_room(size):
                break
            if self._error is not None:
                raise self._error
            self._freed.clear()
            await self._freed.wait()
        self._outbox.submit(
            message, size, mid=mid, body=body, expendable=publication.expendable, storing=message.on_disk
        )
        self._counts["submitted"] += 1
        if message.row is not None and self._file is not None:
            message.storing = asyncio.get_running_loop().create_future()
            message.storing.add_done_callback(_retrieved)
            self._file.insert(message.row)
            message.row = None
        self._work.set()
        return message, self._told_to(message)

    def _told_to(self, message: _Message) -> asyncio.Future[Ack]:
        """A future of the message's end, of its own: who cancels it takes nothing from others."""
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieved)
        message.waiting.append(future)
        return future

    def _made(self, number: int, publication: Publication) -> tuple[_Message, int, bytes]:
        """A message, its size in the outbox, and of a ledger message what a repetition must be equal in."""
        if publication.topic == "analyzed_df":
            if publication.frame is None or publication.key is None:
                raise PublishError("bad_message", "analyzed_df: expected a key and a frame")
            return _Message(publication), publication.frame.nbytes + _OVERHEAD_BYTES, b""
        data = _plain(publication.data)
        # The frame and the row have the data from here on.
        message = _Message(
            replace(publication, data=None), self._encoded(number, publication, {"data": data})
        )
        size = len(message.payload or b"") + _OVERHEAD_BYTES
        if publication.topic not in LEDGER_TOPICS:
            return message, size, b""
        text = encode_body(data)
        if self._file is not None and not publication.kept:
            message.row = _row(number, publication, text)
            message.on_disk, message.body_bytes = True, len(text)
        return message, size, _same(publication.bot, publication.topic, text)

    def _encoded(self, number: int, p: Publication, body: Mapping[str, Any]) -> bytes:
        data = {"bot": p.bot, "topic": p.topic, "mid": p.mid, "ts": p.ts, **body}
        try:
            return CODECS[self._wire].encode({"type": "publish", "id": number, "data": data})
        except PublishRefused as error:
            raise PublishError(str(error.code), str(error)) from None

    def _frame_payload(self, item: Item[_Message], session: _Session) -> bytes:
        message = item.content
        p = message.publication
        assert p.frame is not None
        assert p.key is not None
        schema = p.frame.schema
        message.sent_whole_schema = schema.id not in session.schemas
        session.schemas.add(schema.id)
        data: dict[str, Any] = {"la_ms": p.la_ms if p.la_ms is not None else p.ts}
        if p.replace:
            data |= {"n": p.frame.n, "cols": v2.to_columns(p.frame, self._kind)}
        else:
            data["rows"] = v2.to_rows(p.frame, self._kind)
        named = schema.data() if message.sent_whole_schema else schema.id
        return self._encoded(item.number, p, {"key": list(p.key), "schema": named, "data": data})

    # --- the outbox on disk

    def _take_over(self, file: OutboxFile) -> None:
        """What an earlier publisher left comes before all else."""
        left = file.open()
        self._outbox = Outbox(limit_bytes=self.outbox_bytes, first=file.next_number)
        try:
            for row in left:
                self._restore(file, row)
        except BaseException:
            file.close()
            raise
        if self._outbox:
            _LOG.info(
                "%s: %d messages of an earlier run wait in %s", self._endpoint, len(self._outbox), file.path
            )

    def _restore(self, file: OutboxFile, row: Stored) -> None:
        publication = Publication(bot=row.bot, topic=row.topic, mid=row.mid, ts=row.ts)
        text = row.body.encode()
        body = _same(row.bot, row.topic, text)
        try:
            payload = self._encoded(row.number, publication, {"data": decode_body(text)})
            if self._outbox.repeated(row.mid, body) is not None:
                file.remove(row.number)
                return
        except PublishError as error:
            self._log_refusal(publication, error)
            file.refuse(row.number, len(text), str(error))
            return
        message = _Message(publication, payload, body_bytes=len(text), on_disk=True)
        size = len(payload) + _OVERHEAD_BYTES
        self._outbox.submit(message, size, mid=row.mid, body=body, number=row.number)

    def _committed(self, numbers: Sequence[int], error: NotStored | None) -> None:
        """Of the file's thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            # A loop that is closed has nobody who waits.
            self._loop.call_soon_threadsafe(self._stored, numbers, error)

    def _stored(self, numbers: Sequence[int], error: NotStored | None) -> None:
        for number in numbers:
            item = self._outbox[number]
            storing, refused = item.content.storing, error or item.content.behind
            assert storing is not None
            if refused is None:
                self._outbox.stored(item)
                storing.set_result(None)
                continue
            if error is None and self._file is not None:
                self._file.remove(number)
            self._outbox.not_stored(item)
            self._counts["not_stored"] += 1
            storing.set_exception(refused)
            _fail(item.content, refused)
        if error is not None:
            for item in self._outbox:
                if item.stage is Stage.STORING:
                    item.content.behind = error
        self._work.set()
        self._freed.set()

    # --- out of the outbox

    def _settle(self, item: Item[_Message], answer: Answer) -> None:
        """Tell whoever waits, and the disk, what became of a message that left the outbox."""
        message = item.content
        self._freed.set()
        if isinstance(answer, Ack):
            self._counts["acknowledged"] += 1
            self._counts["duplicates"] += answer.duplicate
            if message.on_disk and self._file is not None:
                self._file.remove(item.number)
            for future in message.waiting:
                if not future.done():
                    future.set_result(answer)
            return
        self._counts["refused"] += 1
        self._log_refusal(message.publication, answer)
        if message.on_disk and self._file is not None:
            self._file.refuse(item.number, message.body_bytes, str(answer))
        _fail(message, answer)

    def _log_refusal(self, p: Publication, error: PublishError) -> None:
        _LOG.warning("%s: %s of %s refused: %s", self._endpoint, p.topic, p.bot, error)

    def _turned_away(self, error: ConsumerError) -> None:
        """The hub wants nothing of this publisher: what is not on disk fails."""
        self._error = error
        for item in self._outbox:
            if not item.content.on_disk:
                self._outbox.end(item)
                _fail(item.content, error)
        if str(error) != self._told:
            self._told = str(error)
            level = logging.ERROR if self._outbox else logging.INFO
            _LOG.log(
                level, "%s; trying again every %d s, %d messages wait", error, AGAIN_S, len(self._outbox)
            )
        self._freed.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._closed = True
        failure = None if task.cancelled() else task.exception()
        closed = f"{self._endpoint}: the publisher was closed"
        self._error = failure or ConnectionFailed(closed)
        for item in self._outbox:
            on_disk = item.content.on_disk and self._file is not None
            told = ConnectionFailed(f"{closed}; the message stays in the outbox") if on_disk else self._error
            _fail(item.content, failure or told)
        self._freed.set()
        self._stop_restating()

    # --- one connection

    async def _run(self) -> None:
        while True:
            try:
                await self._uplink.run(self._hold)
            except ConsumerError as error:
                self._turned_away(error)
            await self._sleep(AGAIN_S)

    async def _hold(self, hub: HubConnection) -> None:
        """Serve one connection until it ends."""
        self._session = session = _Session(hub, hub.limits.get("message", MESSAGE_BYTES))
        self._error = self._told = None
        self._message_bytes = session.message_bytes
        self._outbox.connected(hub.limits.get("publish_in_flight", IN_FLIGHT))
        try:
            await self._serve(session)
        finally:
            self._session = None
            self._outbox.connection_lost()

    async def _serve(self, session: _Session) -> None:
        if self._restate is not None and self._uplink.counts["connections"] > 1:
            self._stop_restating()
            self._restating = asyncio.create_task(self._say_again(self._restate))
        tasks = [
            asyncio.create_task(running)
            for running in (self._read(session), self._watch(), self._write(session))
        ]
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
            item = self._outbox.next_to_send(loop.time())
            if item is not None:
                await self._send(item, session)
            elif (pause_s := self._outbox.pause_s(loop.time())) > 0:
                await self._sleep(pause_s)
            else:
                self._work.clear()
                await self._work.wait()

    async def _send(self, item: Item[_Message], session: _Session) -> None:
        message = item.content
        try:
            payload = message.payload if message.payload is not None else self._frame_payload(item, session)
            if len(payload) > session.message_bytes:
                raise PublishError(
                    "too_large", f"{len(payload)} bytes, the hub takes {session.message_bytes}"
                )
        except PublishError as error:
            self._outbox.end(item)
            self._settle(item, error)
            return
        await session.hub.send(payload)
        self._counts["sent"] += 1

    async def _watch(self) -> None:
        """Give the connection up when the hub owes an answer for too long, whatever else it sends."""
        loop = asyncio.get_running_loop()
        while True:
            now, overdue_at = loop.time(), self._outbox.overdue_at()
            if overdue_at is None:
                # What is sent meanwhile is not due before.
                overdue_at = now + ANSWER_S
            elif overdue_at <= now:
                self._counts["overdue"] += 1
                raise ConnectionFailed(f"{self._endpoint}: no answer to a message within {ANSWER_S:g} s")
            await self._sleep(overdue_at - now)

    async def _read(self, session: _Session) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await session.hub.receive()
            if message["type"] == "hub.reply":
                if not self._schema_forgotten(message, session):
                    ended = self._outbox.answered(message, loop.time())
                    if ended is not None:
                        self._settle(*ended)
                self._work.set()
            elif message["type"] == "hub.error":
                data = message.get("data")
                if isinstance(data, dict):
                    _LOG.warning(
                        "%s: the hub says %s: %s", self._endpoint, data.get("code"), data.get("message")
                    )

    def _schema_forgotten(self, reply: Mapping[str, Any], session: _Session) -> bool:
        """Whether a frame may have been refused for a schema that the hub forgot; it is sent again then, once, with the schema."""
        item = self._outbox.asked(reply)
        if item is None or item.content.publication.frame is None or reply.get("ok") is True:
            return False
        message = item.content
        session.schemas.discard(item.content.publication.frame.schema.id)
        error = reply.get("error")
        temporary = isinstance(error, Mapping) and error.get("temporary") is True
        if temporary or message.sent_whole_schema or message.told:
            return False
        message.told = True
        self._outbox.send_again(item)
        return True


def _plain(data: Any) -> Any:
    try:
        return plain(data)
    except PublishRefused as error:
        raise PublishError(str(error.code), str(error)) from None


def _row(number: int, publication: Publication, text: bytes) -> Stored:
    """What is stored of a ledger message; nothing that no hub can take ever is."""
    bot, topic, mid, ts = publication.bot, publication.topic, publication.mid, publication.ts
    assert ts is not None
    try:
        for what, name in (("bot", bot), ("mid", mid)):
            check_name(what, name)
    except PublishRefused as error:
        raise PublishError(str(error.code), str(error)) from None
    if type(ts) is not int or not 0 <= ts <= MOST_MS:
        raise PublishError("bad_message", "ts: expected ms since 1970 UTC, a whole number")
    return Stored(number, bot, topic, str(mid), ts, text.decode())


def _same(bot: str, topic: str, text: bytes) -> bytes:
    """What two ledger messages of one mid must be equal in."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (str(bot).encode(errors="replace"), str(topic).encode(errors="replace"), text):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _fail(message: _Message, error: BaseException) -> None:
    for future in message.waiting:
        if not future.done():
            future.set_exception(error)


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Look at the exception, so that a future that nobody awaits is not complained of."""
    if not future.cancelled():
        future.exception()


def _all_of(futures: list[asyncio.Future[Ack]]) -> asyncio.Future[Ack]:
    """A future that has the last one's result once all are done, or the first error."""
    if len(futures) == 1:
        return futures[0]

    async def last() -> Ack:
        return (await asyncio.gather(*futures))[-1]

    task = asyncio.ensure_future(last())
    task.add_done_callback(_retrieved)
    return task
