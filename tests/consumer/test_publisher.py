"""consumer.publisher, in virtual time and against a hub that the test plays."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from consumer_doubles import KEY, FakeConnection, FakeDial, numbers, rows, run_virtual, until, welcome

from consumer.errors import ConnectionFailed, HubRefused, PublishError, Unauthorized
from consumer.publisher import Ack, Publication, Publisher
from hub.frames import v2
from hub.frames.columns import Schema
from hub.protocol.codec import Wire
from hub.protocol.envelope import Position

FILL = {"trade_id": 1, "pair": "A/B"}
CALM = logging.getLogger("consumer.publisher")


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in virtual time."""

    def run() -> None:
        run_virtual(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class Hub:
    """What a hub does with publishes: a ledger with dedupe. `silent` answers nothing."""

    def __init__(self, **limits: int) -> None:
        self.limits = limits
        self.got: list[dict[str, Any]] = []
        self.offsets: dict[str, int] = {}
        self.schemas: dict[str, Schema] = {}
        self.refusals: list[dict[str, Any] | None] = []
        self.silent = False
        self.unanswered = self.peak = 0

    def connection(self) -> FakeConnection:
        connection = FakeConnection(Wire.JSON)
        connection.feed(welcome(**self.limits))
        connection.answer = self.answer
        return connection

    def answer(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        if message["type"] != "publish":
            return []
        data = message["data"]
        self.got.append(data)
        if self.silent:
            self.unanswered += 1
            self.peak = max(self.peak, self.unanswered)
            return []
        error = self.refusals.pop(0) if self.refusals else None
        if error is not None:
            return [{"type": "hub.reply", "id": message["id"], "ok": False, "error": error}]
        return [{"type": "hub.reply", "id": message["id"], "ok": True, "data": self.ack(data)}]

    def ack(self, data: dict[str, Any]) -> dict[str, Any]:
        if data["topic"] in ("analyzed_df", "whitelist"):
            return {"rev": ["r", 0, len(self.got)]}
        duplicate = data["mid"] in self.offsets
        offset = self.offsets.setdefault(data["mid"], len(self.offsets) + 1)
        return {"epoch": "e7", "offset": offset, "duplicate": duplicate}

    def mids(self) -> list[str]:
        return [data["mid"] for data in self.got]


def publisher(dial: FakeDial, **more: Any) -> Publisher:
    return Publisher(
        "ws://h", "s3cret", encoding="json", dial=dial, random=lambda: 1.0, now_ms=lambda: 5, **more
    )


def fills(n: int) -> list[Publication]:
    return [Publication(bot="a", topic="entry_fill", data=FILL, mid=f"m{i}") for i in range(n)]


@virtual
async def test_a_fill_is_acknowledged_with_its_position() -> None:
    hub = Hub()
    async with publisher(FakeDial(hub.connection())) as p:
        assert await p.publish("a", "entry_fill", FILL) == Ack(Position("e7", 1))
        assert await p.publish("a", "entry_fill", FILL, mid="x", ts=9) == Ack(Position("e7", 2))
        assert await p.publish("a", "entry_fill", FILL, mid="x", ts=9) == Ack(Position("e7", 2), None, True)
        assert await p.publish("a", "whitelist", ["A/B"]) == Ack(None, 4)
    first, second = hub.got[:2]
    assert first == {"bot": "a", "topic": "entry_fill", "mid": first["mid"], "ts": 5, "data": FILL}
    assert 1 <= len(first["mid"]) <= 64
    assert (second["mid"], second["ts"]) == ("x", 9)
    assert p.statistics()["outbox_bytes"] == 0


@virtual
async def test_mids_of_two_publishers_differ() -> None:
    hub = Hub()
    async with publisher(FakeDial(hub.connection())) as p, publisher(FakeDial(hub.connection())) as q:
        for _ in range(3):
            await p.publish("a", "entry_fill", FILL)
            await q.publish("a", "entry_fill", FILL)
    assert len(set(hub.mids())) == 6


@virtual
async def test_values_of_a_bot_become_plain() -> None:
    hub = Hub()
    async with publisher(FakeDial(hub.connection())) as p:
        await p.publish(
            "a", "entry_fill", {"trade_id": np.int64(1), "amount": Decimal("0.5"), "rate": np.nan}
        )
        assert hub.got[0]["data"] == {"trade_id": 1, "amount": 0.5, "rate": None}
        with pytest.raises(PublishError, match=r"bad_message: data\.x: cannot be sent"):
            await p.publish("a", "entry_fill", {"x": object()})
        with pytest.raises(PublishError, match="expected a key and a frame"):
            await p.publish("a", "analyzed_df", {"rows": []})
    assert len(hub.got) == 1


@virtual
async def test_publishing_is_pipelined_up_to_the_hubs_limit() -> None:
    hub = Hub(publish_in_flight=7)
    hub.silent = True
    async with publisher(FakeDial(hub.connection())) as p:
        futures = [await p.submit(publication) for publication in fills(20)]
        await until(lambda: len(hub.got) == 7)
        await asyncio.sleep(5)
        assert len(hub.got) == 7
        assert p.statistics()["unanswered"] == 7
        assert not any(f.done() for f in futures)


@virtual
async def test_many_in_order() -> None:
    hub = Hub()
    async with publisher(FakeDial(hub.connection())) as p:
        acks = await p.publish_many(fills(500))
    assert hub.mids() == [f"m{i}" for i in range(500)]
    assert [ack.position.offset for ack in acks if ack.position] == list(range(1, 501))


@virtual
async def test_what_is_unanswered_is_sent_again_in_order_with_its_mids() -> None:
    hub = Hub()
    first, second = hub.connection(), hub.connection()
    async with publisher(FakeDial(first, second)) as p:
        await p.publish("a", "entry_fill", FILL, mid="before")
        hub.silent = True
        futures = [await p.submit(publication) for publication in fills(4)]
        futures.append(await p.submit(Publication(bot="a", topic="whitelist", data=["A/B"])))
        await until(lambda: len(hub.got) == 6)
        # Two were stored, but their acknowledgements are lost with the connection.
        hub.offsets |= {"m0": 2, "m1": 3}
        hub.silent = False
        first.end(1006)
        acks = [await future for future in futures]
    assert hub.mids()[6:10] == ["m0", "m1", "m2", "m3"]
    assert [ack.duplicate for ack in acks] == [True, True, False, False, False]
    assert hub.got[-1]["topic"] == "whitelist"


@virtual
async def test_a_temporary_refusal_is_retried_after_what_the_hub_asks() -> None:
    hub = Hub()
    hub.refusals = [
        {"code": "not_durable", "message": "disk full", "temporary": True, "retry_after_ms": 2000}
    ]
    async with publisher(FakeDial(hub.connection())) as p:
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert await p.publish("a", "entry_fill", FILL, mid="x") == Ack(Position("e7", 1))
        assert loop.time() - start == pytest.approx(2)
    assert hub.mids() == ["x", "x"]


@virtual
async def test_what_is_expendable_is_given_up_and_holds_nothing_up() -> None:
    hub = Hub()
    hub.refusals = [{"code": "overloaded", "message": "m", "temporary": True, "retry_after_ms": 9000}]
    async with publisher(FakeDial(hub.connection())) as p:
        start = asyncio.get_running_loop().time()
        with pytest.raises(PublishError) as caught:
            await p.publish("a", "new_candle", ["A/B", "5m", "spot"], mid="x", expendable=True)
        assert (caught.value.code, caught.value.temporary) == ("overloaded", True)
        await p.publish("a", "entry_fill", FILL, mid="y")
        assert asyncio.get_running_loop().time() == start
    assert hub.mids() == ["x", "y"]


@virtual
async def test_the_refused_go_first_afterwards() -> None:
    hub = Hub()
    hub.refusals = [None, {"code": "overloaded", "message": "m", "temporary": True}]
    async with publisher(FakeDial(hub.connection())) as p:
        futures = [await p.submit(publication) for publication in fills(3)]
        await until(lambda: len(hub.got) == 3)
        futures += [await p.submit(Publication(bot="a", topic="entry_fill", data=FILL, mid="m3"))]
        for future in futures:
            await future
    assert hub.mids() == ["m0", "m1", "m2", "m1", "m3"]


@virtual
async def test_a_permanent_refusal_is_that_messages_only() -> None:
    hub = Hub()
    hub.refusals = [{"code": "forbidden", "message": "no", "temporary": False}]
    async with publisher(FakeDial(hub.connection())) as p:
        with pytest.raises(PublishError) as caught:
            await p.publish("a", "entry_fill", FILL)
        assert (caught.value.code, caught.value.temporary) == ("forbidden", False)
        assert (await p.publish("a", "entry_fill", FILL)).position is not None
        hub.refusals = [None, {"code": "id_conflict", "message": "no"}]
        with pytest.raises(PublishError, match="id_conflict"):
            await p.publish_many(fills(3))
    assert len(hub.got) == 5


@virtual
async def test_the_outbox_is_bounded_in_bytes() -> None:
    hub = Hub()
    hub.silent = True
    async with publisher(FakeDial(hub.connection()), outbox_bytes=10_000) as p:
        submitted = 0

        async def submit() -> None:
            nonlocal submitted
            for publication in fills(100):
                await p.submit(publication)
                submitted += 1

        task = asyncio.create_task(submit())
        await asyncio.sleep(3)
        assert 5 < submitted < 20
        assert p.statistics()["outbox_bytes"] <= 10_000
        huge = Publication(bot="a", topic="status", data={"status": "x" * 50_000})
        task.cancel()
        alone = publisher(FakeDial(Hub().connection()), outbox_bytes=10)
        async with alone:
            await (await alone.submit(huge))


@virtual
async def test_frames_name_their_schema_once_per_connection() -> None:
    hub = Hub()
    first, second = hub.connection(), hub.connection()
    async with publisher(FakeDial(first, second)) as p:
        for i in range(2):
            await p.publish("a", "analyzed_df", key=KEY, frame=rows(i), la_ms=7)
        first.end(1006)
        await until(lambda: not p.statistics()["connected"])
        assert await p.publish("a", "analyzed_df", key=KEY, frame=rows(2, 3), replace=True) == Ack(None, 3)
    schema = rows(0).schema
    assert [data["schema"] for data in hub.got] == [schema.data(), schema.id, schema.data()]
    assert hub.got[0]["key"] == list(KEY)
    assert hub.got[0]["data"] == {"la_ms": 7, "rows": v2.to_rows(rows(0), "json")}
    whole = hub.got[2]["data"]
    assert (whole["n"], whole["la_ms"]) == (3, 5)
    assert numbers(v2.from_columns(schema, whole["n"], whole["cols"], "json")) == [2, 3, 4]


@virtual
async def test_a_schema_that_the_hub_forgot_is_sent_again() -> None:
    hub = Hub()
    hub.refusals = [None, {"code": "bad_message", "message": "schema not known here"}]
    async with publisher(FakeDial(hub.connection())) as p:
        for i in range(2):
            await p.publish("a", "analyzed_df", key=KEY, frame=rows(i))
        assert [isinstance(data["schema"], dict) for data in hub.got] == [True, False, True]
        hub.refusals = [{"code": "bad_message", "message": "no"}] * 2
        with pytest.raises(PublishError):
            await p.publish("a", "analyzed_df", key=KEY, frame=rows(2))


@virtual
async def test_a_frame_over_the_hubs_limit_is_published_in_parts() -> None:
    hub = Hub(message=20_000)
    async with publisher(FakeDial(hub.connection())) as p:
        await p.publish("a", "analyzed_df", key=KEY, frame=rows(0))
        hub.got.clear()
        ack = await p.publish("a", "analyzed_df", key=KEY, frame=rows(0, 2000), replace=True)
    assert len(hub.got) > 2
    assert ack == Ack(None, len(hub.got))
    kinds = ["cols" in data["data"] for data in hub.got]
    assert kinds == [True] + [False] * (len(hub.got) - 1)
    schema, got = rows(0).schema, []
    for data in (d["data"] for d in hub.got):
        if "cols" in data:
            got += numbers(v2.from_columns(schema, data["n"], data["cols"], "json"))
        else:
            got += numbers(v2.from_rows(schema, data["rows"], "json"))
    assert got == list(range(2000))


@virtual
async def test_a_message_over_the_hubs_limit_is_refused_here() -> None:
    hub = Hub(message=2000)
    async with publisher(FakeDial(hub.connection())) as p:
        with pytest.raises(PublishError, match=r"too_large: 5\d\d\d bytes, the hub takes 2000"):
            await p.publish("a", "status", {"status": "x" * 5000})
        await p.publish("a", "status", {"status": "x"})
    assert len(hub.got) == 1


@virtual
async def test_a_wrong_token_fails_everything() -> None:
    async with publisher(FakeDial(rest=lambda: Unauthorized("403"))) as p:
        future = await p.submit(fills(1)[0])
        with pytest.raises(Unauthorized):
            await future
        with pytest.raises(Unauthorized):
            await p.publish("a", "entry_fill", FILL)
        with pytest.raises(Unauthorized):
            await p.flush()


@virtual
async def test_a_peer_that_is_no_hub() -> None:
    async with publisher(FakeDial(FakeConnection(subprotocol=None))) as p:
        with pytest.raises(HubRefused):
            await p.publish("a", "entry_fill", FILL)


@virtual
async def test_a_hub_that_stops_and_one_that_restarts() -> None:
    hub = Hub()
    first, second = hub.connection(), hub.connection()
    dial = FakeDial(ConnectionFailed("refused"), first, second)
    async with publisher(dial) as p:
        await p.publish("a", "entry_fill", FILL)
        first.end(1012, "retry_after_ms=3000")
        await p.publish("a", "entry_fill", FILL)
        second.end(4400, "why")
        await until(lambda: p._error is not None)
        with pytest.raises(HubRefused, match="4400: why"):
            await p.publish("a", "entry_fill", FILL)
    times = [t for t, _ in dial.attempts]
    assert [b - a for a, b in itertools.pairwise(times)] == [0.5, 4]


@virtual
async def test_leaving_waits_for_acknowledgements_but_not_for_ever() -> None:
    hub = Hub()
    hub.silent = True
    loop = asyncio.get_running_loop()
    connection = hub.connection()
    async with publisher(FakeDial(connection)) as p:
        future = await p.submit(fills(1)[0])
        start = loop.time()
    assert loop.time() - start == pytest.approx(5)
    with pytest.raises(ConnectionFailed, match="closed"):
        await future
    assert connection.closed_with is not None
    with pytest.raises(ConnectionFailed):
        await p.publish("a", "entry_fill", FILL)


@virtual
async def test_a_cancelled_publish_is_still_sent() -> None:
    hub = Hub()
    hub.silent = True
    first, second = hub.connection(), hub.connection()
    async with publisher(FakeDial(first, second)) as p:
        task = asyncio.create_task(p.publish("a", "entry_fill", FILL, mid="x"))
        await until(lambda: hub.got)
        task.cancel()
        hub.silent = False
        first.end(1006)
        await p.flush()
    assert hub.mids() == ["x", "x"]


@virtual
async def test_a_refusal_that_nobody_awaits_is_logged() -> None:
    hub = Hub()
    hub.refusals = [{"code": "forbidden", "message": "no"}]
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    CALM.addHandler(handler)
    try:
        async with publisher(FakeDial(hub.connection())) as p:
            await p.submit(fills(1)[0])
            await p.flush()
    finally:
        CALM.removeHandler(handler)
    assert lines == ["ws://h:8080: entry_fill of a refused: forbidden: no"]


@virtual
async def test_an_unreadable_answer_is_found_out_by_a_new_connection() -> None:
    hub = Hub()
    first, second = hub.connection(), hub.connection()
    async with publisher(FakeDial(first, second)) as p:
        await p.publish("a", "entry_fill", FILL)
        first.feed("{")
        await until(lambda: not p.statistics()["connected"])
        assert (await p.publish("a", "entry_fill", FILL)).position is not None


@virtual
async def test_what_a_hub_may_have_forgotten_is_said_again() -> None:
    hub = Hub()
    first, second = hub.connection(), hub.connection()

    def restate() -> list[Publication]:
        return [
            Publication(bot="a", topic="whitelist", data=["A/B"]),
            Publication(bot="a", topic="analyzed_df", key=KEY, frame=rows(0, 3)),
        ]

    async with publisher(FakeDial(first, second), restate=restate) as p:
        await p.publish("a", "entry_fill", FILL)
        assert len(hub.got) == 1
        first.end(1006)
        await asyncio.sleep(1)
        await p.flush()
    assert [data["topic"] for data in hub.got] == ["entry_fill", "whitelist", "analyzed_df"]
