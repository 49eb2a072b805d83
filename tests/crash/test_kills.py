"""kill -9 in loops under load: of each party in turn, and of any of them at any moment."""

from __future__ import annotations

import time

import pytest

from .conftest import World
from .parties import Party

pytestmark = pytest.mark.timeout(180)


def kill_in_a_loop(world: World, parties: list[Party], times: int) -> None:
    """Kill one of `parties` after the other, each at a random moment of its life, and start it again."""
    for i in range(times):
        party = parties[i % len(parties)]
        time.sleep(world.random.uniform(0.1, 0.9))
        party.kill()
        party.start()


def test_a_hub_that_is_killed_loses_nothing(world: World) -> None:
    world.start()
    kill_in_a_loop(world, [world.hub], 6)
    accounts = world.settle()
    assert all(account.named_lost == 0 and not account.losses for account in accounts)


def test_publishers_that_are_killed_lose_nothing_that_was_acknowledged(world: World) -> None:
    world.start()
    kill_in_a_loop(world, [*world.publishers], 8)
    accounts = world.settle()
    assert all(account.named_lost == 0 for account in accounts)
    for publisher in world.publishers:
        # Whatever was in the outbox when it was killed was sent by its next life.
        assert {effect.n for effect in world.live.effects() if effect.bot == publisher.bot} == set(
            range(1, publisher.submitted() + 1)
        )


def test_a_consumer_that_is_killed_acts_once_on_each_fill(world: World) -> None:
    world.start()
    kill_in_a_loop(world, [world.live], 8)
    accounts = world.settle()
    assert all(account.named_lost == 0 for account in accounts)


def test_any_party_is_killed_at_any_moment(world: World) -> None:
    world.start()
    parties: list[Party] = [world.hub, world.live, *world.publishers]
    for _ in range(7):
        time.sleep(world.random.uniform(0.1, 1.2))
        victims = world.random.sample(parties, world.random.choice([1, 1, 2, len(parties)]))
        for party in victims:
            party.kill()
        for party in world.random.sample(victims, len(victims)):
            # The hub may come back after those that look for it, and be killed while it opens its ledger.
            if party is world.hub:
                world.hub.start(wait=world.random.random() < 0.5)
            else:
                party.start()
    accounts = world.settle()
    assert all(account.named_lost == 0 for account in accounts)
