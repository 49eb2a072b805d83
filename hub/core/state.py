"""State topics: the newest value, or the rows, of each key, with revisions.

A cell holds one key of one bot's topic. Its revision counts 1, 2, 3 … and changes only with its value. `rev: [epoch, have, n]`
on the wire claims: whoever holds the key at `have` or later and applies this message holds revision n.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

from hub.frames import freqtrade, v2
from hub.frames.columns import Columns, Schema
from hub.frames.store import CandleStore, Change
from hub.protocol.codec import CODECS, Wire, encode_body, frame
from hub.protocol.messages import FrameKey
from hub.protocol.subscription import Projection

__all__ = ["Cell", "FrameCache", "FrameCell", "Parts", "StateKey", "ValueCell", "iso_utc"]

LEGACY_LIMIT_BYTES = 8 * 1024 * 1024 - 65536
"""freqtrade closes with 1009 above its message_size_limit, 8 MiB by default."""

LEGACY_WHOLE_ROWS = 100
"""freqtrade's consumer replaces its frame by any message of at least so many rows, and merges smaller ones."""

LEGACY_MAX_ROWS = 1500
LEGACY_SLICE_ROWS = 100
PART_BYTES = 256 * 1024
_OVERHEAD_BYTES = 600
_ITEM_OVERHEAD_BYTES = 600
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StateKey(NamedTuple):
    """(bot, topic, key); `key` is None for whitelist, (timeframe,) for hub.candle_complete."""

    bot: str
    topic: str
    key: FrameKey | str | None


class FrameCache:
    """Encoded frames and projected windows of state keys, least recently used first out.

    Also counts the windows that frames under way hold in memory, each once however many share it, whether they are still
    remembered here or not (`held_bytes`).

    Invariant: bytes <= limit unless one item alone is larger.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.held_bytes = 0
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._held: dict[int, tuple[int, int]] = {}

    def get(self, key: Hashable) -> Any:
        """The item, or None."""
        found = self._items.get(key)
        if found is None:
            return None
        self._items.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, item: Any, size: int) -> None:
        """Keep an item of `size` bytes; the least recently used leave."""
        size += _ITEM_OVERHEAD_BYTES
        if key in self._items:
            self.bytes -= self._items.pop(key)[1]
        self._items[key] = (item, size)
        self.bytes += size
        while self.bytes > self.limit_bytes and len(self._items) > 1:
            self.bytes -= self._items.popitem(last=False)[1][1]

    def hold(self, window: Columns) -> None:
        """Some frame under way needs this window."""
        holders, size = self._held.get(id(window)) or (0, window.nbytes)
        self._held[id(window)] = (holders + 1, size)
        self.held_bytes += 0 if holders else size

    def release(self, window: Columns) -> None:
        """One that held it needs it no more."""
        holders, size = self._held.pop(id(window))
        if holders > 1:
            self._held[id(window)] = (holders - 1, size)
        else:
            self.held_bytes -= size


class Parts(Iterator[bytes]):
    """Frames made as they are asked for, with b"" after each slice of work that made none.

    `begin` makes the iterator from the frame of an index on. The cache counts the window that they are made of, if any, until they
    end or nobody has them.
    """

    __slots__ = ("_begin", "_cache", "_done", "_frames", "_window")

    def __init__(
        self,
        cache: FrameCache,
        window: Columns | None,
        begin: Callable[[int], Iterator[bytes]],
        done: int = 0,
    ) -> None:
        self._cache = cache
        self._window = window
        self._begin = begin
        self._done = done
        self._frames = begin(done)
        if window is not None:
            cache.hold(window)

    def __next__(self) -> bytes:
        try:
            part = next(self._frames)
        except StopIteration:
            self._release()
            raise
        self._done += bool(part)
        return part

    def changed(self, change: Callable[[Iterator[bytes]], Iterator[bytes]]) -> Parts:
        """The same frames from here on, each in another form that `change` makes of it."""
        begin = self._begin
        return Parts(self._cache, self._window, lambda done: change(begin(done)), self._done)

    def fork(self) -> Parts:
        """The same frames from here on, for one who goes on alone."""
        return Parts(self._cache, self._window, self._begin, self._done)

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            self._cache.release(window)


class _Making:
    """A frame that takes many slices of work, for all who wait for it: whoever comes next does the next slice."""

    __slots__ = ("__weakref__", "_frame", "_slices", "window")

    def __init__(self, window: Columns, slices: Iterator[bytes]) -> None:
        self.window = window
        self._slices = slices
        self._frame = b""

    def steps(self) -> Iterator[bytes]:
        """b"" after each slice, and the frame last."""
        while not self._frame:
            self._frame = next(self._slices)
            if not self._frame:
                yield b""
        yield self._frame

    def begin(self, done: int) -> Iterator[bytes]:
        """For Parts."""
        return iter(()) if done else self.steps()


class Cell:
    """What every state key has: its revision and the time of its last change (ms)."""

    def __init__(self, state_key: StateKey, rev_epoch: str) -> None:
        self.state_key = state_key
        self.rev_epoch = rev_epoch
        self.n = 0
        self.ts = 0

    @property
    def nbytes(self) -> int:
        """Memory that the value takes, in bytes."""
        raise NotImplementedError

    def _header(self, have: int) -> dict[str, Any]:
        key = self.state_key.key
        wire_key = [] if key is None else [key] if isinstance(key, str) else list(_fields(key))
        return {
            "bot": self.state_key.bot,
            "ts": self.ts,
            "key": wire_key,
            "rev": [self.rev_epoch, have, self.n],
        }


def _fields(key: FrameKey) -> tuple[str, str, str]:
    return (key.pair, key.timeframe, key.candle_type)


class ValueCell(Cell):
    """A key whose newest value is all of it: whitelist, new_candle, hub.candle_complete."""

    def __init__(self, state_key: StateKey, rev_epoch: str) -> None:
        super().__init__(state_key, rev_epoch)
        self.data: Any = None
        self._body = b""
        self._frames: dict[Wire, bytes] = {}

    @property
    def nbytes(self) -> int:
        return self.nbytes_of(self._body)

    def nbytes_of(self, body: bytes) -> int:
        """Memory that a value of this JSON takes, in bytes, its frames included."""
        return _OVERHEAD_BYTES + len(body) * 4

    def set(self, data: Any, ts: int) -> None:
        """Replace the value."""
        self._body = encode_body(data)
        self.data = data
        self.ts = ts
        self.n += 1
        self._frames = {}

    def frame(self, wire: Wire) -> bytes:
        """The value as one websocket frame; made once per revision and wire."""
        prepared: bytes | None = self._frames.get(wire)
        if prepared is None:
            codec = CODECS[wire]
            header = self._header(0)
            if self.state_key.topic.startswith("hub."):
                del header["key"], header["rev"]
            prepared = frame(
                codec.broadcast(self.state_key.topic, self.data, header, self._body), text=codec.text
            )
            self._frames[wire] = prepared
        return prepared


class FrameCell(Cell):
    """A dataframe key: a candle store, and its encodings per wire and projection for the current revision."""

    def __init__(self, state_key: StateKey, rev_epoch: str, *, capacity: int, cache: FrameCache) -> None:
        super().__init__(state_key, rev_epoch)
        assert isinstance(state_key.key, FrameKey)
        self.store = CandleStore(state_key.key.timeframe, capacity=capacity)
        self.la_ms = 0
        self._cache = cache
        self._making: WeakValueDictionary[Hashable, _Making] = WeakValueDictionary()

    @property
    def nbytes(self) -> int:
        return _OVERHEAD_BYTES + self.store.nbytes

    def apply(self, rows: Columns, *, replace: bool, la_ms: int, ts: int) -> Change:
        """Upsert rows, or replace the window.

        Raises:
            BadFrame: nothing changed; the text names the row.
        """
        change = self.store.replace(rows) if replace else self.store.upsert(rows)
        self.la_ms = max(self.la_ms, la_ms)
        self.ts = ts
        self.n = change.rev
        return change

    def needs_snapshot(self, have: int | None) -> bool:
        """Whether rows alone cannot bring a holder of `have` to the current revision."""
        return have is None or self.store.changed_since(have) is None

    # --- tradewire.v2

    def rows_frame(
        self, wire: Wire, projection: Projection, have: int | None, limit_bytes: int
    ) -> bytes | None:
        """The rows that changed after `have`, as one frame; None when only a snapshot will do.

        That is when the receiver holds nothing or too old a revision, or when so many rows came together that they would not
        fit one frame of about `limit_bytes`: a snapshot comes in parts.
        """
        key = (self.state_key, self.n, "rows", wire, projection.columns, have)
        prepared: bytes | None = self._cache.get(key)
        if prepared is None:
            changed = None if have is None else self.store.changed_since(have)
            if changed is None or have is None:
                return None
            changed = _columns_of(changed, projection)
            if changed.n > 1 and len(list(v2.split(changed, limit_bytes, _kind(wire)))) > 1:
                return None
            data = {
                "schema": changed.schema.id,
                "rows": v2.to_rows(changed, _kind(wire)),
                "la_ms": self.la_ms,
            }
            prepared = self._v2(wire, data, self._header(have))
            self._cache.put(key, prepared, len(prepared))
        return prepared

    def schema(self, projection: Projection) -> Schema:
        """The schema of the projected frame."""
        return self._window(projection).schema

    def snapshot(self, wire: Wire, projection: Projection, part_bytes: int) -> Parts:
        """The whole window in parts of whole rows, each encoded when it is asked for (about a millisecond each).

        A change of the cell does not disturb a snapshot under way: it is of the revision at which it began.
        """
        window = self._window(projection)
        begin = functools.partial(
            self._parts, window, wire, projection, part_bytes, self.n, self._header(0), self.la_ms
        )
        return Parts(self._cache, window, begin)

    def _parts(
        self,
        window: Columns,
        wire: Wire,
        projection: Projection,
        part_bytes: int,
        n: int,
        header: dict[str, Any],
        la_ms: int,
        start: int,
    ) -> Iterator[bytes]:
        ranges = list(v2.split(window, part_bytes, _kind(wire))) or [(0, 0)]
        for i, (a, b) in enumerate(ranges[start:], start):
            key = (self.state_key, n, "part", wire, projection, part_bytes, i)
            prepared: bytes | None = self._cache.get(key)
            if prepared is None:
                rows = window if len(ranges) == 1 else window.slice(a, b)
                columns = v2.to_columns(rows, _kind(wire))
                data = {"schema": window.schema.id, "n": rows.n, "cols": columns, "la_ms": la_ms}
                prepared = self._v2(wire, data, header | {"part": [i + 1, len(ranges)]})
                self._cache.put(key, prepared, len(prepared))
            yield prepared

    def _window(self, projection: Projection) -> Columns:
        key = (self.state_key, self.n, "window", projection)
        window: Columns | None = self._cache.get(key)
        if window is None:
            window = _columns_of(self.store.tail(projection.rows), projection)
            self._cache.put(key, window, window.nbytes)
        return window

    def _v2(self, wire: Wire, data: Any, header: dict[str, Any]) -> bytes:
        codec = CODECS[wire]
        return frame(codec.broadcast("analyzed_df", data, header), text=codec.text)

    # --- freqtrade's wire

    def legacy_rows(self, have: int | None) -> Parts:
        """The change since `have` for freqtrade's consumer, as one frame in the end (see `legacy_tail`).

        That consumer drops all its rows from the first incoming date on, and replaces its frame by any message of 100 rows
        or more; so it gets a contiguous tail from the earliest change, or the whole window. It asks for 1500 candles at each
        hole; a row behind an outage is led by the one before it, which it appends without asking. A tail of several rows says
        that it is live (a field that freqtrade ignores): by itself it looks like an answer, and a consumer of ours that holds
        nothing yet would begin with it.
        """
        tail = None if have is None else self.store.from_first_changed(have)
        if tail is None or tail.n >= LEGACY_WHOLE_ROWS:
            return self.legacy_tail(LEGACY_MAX_ROWS)
        led = tail.n > 0 and any(
            end == int(tail.date_ms[0]) for _, end in self.store.holes()[-LEGACY_WHOLE_ROWS:]
        )
        rows = tail.n + led
        return self.legacy_tail(rows, live=1 < rows < self.store.n)

    def legacy_tail(self, limit: int | None, *, live: bool = False) -> Parts:
        """The newest `limit` rows (None: all) as one frame under freqtrade's message size limit; `live` as of `legacy_rows`.

        Yields b"" after each slice of work of about a millisecond, and the frame last. It is of the revision at which it
        began, whatever happens to the cell meanwhile. Those who ask for the same at the same time share the work.
        """
        count = self.store.n if limit is None else min(limit, self.store.n)
        key = (self.state_key, self.n, "legacy", count, live)
        prepared: bytes | None = self._cache.get(key)
        if prepared is not None:
            return Parts(self._cache, None, lambda done: iter([prepared][done:]))
        making = self._making.get(key)
        if making is None:
            window = (
                self._window(Projection(rows=count)) if count > LEGACY_SLICE_ROWS else self.store.tail(count)
            )
            slices = self._legacy_sized(window, self.store.n, self.la_ms, key, live=live)
            making = self._making[key] = _Making(window, slices)
        return Parts(self._cache, making.window, making.begin)

    def _legacy_sized(
        self, window: Columns, end: int, la_ms: int, key: Hashable, *, live: bool = False
    ) -> Iterator[bytes]:
        prepared = yield from self._legacy(window, end, la_ms, live)
        while len(prepared) > LEGACY_LIMIT_BYTES and window.n > LEGACY_WHOLE_ROWS:
            fitting = int(window.n * LEGACY_LIMIT_BYTES / len(prepared) * 0.97)
            window = window.tail(max(LEGACY_WHOLE_ROWS, min(window.n - 1, fitting)))
            prepared = yield from self._legacy(window, end, la_ms, live)
        self._cache.put(key, prepared, len(prepared))
        yield prepared

    def _legacy(self, window: Columns, end: int, la_ms: int, live: bool) -> Generator[bytes, None, bytes]:
        key = self.state_key.key
        assert isinstance(key, FrameKey)
        pieces = []
        for piece in freqtrade.iter_split(window, start=end - window.n, rows=LEGACY_SLICE_ROWS):
            pieces.append(piece)
            if window.n > LEGACY_SLICE_ROWS:
                yield b""
        return legacy_frame(key, "".join(pieces), la_ms, live=live)


def legacy_frame(key: FrameKey, split: str, la_ms: int, *, live: bool = False) -> bytes:
    """An analyzed_df of freqtrade's wire around an encoded frame."""
    data: dict[str, Any] = {
        "key": list(_fields(key)),
        "df": {"__type__": "dataframe", "__value__": split},
        "la": iso_utc(la_ms),
    }
    if live:
        data["live"] = True
    return frame(CODECS[Wire.FREQTRADE].broadcast("analyzed_df", data, {}), text=True)


def iso_utc(ms: int) -> str:
    """A time in ms since 1970 UTC as RFC 3339 with +00:00, as freqtrade writes it."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat()


def _columns_of(columns: Columns, projection: Projection) -> Columns:
    return columns if projection.columns is None else columns.select(projection.columns)


def _kind(wire: Wire) -> Literal["json", "msgpack"]:
    return "msgpack" if wire is Wire.MSGPACK else "json"
