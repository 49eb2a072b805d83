"""The high-water mark: a small file beside the database that says how far the ledger was told.

One flipped bit in a WAL makes SQLite drop the committed transactions behind it, without a word; so does a restored backup. The
mark remembers the highest offset that was returned, and of which file, so that the next start sees what is missing.

It is written before an append returns, without a sync: a kill leaves what was written in the page cache, exact. A sync would be a
second one for every commit and halve what the ledger takes; instead it is synced about once a second. A power cut may therefore
leave an older mark, never one that is ahead of what was told. A write cannot be torn by a kill (a few bytes of one page), and for
a power cut that tears a sector there are two places, written in turn: the higher one that fits its checksum counts.

The file's identity is its inode, and the inode's generation where the file system has one (a number that is new each time an
inode is used again). The device's number is left out: it may change with a reboot. The mark has one, too: a mark that was copied, or
came back with a backup, does not know how far the ledger had come in the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Identity", "Mark", "MarkFile", "identity_of"]

_MAGIC = b"twmark1\0"
_PLACE = struct.Struct("<8sQQQQQQ24s")
_CHECKSUM_BYTES = 16
_PLACE_BYTES = 512
_GET_GENERATION = 0x80087601


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file this is. `generation` is 0 where the file system tells none."""

    inode: int
    generation: int = 0

    def is_of(self, other: Identity) -> bool:
        """Whether both are the same file, as far as can be told."""
        if self.generation and other.generation and self.generation != other.generation:
            return False
        return self.inode == other.inode


def identity_of(path: Path) -> Identity:
    """The identity of a file that no connection of this process has open: a close would drop its locks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _identity(descriptor)
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> Identity:
    generation = bytearray(8)
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, _GET_GENERATION, generation)
    return Identity(os.fstat(descriptor).st_ino, int.from_bytes(generation[:4], "little"))


@dataclass(frozen=True, slots=True)
class Mark:
    """The highest offset that was told in `epoch`, and the file that held it.

    `in_place`: it is still in the file that it was written to, so nobody can have been told more in that epoch since.
    """

    epoch: str
    offset: int
    identity: Identity
    in_place: bool = True


class MarkFile:
    """The file. `write` and `sync` are the writer thread's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._home = Identity(0)
        self._number = 0
        self._unsynced = False

    @staticmethod
    def load(path: Path) -> Mark | None:
        """What the file says; None when there is none, or nothing in it fits its checksum.

        Raises:
            OSError: it cannot be read.
        """
        loaded = _load(path)
        return None if loaded is None else loaded[1]

    def open(self) -> Mark | None:
        """Make ready to write; what it said.

        Raises:
            OSError: it cannot be read or made.
        """
        loaded = _load(self.path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._home = _identity(self._descriptor)
        if loaded is None:
            return None
        self._number = loaded[0]
        return loaded[1]

    def write(self, mark: Mark) -> None:
        """Say this from now on, also to who looks after a kill.

        Raises:
            OSError: it cannot be written.
        """
        assert self._descriptor is not None
        self._number += 1
        numbers = (mark.identity.inode, mark.identity.generation, self._home.inode, self._home.generation)
        place = _PLACE.pack(_MAGIC, self._number, mark.offset, *numbers, mark.epoch.encode())
        place += hashlib.blake2b(place, digest_size=_CHECKSUM_BYTES).digest()
        written = os.pwrite(self._descriptor, place, self._number % 2 * _PLACE_BYTES)
        if written != len(place):
            raise OSError(f"{written} of {len(place)} bytes of the mark were written")
        self._unsynced = True

    def sync(self) -> None:
        """Bring it to the disk.

        Raises:
            OSError: that failed.
        """
        if self._descriptor is not None and self._unsynced:
            self._unsynced = False
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Sync, as far as that goes, and release. Idempotent."""
        descriptor = self._descriptor
        if descriptor is not None:
            with contextlib.suppress(OSError):
                self.sync()
            self._descriptor = None
            os.close(descriptor)


def _load(path: Path) -> tuple[int, Mark] | None:
    try:
        data = path.read_bytes()[: 2 * _PLACE_BYTES]
        home = identity_of(path)
    except FileNotFoundError:
        return None
    places = [_parse(data[at : at + _PLACE.size + _CHECKSUM_BYTES], home) for at in (0, _PLACE_BYTES)]
    return max((place for place in places if place is not None), key=lambda place: place[0], default=None)


def _parse(place: bytes, home: Identity) -> tuple[int, Mark] | None:
    if len(place) != _PLACE.size + _CHECKSUM_BYTES:
        return None
    body, checksum = place[: _PLACE.size], place[_PLACE.size :]
    if hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest() != checksum:
        return None
    magic, number, offset, inode, generation, *written, epoch = _PLACE.unpack(body)
    if magic != _MAGIC:
        return None
    in_place = Identity(*written).is_of(home)
    return number, Mark(epoch.rstrip(b"\0").decode(), offset, Identity(inode, generation), in_place)
