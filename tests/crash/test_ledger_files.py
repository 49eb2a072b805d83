"""The ledger's files under kills and damage, in long loops. TRADEWIRE_ROUNDS multiplies them; every failure names its seed."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.log.damage import Ledger, build, flip, judge
from tests.log.killing import Tally, check, killed, victim

ROUNDS = int(os.environ.get("TRADEWIRE_ROUNDS", "1"))
pytestmark = pytest.mark.timeout(600 * ROUNDS)
ROOMS = {"kept": 1 << 30, "retention": 14_000}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.getLogger("tradewire.log").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("tradewire.log").setLevel(logging.NOTSET)


def made(tmp_path: Path, room: str, *, killed_hub: bool) -> tuple[Ledger, Path]:
    (tmp_path / "made").mkdir()
    (tmp_path / "damaged").mkdir()
    ledger = asyncio.run(build(tmp_path / "made", 60, killed=killed_hub, room=ROOMS[room]))
    return ledger, tmp_path / "damaged"


def test_kills(tmp_path: Path) -> None:
    tally, choose = Tally(), random.Random(1)
    for i in range(20 * ROUNDS):
        killed(tmp_path, f"run{i}", tally, after=choose.randrange(1, 400))
    asyncio.run(check(tmp_path, tally))


def some_bit(path: Path, choose: random.Random) -> None:
    bits = 8 * path.stat().st_size
    # The header and the first pages are where most of the structure is.
    flip(path, choose.randrange(min(bits, choose.choice([1000, 20_000, bits, bits]))))


def some_sector(path: Path, choose: random.Random) -> None:
    """A sector that the disk lost."""
    at = choose.randrange(path.stat().st_size) // 512 * 512
    with path.open("r+b") as file:
        file.seek(at)
        file.write(choose.choice([bytes(512), choose.randbytes(512), b"\xff" * 512]))


def some_page(path: Path, choose: random.Random) -> None:
    """A page that holds what another one held."""
    pages = path.stat().st_size // 4096
    if pages == 0:
        some_bit(path, choose)
        return
    data = path.read_bytes()
    source, target = choose.randrange(pages), choose.randrange(pages)
    with path.open("r+b") as file:
        file.seek(4096 * target)
        file.write(data[4096 * source : 4096 * source + 4096])


def some_end(path: Path, choose: random.Random) -> None:
    """A file that is shorter than it was."""
    with path.open("r+b") as file:
        file.truncate(choose.randrange(path.stat().st_size))


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("state", ["closed", "killed"])
@pytest.mark.parametrize("damage", [some_bit, some_sector, some_page, some_end], ids=lambda d: d.__name__)
def test_damage(tmp_path: Path, room: str, state: str, damage: Callable[[Path, random.Random], None]) -> None:
    ledger, at = made(tmp_path, room, killed_hub=state == "killed")
    names = ["ledger.sqlite", "ledger.sqlite-wal" if state == "killed" else "ledger.mark"]
    ends: Counter[str] = Counter()
    for seed in range(60 * ROUNDS):
        choose = random.Random(seed)
        ledger.put(at)
        name = choose.choice(names)
        damage(at / name, choose)
        try:
            ends[asyncio.run(judge(ledger, at))] += 1
        except BaseException as error:
            error.add_note(f"seed {seed} of {damage.__name__}, {name}")
            raise
    if damage is some_bit:
        assert not ends["epoch"], ends


def test_kills_while_a_damaged_ledger_is_opened(tmp_path: Path) -> None:
    ledger, at = made(tmp_path, "kept", killed_hub=True)
    for seed in range(25 * ROUNDS):
        choose = random.Random(seed)
        ledger.put(at)
        some_sector(at / choose.choice(["ledger.sqlite", "ledger.sqlite-wal"]), choose)
        for _ in range(2):
            with victim("open", str(at)) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(choose.random() * 0.03)
                process.kill()
        try:
            asyncio.run(judge(ledger, at))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
