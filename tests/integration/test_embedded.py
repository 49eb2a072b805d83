"""Hub.publish and Hub.stop from the threads of a bot that embeds the hub."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from typing import Any

import pytest

from hub.protocol.errors import BadMessage, Draining, RequestError
from hub.server import Hub

from .conftest import CONFIG, READER, Clients, ask, fill, heard

pytestmark = pytest.mark.anyio


async def test_a_time_that_no_wire_carries_is_the_callers_error_and_closes_nobody(
    hub: Hub, clients: Clients
) -> None:
    async with clients.v2(READER) as reader:
        await ask(
            reader, {"type": "subscribe", "id": 1, "data": {"want": [{"topics": ["status", "entry_fill"]}]}}
        )
        for ts in (2**70, "now", 1.5, True, -1):
            for topic, data in (("status", {"status": "x"}), ("entry_fill", fill(1))):
                with pytest.raises(BadMessage, match="ts"):
                    hub.publish(topic, data, ts=ts)  # type: ignore[arg-type]
        hub.publish("status", {"status": "fine"}).result(5)
        assert (await heard(reader))["data"] == {"status": "fine"}


async def test_a_cancelled_future_is_no_error_of_the_hub(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert hub._loop is not None
        held = threading.Event()
        hub._loop.call_soon_threadsafe(held.wait, 5)
        futures = [
            hub.publish(topic, data) for topic, data in (("status", {"status": "x"}), ("entry_fill", fill(1)))
        ]
        assert all(future.cancel() for future in futures)
        held.set()
        assert await asyncio.wrap_future(hub.publish("entry_fill", fill(2))) is not None
    assert not caplog.records
    assert hub.statistics()["in_process_waiting"] == 0
    assert ("entry_fill", "ledger") in {(figures.topic, figures.kind) for figures in hub.topics()}


def test_every_future_ends_though_the_hub_stops_under_fifty_threads() -> None:
    hub = Hub(CONFIG)
    hub.start()
    ends: Counter[str] = Counter()
    offsets: list[int] = []
    count = threading.Lock()
    started = threading.Barrier(51)

    def publish(thread: int) -> None:
        started.wait()
        for i in range(200):
            try:
                ack = hub.publish("entry_fill", fill(1000 * thread + i)).result(20)
            except RequestError as error:
                with count:
                    ends[type(error).__name__] += 1
                if isinstance(error, Draining):
                    return
            else:
                with count:
                    offsets.append(ack["offset"])

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    started.wait()
    hub.statistics()
    hub.sessions()
    hub.stop()
    assert hub.topics() == hub.sessions() == []
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert set(ends) <= {"Draining", "Overloaded", "NotDurable"}
    assert len(set(offsets)) == len(offsets)


def test_a_publish_from_a_callback_while_the_hub_stops_does_not_block_its_loop() -> None:
    hub = Hub(CONFIG)
    hub.start()
    errors: list[Any] = []
    seen = threading.Event()

    def again(_future: Any) -> None:
        try:
            hub.publish("status", {"status": "late"})
        except Draining as error:
            errors.append(error)
        seen.set()

    loop = hub._loop
    assert loop is not None
    entered = threading.Event()
    loop.call_soon_threadsafe(lambda: (entered.set(), _until_locked(hub)))
    assert entered.wait(5)
    future = hub.publish("status", {"status": "x"})
    future.add_done_callback(again)
    hub.stop()
    assert seen.is_set()


def _until_locked(hub: Hub) -> None:
    """Keep the loop busy until `stop` has begun."""
    while not hub._lock.locked():
        threading.Event().wait(0.001)
