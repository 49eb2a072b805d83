"""hub.node: calls of bots, with a real loop's timer and outlets of the test's own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pandas as pd
import pytest

from hub.core.intake import FramePublish
from hub.core.session import Session
from hub.frames.dataframe import from_pandas
from hub.log.memory import MemoryLog
from hub.node import Node
from hub.protocol.calls import BotResult, CallResult, read_result
from hub.protocol.codec import CODECS, Wire
from hub.protocol.errors import BotUnreachable, DeadlinePassed, Draining
from hub.protocol.messages import FrameKey
from hub.protocol.principal import EVERY_BOT, Principal
from tests.test_node import FakeOutlet, settle

EVERYTHING = Principal(name="bot", publishes=EVERY_BOT, controls=EVERY_BOT)
OK = CallResult(status=200, body=b'{"a":1.10}')


def on_node(test: Callable[[Node], Awaitable[None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        async def main() -> None:
            node = Node(MemoryLog("e", 1 << 20))
            await node.start()
            try:
                await test(node)
            finally:
                await node.stop()
            assert not node._call_timer.pending
            node.calls.check_invariants()

        asyncio.run(main())

    del run.__wrapped__  # type: ignore[attr-defined]
    return run


async def attached(node: Node, bot: str = "a") -> tuple[Session, FakeOutlet]:
    outlet = FakeOutlet()
    session = node.connect(EVERYTHING, Wire.JSON, outlet, client="c")
    node.receive(session, {"type": "attach", "id": 1, "data": {"bot": bot}})
    await settle()
    outlet.take()
    return session, outlet


def result(node: Node, session: Session, call: int, result: CallResult | None = OK) -> None:
    node.receive(session, {"type": "result", "data": BotResult(call=call, result=result, size=10)})


status = {"method": "GET", "path": "/status", "principal": "user:u"}


@on_node
async def test_a_call_from_python_and_its_answer(node: Node) -> None:
    session, outlet = await attached(node)
    assert node.attached() == {"a"}
    asked = asyncio.create_task(node.call("a", **status, query="x=1"))
    await settle()
    (message,) = outlet.take()
    assert (message["type"], message["data"]["principal"]) == ("hub.call", "user:u")
    result(node, session, message["data"]["call"])
    assert await asked == OK
    with pytest.raises(BotUnreachable):
        await node.call("b", **status)


@on_node
async def test_deadlines_are_kept_to_the_millisecond_by_one_timer(node: Node) -> None:
    _, outlet = await attached(node)
    loop = asyncio.get_running_loop()

    async def ends(deadline_ms: int) -> float:
        start = loop.time()
        with pytest.raises(DeadlinePassed) as failed:
            await node.call("a", **status, deadline_ms=deadline_ms)
        assert failed.value.sent
        return loop.time() - start

    calls = [asyncio.create_task(ends(ms)) for ms in (60_000, 120, 40, 80)]
    took = await asyncio.gather(*calls[1:])
    for seconds, ms in zip(took, (120, 40, 80), strict=True):
        assert seconds >= ms / 1000
    assert node._call_timer.pending
    assert [m["data"]["call"] for m in outlet.take() if m["type"] == "hub.cancel"] == [3, 4, 2]
    calls[0].cancel()
    await settle()
    assert not node._call_timer.pending


@on_node
async def test_whoever_stops_waiting_cancels_the_call(node: Node) -> None:
    session, outlet = await attached(node)
    asked = asyncio.create_task(node.call("a", **status))
    await settle()
    asked.cancel()
    await settle()
    assert [m["type"] for m in outlet.take()] == ["hub.call", "hub.cancel"]
    result(node, session, 1)
    await settle()
    assert outlet.take() == []
    assert node.statistics()["calls"]["late"] == 1


@on_node
async def test_bots_that_come_and_go_are_announced(node: Node) -> None:
    outlet = FakeOutlet()
    node.connect(Principal(name="reader"), Wire.JSON, outlet, client="c")
    blind = FakeOutlet()
    node.connect(Principal(name="blind", reads=frozenset({"b"})), Wire.JSON, blind, client="c")
    first, _ = await attached(node)
    second, replaced_by = await attached(node)
    node.disconnect(first)
    await settle()
    assert replaced_by.closed is None
    assert node.attached() == {"a"}
    node.disconnect(second)
    await settle()
    news = [m["data"] for m in outlet.take() if m["type"] == "hub.bot"]
    assert news == [{"bot": "a", "online": True}, {"bot": "a", "online": False}]
    assert [m["type"] for m in blind.take()] == ["hub.welcome"]


@on_node
async def test_a_bot_is_online_while_one_of_its_links_is_up(node: Node) -> None:
    outlet = FakeOutlet()
    node.connect(Principal(name="reader"), Wire.JSON, outlet, client="c")
    node.announce("a", online=True)
    session, _ = await attached(node)
    node.disconnect(session)
    await settle()
    assert node.online("a") is True
    session, _ = await attached(node)
    node.announce("a", online=False)
    assert node.online("a") is True
    node.disconnect(session)
    await settle()
    assert node.online("a") is False
    news = [m["data"] for m in outlet.take() if m["type"] == "hub.bot"]
    assert news == [{"bot": "a", "online": True}, {"bot": "a", "online": False}]


@on_node
async def test_the_old_attachment_is_closed_with_4409_behind_what_it_was_owed(node: Node) -> None:
    _, outlet = await attached(node)
    asked = asyncio.create_task(node.call("a", **status))
    await settle()
    await attached(node)
    assert outlet.closed == (4409, "a newer attachment of a took this one's place")
    with pytest.raises(BotUnreachable) as gone:
        await asked
    assert gone.value.data == {"outcome": "unknown"}


@on_node
async def test_a_drain_lets_calls_end_and_a_stop_ends_them(node: Node) -> None:
    session, outlet = await attached(node)
    ended, left = (asyncio.create_task(node.call("a", **status)) for _ in range(2))
    await settle()
    outlet.take()
    draining = asyncio.create_task(node.drain(0.2))
    await settle()
    with pytest.raises(Draining):
        await node.call("a", **status)
    result(node, session, 1)
    assert await ended == OK
    outlet.take()
    await draining
    await node.stop()
    with pytest.raises(BotUnreachable, match="stopped"):
        await left


@on_node
async def test_a_call_of_a_client_is_answered_on_its_wire(node: Node) -> None:
    session, outlet = await attached(node)
    callers = {}
    for wire in (Wire.JSON, Wire.MSGPACK):
        callers[wire] = caller = FakeOutlet(wire)
        client = node.connect(EVERYTHING, wire, caller, client="c")
        node.receive(client, {"type": "call", "id": 3, "data": {"bot": "a", "method": "GET", "path": "/x"}})
    await settle()
    for message in outlet.take():
        payload = CODECS[Wire.JSON].encode(
            {
                "type": "result",
                "data": {"call": message["data"]["call"], "status": 200, "body": [1, None, "é"]},
            }
        )
        read = read_result(Wire.JSON, payload.decode())
        node.receive(session, {"type": "result", "data": read})
    await settle()
    for caller in callers.values():
        reply: dict[str, Any] = caller.take()[-1]
        assert reply["data"] == {"status": 200, "body": [1, None, "é"]}


@on_node
async def test_legacy_clients_have_no_calls(node: Node) -> None:
    outlet = FakeOutlet(Wire.FREQTRADE)
    session = node.connect(EVERYTHING, Wire.FREQTRADE, outlet, client="c")
    node.receive(session, {"type": "attach", "data": {"bot": "a"}})
    await settle()
    assert node.attached() == set()
    assert outlet.take() == [{"type": "exception", "data": "Invalid request type: attach"}]


@on_node
async def test_a_bots_timeframe_is_known_without_a_look_through_all_keys(node: Node) -> None:
    class Unlisted(dict[Any, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("listed")

    rows = from_pandas(pd.DataFrame({"date": pd.date_range("2026-01-01", periods=2, freq="5min", tz="UTC")}))
    for timeframe in ("5m", "1h"):
        key = FrameKey("BTC/USDT", timeframe, "spot")
        node.publish_checked(FramePublish("a", key, rows, False, 0, 0), lambda _ack: None)
    node.core.cells = Unlisted(node.core.cells)
    assert (node.timeframe("a"), node.timeframe("b")) == ("5m", None)
