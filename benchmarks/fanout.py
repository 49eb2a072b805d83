"""Fan-out: what a delivery costs this hub, against servers in C, C++, Go and Python, as ratios in one run.

`python -m benchmarks.fanout [--only CASE] [--rounds N] [--quick]`. Each server is a process of its own, and so is the load generator.
In each round every server is measured once, those that are compared one after the other and in an order that rotates; figures are
medians of the rounds. A full run writes benchmarks/RESULTS.md and benchmarks/fanout.png; with --only the results are printed.
--quick is a check for regressions in two minutes, with loose bounds and few servers: its exit status is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from benchmarks import native
from benchmarks.arms import versions
from benchmarks.cases import CLIENTS, NAMES, Case, full, quick
from benchmarks.machine import file_system, hardware
from benchmarks.report import markdown, plot, targets
from benchmarks.sessions import Drive, Figures, clients_for
from benchmarks.targets import Key, Measurable

__all__ = ["Run", "main"]

HERE = Path(__file__).parent
RESULTS, PLOT = HERE / "RESULTS.md", HERE / "fanout.png"
ROUNDS, QUICK_ROUNDS = 4, 2


class Run:
    """The rounds of some cases. `missing` says what was left out or failed, and why."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.missing: dict[str, None] = {}
        self.rounds: list[dict[Key, Figures]] = []
        self._drives: dict[Measurable, list[Drive]] = {}
        for case in cases:
            for key in case.measurements():
                drives = self._drives.setdefault(key.setup, [])
                if key.drive not in drives:
                    drives.append(key.drive)
        self._blocks: dict[object, list[Measurable]] = {}
        for setup in self._present():
            self._blocks.setdefault(setup.block, []).append(setup)

    def _present(self) -> Iterator[Measurable]:
        """What can be measured here."""
        most = raise_open_files()
        for setup in self._drives:
            why = setup.missing()
            if why is None and setup.descriptors > most:
                why = f"it takes {setup.descriptors} open files and {most} are allowed"
            if why is None:
                yield setup
            else:
                self.missing[f"{setup.name}: {why}"] = None

    def round(self, place: Path) -> None:
        """Measure everything once more."""
        number = len(self.rounds)
        found: dict[Key, Figures] = {}
        self.rounds.append(found)
        for block in self._blocks.values():
            first = number % len(block)
            for setup in block[first:] + block[:first]:
                found |= self._measured(setup, number, place)

    def _measured(self, setup: Measurable, number: int, place: Path) -> Mapping[Key, Figures]:
        drives = self._drives[setup]
        first = number % len(drives)
        directory = place / "server"
        start = time.monotonic()
        try:
            figures = setup.measure(drives[first:] + drives[:first], directory)
        except Exception as error:
            # Whatever it was, the other servers of a run of many minutes are measured all the same.
            self.missing[f"{setup.name}, in round {number + 1}: {error}"] = None
            figures = {}
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        said = "" if figures else " failed"
        print(f"round {number + 1}: {setup.name} ({time.monotonic() - start:.0f} s){said}", file=sys.stderr)
        return {Key(setup, drive): found for drive, found in figures.items()}


def raise_open_files() -> int:
    """Allow this process, and so its children, as many open files as there may be; how many that is."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def about(rounds: int, place: Path, seconds: float) -> Iterator[str]:
    """Where, when and of what the figures are."""
    yield f"{datetime.date.today()}, {rounds} round{'s' * (rounds > 1)}, {seconds / 60:.0f} minutes"
    yield ", ".join(hardware()) + f", ledgers on {file_system(place)}"
    yield ", ".join(versions())
    if native.compiler() is None:
        yield "There is no C compiler: the load generator is the one in Python, and takes several times the CPU."


def _ended(number: int, frame: FrameType | None) -> None:
    """So that blocks are left, and servers with them."""
    sys.exit(128 + number)


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=NAMES,
        metavar="CASE",
        help=f"one of {', '.join(NAMES)}; repeatable",
    )
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS} when left out, {QUICK_ROUNDS} with --quick")
    parser.add_argument("--quick", action="store_true", help="check for regressions")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _ended)
    most = raise_open_files()
    clients = min(CLIENTS, clients_for(most))
    cases = quick() if arguments.quick else full(clients)
    if arguments.only:
        cases = tuple(case for case in cases if case.name in arguments.only)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    start = time.monotonic()
    run = Run(cases)
    with tempfile.TemporaryDirectory(prefix="tradewire-bench-") as place:
        for _ in range(rounds):
            run.round(Path(place))
        lines = list(about(rounds, Path(place), time.monotonic() - start))
    if clients < CLIENTS:
        lines.append(f"Only {most} open files are allowed: {clients} clients in place of {CLIENTS}")
    if arguments.quick:
        sys.exit(check(cases, run))
    text = markdown(cases, run.rounds, about=lines, missing=run.missing)
    if arguments.only:
        print(text)
        return
    RESULTS.write_text(text)
    drawn = plot(cases, run.rounds, PLOT)
    print("\n".join(targets(cases, run.rounds)))
    print(
        f"\n{RESULTS}" + (f", {PLOT}" if drawn else "; no plot: matplotlib is not installed"), file=sys.stderr
    )


def check(cases: Sequence[Case], run: Run) -> int:
    """Print the loose bounds beside their figures; the exit status."""
    print("\n".join([*targets(cases, run.rounds), *(f"left out: {line}" for line in run.missing)]))
    verdicts = [target.verdict(run.rounds) for case in cases for target in case.targets]
    return 1 if any(verdict.held is False for verdict in verdicts) else 0


if __name__ == "__main__":
    main()
