"""hub.gate and hub.asgi.incoming: what asyncio has too, in fewer bytes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from hub.asgi.incoming import Incoming
from hub.gate import Gate

pytestmark = pytest.mark.anyio


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_gate_lets_pass_while_it_is_open() -> None:
    gate = Gate()
    await gate.wait()
    gate.clear()
    assert not gate.is_set()
    passed: list[int] = []

    async def wait(number: int) -> None:
        await gate.wait()
        passed.append(number)

    waiting = [asyncio.ensure_future(wait(number)) for number in range(3)]
    await turns()
    assert passed == []
    waiting[0].cancel()
    await turns()
    gate.set()
    await turns()
    assert passed == [1, 2]
    await gate.wait()


async def test_events_come_in_their_order() -> None:
    incoming = Incoming()
    assert incoming.empty()
    incoming.put_nowait(1)
    incoming.put_nowait(2)
    assert [await incoming.get(), incoming.get_nowait()] == [1, 2]
    getting = asyncio.ensure_future(incoming.get())
    await turns()
    incoming.put_nowait(3)
    incoming.put_nowait(4)
    assert [await getting, await incoming.get()] == [3, 4]
    assert incoming.empty()


async def test_who_is_cancelled_takes_none() -> None:
    incoming = Incoming()
    getting = asyncio.ensure_future(incoming.get())
    await turns()
    incoming.put_nowait(1)
    getting.cancel()
    with suppress(asyncio.CancelledError):
        await getting
    assert await incoming.get() == 1
