"""A full disk: publishes are refused as not durable and nothing is acknowledged, until there is room again."""

from __future__ import annotations

import resource
import time

import pytest

from .accounts import acknowledgements
from .conftest import World
from .parties import Hub, until
from .writing import publish

pytestmark = pytest.mark.timeout(180)


def limit_files(hub: Hub, size: int) -> None:
    """No file of the hub may grow beyond `size` bytes; negative: any."""
    assert hub.process is not None
    _, hard = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))


def test_a_full_disk(world: World) -> None:
    world.start(spare=1)
    time.sleep(1)
    largest = max(path.stat().st_size for path in world.hub.ledger.parent.iterdir())
    limit_files(world.hub, largest + 32 * 1024)
    refusals: list[dict[str, object]] = []

    def refused() -> bool:
        answer = publish(world.hub.port, 2, len(refusals) + 1, padding=20_000)
        if not answer["ok"]:
            refusals.append(answer["error"])
        return not answer["ok"]

    until(refused, 30, "a publish is refused")
    assert refusals[-1]["code"] == "not_durable", refusals[-1]
    assert refusals[-1]["temporary"] is True
    # What is on its way now was stored before.
    time.sleep(0.5)
    before = acknowledgements(world.publishers)
    time.sleep(2)
    during = len(acknowledgements(world.publishers)) - len(before)
    assert world.hub.running
    limit_files(world.hub, -1)
    until(
        lambda: len(acknowledgements(world.publishers)) > len(before) + 50,
        60,
        "fills are acknowledged again",
    )
    accounts = world.settle()
    print(f"{during} acknowledgements while the disk was full")
    assert all(account.named_lost == 0 and not account.losses for account in accounts)
