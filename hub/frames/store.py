"""The candle store: the newest candles of one key, correct whatever order they arrive in.

Theory of operation
===================

A store holds a *window*: at most `capacity` candles, one row per date, dates increasing. Rows are absolute: a row that
arrives says all about its date, so applying it twice, or after a newer one of another date, does no harm. Whatever
blocks arrive in whatever order, the window is the newest row for each of the `capacity` newest dates ever seen since
the last snapshot. That is what makes a follower equal to its leader without any agreement on order.

Memory is one two-dimensional array per dtype (as in `Columns`), up to twice `capacity` wide; narrower while there are
few rows, so that one short row of thousands of columns does not take a full window's memory. The window lies at
`[lo, hi)`. Appending writes at `hi`; when the window is full `lo` moves on. When `hi` reaches the end the window is moved
to the front, once per half width of appends; source and target cannot overlap, because a window that fills more than
half of the arrays goes to wider ones instead, and at full width it is never more than half. Rows between the old ones (a
late candle that fills a hole) are rare and rebuild the window.

Tables and frames handed out are copies. Copying a whole window of 42 columns takes less time than one encode of it, and
is the price of having no rule about who may look at memory when.

Revisions. Every change gives the store a new revision, and each row remembers the revision that last changed it. A
follower at revision r has to be told the rows changed after r. That is enough only if no row left that the follower has
not seen leave, so there is a `floor_rev`: it rises to the present revision when rows left for another reason than age (a
snapshot, a changed schema), and to a row's own revision when that row leaves by age. A row that leaves by age was known
to every follower at or above its revision, and the same rows push it out there.

Values that are equal bit for bit are no change: a producer that sends its last candle every five seconds does not
wake anybody while nothing moves.

Invariants (`check_invariants`)
===============================

1. `0 <= lo <= hi <= width <= 2 * capacity` and `hi - lo <= capacity`.
2. Dates in the window increase strictly and all lie on one grid: the same phase of the timeframe.
3. `floor_rev <= rev`, and no row's revision is above `rev`.
4. Slots outside the window hold no text; the text inside is counted exactly.
5. The slot of a null holds zero, False or the empty string.
6. A refused block changes nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hub.frames.casting import Array, Mask
from hub.frames.columns import Columns, same_values, text_bytes
from hub.frames.schema import DTYPES, MAX_ROWS, UNITS_PER_S, Field, Schema
from hub.frames.timeframe import candle_date, candle_index, is_calendar, phase, timeframe_ms
from hub.protocol.errors import BadFrame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CandleStore", "Change", "StoreStatistics"]

_NO_COLUMNS = Schema((Field("date", "ts_ms", "UTC"),))


@dataclass(frozen=True, slots=True)
class Change:
    """What one call did to a store. Counts are rows; rows that were there already, bit for bit, are in none of them.

    `appended` are newer than the last row was, `replaced` is 1 when the last row changed, `patched` are earlier rows
    that changed or filled a hole, `old` were left out because they lie before the window, `evicted` left it by age.
    `holes` are the ranges `(from_ms, to_ms)`, exclusive, of candles that are missing and that this call brought to
    light. With `unchanged` nothing changed and `rev` is the one before, unless the caller gave one.
    """

    rev: int
    appended: int = 0
    replaced: int = 0
    patched: int = 0
    old: int = 0
    unchanged: bool = False
    first_changed_ms: int | None = None
    last_ms: int | None = None
    holes: tuple[tuple[int, int], ...] = ()
    evicted: int = 0
    schema_changed: bool = False


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """A snapshot of a store's figures: what it holds, and what it did since it was made.

    `nbytes` is all memory held, of which `text_bytes` are strings and `frame_bytes` the cached pandas frame; the rest
    is arrays, never above `max_bytes` together with the strings.
    """

    rows: int
    capacity: int
    rev: int
    floor_rev: int
    nbytes: int
    text_bytes: int
    frame_bytes: int
    max_bytes: int
    upserts: int = 0
    snapshots: int = 0
    appended: int = 0
    replaced: int = 0
    patched: int = 0
    old: int = 0
    evicted: int = 0
    unchanged: int = 0
    schema_changes: int = 0


@dataclass(slots=True)
class _Counts:
    upserts: int = 0
    snapshots: int = 0
    appended: int = 0
    replaced: int = 0
    patched: int = 0
    old: int = 0
    evicted: int = 0
    unchanged: int = 0
    schema_changes: int = 0

    def add(self, change: Change) -> Change:
        self.appended += change.appended
        self.replaced += change.replaced
        self.patched += change.patched
        self.old += change.old
        self.evicted += change.evicted
        self.unchanged += change.unchanged
        self.schema_changes += change.schema_changed
        return change


@dataclass(frozen=True, slots=True)
class _Merge:
    """How a block joins the window: after `evict` rows of the window and `old` rows of the block are gone, row i of
    `rows` is equal to window row `at[i]` in date where `hit[i]`, else it goes before it."""

    rows: Columns
    at: Array
    hit: Mask
    evict: int
    old: int


class CandleStore:
    """The newest `capacity` candles of one key, one row per date. Not thread-safe; nothing here waits or blocks.

    Memory is bounded by `max_bytes`: arrays for `2 * capacity` rows and the text of strings. Blocks that would need more
    are refused.

    Raises:
        BadFrame: `timeframe` is none.
        ValueError: `capacity` is not within 1 and half a million.
    """

    def __init__(self, timeframe: str, capacity: int = 1500, *, max_bytes: int = 128 * 2**20) -> None:
        if not 1 <= capacity <= MAX_ROWS // 2:
            raise ValueError(f"capacity {capacity}: expected 1 to {MAX_ROWS // 2}")
        self._step_ms = timeframe_ms(timeframe)
        self._calendar = is_calendar(timeframe)
        self.timeframe = timeframe
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.rev = 0
        self.floor_rev = 0
        self._schema: Schema | None = None
        self._counts = _Counts()
        self._frame: pd.DataFrame | None = None
        self._free()

    def __repr__(self) -> str:
        return f"<CandleStore {self.timeframe} {self.n}/{self.capacity} rows, rev {self.rev}>"

    # What it holds

    @property
    def n(self) -> int:
        """Rows in the window."""
        return self._hi - self._lo

    @property
    def schema(self) -> Schema | None:
        """The schema of the window; None before the first block."""
        return self._schema

    @property
    def first_ms(self) -> int | None:
        """Date of the first row, None when empty."""
        return int(self._dates[self._lo]) if self.n else None

    @property
    def last_ms(self) -> int | None:
        """Date of the last row, None when empty."""
        return int(self._dates[self._hi - 1]) if self.n else None

    @property
    def nbytes(self) -> int:
        """All memory held, in bytes: arrays, strings and the cached pandas frame."""
        return self._array_bytes() + self._text + self._frame_bytes()

    def statistics(self) -> StoreStatistics:
        """The figures of the store, now."""
        counts = {name: getattr(self._counts, name) for name in _Counts.__slots__}
        return StoreStatistics(
            rows=self.n,
            capacity=self.capacity,
            rev=self.rev,
            floor_rev=self.floor_rev,
            nbytes=self.nbytes,
            text_bytes=self._text,
            frame_bytes=self._frame_bytes(),
            max_bytes=self.max_bytes,
            **counts,
        )

    # Changing it

    def upsert(self, columns: Columns, rev: int | None = None) -> Change:
        """Let rows join the window, each in its place by date; of several rows of one date the last counts.

        The schema follows the block: dtypes widen where they must, a column that the block does not have leaves, a new one is
        null in the rows before; a block that shares nothing but the dates starts the store afresh. `rev` is the
        revision that the store takes on, the next one when not given.

        Raises:
            BadFrame: a date off the grid of the stored candles, or more memory than `max_bytes`. Nothing was changed.
            ValueError: `rev` is not above the present one.
        """
        if rev is not None and rev <= self.rev:
            raise ValueError(f"rev {rev}: expected more than the present {self.rev}")
        self._counts.upserts += 1
        if not columns.n:
            return self._counts.add(self._unchanged(rev))
        if self._follows(columns):
            return self._counts.add(self._append_next(columns, rev))
        self._check_grid(columns, self._phase if self.n else None)
        rows = _in_order(columns)
        target = rows.schema if self._schema is None else self._joined(self._schema, rows)
        if target is None:
            change = self._load(rows, self.rev + 1 if rev is None else rev)
            return self._counts.add(replace(change, schema_changed=True))
        return self._counts.add(self._upsert(rows.cast(target), target, rev))

    def replace(self, columns: Columns, rev: int | None = None) -> Change:
        """Make the window a snapshot: the newest `capacity` rows of `columns` and nothing else, and its schema.

        `rev` may be any, also a lower one: after a snapshot no earlier revision means anything. Without it, a snapshot
        equal to the window is no change.

        Raises:
            BadFrame: dates that lie on no common grid, or more memory than `max_bytes`. Nothing was changed.
        """
        self._counts.snapshots += 1
        if columns.n:
            self._check_grid(columns, None)
        rows = _in_order(columns)
        if rev is None and self._schema == rows.schema and self.tail().equals(rows.tail(self.capacity)):
            return self._counts.add(self._unchanged(None))
        changed = self._schema is not None and self._schema != rows.schema
        change = self._load(rows, self.rev + 1 if rev is None else rev)
        return self._counts.add(replace(change, schema_changed=changed))

    def clear(self) -> None:
        """Forget all rows and the schema, and free the memory. A new revision; every follower needs a snapshot."""
        self.rev += 1
        self.floor_rev = self.rev
        self._schema = None
        self._free()

    # Reading it

    def missing_before(self, date_ms: int) -> int:
        """Candles missing between the last row and `date_ms`: 0 when that is the next, not after the last, or the first.

        For a receiver that decides whether to ask for more before it stores a row.
        """
        last = self.last_ms
        if last is None:
            return 0
        return max(self._index(date_ms) - self._index(last) - 1, 0)

    def holes(self) -> list[tuple[int, int]]:
        """The ranges `(from_ms, to_ms)`, exclusive, of candles missing inside the window, in order.

        Outages of an exchange are such holes and never heal, so a hole is a fact about the data and not an error.
        """
        return self._holes_of(self._dates[self._lo : self._hi])

    def changed_since(self, rev: int) -> Columns | None:
        """The rows whose last change is after `rev`, in order of date: a holder at `rev` that upserts them is current.

        None when that cannot be said (`rev` is below `floor_rev` or of the future): the holder needs a snapshot.
        """
        changed = self._changed_rows(rev)
        return None if changed is None else self._rows_at(changed)

    def from_first_changed(self, rev: int) -> Columns | None:
        """As `changed_since`, and all later rows too: freqtrade's receiver drops what it has from the first row on."""
        changed = self._changed_rows(rev)
        if changed is None:
            return None
        return self._copy(int(changed[0]) if len(changed) else self._hi, self._hi)

    def tail(self, k: int | None = None) -> Columns:
        """The last `k` rows, or all: a copy, which later changes do not touch. Only a date column before the first block."""
        start = self._lo if k is None else max(self._hi - max(k, 0), self._lo)
        return self._copy(start, self._hi)

    def frame(self) -> pd.DataFrame:
        """The window as pandas, built once per revision; changing the frame given does not change later ones."""
        if self._frame is None:
            self._frame = self.tail().to_pandas()
        return self._frame.copy(deep=not _copies_on_write())

    def check_invariants(self) -> None:
        """Assert what the module promises; for tests."""
        lo, hi, dates = self._lo, self._hi, self._dates[self._lo : self._hi]
        assert 0 <= lo <= hi <= len(self._dates) <= 2 * self.capacity
        assert self.n <= self.capacity
        assert self.floor_rev <= self.rev
        assert (np.diff(dates) > 0).all()
        assert (self._revs[lo:hi] <= self.rev).all()
        assert not self.n or (candle_date(self.timeframe, self._indices(dates), self._phase) == dates).all()
        window = self.tail()
        assert np.array_equal(window.date_ms, dates)
        assert self._text == (text_bytes(window.blocks["str"]) if "str" in window.blocks else 0)
        assert self._array_bytes() + self._text <= self.max_bytes
        for dtype, block in self._blocks.items():
            assert dtype != "str" or not any(np.delete(block, np.s_[lo:hi], axis=1).ravel())
        for dtype, mask in self._masks.items():
            assert not self._blocks[dtype][:, lo:hi][~mask[:, lo:hi]].any()

    # The window and its memory

    def _free(self) -> None:
        self._lo = self._hi = self._text = self._phase = 0
        self._dates: Array = np.zeros(0, np.int64)
        self._revs: Array = np.zeros(0, np.int64)
        self._blocks: dict[str, Array] = {}
        self._masks: dict[str, Mask] = {}
        self._frame = None

    def _allocate(self, schema: Schema, rows: int) -> None:
        """Empty arrays for `schema`, wide enough for `rows` and for as many again before the window has to move."""
        self._free()
        width = min(4 * max(rows, 1), 2 * self.capacity)
        self._schema = schema
        self._dates, self._revs = np.zeros(width, np.int64), np.zeros(width, np.int64)
        for dtype, positions in schema.layout.items():
            shape = (len(positions), width)
            self._blocks[dtype] = (
                np.full(shape, "", object) if dtype == "str" else np.zeros(shape, DTYPES[dtype])
            )

    def _make_room(self, count: int) -> None:
        """Let `count` rows fit behind the window: move it to the front, or to wider arrays when it fills half of these."""
        width = len(self._dates)
        if self._hi + count <= width:
            return
        if self.n + count > width // 2 and width < 2 * self.capacity:
            self._move(self.tail(), self.n + count)
        else:
            self._compact()

    def _move(self, window: Columns, rows: int) -> None:
        """Put `window`, the present rows or the same in another schema, into new arrays for `rows`."""
        revs, shift, text, frame = self._revs[self._lo : self._hi], self._phase, self._text, self._frame
        self._allocate(window.schema, rows)
        self._write(slice(0, window.n), window, self.rev)
        self._revs[: window.n] = revs
        self._hi, self._phase, self._text, self._frame = window.n, shift, text, frame

    def _array_bytes(self) -> int:
        arrays = (self._dates, self._revs, *self._blocks.values(), *self._masks.values())
        return sum(array.nbytes for array in arrays)

    def _frame_bytes(self) -> int:
        return int(self._frame.memory_usage(index=False).sum()) if self._frame is not None else 0

    def _check_room(self, schema: Schema, text: int) -> None:
        needed = (schema.row_bytes + 16) * 2 * self.capacity + text
        if needed > self.max_bytes:
            raise BadFrame(
                f"{len(schema.fields)} columns with {text} bytes of text: {needed} bytes for {self.capacity} candles, "
                f"expected at most {self.max_bytes}"
            )

    def _write(self, at: Any, rows: Columns, rev: int) -> None:
        for dtype, block in rows.blocks.items():
            self._blocks[dtype][:, at] = block
            if dtype in rows.masks and dtype not in self._masks:
                self._masks[dtype] = np.ones(self._blocks[dtype].shape, np.bool_)
            if dtype in self._masks:
                self._masks[dtype][:, at] = rows.masks.get(dtype, True)
        self._dates[at] = rows.date_ms
        self._revs[at] = rev

    def _copy(self, start: int, stop: int) -> Columns:
        return self._rows_at(slice(start, stop))

    def _rows_at(self, at: Any) -> Columns:
        if self._schema is None:
            return Columns.empty(_NO_COLUMNS)
        blocks = {dtype: block[:, at].copy() for dtype, block in self._blocks.items()}
        masks = {dtype: mask[:, at].copy() for dtype, mask in self._masks.items()}
        return Columns.of_checked(self._schema, len(self._dates[at]), blocks, masks)

    def _changed_rows(self, rev: int) -> Array | None:
        if self._schema is None or not self.floor_rev <= rev <= self.rev:
            return None
        changed: Array = np.flatnonzero(self._revs[self._lo : self._hi] > rev) + self._lo
        return changed

    # The grid

    def _index(self, date_ms: int) -> int:
        return candle_index(self.timeframe, date_ms, self._phase)

    def _indices(self, dates: Array) -> Array:
        return candle_index(self.timeframe, dates, self._phase)

    def _holes_of(self, dates: Array) -> list[tuple[int, int]]:
        if not self._calendar:
            after = np.flatnonzero(np.diff(dates) > self._step_ms)
            starts = dates[after] + self._step_ms
        else:
            indices = self._indices(dates)
            after = np.flatnonzero(np.diff(indices) > 1)
            starts = candle_date(self.timeframe, indices[after] + 1, self._phase)
        return list(zip(starts.tolist(), dates[after + 1].tolist(), strict=True))

    def _check_grid(self, rows: Columns, shift: int | None) -> None:
        """Refuse a block with a date that opens no candle on the grid of the window, or of its own first row."""
        dates = rows.date_ms
        if shift is None:
            shift = phase(self.timeframe, int(dates[0]))
        if self._calendar:
            off = candle_date(self.timeframe, candle_index(self.timeframe, dates, shift), shift) != dates
        else:
            off = (dates - shift) % self._step_ms != 0
        unit = rows.schema.index_field.dtype
        if unit != "ts_ms":
            off = off | (rows.column("date") % (UNITS_PER_S[unit] // 1000) != 0)
        if off.any():
            row = int(np.argmax(off))
            date = int(dates[row])
            near = candle_date(self.timeframe, candle_index(self.timeframe, date, shift), shift)
            raise BadFrame(
                f"column 'date', row {row}: {_shown(date)} opens no candle of {self.timeframe}; "
                f"expected {_shown(near)} or a whole number of candles from it"
            )

    # Joining schemas

    def _joined(self, mine: Schema, rows: Columns) -> Schema | None:
        """The schema that window and block share from now on: this very one when nothing must change, None when they
        have only their dates in common."""
        theirs = rows.schema
        if theirs is mine or theirs == mine:
            return mine
        if (
            len(mine.positions.keys() & theirs.positions.keys()) == 1
            and max(len(mine.fields), len(theirs.fields)) > 1
        ):
            return None
        widened = mine.widen(theirs)
        fields = tuple(self._joined_field(mine, rows, field) for field in widened.fields)
        return mine if fields == mine.fields else Schema(fields)

    def _joined_field(self, mine: Schema, rows: Columns, widened: Field) -> Field:
        """The field as it is if the block's values fit, else widened if they fit then, else as the block has it."""
        position = mine.positions.get(widened.name)
        if position is None:
            return widened
        for field in (mine.fields[position], widened):
            if rows.cast_column(field).lost is None:
                return field
        return rows.schema.fields[rows.schema.positions[widened.name]]

    def _migrate(self, schema: Schema, rev: int) -> None:
        """Take on another schema and keep the window; a value that it cannot hold becomes null."""
        window = self.tail().cast(schema, lossy=True)
        self._move(window, window.n)
        self._text = _text_of(window)
        self.floor_rev = rev

    # Joining rows

    def _unchanged(self, rev: int | None, old: int = 0) -> Change:
        if rev is not None:
            self.rev = rev
        return Change(self.rev, old=old, unchanged=True, last_ms=self.last_ms)

    def _load(self, rows: Columns, rev: int) -> Change:
        """Make `rows`, which are in order and on a grid, the whole content."""
        kept = rows.tail(self.capacity)
        text = _text_of(kept)
        self._check_room(rows.schema, text)
        self._allocate(rows.schema, kept.n)
        self._write(slice(0, kept.n), kept, rev)
        self._hi, self._text = kept.n, text
        self._phase = phase(self.timeframe, int(kept.date_ms[0])) if kept.n else 0
        self.rev = self.floor_rev = rev
        return Change(
            rev,
            appended=kept.n,
            old=rows.n - kept.n,
            first_changed_ms=self.first_ms,
            last_ms=self.last_ms,
            holes=tuple(self.holes()),
        )

    def _follows(self, columns: Columns) -> bool:
        """True for what nearly every block is: the one candle after the last, in the schema of the window."""
        if columns.n != 1 or self._calendar or not self.n or columns.schema != self._schema:
            return False
        if columns.schema.index_field.dtype != "ts_ms":
            return False
        return int(columns.date_ms[0]) - int(self._dates[self._hi - 1]) == self._step_ms

    def _append_next(self, row: Columns, rev: int | None) -> Change:
        evict = int(self.n == self.capacity)
        text = self._text
        if "str" in self._blocks:
            text += _text_of(row) - text_bytes(self._blocks["str"][:, self._lo : self._lo + evict])
        self._check_room(row.schema, text)
        self._evict(evict)
        self.rev = self.rev + 1 if rev is None else rev
        self._append(row, self.rev)
        self._text, self._frame = text, None
        date = int(row.date_ms[0])
        return Change(self.rev, appended=1, first_changed_ms=date, last_ms=date, evicted=evict)

    def _upsert(self, rows: Columns, schema: Schema, rev: int | None) -> Change:
        changes_schema = self._schema is not None and schema is not self._schema
        next_rev = self.rev + 1 if rev is None else rev
        if not self.n:
            return replace(self._load(rows, next_rev), schema_changed=changes_schema)
        merge = self._plan(rows)
        text = self._text_after(merge) if "str" in schema.layout else 0
        self._check_room(schema, text)
        if changes_schema:
            self._migrate(schema, next_rev)
            text = self._text_after(merge)
        changed = self._differing(merge)
        if not changes_schema and not changed.any():
            return self._unchanged(rev, merge.old)
        change = self._apply(merge, changed, next_rev)
        self._text = text
        return replace(change, schema_changed=changes_schema)

    def _plan(self, rows: Columns) -> _Merge:
        """Where the rows of a block go. The oldest of window and block together give way, whosever they are."""
        dates, window, n = rows.date_ms, self._dates[self._lo : self._hi], self.n
        if not n or dates[0] > window[-1]:
            evict = min(max(n + rows.n - self.capacity, 0), n)
            old = max(rows.n - self.capacity, 0)
            kept = rows.slice(old, rows.n) if old else rows
            return _Merge(kept, np.full(kept.n, n - evict), np.zeros(kept.n, np.bool_), evict, old)
        at = np.searchsorted(window, dates)
        hit = window[np.minimum(at, n - 1)] == dates
        excess = n + rows.n - int(np.count_nonzero(hit)) - self.capacity
        if excess <= 0:
            return _Merge(rows, at, hit, 0, 0)
        cut = np.union1d(window, dates)[excess]
        evict, old = int(np.searchsorted(window, cut)), int(np.searchsorted(dates, cut))
        return _Merge(rows.slice(old, rows.n), at[old:] - evict, hit[old:], evict, old)

    def _text_after(self, merge: _Merge) -> int:
        block = self._blocks.get("str")
        text = self._text + _text_of(merge.rows)
        if block is None:
            return text
        first = self._lo + merge.evict
        overwritten = block[:, first + merge.at[merge.hit]]
        return text - text_bytes(block[:, self._lo : first]) - text_bytes(overwritten)

    def _differing(self, merge: _Merge) -> Mask:
        """Which rows of the block are new or differ from the one that they replace."""
        changed: Mask = ~merge.hit
        if merge.hit.any():
            inside = self._lo + merge.evict + merge.at[merge.hit]
            rows = merge.rows if merge.hit.all() else merge.rows.take(merge.hit)
            differs = np.zeros(rows.n, np.bool_)
            for dtype, block in rows.blocks.items():
                differs |= ~same_values(self._blocks[dtype][:, inside], block).all(axis=0)
                if dtype in self._masks or dtype in rows.masks:
                    have = self._masks[dtype][:, inside] if dtype in self._masks else np.True_
                    differs |= np.not_equal(have, rows.mask_or_ones(dtype)).any(axis=0)
            changed[merge.hit] = differs
        return changed

    def _apply(self, merge: _Merge, changed: Mask, rev: int) -> Change:
        was_first, was_last = self._dates[[self._lo, self._hi - 1]].tolist()
        dates = merge.rows.date_ms
        self._evict(merge.evict)
        self._patch(merge, changed & merge.hit, rev)
        ahead = dates > was_last
        between = ~merge.hit & ~ahead
        if between.any():
            self._insert(merge.rows.take(between), rev)
        appended = int(np.count_nonzero(ahead))
        if appended:
            self._append(merge.rows if appended == merge.rows.n else merge.rows.take(ahead), rev)
        self._frame, self.rev = None, rev
        replaced = int(np.count_nonzero(changed & (dates == was_last)))
        return Change(
            rev,
            appended=appended,
            replaced=replaced,
            patched=int(np.count_nonzero(changed)) - appended - replaced,
            old=merge.old,
            first_changed_ms=int(dates[np.argmax(changed)]) if changed.any() else None,
            last_ms=self.last_ms,
            holes=self._new_holes(was_first, was_last, dates),
            evicted=merge.evict,
        )

    def _evict(self, count: int) -> None:
        if not count:
            return
        stop = self._lo + count
        newest = self._revs[self._lo] if count == 1 else self._revs[self._lo : stop].max()
        self.floor_rev = max(self.floor_rev, int(newest))
        if "str" in self._blocks:
            self._blocks["str"][:, self._lo : stop] = ""
        self._lo = stop

    def _patch(self, merge: _Merge, changed: Mask, rev: int) -> None:
        if changed.any():
            rows = merge.rows if changed.all() else merge.rows.take(changed)
            self._write(self._lo + merge.at[changed], rows, rev)

    def _insert(self, rows: Columns, rev: int) -> None:
        """Rebuild the window with rows between or before those it has."""
        window = self._copy(self._lo, self._hi)
        revs = np.concatenate([self._revs[self._lo : self._hi], np.full(rows.n, rev)])
        both = Columns.concat([window, rows])
        order = np.argsort(both.date_ms, kind="stable")
        if both.n > len(self._dates):
            self._move(window, both.n)
        self._blank(self._lo, self._hi)
        self._write(slice(0, both.n), both.take(order), rev)
        self._revs[: both.n] = revs[order]
        self._lo, self._hi = 0, both.n

    def _append(self, rows: Columns, rev: int) -> None:
        self._make_room(rows.n)
        if not self.n:
            self._phase = phase(self.timeframe, int(rows.date_ms[0]))
        self._write(slice(self._hi, self._hi + rows.n), rows, rev)
        self._hi += rows.n

    def _compact(self) -> None:
        """Move the window to the front."""
        n, window = self.n, slice(self._lo, self._hi)
        for array in (self._dates, self._revs):
            array[:n] = array[window]
        for block in (*self._blocks.values(), *self._masks.values()):
            block[:, :n] = block[:, window]
        self._blank(max(self._lo, n), self._hi)
        self._lo, self._hi = 0, n

    def _blank(self, start: int, stop: int) -> None:
        if "str" in self._blocks:
            self._blocks["str"][:, start:stop] = ""

    def _new_holes(self, was_first: int, was_last: int, dates: Array) -> tuple[tuple[int, int], ...]:
        # The common case: one candle follows the last, or lies inside.
        if len(dates) == 1 and not self._calendar and was_first <= dates[0] <= was_last + self._step_ms:
            return ()
        return tuple((a, b) for a, b in self.holes() if a < was_first or b > was_last)


def _in_order(columns: Columns) -> Columns:
    """Rows by date, of several of one date the last."""
    dates = columns.date_ms
    if columns.n < 2 or (dates[1:] > dates[:-1]).all():
        return columns
    order = np.argsort(dates, kind="stable")
    last_of_its_date = np.append(np.diff(dates[order]) > 0, True)
    return columns.take(order[last_of_its_date])


def _text_of(rows: Columns) -> int:
    return text_bytes(rows.blocks["str"]) if "str" in rows.blocks else 0


def _shown(date_ms: int) -> str:
    return f"{np.datetime64(date_ms, 'ms')}Z"


def _copies_on_write() -> bool:
    import pandas as pd

    return int(pd.__version__.split(".")[0]) >= 3
