"""consumer.publisher, in virtual time and against a hub that the test plays."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consumer_doubles import KEY, FakeConnection, FakeDial, numbers, rows, run_virtual, until, welcome

from consumer.errors import ConfigError, ConnectionFailed, HubRefused, NotStored, PublishError, Unauthorized
from consumer.outbox_file import OutboxFile
from consumer.publisher import Ack, Publication, Publisher
from hub.frames import v2
from hub.frames.columns import Schema
from hub.protocol.codec import Wire, encode_body
from hub.protocol.envelope import Position
from hub.protocol.values import plain

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
async def test_a_publisher_that_is_not_open_says_so() -> None:
    p = publisher(FakeDial())
    for publishing in (p.publish("a", "entry_fill", FILL), p.submit(fills(1)[0]), p.publish_many(fills(1))):
        with pytest.raises(ConnectionFailed, match="the publisher is not open: publish within `async with`"):
            await publishing


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


@virtual
async def test_a_silence_of_eight_seconds_neither_loses_nor_repeats() -> None:
    hub = Hub()
    connection, late = hub.connection(), []
    asked = hub.answer

    def slow(message: dict[str, Any]) -> list[dict[str, Any]]:
        late.extend(asked(message))
        return []

    connection.answer = slow
    async with publisher(FakeDial(connection)) as p:
        futures = [await p.submit(publication) for publication in fills(300)]
        await until(lambda: len(late) == 256)
        await asyncio.sleep(8)
        connection.answer = asked
        connection.feed(*late)
        acks = [await future for future in futures]
        assert p.statistics()["connections"] == 1
    assert hub.mids() == [f"m{i}" for i in range(300)]
    assert [ack.position.offset for ack in acks if ack.position] == list(range(1, 301))


@virtual
async def test_a_hub_that_answers_pings_but_no_publish_is_given_up() -> None:
    hub = Hub()
    hub.silent = True
    loop = asyncio.get_running_loop()
    first, second = hub.connection(), hub.connection()
    async with publisher(FakeDial(first, second)) as p:
        start = loop.time()
        future = await p.submit(fills(1)[0])
        await until(lambda: hub.got)
        hub.silent = False
        assert (await future).position == Position("e7", 1)
        assert 60 <= loop.time() - start < 62
        assert first.pings >= 2
        assert p.statistics()["overdue"] == 1
    assert hub.mids() == ["m0", "m0"]


@virtual
async def test_a_refused_token_is_tried_again_every_minute() -> None:
    hub = Hub()
    dial = FakeDial(Unauthorized("403"), Unauthorized("403"), Unauthorized("403"), hub.connection())
    async with publisher(dial) as p:
        with pytest.raises(Unauthorized):
            await p.publish("a", "entry_fill", FILL)
        with pytest.raises(Unauthorized):
            await p.publish("a", "entry_fill", FILL)
        await asyncio.sleep(121)
        assert (await p.publish("a", "entry_fill", FILL)).position == Position("e7", 1)
    times = [t for t, _ in dial.attempts]
    assert [b - a for a, b in itertools.pairwise(times)] == [0.5, 60, 60]


@virtual
async def test_a_repeated_mid_joins_what_waits_or_is_refused() -> None:
    hub = Hub()
    hub.silent = True
    first, second = hub.connection(), hub.connection()
    async with publisher(FakeDial(first, second)) as p:
        one = await p.submit(Publication(bot="a", topic="entry_fill", data=FILL, mid="x"))
        same = await p.submit(Publication(bot="a", topic="entry_fill", data=dict(FILL), mid="x", ts=9))
        for other in (
            Publication(bot="a", topic="entry_fill", data={**FILL, "trade_id": 2}, mid="x"),
            Publication(bot="b", topic="entry_fill", data=FILL, mid="x"),
            Publication(bot="a", topic="exit_fill", data=FILL, mid="x"),
        ):
            with pytest.raises(PublishError, match="id_conflict: mid 'x' is that of another message"):
                await p.submit(other)
        await until(lambda: hub.got)
        one.cancel()
        hub.silent = False
        first.end(1006)
        assert await same == Ack(Position("e7", 1))
    assert hub.mids() == ["x", "x"]
    assert one.cancelled()


# --- with an outbox on disk, in real time


def stored(path: Path, connection: FakeConnection | None = None, **more: Any) -> Publisher:
    dial = FakeDial(connection) if connection is not None else FakeDial()
    settings: dict[str, Any] = {"encoding": "json", "random": lambda: 0.0, "now_ms": lambda: 5, "dial": dial}
    return Publisher("ws://h", "s3cret", outbox=path, **(settings | more))


def abandon(publisher: Publisher) -> None:
    """Wait for no more acknowledgements."""
    assert publisher._task is not None
    publisher._task.cancel()


def killed(path: Path) -> Path:
    """What a kill at this moment leaves."""
    to = path.with_name(f"{path.stem}-killed")
    to.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), to)
    return to / path.name


@pytest.mark.anyio
async def test_what_a_killed_publisher_left_goes_first_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    silent = Hub()
    silent.silent = True
    async with stored(path, silent.connection()) as p:
        for publication in fills(4):
            await p.submit(publication)
        await p.submit(Publication(bot="a", topic="whitelist", data=["A/B"]))
        await p.submit(Publication(bot="a", topic="status", data={"status": "x"}))
        await p.submit(Publication(bot="a", topic="exit_fill", data=FILL, mid="kept", kept=True))
        await p.submit(Publication(bot="a", topic="exit_fill", data=FILL, ts=77))
        await until(lambda: len(silent.got) == 8)
        left = killed(path)
        abandon(p)
    hub = Hub()
    hub.offsets = {"m0": 1}
    again = stored(left, hub.connection(), now_ms=lambda: 99)
    async with again as p:
        assert p.statistics()["outbox_messages"] == 5
        repeated = await p.submit(fills(3)[2])
        ack = await p.publish("a", "entry_fill", FILL, mid="new")
        assert ack.position == Position("e7", 6)
        assert (await repeated).position == Position("e7", 3)
        assert p.statistics()["duplicates"] == 1
    assert hub.mids()[:4] == ["m0", "m1", "m2", "m3"]
    assert hub.mids()[5:] == ["new"]
    assert [data for data in hub.got if data["mid"] != "new"] == [
        data for data in silent.got if data["topic"].endswith("_fill") and data["mid"] != "kept"
    ]
    assert [data["ts"] for data in hub.got] == [5, 5, 5, 5, 77, 99]
    async with stored(left) as p:
        assert p.statistics()["outbox_messages"] == 0
        abandon(p)


@pytest.mark.anyio
async def test_the_other_wire_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    data = {
        "trade_id": 1 << 60,
        "pair": "Ä/€",
        "open_rate": 4.2e-11,
        "amount": 1.0,
        "x": [None, -0.0, {"y": ""}],
    }
    async with stored(path) as p:
        await p.submit(Publication(bot="a", topic="entry_fill", data=data, mid="x"))
        abandon(p)
    hub = Hub()
    connection = FakeConnection(Wire.MSGPACK)
    connection.feed(welcome())
    connection.answer = hub.answer
    async with stored(path, connection, encoding="msgpack") as p:
        await p.flush()
    assert hub.got[0]["data"] == data
    assert encode_body(hub.got[0]["data"]) == encode_body(plain(data))


@pytest.mark.anyio
async def test_leaving_keeps_what_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("consumer.publisher.FLUSH_S", 0.01)
    path = tmp_path / "o.sqlite"
    async with stored(path) as p:
        future = await p.submit(fills(1)[0])
        await p.submit(Publication(bot="a", topic="whitelist", data=["A/B"]))
    with pytest.raises(ConnectionFailed, match="the publisher was closed; the message stays in the outbox"):
        await future
    with pytest.raises(ConnectionFailed, match="closed"):
        await p.submit(fills(2)[1])
    assert f"2 messages are not acknowledged; 1 of them stay in {path}" in caplog.text
    hub = Hub()
    async with stored(path, hub.connection()) as p:
        await p.flush()
    assert hub.mids() == ["m0"]


@pytest.mark.anyio
async def test_what_is_refused_for_good_stays_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    hub = Hub()
    hub.refusals = [
        {"code": "id_expired", "message": "too old"},
        None,
        {"code": "id_conflict", "message": "no"},
    ]
    async with stored(path, hub.connection()) as p:
        futures = [await p.submit(publication) for publication in fills(3)]
        with pytest.raises(PublishError, match="id_expired: too old"):
            await futures[0]
        await futures[1]
        with pytest.raises(PublishError, match="id_conflict"):
            await futures[2]
    assert p.statistics()["refused_kept"] == 2
    connection = sqlite3.connect(path)
    kept = connection.execute("SELECT mid, ts, body, refused FROM message").fetchall()
    assert [(row[0], row[1], json.loads(row[2]), row[3]) for row in kept] == [
        ("m0", 5, FILL, "id_expired: too old"),
        ("m2", 5, FILL, "id_conflict: no"),
    ]
    # The operator's way to have one sent once more: with the mid of one that waits, it is that one or refused anew.
    connection.execute("UPDATE message SET refused = NULL")
    connection.execute(
        "INSERT INTO message SELECT 9, bot, topic, mid, ts, body, NULL, NULL FROM message WHERE mid = 'm0'"
    )
    connection.execute(
        "INSERT INTO message SELECT 10, 'b', topic, mid, ts, body, NULL, NULL FROM message WHERE number = 9"
    )
    connection.commit()
    connection.close()
    again = Hub()
    async with stored(path, again.connection()) as p:
        await p.flush()
    assert again.mids() == ["m0", "m2"]
    assert p.statistics()["refused_kept"] == 1


@pytest.mark.anyio
async def test_a_message_that_the_disk_does_not_take_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    async with stored(tmp_path / "o.sqlite", hub.connection()) as p:
        await p.publish("a", "entry_fill", FILL, mid="before")
        monkeypatch.setattr("consumer.outbox_file._INSERT", "INSERT INTO nowhere VALUES (?, ?, ?, ?, ?, ?)")
        with pytest.raises(NotStored, match=r"not_durable: .*o\.sqlite: no such table: nowhere"):
            await p.submit(fills(1)[0])
        with pytest.raises(NotStored):
            await p.publish_many(fills(2))
        assert p.statistics()["outbox_bytes"] == 0
        monkeypatch.undo()
        assert len(await p.publish_many(fills(2))) == 2
        assert (p.statistics()["not_stored"], p.statistics()["commits_failed"]) == (3, 2)
    assert hub.mids() == ["before", "m0", "m1"]


@pytest.mark.anyio
async def test_what_was_submitted_behind_one_that_could_not_be_stored_does_not_overtake_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, path, failing, go_on = Hub(), tmp_path / "o.sqlite", threading.Event(), threading.Event()
    change = OutboxFile._change

    def full_at_first(self: OutboxFile, *arguments: Any) -> None:
        if not failing.is_set():
            failing.set()
            assert go_on.wait(20)
            raise sqlite3.OperationalError("database or disk is full")
        change(self, *arguments)

    monkeypatch.setattr(OutboxFile, "_change", full_at_first)
    async with stored(path, hub.connection()) as p:
        entry, *behind = fills(3)
        first = asyncio.create_task(p.submit(entry))
        assert await asyncio.to_thread(failing.wait, 20)
        others = [asyncio.create_task(p.submit(publication)) for publication in behind]
        await asyncio.sleep(0)
        go_on.set()
        ends = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(end) for end in ends] == [NotStored] * 3
        # There is room again, and the bot says it all again.
        await p.publish_many(fills(3))
        assert p.statistics()["not_stored"] == 3
    assert hub.mids() == ["m0", "m1", "m2"]
    async with stored(path) as p:
        assert p.statistics()["outbox_messages"] == 0
        abandon(p)


@pytest.mark.anyio
async def test_what_no_hub_can_take_is_not_stored(tmp_path: Path) -> None:
    async with stored(tmp_path / "o.sqlite") as p:
        for publication, text in (
            (
                Publication(bot="", topic="entry_fill", data=FILL),
                "bad_message: bot: expected 1 to 64 bytes, got 0",
            ),
            (
                Publication(bot="a", topic="entry_fill", data=FILL, mid="x" * 65),
                "mid: expected 1 to 64 bytes",
            ),
            (Publication(bot="a", topic="entry_fill", data=FILL, ts=-1), "ts: expected ms since 1970"),
            (Publication(bot="a", topic="entry_fill", data=FILL, ts=1 << 60), "ts: expected ms since 1970"),
            (Publication(bot="a", topic="entry_fill", data={"x": object()}), "bad_message: data.x"),
            (Publication(bot="\ud800", topic="entry_fill", data=FILL), "bad_message"),
        ):
            with pytest.raises(PublishError, match=text):
                await p.submit(publication)
        assert p.statistics()["outbox_messages"] == 0
        abandon(p)


@pytest.mark.anyio
async def test_stored_messages_wait_for_a_token_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = asyncio.Event()
    hub = Hub()

    async def sleep(seconds: float) -> None:
        if seconds > 1:
            await (asyncio.Event() if again.is_set() else again).wait()

    dial = FakeDial(Unauthorized("403"), Unauthorized("403"), hub.connection())
    async with stored(tmp_path / "o.sqlite", dial=dial, sleep=sleep, outbox_bytes=1500) as p:
        futures = [await p.submit(publication) for publication in fills(2)]
        await until(lambda: p._error is not None)
        assert not any(future.done() for future in futures)
        with pytest.raises(Unauthorized):
            await p.publish("a", "whitelist", [])
        with pytest.raises(Unauthorized):
            await p.submit(fills(3)[2])
        again.set()
        assert [(await future).position for future in futures] == [Position("e7", 1), Position("e7", 2)]


@pytest.mark.anyio
async def test_a_file_that_cannot_be_had_is_told_at_the_start(tmp_path: Path) -> None:
    async with stored(tmp_path / "o.sqlite") as p:
        with pytest.raises(ConfigError, match="in use by another publisher"):
            await stored(tmp_path / "o.sqlite").__aenter__()
        abandon(p)


@pytest.mark.anyio
async def test_the_bound_is_that_of_the_disk_too(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    async with stored(path, outbox_bytes=1600) as p:
        for publication in fills(2):
            await p.submit(publication)
        waiting = asyncio.create_task(p.submit(fills(3)[2]))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()
        abandon(p)
    hub = Hub()
    # A bound that was made smaller than what is there holds new ones up, and loses nothing.
    async with stored(path, hub.connection(), outbox_bytes=10) as p:
        assert p.statistics()["outbox_bytes"] > 10
        await p.publish("a", "entry_fill", FILL, mid="behind")
    assert hub.mids() == ["m0", "m1", "behind"]
