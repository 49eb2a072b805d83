"""Bookmarks: the ledger positions that a local bot has committed, kept in a file for a bot that keeps none itself.

A bot that stores the position in the same transaction as its effect returns it from `start` and acts exactly once. For a bot
that returns None the position is in a file, written after the commit: such a bot sees a message again when the process dies
in between, so at least once. The file never holds a position whose message the bot has not committed.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from consumer.errors import BotFailed, ConfigError
from hub.protocol.envelope import Position
from hub.protocol.localbot import Delivery

__all__ = ["Bookmarks"]

_COMMITS_PER_WRITE = 100


class Bookmarks:
    """The committed positions, by producer. `path` is None when the bot keeps its own. Thread-safe."""

    def __init__(self, path: Path, positions: dict[str, Position]) -> None:
        self.positions = positions
        self._path: Path | None = path
        self._lock = threading.Lock()
        self._unwritten = 0
        # Of the deliveries in the order in which they were handed over: epochs have none by themselves.
        self._handed = 0
        self._committed: dict[str, int] = {}

    @classmethod
    def load(cls, path: Path) -> Bookmarks:
        """What the last run left in the file; none is empty.

        Raises:
            ConfigError: the file cannot be read.
        """
        try:
            stored = json.loads(path.read_text())
            positions = {name: Position(str(e), int(o)) for name, (e, o) in stored["positions"].items()}
        except FileNotFoundError:
            positions = {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise ConfigError(
                "--data-dir", f"{path} cannot be read; without it the bot begins with what is live"
            ) from None
        return cls(path, positions)

    def take_over(self, start: Position, producers: list[str]) -> None:
        """The bot stores its position itself. It belongs to the producers known by its epoch, or else to any."""
        known = [name for name in producers if self._epoch(name) == start.epoch]
        self.positions = dict.fromkeys(known or producers, start)
        self._path = None

    def hook(self, delivery: Delivery) -> Callable[[], None]:
        """What the bot calls when the effect of `delivery` is durable; more than once is once.

        Called once for each delivery, in the order of handing over. A commit stands for all that was handed over before.
        """
        if delivery.position is None:
            return _nothing
        producer, position = delivery.producer, delivery.position
        self._handed += 1
        number = self._handed

        def commit() -> None:
            with self._lock:
                if number > self._committed.get(producer, 0):
                    self._committed[producer] = number
                    self.positions[producer] = position
                    self._unwritten += 1

        return commit

    def write(self, *, idle: bool) -> None:
        """Store what is committed, when nothing else waits or enough has come together. Blocks for the disk.

        Raises:
            BotFailed: the file cannot be written.
        """
        with self._lock:
            if (
                self._path is None
                or not self._unwritten
                or not (idle or self._unwritten >= _COMMITS_PER_WRITE)
            ):
                return
            stored = {"version": 1, "positions": {n: [p.epoch, p.offset] for n, p in self.positions.items()}}
            try:
                _write_atomically(self._path, json.dumps(stored))
            except OSError as error:
                raise BotFailed(f"{self._path}: the position cannot be stored: {error.strerror}") from error
            self._unwritten = 0

    def _epoch(self, producer: str) -> str | None:
        position = self.positions.get(producer)
        return None if position is None else position.epoch


def _nothing() -> None:
    return None


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
