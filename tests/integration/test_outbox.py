"""A publisher with an outbox on disk, before its hub is there and after the publisher has died."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Literal

import pytest

from consumer.errors import PublishError
from consumer.publisher import Publication, Publisher
from hub.server import Hub

from .conftest import READER, WRITER, Clients, ask, fill, heard

pytestmark = pytest.mark.anyio


async def ledger(clients: Clients, count: int) -> list[tuple[str, int, int]]:
    """Topic, trade and time of the first `count` messages."""
    async with clients.v2(READER) as reader:
        want = {"want": [{"topics": ["entry_fill", "exit_fill"]}], "from": "earliest"}
        await ask(reader, {"type": "subscribe", "id": 1, "data": want})
        messages: list[dict[str, Any]] = []
        while len(messages) < count:
            message = await heard(reader)
            if "offset" in message and "mid" in message:
                messages.append(message)
    return [(message["type"], message["data"]["trade_id"], message["ts"]) for message in messages]


async def left_behind(path: Path) -> None:
    """A bot that submits while there is no hub, and fails."""
    async with Publisher("ws://127.0.0.1:1", WRITER, outbox=path) as publisher:
        for n, topic in enumerate(["entry_fill", "exit_fill", "entry_fill", "status"]):
            data = fill(n) if n < 3 else {"status": "running"}
            await publisher.submit(Publication(bot="alpha", topic=topic, data=data, mid=f"m{n}"))
        raise ZeroDivisionError


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_what_was_submitted_before_the_hub_was_there_is_published_once(
    tmp_path: Path, hub: Hub, clients: Clients, encoding: Literal["json", "msgpack"]
) -> None:
    path, url = tmp_path / "outbox.sqlite", f"ws://127.0.0.1:{hub.port}"
    with pytest.raises(ZeroDivisionError):
        await left_behind(path)
    async with Publisher(url, WRITER, outbox=path, encoding=encoding) as publisher:
        ack = await publisher.publish("alpha", "exit_fill", fill(9), mid="m9")
        again = await publisher.publish("alpha", "entry_fill", fill(2), mid="m2")
        assert again.duplicate
        with pytest.raises(PublishError, match="id_conflict"):
            await publisher.publish("alpha", "entry_fill", fill(3), mid="m2")
        with pytest.raises(PublishError, match="forbidden"):
            await publisher.publish("gamma", "entry_fill", fill(4), mid="m4")
        assert publisher.statistics()["refused_kept"] <= 2
    assert ack.position is not None
    assert ack.position.offset == 4
    told = await ledger(clients, 4)
    assert [(topic, trade) for topic, trade, _ in told] == [
        ("entry_fill", 0), ("exit_fill", 1), ("entry_fill", 2), ("exit_fill", 9)
    ]  # fmt: skip
    assert [ts for _, _, ts in told] == sorted(ts for _, _, ts in told)
    connection = sqlite3.connect(path)
    kept = connection.execute(
        "SELECT mid, substr(refused, 1, instr(refused, ':') - 1) FROM message"
    ).fetchall()
    connection.close()
    assert kept == [("m2", "id_conflict"), ("m4", "forbidden")]
