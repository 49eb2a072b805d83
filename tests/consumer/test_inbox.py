"""consumer.inbox."""

from __future__ import annotations

import asyncio

import pytest
from consumer_doubles import rows, run_virtual

from consumer.errors import HubRefused
from consumer.inbox import Inbox, weight
from hub.protocol.localbot import Delivery
from hub.protocol.messages import AnalyzedDf, FrameKey, Status


def delivery(text: str) -> Delivery:
    return Delivery(producer="p", bot="b", topic="status", message=Status(status=text))


def test_order_and_bytes() -> None:
    async def main() -> None:
        inbox = Inbox(100)
        for text in "abc":
            assert not inbox.full
            inbox.put(delivery(text), 40)
        assert inbox.full
        assert inbox.statistics()["inbox_bytes"] == 120
        got = [(await inbox.get()).message for _ in range(3)]
        assert got == [Status(status=t) for t in "abc"]
        assert (inbox.bytes, inbox.peak_bytes, len(inbox)) == (0, 120, 0)

    run_virtual(main())


def test_a_writer_waits_for_room() -> None:
    async def main() -> None:
        inbox = Inbox(100)
        inbox.put(delivery("huge"), 1000)
        assert not await inbox.room(5.0)
        waiting = asyncio.create_task(inbox.room(5.0))
        await asyncio.sleep(1)
        await inbox.get()
        assert await waiting

    run_virtual(main())


def test_the_end_comes_behind_what_is_in_it() -> None:
    async def main() -> None:
        inbox = Inbox()
        reader = asyncio.create_task(inbox.get())
        await asyncio.sleep(0)
        inbox.put(delivery("a"), 1)
        inbox.end(HubRefused("no"))
        assert (await reader).message == Status(status="a")
        for _ in range(2):
            with pytest.raises(HubRefused):
                await inbox.get()
        ended = Inbox()
        ended.end()
        with pytest.raises(StopAsyncIteration):
            await ended.get()

    run_virtual(main())


def test_a_frame_weighs_what_it_holds() -> None:
    columns = rows(0, 1000)
    frame = AnalyzedDf(key=FrameKey("a", "5m", "spot"), df=columns)
    assert weight(Delivery(producer="p", bot="b", topic="analyzed_df", message=frame), 10) > columns.nbytes
    assert weight(delivery("a"), 400) > 400
