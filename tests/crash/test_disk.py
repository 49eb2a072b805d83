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


FULL_BYTES = 8192
"""No room at all: every write beyond the first pages of a file fails."""


def limit_files(hub: Hub, size: int) -> None:
    """No file of the hub may grow beyond `size` bytes; negative: any."""
    assert hub.process is not None
    _, hard = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))


def test_a_full_disk(world: World) -> None:
    world.start(spare=1)
    time.sleep(1)
    limit_files(world.hub, FULL_BYTES)
    refusals: list[dict[str, object]] = []

    def refused() -> bool:
        answer = publish(world.hub.port, 2, len(refusals) + 1)
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
    assert during == 0
    assert world.hub.running
    limit_files(world.hub, -1)
    until(
        lambda: len(acknowledgements(world.publishers)) > len(before) + 50,
        60,
        "fills are acknowledged again",
    )
    accounts = world.settle()
    complaints = [line for line in world.hub.output.splitlines() if " ERROR " in line or " WARNING " in line]
    print("\n".join(complaints))
    # A line or two, not one for each publish.
    assert 1 <= len(complaints) <= 6
    assert all(account.named_lost == 0 and not account.losses for account in accounts)
