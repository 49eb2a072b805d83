"""consumer.client, in virtual time and over connections that the test drives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from consumer_doubles import KEY, FakeConnection, FakeDial, rows, run_virtual, until

from consumer.client import Client, Consumer
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.connection import Closed
from consumer.data import ProducerData
from consumer.errors import ConnectionFailed, HandshakeFailed, HubRefused, TooBig, Unauthorized
from consumer.inbox import Inbox
from hub.frames.freqtrade import encode_split
from hub.protocol.codec import Wire
from hub.protocol.envelope import Position
from hub.protocol.localbot import Connected, Delivery, Disconnected
from hub.protocol.messages import EntryFill, FrameKey, Status

PRODUCER = ProducerConfig(name="p", host="h", ws_token="s3cret", protocol="v2", encoding="json")
LEGACY = ProducerConfig(name="p", host="h", ws_token="s3cret", protocol="freqtrade")
SETTINGS = ConsumerConfig()


def full() -> float:
    return 1.0


def hub(wire: Wire = Wire.JSON, *, epoch: str = "e7", offset: int = 0) -> FakeConnection:
    """A connection to a hub that accepts a subscription."""
    connection = FakeConnection(wire)

    def answer(message: dict[str, Any]) -> list[dict[str, Any]]:
        if message["type"] != "subscribe":
            return []
        data = {"epoch": epoch, "offset": offset, "recovered": "resume" in message["data"] or None}
        return [{"type": "hub.reply", "id": message["id"], "ok": True, "data": data}]

    connection.answer = answer
    connection.hold()
    return connection


def client(
    dial: FakeDial, producer: ProducerConfig = PRODUCER, settings: ConsumerConfig = SETTINGS, **more: Any
) -> Client:
    return Client(producer, settings, dial=dial, random=full, **more)


def fill(offset: int, prev: int) -> dict[str, Any]:
    head = {
        "type": "entry_fill",
        "bot": "a",
        "epoch": "e7",
        "offset": offset,
        "prev": prev,
        "mid": str(offset),
    }
    return head | {"data": {"trade_id": offset, "pair": "A/B"}}


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in virtual time."""

    def run() -> None:
        run_virtual(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def take(source: Client | Consumer, n: int) -> list[Delivery]:
    return [await anext(source) for _ in range(n)]


@virtual
async def test_deliveries_in_order_with_the_connection_among_them() -> None:
    connection = hub()
    async with client(FakeDial(connection)) as c:
        connection.feed(fill(1, 0), {"type": "status", "bot": "a", "data": {"status": "running"}})
        connected, first, second = await take(c, 3)
    assert connected.message == Connected(producer="p")
    assert isinstance(first.message, EntryFill)
    assert first.position == Position("e7", 1)
    assert second.message == Status(status="running")
    assert connection.closed_with == (1000, "")


@virtual
async def test_what_it_says_to_a_hub() -> None:
    connection = hub()
    producer = ProducerConfig(
        name="p",
        host="h",
        ws_token="t",
        protocol="v2",
        encoding="json",
        bots=["a"],
        columns=["close"],
        topics=["analyzed_df", "exit_fill"],
    )
    settings = ConsumerConfig(initial_candle_limit=0, message_size_limit=3)
    async with client(FakeDial(connection), producer, settings, position=Position("e7", 40)) as c:
        await take(c, 1)
    hello, subscribe = connection.sent
    assert hello["data"]["max_message"] == 3 * 1024 * 1024
    assert subscribe["data"] == {
        "want": [
            {"topics": ["exit_fill"], "bots": ["a"]},
            {"topics": ["analyzed_df"], "bots": ["a"], "columns": ["close"], "rows": 1},
        ],
        "resume": {"epoch": "e7", "offset": 40},
    }


@virtual
async def test_topics_given_in_code_replace_the_producers() -> None:
    connection = hub()
    async with client(FakeDial(connection), topics=["status"]) as c:
        await take(c, 1)
    assert connection.sent[1]["data"]["want"] == [{"topics": ["status"], "bots": "*"}]


@virtual
async def test_a_reconnect_resumes_and_drops_what_came_before() -> None:
    first, second = hub(), hub()
    async with client(FakeDial(first, second)) as c:
        first.feed(fill(1, 0), fill(2, 1))
        first.end(1006)
        second.feed(fill(2, 1), fill(3, 2))
        got = await take(c, 6)
    assert [d.topic for d in got] == [
        "connected",
        "entry_fill",
        "entry_fill",
        "disconnected",
        "connected",
        "entry_fill",
    ]
    assert [d.position.offset for d in got if d.position] == [1, 2, 3]
    assert got[4].message == Connected(producer="p", resumed=True)
    assert second.sent[1]["data"]["resume"] == {"epoch": "e7", "offset": 0}


@virtual
async def test_a_server_that_accepts_and_closes_is_not_hammered() -> None:
    def closing() -> FakeConnection:
        connection = hub()
        connection.feed({"type": "hub.welcome", "data": {}})
        connection.end(1012)
        return connection

    dial = FakeDial(rest=closing)
    async with client(dial) as c:
        start = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < start + 100:
            await anext(c)
    times = [round(t - dial.attempts[0][0], 3) for t, _ in dial.attempts]
    assert times[:8] == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5]
    assert len(times) <= 10


@virtual
async def test_refused_connects_are_capped_by_sleep_time() -> None:
    dial = FakeDial(rest=lambda: ConnectionFailed("ws://h: connection refused"))
    async with client(dial, settings=ConsumerConfig(sleep_time=3)) as c:
        down = await anext(c)
        await asyncio.sleep(60)
        assert len(c._inbox) == 0
    assert down.message == Disconnected(producer="p", reason="ws://h: connection refused")
    times = [t - dial.attempts[0][0] for t, _ in dial.attempts]
    assert times[:6] == [0, 0.5, 1.5, 3.5, 6.5, 9.5]


@virtual
async def test_what_a_refusal_asks_for_is_kept_to() -> None:
    refusal = HandshakeFailed("ws://h: refused (HTTP 503)", status=503, retry_after_s=7)
    dial = FakeDial(refusal, hub())
    async with client(dial) as c:
        await take(c, 2)
    assert dial.attempts[1][0] - dial.attempts[0][0] == 7.5


@virtual
async def test_what_a_close_asks_for_is_kept_to() -> None:
    first, second, third = hub(), hub(), hub()
    first.end(1012, "retry_after_ms=4000")
    dial = FakeDial(first, second, third)
    async with client(dial) as c:
        await take(c, 3)
        second.feed({"type": "hub.drain", "data": {"reconnect_after_ms": 9000}})
        second.end(1012)
        await take(c, 2)
    times = [t for t, _ in dial.attempts]
    assert times[1] - times[0] == 4.5
    assert times[2] - times[1] == 10


@virtual
async def test_a_healthy_connection_starts_the_row_anew() -> None:
    connections = [hub() for _ in range(4)]
    for connection in connections[:2]:
        connection.end(1006)
    dial = FakeDial(*connections)
    async with client(dial) as c:
        await take(c, 5)
        await asyncio.sleep(60)
        connections[2].end(1006)
        await take(c, 2)
    times = [t for t, _ in dial.attempts]
    assert times[3] - times[2] == 60.5


@virtual
async def test_a_wrong_token_ends_it_at_the_second_try() -> None:
    dial = FakeDial(rest=lambda: Unauthorized("ws://h: the token is not accepted (HTTP 403)"))
    async with client(dial) as c:
        with pytest.raises(Unauthorized):
            await anext(c)
        with pytest.raises(Unauthorized):
            await anext(c)
    assert len(dial.attempts) == 2


@virtual
async def test_an_expired_token_ends_it_when_the_next_is_refused() -> None:
    connection = hub()
    dial = FakeDial(connection, Unauthorized("no"))
    async with client(dial) as c:
        connection.end(4401, "the credential expired")
        assert [d.topic for d in await take(c, 2)] == ["connected", "disconnected"]
        with pytest.raises(Unauthorized, match="no"):
            await anext(c)


@virtual
async def test_a_token_that_works_again_is_forgiven() -> None:
    first, second, third = hub(), hub(), hub()
    dial = FakeDial(first, second, third)
    async with client(dial) as c:
        first.end(4403)
        await take(c, 3)
        await asyncio.sleep(60)
        second.end(4403)
        assert [d.topic for d in await take(c, 2)] == ["disconnected", "connected"]


@virtual
async def test_a_hub_that_says_stop_is_obeyed() -> None:
    for code in (1002, 1003, 1007, 1009, 4400, 4409, 4444):
        connection = hub()
        connection.end(code, "why")
        async with client(FakeDial(connection)) as c:
            assert (await anext(c)).topic == "connected"
            with pytest.raises(HubRefused, match=f"closed with {code}: why"):
                await anext(c)


@virtual
async def test_other_codes_are_tried_again() -> None:
    codes = [1000, 1001, 1006, 1011, 1012, 1013, 4508, 4510, 4512, 4529, 4999, 3000]
    connections = [hub() for _ in [*codes, 0]]
    for connection, code in zip(connections, codes, strict=False):
        connection.end(code)
    dial = FakeDial(*connections)
    async with client(dial) as c:
        await take(c, 2 * len(codes) + 1)
    assert len(dial.attempts) == len(codes) + 1


@virtual
async def test_a_refused_subscription() -> None:
    for error, kind in (
        ({"code": "overlap", "message": "m"}, HubRefused),
        ({"code": "forbidden", "message": "m"}, Unauthorized),
    ):

        def refusing(error: Any = error) -> FakeConnection:
            connection = FakeConnection()
            connection.answer = lambda m: (
                [{"type": "hub.reply", "id": m["id"], "ok": False, "error": error}] if "id" in m else []
            )
            return connection

        async with client(FakeDial(rest=refusing)) as c:
            with pytest.raises(kind):
                await take(c, 3)


@virtual
async def test_a_hole_closes_with_4510_and_resumes() -> None:
    first, second = hub(), hub()
    async with client(FakeDial(first, second)) as c:
        first.feed(fill(5, 3))
        second.feed(fill(3, 0), fill(5, 3))
        got = await take(c, 5)
    assert first.closed_with is not None
    assert first.closed_with[0] == 4510
    assert [d.position.offset for d in got if d.position] == [3, 5]


@virtual
async def test_auto_offers_v2_first_and_keeps_what_worked() -> None:
    first, second = FakeConnection(Wire.FREQTRADE), FakeConnection(Wire.FREQTRADE)
    dial = FakeDial(Unauthorized("403"), first, second)
    producer = ProducerConfig(name="p", host="h", ws_token="t")
    async with client(dial, producer) as c:
        await take(c, 1)
        first.end(1006)
        await take(c, 2)
        assert c.statistics()["wire"] == "freqtrade"
    assert [wire for _, wire in dial.attempts] == [Wire.MSGPACK, Wire.FREQTRADE, Wire.FREQTRADE]


@virtual
async def test_auto_goes_on_when_no_subprotocol_is_selected() -> None:
    deaf = FakeConnection(Wire.MSGPACK, subprotocol=None)
    dial = FakeDial(deaf, FakeConnection(Wire.FREQTRADE))
    async with client(dial, ProducerConfig(name="p", host="h", ws_token="t")) as c:
        assert (await anext(c)).topic == "connected"
    assert deaf.closed_with is not None


@virtual
async def test_auto_tries_both_wires_twice_with_a_wrong_token() -> None:
    dial = FakeDial(rest=lambda: Unauthorized("403"))
    async with client(dial, ProducerConfig(name="p", host="h", ws_token="t")) as c:
        with pytest.raises(Unauthorized):
            await anext(c)
    assert [wire for _, wire in dial.attempts] == [Wire.MSGPACK, Wire.FREQTRADE] * 2


@virtual
async def test_a_peer_that_does_not_speak_v2() -> None:
    async with client(FakeDial(FakeConnection(subprotocol=None))) as c:
        with pytest.raises(HubRefused, match=r"does not speak tradewire\.v2\.json"):
            await anext(c)


@virtual
async def test_garbage_is_counted_and_skipped() -> None:
    connection = hub()
    async with client(FakeDial(connection)) as c:
        connection.feed("{", b"\x00", "[]", '{"type": 5}', '{"type":"hub.reply","id":"x"}', fill(1, 0))
        got = await take(c, 2)
        assert c.statistics()["undecodable"] == 4
    assert got[1].topic == "entry_fill"


@virtual
async def test_a_full_inbox_stops_reading_and_drops_nothing() -> None:
    connection = hub()
    inbox = Inbox(2000)
    async with client(FakeDial(connection), inbox=inbox) as c:
        connection.feed(*(fill(i, i - 1) for i in range(1, 101)))
        await asyncio.sleep(95)
        assert inbox.peak_bytes < 4000
        assert connection._incoming.qsize() > 90
        assert connection.unasked_pongs == 12
        got = await take(c, 101)
        stats = c.statistics()
    assert [d.position.offset for d in got[1:] if d.position] == list(range(1, 101))
    assert stats["inbox_bytes"] == 0
    assert stats["inbox_limit_bytes"] == 2000


@virtual
async def test_what_was_received_is_delivered_though_the_connection_is_gone() -> None:
    first, second = hub(), hub()
    inbox = Inbox(1000)
    async with client(FakeDial(first, second), inbox=inbox) as c:
        first.feed(*(fill(i, i - 1) for i in range(1, 6)))
        first.end(1006)
        await asyncio.sleep(20)
        got = await take(c, 8)
    assert [d.position.offset for d in got if d.position] == [1, 2, 3, 4, 5]


@virtual
async def test_a_silent_peer_is_given_up() -> None:
    silent = hub()
    silent._pongs = False
    dial = FakeDial(silent, hub())
    async with client(dial, settings=ConsumerConfig(wait_timeout=12, ping_timeout=5)) as c:
        got = await take(c, 3)
    assert [d.topic for d in got] == ["connected", "disconnected", "connected"]
    assert isinstance(got[1].message, Disconnected)
    assert "no pong within 5 s" in got[1].message.reason
    assert dial.attempts[1][0] - dial.attempts[0][0] == 17.5


@virtual
async def test_a_half_open_hub_is_gone_within_30_s() -> None:
    silent = hub()
    silent._pongs = False
    dial = FakeDial(silent, hub())
    async with client(dial) as c:
        await take(c, 3)
    # And a wait of half a second at most, since it is the first failure.
    assert dial.attempts[1][0] - dial.attempts[0][0] == 25.5


@virtual
async def test_a_half_open_freqtrade_bot_is_gone_as_soon() -> None:
    silent, again = (FakeConnection(Wire.FREQTRADE, pongs=False) for _ in range(2))
    dial = FakeDial(silent, again)
    producer = ProducerConfig(name="p", host="h", ws_token="t", protocol="freqtrade")
    async with client(dial, producer, ConsumerConfig()) as c:
        await take(c, 3)
    assert dial.attempts[1][0] - dial.attempts[0][0] == 25.5


@virtual
async def test_a_hub_that_takes_no_request_is_given_up_too() -> None:
    silent = hub()
    silent.taking.clear()
    dial = FakeDial(silent, hub())
    async with client(dial) as c:
        got = await take(c, 1)
    assert [d.topic for d in got] == ["disconnected"]
    assert isinstance(got[0].message, Disconnected)
    assert "takes nothing" in got[0].message.reason


@virtual
async def test_disconnected_is_told_once_per_reason() -> None:
    def failed() -> ConnectionFailed:
        return ConnectionFailed("refused")

    dial = FakeDial(failed(), failed(), failed(), ConnectionFailed("timeout"), hub())
    async with client(dial) as c:
        got = await take(c, 3)
    assert [getattr(d.message, "reason", "") for d in got] == ["refused", "timeout", ""]


@virtual
async def test_freqtrades_wire_fills_holes() -> None:
    connection = FakeConnection(Wire.FREQTRADE)

    def frame(first: int, n: int) -> dict[str, Any]:
        df = {"__type__": "dataframe", "__value__": encode_split(rows(first, n))}
        return {
            "type": "analyzed_df",
            "data": {"key": list(KEY), "df": df, "la": "2026-11-22T14:01:01+00:00"},
        }

    def answer(message: dict[str, Any]) -> list[dict[str, Any]]:
        if message["type"] != "analyzed_df":
            return []
        return [frame(max(0, 10 - message["data"]["limit"]), min(10, message["data"]["limit"]))]

    connection.answer = answer
    async with client(FakeDial(connection), LEGACY, ConsumerConfig(initial_candle_limit=5)) as c:
        await take(c, 2)
        connection.answer = None
        connection.feed(frame(13, 1))
        await until(lambda: len(connection.sent) > 5)
        assert connection.sent[-1] == {"type": "analyzed_df", "data": {"limit": 4, "pair": KEY[0]}}
        connection.feed(frame(10, 4))
        await take(c, 1)
        window = c.data.book("p").window("p", FrameKey(*KEY))
        assert window is not None
        assert window.n == 9


@virtual
async def test_requests_of_freqtrades_wire_are_repeated_in_time() -> None:
    connection = FakeConnection(Wire.FREQTRADE)
    async with client(FakeDial(connection), LEGACY) as c:
        await take(c, 1)
        df = {"__type__": "dataframe", "__value__": encode_split(rows(3))}
        connection.feed({"type": "analyzed_df", "data": {"key": list(KEY), "df": df, "la": None}})
        start = asyncio.get_running_loop().time()
        (delivery,) = await take(c, 1)
        assert delivery.topic == "analyzed_df"
        assert asyncio.get_running_loop().time() - start == pytest.approx(75)


@virtual
async def test_freqtrade_closes_with_1000_for_anything() -> None:
    first, second = FakeConnection(Wire.FREQTRADE), FakeConnection(Wire.FREQTRADE)
    first.end(1009, "")
    async with client(FakeDial(first, second), LEGACY) as c:
        assert [d.topic for d in await take(c, 3)] == ["connected", "disconnected", "connected"]


@virtual
async def test_a_frame_over_the_limit_is_asked_for_in_smaller_form() -> None:
    def over() -> FakeConnection:
        connection = FakeConnection(Wire.FREQTRADE)
        connection.end(1009, "over the size limit", local=True)
        return connection

    connections = [over() for _ in range(6)]
    async with client(FakeDial(*connections), LEGACY) as c:
        reasons = [getattr(d.message, "reason", "") for d in await take(c, 11)]
        with pytest.raises(TooBig, match=r"message_size_limit \(8 MiB\); raise it"):
            await anext(c)
    asked = [[m["data"]["limit"] for m in c.sent if m["type"] == "analyzed_df"] for c in connections]
    assert asked == [[1500], [750], [375], [187], [100], []]
    assert "asking for 750 candles next time" in reasons[1]


@virtual
async def test_a_hubs_message_over_the_limit_is_explained() -> None:
    connection = hub()
    connection.end(1009, "", local=True)
    async with client(FakeDial(connection)) as c:
        await anext(c)
        with pytest.raises(TooBig, match="message_size_limit"):
            await anext(c)


@virtual
async def test_callbacks() -> None:
    connection = hub()
    seen: list[tuple[str, str]] = []
    c = client(FakeDial(connection))
    c.on("entry_fill", lambda d: seen.append(("plain", d.topic)))

    async def slow(delivery: Delivery) -> None:
        await asyncio.sleep(1)
        seen.append(("all", delivery.topic))

    c.on("*", slow)
    connection.feed(fill(1, 0))
    running = asyncio.create_task(c.run())
    await asyncio.sleep(10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == [("all", "connected"), ("plain", "entry_fill"), ("all", "entry_fill")]
    assert connection.closed_with == (1000, "")


@virtual
async def test_a_callback_that_fails_ends_the_run() -> None:
    connection = hub()
    c = client(FakeDial(connection))

    def fail(delivery: Delivery) -> None:
        raise ZeroDivisionError

    c.on("connected", fail)
    with pytest.raises(ZeroDivisionError):
        await c.run()
    assert connection.closed_with is not None


@virtual
async def test_leaving_while_a_connect_hangs() -> None:
    dial = FakeDial()
    async with client(dial):
        await until(lambda: dial.attempts)


@virtual
async def test_several_producers_as_one() -> None:
    producers = tuple(
        ProducerConfig(name=n, host=n, ws_token="t", protocol="v2", encoding="json") for n in "ab"
    )
    connections = {"a": hub(), "b": hub()}

    async def dial(endpoint: Any, wire: Wire, size: int) -> FakeConnection:
        return connections[endpoint.host]

    settings = ConsumerConfig(producers=producers)
    async with Consumer(settings, positions={"b": Position("e7", 0)}, dial=dial) as consumer:
        assert isinstance(consumer.data, ProducerData)
        assert {(await anext(consumer)).producer for _ in range(2)} == {"a", "b"}
        whitelist = {"type": "whitelist", "bot": "x", "key": [], "rev": ["r", 0, 1], "data": ["A/B"]}
        connections["b"].feed(whitelist)
        assert (await anext(consumer)).producer == "b"
        assert consumer.data.get_producer_pairs("b") == ["A/B"]
        assert consumer.data.get_producer_pairs("a") == []
        assert set(consumer.statistics()) == {"a", "b"}
        connections["a"].end(4400, "no")
        with pytest.raises(HubRefused):
            await anext(consumer)
    assert all(c.closed_with is not None for c in connections.values())


@virtual
async def test_the_token_is_nowhere() -> None:
    dial = FakeDial(ConnectionFailed("x"), Closed(1006, "", local=False))
    async with client(dial) as c:
        await anext(c)
        assert "s3cret" not in repr(c.statistics()) + repr(c.producer) + repr(vars(c))
