"""hub.relay: what an upstream sends is published under its name; its faults cost its own link only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any, Self

import pytest

from consumer.errors import Unauthorized
from hub import relay as module
from hub.config import Secret, Upstream
from hub.frames.columns import Columns
from hub.log.memory import MemoryLog
from hub.node import Node
from hub.protocol.localbot import Connected, Delivery, Disconnected
from hub.protocol.messages import AnalyzedDf, FrameKey, view
from hub.relay import Relay

pytestmark = pytest.mark.anyio

UPSTREAM = Upstream(name="alpha", host="127.0.0.1", ws_token=Secret("upstream-token-0123456789abcdefghij"))
KEY = FrameKey("BTC/USDT", "5m", "spot")


def delivery(topic: str, message: Any, payload: Any = None, **more: Any) -> Delivery:
    return Delivery(producer="alpha", bot="alpha", topic=topic, message=message, payload=payload, **more)


def typed(topic: str, payload: Any) -> Delivery:
    return delivery(topic, view(topic, payload), payload)


class Script:
    """Stands in for the consumer's Client: each connection plays the next script, an exception in it is raised."""

    def __init__(self, *scripts: Iterable[Any]) -> None:
        self.scripts = [list(script) for script in scripts]
        self.opened = 0

    def __call__(self, *_args: Any, **_keys: Any) -> Script:
        self.opened += 1
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held."""

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        for step in self.scripts.pop(0) if self.scripts else []:
            if isinstance(step, Exception):
                raise step
            yield step
        if not self.scripts:
            await asyncio.Event().wait()

    def statistics(self) -> dict[str, int]:
        return {}


async def relayed(monkeypatch: pytest.MonkeyPatch, script: Script) -> tuple[Node, Relay]:
    """Run a relay over a script until nothing moves any more."""
    node = Node(MemoryLog("e1", 1 << 20))
    await node.start()
    slept: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(module, "Client", script)
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=sleep))
    relay = Relay(node, UPSTREAM)
    task = asyncio.create_task(relay.run())
    for _ in range(50):
        await real_sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    relay.slept = slept  # type: ignore[attr-defined]
    return node, relay


async def test_fields_that_nobody_knows_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = {
        "trade_id": 1,
        "pair": "BTC/USDT",
        "open_date": "2026-11-22T14:01:01.951382+00:00",
        "novelty": [1],
    }
    node, relay = await relayed(
        monkeypatch, Script([typed("entry_fill", payload), typed("whitelist", ["BTC/USDT"])])
    )
    (entry,) = node.core.tail.since(1)
    assert (entry.bot, entry.topic, entry.data) == ("alpha", "entry_fill", payload)
    assert node.whitelist("alpha") == ["BTC/USDT"]
    assert relay.statistics()["relayed"] == 2
    await node.stop()


async def test_a_fill_of_an_older_bot_without_a_field_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    node, _ = await relayed(monkeypatch, Script([delivery("exit_fill", None, {"pair": "BTC/USDT"})]))
    (entry,) = node.core.tail.since(1)
    assert entry.data == {"pair": "BTC/USDT"}
    await node.stop()


async def test_frames_are_kept_and_snapshots_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Columns.from_mapping({"date": [300_000, 600_000], "close": [1.0, 2.0]}, {"date": "ts_ms"})
    row = Columns.from_mapping({"date": [900_000], "close": [4.2e-11]}, {"date": "ts_ms"})
    script = Script(
        [
            delivery("analyzed_df", AnalyzedDf(key=KEY, df=window), key=KEY, snapshot=True),
            delivery("analyzed_df", AnalyzedDf(key=KEY, df=row), key=KEY),
        ]
    )
    node, _ = await relayed(monkeypatch, script)
    (cell,) = node.core.cells.values()
    assert cell.store.tail().column("close").tolist() == [1.0, 2.0, 4.2e-11]
    await node.stop()


async def test_a_fault_of_ours_costs_this_link_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script([ZeroDivisionError()], [typed("status", {"status": "running"})])
    node, relay = await relayed(monkeypatch, script)
    assert relay.statistics()["failures"] == 1
    assert node.state("alpha") == "running"
    assert "the relay failed" in caplog.text
    await node.stop()


async def test_a_refused_token_is_told_once_and_asked_again_slowly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script(
        [Unauthorized("HTTP 403")], [Unauthorized("HTTP 403")], [typed("status", {"status": "running"})]
    )
    node, relay = await relayed(monkeypatch, script)
    assert relay.slept == [60.0, 60.0]  # type: ignore[attr-defined]
    assert caplog.text.count("HTTP 403") == 1
    assert node.state("alpha") == "running"
    await node.stop()


async def test_the_link_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([delivery("connected", Connected(producer="alpha"))], [])
    node, relay = await relayed(monkeypatch, script)
    assert relay.statistics()["links"] == 1
    assert relay.online is False
    script = Script([delivery("disconnected", Disconnected(producer="alpha", reason="gone"))])
    _, relay = await relayed(monkeypatch, script)
    assert relay.online is False
    await node.stop()
