"""The world of a crash test: a hub, a proxy before it, publishers under load, a live consumer and one that is away until the end."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from .accounts import Account, check, unaccounted
from .parties import Consumer, Hub, Publisher, until
from .proxy import Proxy
from .reading import read_ledger

SEED = int(os.environ.get("TRADEWIRE_CRASH_SEED", "4"))
RATE = 60.0
CATCH_UP_S = 60.0


class World:
    """All parties of one test. `random` makes its schedule; the seed is printed (TRADEWIRE_CRASH_SEED gives another)."""

    def __init__(self, directory: Path, seed: int) -> None:
        print(f"\nseed {seed}")
        self.random = random.Random(seed)
        self.directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *, publishers: int = 2, rate: float = RATE, spare: int = 0, **hub: Any) -> None:
        """Start all; returns when fills flow and the consumer that will be away has gone.

        `spare` credentials are for publishers of the test itself. `hub` are keys of the hub's section.
        """
        self.hub = Hub(self.directory / "hub", publishers=publishers + spare, **hub)
        self._stack.callback(self.hub.close)
        self.hub.start()
        self.proxy = self._stack.enter_context(Proxy(self.hub.port))
        self.live = self.consumer("live")
        self.away = self.consumer("away")
        self.publishers = [
            Publisher(self.directory / f"publisher{n}", n, self.proxy.port, rate=rate)
            for n in range(publishers)
        ]
        for publisher in self.publishers:
            self._stack.callback(publisher.close)
        for consumer in (self.live, self.away):
            consumer.start()
        until(lambda: self.live.subscribed() and self.away.subscribed(), 30, "the consumers are subscribed")
        for publisher in self.publishers:
            publisher.start()
        until(lambda: self.away.count() > 0 and self.live.count() > 0, 30, "the first fills arrive")
        assert self.away.stop() == 0, self.away.output

    def consumer(self, name: str) -> Consumer:
        """A consumer bot that is ended with the world."""
        consumer = Consumer(self.directory / name, self.proxy.port)
        self._stack.callback(consumer.close)
        return consumer

    def settle(self) -> list[Account]:
        """End the load, let everybody come back and catch up, end everybody, and check the promise."""
        for publisher in self.publishers:
            if not publisher.running:
                publisher.start()
        for publisher in self.publishers:
            assert publisher.stop(CATCH_UP_S) == 0, (
                f"{publisher.name} has fills left: {publisher.output[-2000:]}"
            )
        self.away.start()
        consumers = [self.live, self.away]
        for consumer in consumers:
            until(
                lambda c=consumer: not unaccounted(c, self.publishers),  # type: ignore[misc]
                CATCH_UP_S,
                f"{consumer.name} has or misses by name all that was acknowledged",
            )
        ledger = read_ledger(self.hub.port)
        for consumer in consumers:
            assert consumer.stop() == 0, consumer.output[-2000:]
        assert self.hub.stop() == 0, self.hub.output[-2000:]
        return check(self.hub, self.publishers, consumers, ledger)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, SEED) as world:
        yield world
