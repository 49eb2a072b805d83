"""Rounds of a process that stores and is killed, and what its ledger holds then."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.core.entry import Entry
from tests.log.messages import opened, whole

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Tally:
    """What was acknowledged, over all rounds."""

    epochs: set[str] = field(default_factory=set)
    acknowledged: dict[int, str] = field(default_factory=dict)


def victim(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A process of tests.log.victim."""
    command = [sys.executable, "-m", "tests.log.victim", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def killed(directory: Path, run: str, tally: Tally, *, after: int) -> None:
    """One round: kill it when it has acknowledged so many."""
    with victim("publish", str(directory), run) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        tally.epochs.add(first["epoch"])
        assert first["head"] >= max(tally.acknowledged, default=0)
        for count, line in enumerate(process.stdout, 1):
            if count == after:
                process.kill()
            if line.endswith("\n"):
                said = json.loads(line)
                assert said["offset"] not in tally.acknowledged
                tally.acknowledged[said["offset"]] = said["mid"]


async def check(directory: Path, tally: Tally) -> None:
    """Everything acknowledged is there, once, in its place."""
    async with opened(directory) as log:
        slots = await whole(log)
        assert [slot.offset for slot in slots] == list(range(1, len(slots) + 1))
        stored = {slot.offset: slot.mid for slot in slots if isinstance(slot, Entry)}
        assert len(stored) == len(slots) == len(set(stored.values()))
        assert tally.acknowledged.items() <= stored.items()
        assert tally.epochs == {slots[0].epoch}
        assert log.statistics()["damaged"] == 0
