"""hub.log.threads: what reads the ledger does not wait for one another, and a search ends when nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from hub.core.ledger import Query, Read
from hub.log.reading import PAUSE_SLOTS
from hub.log.threads import Pauses
from tests.log.messages import append, entry, opened, until

pytestmark = pytest.mark.anyio
NOTHING = Query(since_ms=1 << 60)
"""Matches no message, and looks at all of them."""


class Held:
    """Holds every search at its first pause until it is let go; counts pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.searching = threading.Semaphore(0)
        self.free = threading.Event()
        self.pauses = 0
        pause = Pauses.__call__

        def held(pauses: Pauses) -> None:
            self.pauses += 1
            self.searching.release()
            assert self.free.wait(10)
            pause(pauses)

        monkeypatch.setattr(Pauses, "__call__", held)

    async def began(self) -> None:
        """Wait for a search to be held."""
        await until(lambda: self.searching.acquire(blocking=False))


async def test_a_page_and_an_append_do_not_wait_for_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    async with opened(tmp_path) as log:
        await append(log, *(entry(str(i)) for i in range(1, 101)))
        searches = [asyncio.ensure_future(log.find(NOTHING)) for _ in range(4)]
        try:
            await held.began()
            async with asyncio.timeout(10):
                assert len((await log.read(Read(1, 1 << 20))).entries) == 100
                assert await append(log, entry("101")) == [(101, False)]
            assert held.pauses == 1, "one at a time"
        finally:
            held.free.set()
        assert [list(found.entries) for found in await asyncio.gather(*searches)] == [[]] * 4


async def test_a_search_for_which_nobody_waits_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    async with opened(tmp_path) as log:
        await append(log, *(entry(str(i)) for i in range(1, 10 * PAUSE_SLOTS + 1)))
        running, waiting = (asyncio.ensure_future(log.find(NOTHING)) for _ in range(2))
        await held.began()
        running.cancel()
        waiting.cancel()
        assert [type(r) for r in await asyncio.gather(running, waiting, return_exceptions=True)] == [
            asyncio.CancelledError
        ] * 2
        held.free.set()
        assert (await log.find(Query(limit=1))).entries, "its transaction has ended too"
    assert held.pauses == 1, "the one ended there, and the other did not begin"
