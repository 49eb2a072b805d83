"""The ledger's directory: the names in it, and the lock that keeps it to one hub."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Directory", "InUse", "Lock", "sync_directory"]


class InUse(Exception):
    """Another hub has this directory."""


@dataclass(frozen=True, slots=True)
class Directory:
    """Where a ledger is: `ledger.sqlite` with SQLite's -wal and -shm, `ledger.mark`, `ledger.lock`."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def wal(self) -> Path:
        return self.path / "ledger.sqlite-wal"

    @property
    def shm(self) -> Path:
        return self.path / "ledger.sqlite-shm"

    @property
    def mark(self) -> Path:
        return self.path / "ledger.mark"

    @property
    def lock(self) -> Path:
        return self.path / "ledger.lock"

    @property
    def new(self) -> Path:
        """A database that is being made, before it gets its name."""
        return self.path / "ledger.sqlite.new"

    @property
    def kept_wal(self) -> Path:
        """The WAL that a process left which did not close, until it is known that SQLite could read all of it."""
        return self.path / "ledger.sqlite-wal.kept"

    def damaged(self) -> Path:
        """A free name for a database that is put aside."""
        numbers = (n for n in range(1, 1 << 30) if not (self.path / f"ledger.sqlite.damaged-{n}").exists())
        return self.path / f"ledger.sqlite.damaged-{next(numbers)}"

    def remove_new(self) -> None:
        """Remove what a process left that died while it made a database."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            self.new.with_name(self.new.name + suffix).unlink(missing_ok=True)

    def make(self) -> None:
        """Make it, for the user only.

        Raises:
            OSError: that is not possible.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)


class Lock:
    """Held while the hub has the ledger open; the system lets go of it when the process ends in any way."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise InUse from None
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Let another have it."""
        os.close(self._descriptor)


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
