"""The network between them: resets, lost acknowledgements, and a partition that nobody is told of."""

from __future__ import annotations

import time

import pytest

from .accounts import acknowledgements
from .conftest import World

pytestmark = pytest.mark.timeout(180)

PARTITION_S = 8.0


def test_connections_are_reset_all_the_time(world: World) -> None:
    world.start()
    links = 0
    for _ in range(15):
        time.sleep(world.random.uniform(0.1, 0.8))
        links += world.proxy.reset()
    accounts = world.settle()
    print(f"{links} connections were reset")
    assert links >= 15
    assert all(account.named_lost == 0 and not account.losses for account in accounts)


def test_acknowledgements_are_lost(world: World) -> None:
    world.start()
    for _ in range(5):
        # The hub stores what it hears; nobody hears that it did, and then the connection is gone.
        world.proxy.mute()
        time.sleep(world.random.uniform(0.2, 0.6))
        world.proxy.reset()
        world.proxy.mute(False)
        time.sleep(0.7)
    accounts = world.settle()
    repeated = sum(publisher.duplicates() for publisher in world.publishers)
    print(f"{world.proxy.lost} bytes of the hub were lost; {repeated} fills were sent twice and stored once")
    assert repeated > 0
    assert all(account.named_lost == 0 and not account.losses for account in accounts)


def test_a_silent_partition(world: World) -> None:
    world.start()
    time.sleep(1)
    world.proxy.partition()
    before = len(acknowledgements(world.publishers))
    time.sleep(PARTITION_S)
    during = len(acknowledgements(world.publishers)) - before
    world.proxy.heal()
    time.sleep(1)
    accounts = world.settle()
    print(f"{during} acknowledgements within {PARTITION_S} s of silence")
    # Those that were on their way before it.
    assert during < 50
    assert all(account.named_lost == 0 and not account.losses for account in accounts)
