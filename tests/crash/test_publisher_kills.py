"""kill -9 of a publisher with an outbox on disk, in a loop, at full speed: what `submit` returned for is in the ledger, once.

The bot is this file run as a program. Its hub stays up; kills of the others are the matter of the other modules here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from consumer.publisher import Publication, Publisher
from hub.server import Hub

ROOT = Path(__file__).parent.parent.parent
READER = "reader-token-0123456789abcdefghijkl"
WRITER = "writer-token-0123456789abcdefghijkl"
SEED = int(os.environ.get("TRADEWIRE_CRASH_SEED", "4"))
KILLS = 12

pytestmark = pytest.mark.timeout(180)


# --- the bot


async def bot(url: str, directory: Path, workers: int, until: int) -> None:
    """Publish the fills that are not in `submitted` yet, as fast as it goes; with `until` the rest up to that one, then end."""
    journal = os.open(directory / "submitted", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    before = {int(line) for line in whole_lines(directory / "submitted")}
    todo = (n for n in itertools.count(1) if n not in before)
    async with Publisher(url, WRITER, outbox=directory / "outbox.sqlite", name="alpha") as publisher:
        print("ready", flush=True)

        async def work() -> None:
            for n in todo:
                if until and n > until:
                    break
                data = {"trade_id": n, "pair": "BTC/USDT", "x": "x" * (n % 700)}
                await publisher.submit(
                    Publication(bot="alpha", topic="entry_fill", data=data, mid=f"{n}/fill")
                )
                os.write(journal, f"{n}\n".encode())

        await asyncio.gather(*(work() for _ in range(workers)))
        await publisher.flush()


def whole_lines(path: Path) -> list[str]:
    """A kill may have cut the last one."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]


# --- the test


class Life:
    """One process of the bot."""

    def __init__(self, hub: Hub, directory: Path, workers: int, until: int = 0) -> None:
        url = hub.url.replace("http", "ws", 1)
        self._process = subprocess.Popen(
            [sys.executable, __file__, url, str(directory), str(workers), str(until)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def ended(self) -> int:
        return self._process.wait(60)


def ledger(hub: Hub, last: int) -> list[int]:
    """The numbers of the fills in the ledger, in its order; read up to the head."""
    with connect(
        f"ws://127.0.0.1:{hub.port}/api/v1/message/ws",
        subprotocols=[Subprotocol("tradewire.v2.json")],
        additional_headers={"Authorization": f"Bearer {READER}"},
        compression=None,
        proxy=None,
    ) as websocket:
        head = json.loads(websocket.recv(15))["data"]["head"]
        want = {"want": [{"topics": ["entry_fill"]}], "from": "earliest"}
        websocket.send(json.dumps({"type": "subscribe", "id": 1, "data": want}))
        numbers, offset = [], 0
        while offset < head:
            message: dict[str, Any] = json.loads(websocket.recv(15))
            offset = message.get("offset", offset)
            if message["type"] == "entry_fill":
                numbers.append(message["data"]["trade_id"])
    return numbers


@pytest.mark.parametrize("workers", [1, 50])
def test_a_publisher_that_is_killed_loses_and_repeats_nothing(tmp_path: Path, workers: int) -> None:
    print(f"\nseed {SEED}")
    chance = random.Random(SEED)
    publishers = [{"name": "writer", "token": WRITER, "bots": ["alpha"]}]
    secrets = {
        "username": "u",
        "password": "a-long-password-1",
        "jwt_secret_key": "k" * 40,
        "ws_token": READER,
    }
    config = {
        "api_server": {**secrets, "listen_port": 0},
        "hub": {"publishers": publishers, "state_dir": str(tmp_path / "state")},
    }
    with Hub(config) as hub:
        for kill in range(KILLS):
            with Life(hub, tmp_path, workers) as life:
                if kill % 4:
                    life.ready()
                time.sleep(chance.uniform(0, 0.4))
                life.kill()
        submitted = {int(line) for line in whole_lines(tmp_path / "submitted")}
        with Life(hub, tmp_path, workers, max(submitted)) as life:
            life.ready()
            assert life.ended() == 0
        numbers = ledger(hub, max(submitted))
    print(
        f"{KILLS} kills: {len(submitted)} submitted, {len(numbers)} in the ledger, {len(set(numbers))} unique"
    )
    assert len(numbers) == len(set(numbers))
    # Of what was under way at a kill some is there though its submit never returned.
    assert submitted <= set(numbers) <= set(range(1, max(submitted) + 1 + workers))
    assert workers > 1 or numbers == sorted(numbers)
    connection = sqlite3.connect(tmp_path / "outbox.sqlite")
    assert connection.execute("SELECT count(*) FROM message").fetchone() == (0,)
    connection.close()


if __name__ == "__main__":
    asyncio.run(bot(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
