"""`python -m tests.simulation N [SEED]`: N schedules from SEED on. A failure is made smaller, and printed with what happened."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.simulation.files import FileLog
from tests.simulation.schedule import Schedule, make, smaller, whole
from tests.simulation.world import Bugs, Figures, Violation, World, live

SUMMED = ("acked", "effects", "lost", "repeated", "deaths", "turns", "virtual_s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("schedules", type=int, help="how many")
    parser.add_argument("seed", type=int, nargs="?", default=0, help="of the first")
    parser.add_argument("--files", action="store_true", help="the ledger in SQLite files")
    parser.add_argument("--trace", action="store_true", help="print what happens in the first")
    parser.add_argument("--keep-going", action="store_true", help="count failures, and show one of each kind")
    arguments = parser.parse_args()
    lived = _live_on_files if arguments.files else live
    total: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    begun = time.perf_counter()
    for seed in range(arguments.seed, arguments.seed + arguments.schedules):
        schedule = make(random.Random(seed))
        if arguments.files:
            schedule = whole(schedule)
        if arguments.trace:
            _show(schedule)
            return 0
        try:
            figures = lived(schedule)
        except Violation as violation:
            kind = " ".join(str(violation).split()[:6])
            kinds[kind] += 1
            if kinds[kind] == 1:
                print(f"seed {seed}: {violation}", flush=True)
                _show(smaller(schedule, partial(_fails, lived)))
            if not arguments.keep_going:
                return 1
            continue
        total.update({name: getattr(figures, name) for name in SUMMED})
    seconds = time.perf_counter() - begun
    print(f"{arguments.schedules} schedules, {arguments.schedules / seconds:.0f} a second: {dict(total)}")
    for kind, count in kinds.most_common():
        print(f"{count} x {kind}")
    return 1 if kinds else 0


def _live_on_files(schedule: Schedule) -> Figures:
    with tempfile.TemporaryDirectory() as path:
        return live(schedule, Bugs(log=partial(FileLog, Path(path))))


def _fails(lived: Callable[[Schedule], Figures], schedule: Schedule) -> bool:
    try:
        lived(schedule)
    except Violation:
        return True
    return False


def _show(schedule: Schedule) -> None:
    world = World(schedule, Bugs())
    try:
        world.live()
    except Violation as violation:
        print(f"made smaller: {violation}")
    print("\n".join(world.trace), flush=True)


if __name__ == "__main__":
    sys.exit(main())
