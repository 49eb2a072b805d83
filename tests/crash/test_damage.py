"""Damage to the ledger's files after a kill: the hub starts, names what is gone, keeps the rest, and tells those who were ahead."""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
import time
from pathlib import Path

import pytest

from .accounts import acknowledgements
from .conftest import World
from .parties import until

pytestmark = pytest.mark.timeout(180)


def wal_of(world: World) -> Path:
    return world.hub.ledger.with_name(world.hub.ledger.name + "-wal")


def killed_under_load(world: World) -> None:
    """Some fills, then kill -9 of the hub while more are on their way."""
    world.start()
    time.sleep(2)
    world.hub.kill()


def complaints(world: World, before: int) -> list[str]:
    """The lines of WARNING and worse that the hub's new life wrote."""
    return [
        line for line in world.hub.output[before:].splitlines() if " WARNING " in line or " ERROR " in line
    ]


def flip_bit(path: Path, at: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 0x04,)))


def commits_of(world: World) -> list[int]:
    """Where each commit in the WAL ends. Behind the last one the file goes on, in zeros that are laid out ahead.

    A frame has a header of 24 bytes and a page; that which ends a commit says how large the database is then (SQLite, Database File
    Format, section 4.1).
    """
    data = wal_of(world).read_bytes()
    salt, size = data[16:24], 24 + int.from_bytes(data[8:12], "big")
    starts = itertools.takewhile(
        lambda at: data[at + 8 : at + 16] == salt, range(32, len(data) - size + 1, size)
    )
    return [at + size for at in starts if data[at + 4 : at + 8] != bytes(4)]


def test_a_torn_tail(world: World) -> None:
    killed_under_load(world)
    commits = commits_of(world)
    assert len(commits) > 20, "the test needs something in the WAL"
    with wal_of(world).open("r+b") as file:
        # Between two commits: of one that is there in part, salvage may find records.
        file.truncate(commits[len(commits) // 2] + 1234)
    before = len(world.hub.output)
    world.hub.start()
    told = complaints(world, before)
    print("\n".join(told))
    assert sum("epoch" in line for line in told) == 1, world.hub.output[before:]
    # The live consumer was ahead of the cut, and goes on with what comes.
    live = len(world.live.effects())
    until(lambda: len(world.live.effects()) > live + 50, 30, "fills of the new epoch arrive")
    accounts = world.settle()
    epochs = {effect.epoch for effect in world.live.effects()}
    assert len(epochs) == 2
    # The one that was away gets all that is still there, and hears exactly what is not.
    acknowledged = acknowledgements(world.publishers)
    (old,) = {epoch for epoch, _ in acknowledged.values()} - {
        effect.epoch for effect in world.live.effects()[-1:]
    }
    ends = re.search(r"it ends at (\d+), and messages up to (\d+) were acknowledged", "".join(told))
    assert ends is not None, told
    head, told_upto = map(int, ends.groups())
    (loss,) = world.away.losses()
    assert (loss.first, loss.last, loss.reason) == (head + 1, told_upto, "cut")
    done = {(effect.bot, effect.n) for effect in world.away.effects()}
    gone = {fill for fill, (epoch, offset) in acknowledged.items() if epoch == old and offset > head}
    assert set(acknowledged) - done <= gone
    print(
        f"kept and delivered up to {head}, named as lost {loss.first}..{loss.last}: {accounts[1].named_lost}"
    )
    # What the live one misses by name is what it had not got when the hub was killed.
    assert all(lost.reason == "cut" and (lost.first or 0) > head for lost in world.live.losses())


def test_a_flipped_bit_in_the_wal(world: World) -> None:
    killed_under_load(world)
    flip_bit(wal_of(world), commits_of(world)[-1] // 2)
    before = len(world.hub.output)
    world.hub.start()
    told = complaints(world, before)
    print("\n".join(told))
    # SQLite would drop all that is behind the bit; the ledger has kept it.
    assert any("damaged" in line for line in told), world.hub.output[before:]
    accounts = world.settle()
    assert all(account.named_lost <= 1 for account in accounts)


def test_a_flipped_bit_in_the_database(world: World) -> None:
    killed_under_load(world)
    # Move what is in the WAL into the database.
    with contextlib.closing(sqlite3.connect(world.hub.ledger)) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    fills = acknowledgements([world.publishers[0]])
    # One that the consumer which is away has not got.
    n = max(fill[1] for fill in fills) - 20
    data = world.hub.ledger.read_bytes()
    at = data.find(b'"trade_id":%d,' % n)
    assert at > 0, "the record is in the database as text"
    flip_bit(world.hub.ledger, at + 20)
    before = len(world.hub.output)
    world.hub.start()
    accounts = world.settle()
    print("\n".join(complaints(world, before)))
    by_name = {account.consumer: account for account in accounts}
    # The live one had it before the damage; the other is told of one message, and gets all those behind it.
    assert by_name["live"].named_lost == 0
    assert by_name["away"].named_lost == 1
    assert [loss for loss in by_name["away"].losses if loss.first == loss.last]
