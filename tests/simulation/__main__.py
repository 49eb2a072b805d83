"""`python -m tests.simulation N [SEED]`: N schedules from SEED on. A failure is made smaller and printed."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

from tests.simulation.schedule import Schedule, make, smaller
from tests.simulation.world import Bugs, Violation, World, live


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("schedules", type=int, help="how many")
    parser.add_argument("seed", type=int, nargs="?", default=0, help="of the first")
    parser.add_argument("--trace", action="store_true", help="print what happened in the first")
    parser.add_argument("--keep-going", action="store_true", help="count failures, and show one of each kind")
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    begun = time.perf_counter()
    for seed in range(arguments.seed, arguments.seed + arguments.schedules):
        schedule = make(random.Random(seed))
        if arguments.trace:
            return _show(schedule)
        try:
            figures = live(schedule)
        except Violation as violation:
            kind = " ".join(str(violation).split()[:6])
            kinds[kind] += 1
            if kinds[kind] == 1:
                print(f"seed {seed}: {violation}")
                _show(smaller(schedule, _fails))
            if not arguments.keep_going:
                return 1
            continue
        for name in ("acked", "effects", "lost", "repeated", "deaths", "turns", "virtual_s"):
            total[name] += getattr(figures, name)
    seconds = time.perf_counter() - begun
    print(f"{arguments.schedules} schedules, {arguments.schedules / seconds:.0f} a second: {dict(total)}")
    for kind, count in kinds.most_common():
        print(f"{count} x {kind}")
    return 1 if kinds else 0


def _fails(schedule: Schedule) -> bool:
    try:
        live(schedule)
    except Violation:
        return True
    return False


def _show(schedule: Schedule) -> int:
    world = World(schedule, Bugs())
    try:
        world.live()
    except Violation as violation:
        print(f"made smaller: {violation}")
    print("\n".join(world.trace))
    return 0


if __name__ == "__main__":
    sys.exit(main())
