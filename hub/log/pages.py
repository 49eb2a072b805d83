"""The rows in a SQLite file and its WAL, read page by page without SQLite: for a file that SQLite calls malformed.

Every page is looked at as if it were a leaf of a table, whatever the trees above it say, and so is every frame of the WAL, of
whatever transaction. What comes out is a heap of candidates: rows that were removed, older versions, garbage. The caller takes
what proves itself by a checksum. Nothing here raises for what a file holds.

Source: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub.log.database import PAGE_BYTES

__all__ = ["rows"]

_HEADER_BYTES = 100
_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_MAX_ROW_BYTES = 8 << 20
_MAX_COLUMNS = 16
_MOST_LOCAL = PAGE_BYTES - 35
_LEAST_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)

Value = int | bytes | float | None


class _Garbage(Exception):
    """These bytes are no row."""


class _File:
    """A file of pages behind a prefix each. A page that cannot be read is None."""

    def __init__(self, path: Path | None, before: int, between: int) -> None:
        self._before, self._between = before, between
        self._descriptor = None if path is None else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = 0 if self._descriptor is None else os.fstat(self._descriptor).st_size
        self.count = max(0, size - before) // (PAGE_BYTES + between)

    def page(self, index: int) -> bytes | None:
        """Page `index`, from 0."""
        return self._read(self._before + index * (PAGE_BYTES + self._between) + self._between, PAGE_BYTES)

    def number(self, index: int) -> int:
        """Of frame `index` of a WAL: which page of the database it is."""
        head = self._read(self._before + index * (PAGE_BYTES + self._between), 4)
        return 0 if head is None else int.from_bytes(head, "big")

    def _read(self, at: int, size: int) -> bytes | None:
        if self._descriptor is None:
            return None
        try:
            data = os.pread(self._descriptor, size, at)
        except OSError:
            return None
        return data if len(data) == size else None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


class _Pages:
    """A database's pages and those of its WALs."""

    def __init__(self, database: Path | None, wals: list[Path]) -> None:
        self.database = _File(database, 0, 0)
        self.wals = [_File(wal, _WAL_HEADER_BYTES, _FRAME_HEADER_BYTES) for wal in wals]
        self._newest: dict[int, tuple[_File, int]] = {}
        for wal in self.wals:
            self._newest |= {wal.number(i): (wal, i) for i in range(wal.count)}

    def all(self) -> Iterator[tuple[bytes, int]]:
        """Each page with the offset of its b-tree header: those of the database, then every frame of the WALs."""
        for i in range(self.database.count):
            page = self.database.page(i)
            if page is not None:
                yield page, 0 if i else _HEADER_BYTES
        for wal in self.wals:
            for i in range(wal.count):
                page = wal.page(i)
                if page is not None:
                    yield page, _HEADER_BYTES if wal.number(i) == 1 else 0

    def versions(self, number: int) -> Iterator[bytes]:
        """What page `number` may be, from 1: in the WAL, in the database."""
        newest = self._newest.get(number)
        page = newest[0].page(newest[1]) if newest is not None else None
        if page is not None:
            yield page
        page = self.database.page(number - 1) if number > 0 else None
        if page is not None:
            yield page

    def close(self) -> None:
        for file in (self.database, *self.wals):
            file.close()


def rows(database: Path | None, wals: list[Path]) -> Iterator[tuple[int, tuple[Value, ...]]]:
    """Candidates of rows, as (rowid, columns). An INTEGER PRIMARY KEY is None among the columns: it is the rowid.

    A row with overflow pages may come twice, by the pages of the WAL and by those of the database.

    Raises:
        OSError: the file cannot be opened.
    """
    pages = _Pages(database, wals)
    try:
        for page, at in pages.all():
            for cell in _cells(page, at):
                yield from _rows_of(pages, page, cell)
    finally:
        pages.close()


def _cells(page: bytes, at: int) -> Iterator[int]:
    """Where the cells of a leaf begin."""
    count = int.from_bytes(page[at + 3 : at + 5], "big")
    first = at + 8
    for i in range(min(count, (PAGE_BYTES - first) // 2)):
        cell = int.from_bytes(page[first + 2 * i : first + 2 * i + 2], "big")
        if first <= cell < PAGE_BYTES - 4:
            yield cell


def _rows_of(pages: _Pages, page: bytes, cell: int) -> Iterator[tuple[int, tuple[Value, ...]]]:
    try:
        size, at = _varint(page, cell)
        rowid, at = _varint(page, at)
    except _Garbage:
        return
    if not 2 <= size <= _MAX_ROW_BYTES:
        return
    local = _local(size)
    content = page[at : at + local]
    if len(content) < local:
        return
    if local == size:
        payloads: Iterator[bytes] = iter((content,))
    else:
        overflow = int.from_bytes(page[at + local : at + local + 4], "big")
        payloads = _with_overflow(pages, content, size, overflow)
    for payload in payloads:
        try:
            yield rowid, _columns(payload)
        except _Garbage:
            continue


def _local(size: int) -> int:
    """How much of a payload is in its leaf."""
    if size <= _MOST_LOCAL:
        return size
    fitting = _LEAST_LOCAL + (size - _LEAST_LOCAL) % (PAGE_BYTES - 4)
    return fitting if fitting <= _MOST_LOCAL else _LEAST_LOCAL


def _with_overflow(pages: _Pages, content: bytes, size: int, number: int) -> Iterator[bytes]:
    """The payload by the newest version of each overflow page, then by the versions in the database."""
    for newest in (True, False):
        parts, have, at = [content], len(content), number
        while have < size and at:
            versions = list(pages.versions(at))
            if not versions:
                break
            page = versions[0 if newest else -1]
            part = page[4 : 4 + min(size - have, PAGE_BYTES - 4)]
            parts.append(part)
            have += len(part)
            at = int.from_bytes(page[:4], "big")
        if have == size:
            yield b"".join(parts)


def _columns(payload: bytes) -> tuple[Value, ...]:
    end, at = _varint(payload, 0)
    types: list[int] = []
    while at < end:
        if len(types) >= _MAX_COLUMNS:
            raise _Garbage
        kind, at = _varint(payload, at)
        types.append(kind)
    at = end
    columns: list[Value] = []
    for kind in types:
        size = _size(kind)
        part = payload[at : at + size]
        if len(part) != size:
            raise _Garbage
        columns.append(_value(kind, part))
        at += size
    return tuple(columns)


def _size(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    if 0 <= kind < 10:
        return _SIZES[kind]
    raise _Garbage


def _value(kind: int, part: bytes) -> Any:
    if kind >= 12:
        return part
    if kind in (8, 9):
        return kind - 8
    # A real number (7) is none of ours.
    return None if kind in (0, 7) else int.from_bytes(part, "big", signed=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(9):
        if at + i >= len(data):
            raise _Garbage
        byte = data[at + i]
        if i == 8:
            value = value << 8 | byte
            return value - (1 << 64) if value >= 1 << 63 else value, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    raise _Garbage
