"""Results for people: a table of targets, a table for each case, and a plot."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.arms import Arm
from benchmarks.cases import Case
from benchmarks.sessions import Setup
from benchmarks.targets import Figure, Key, Rounds, median_of

__all__ = ["markdown", "plot", "targets"]

Column = tuple[str, Callable[[float], str]]
COLUMNS: dict[str, Column] = {
    "cpu_us": ("CPU µs", lambda v: _digits(v)),
    "rate": ("per second", lambda v: f"{v:,.0f}"),
    "p50_ms": ("p50 ms", lambda v: _digits(v)),
    "p99_ms": ("p99 ms", lambda v: _digits(v)),
    "bytes": ("bytes", lambda v: f"{v:,.0f}"),
    "load": ("load", lambda v: f"{100 * v:.0f} %"),
    "connection_kib": ("KB per connection", lambda v: _digits(v)),
    "growth_kib": ("growth, MiB", lambda v: f"{v / 1024:.1f}"),
    "asked": ("resyncs", lambda v: f"{v:.0f}"),
}
INTRODUCTION = """\
CPU is user and system time of the server's process, in µs per delivery (per message for the consumer), medians over the rounds; ratios
are medians of the rounds' ratios. *bytes*: on the wire, per delivery. *load*: what the load generator took of one core; near 100 % it,
and not the server, limits messages a second. *spread*: least and most of the first column.

Every server gets its messages over one connection and delivers each to all clients. This hub is `tradewire-hub serve` with its
defaults (tokens, the ledger on disk, statistics) and a bot that publishes over tradewire.v2.msgpack: each fill is checked, stored,
synced and acknowledged before it is delivered. How each server is driven: `benchmarks/arms.py`. *Saturated*: the next messages are
published when all clients have the last.
"""


def _digits(value: float) -> str:
    return f"{value:.{3 if abs(value) < 1 else 2 if abs(value) < 10 else 1}f}"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


# --- targets


def targets(cases: Sequence[Case], rounds: Rounds) -> Iterator[str]:
    """Lines of a table: each target beside its figure."""
    rows: list[tuple[str, ...]] = []
    for case in cases:
        for target in case.targets:
            verdict = target.verdict(rounds)
            word = f"**{verdict.word}**" if verdict.held is False else verdict.word
            rows.append((case.title, target.what, target.text, verdict.figures, word))
    yield from _rows(("case", "figure", "to reach", "measured", ""), rows)


# --- cases


def markdown(cases: Sequence[Case], rounds: Rounds, *, about: Iterable[str], missing: Iterable[str]) -> str:
    """The whole of it. `about`: where and when it was measured; `missing`: what was left out or failed, and why."""
    lines = ["# Fan-out", "", *(f"- {line}" for line in about), "", INTRODUCTION]
    lines += ["## Targets", "", *targets(cases, rounds), ""]
    left_out = list(missing)
    if left_out:
        lines += ["## Left out", "", *(f"- {line}" for line in left_out), ""]
    for case in cases:
        lines += [f"## {case.name}: {case.title}", ""]
        if case.note:
            lines += [case.note, ""]
        lines += [*(_pivot(case, rounds) if not case.targets else _tables(case, rounds)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _tables(case: Case, rounds: Rounds) -> Iterator[str]:
    """One table for each drive."""
    drives = list(dict.fromkeys(key.drive for key in case.shown))
    for drive in drives:
        if len(drives) > 1:
            yield from (f"{drive.name[0].upper()}{drive.name[1:]}:", "")
        keys = [key for key in case.shown if key.drive == drive and any(key in found for found in rounds)]
        yield from _table(case, keys, rounds)
        yield ""


def _table(case: Case, keys: Sequence[Key], rounds: Rounds) -> Iterator[str]:
    base = next((key for key in keys if isinstance(key.setup, Setup) and key.setup.arm == case.base), None)
    several = len({_clients(key) for key in keys}) > 1
    first, *others = (COLUMNS[name][0] for name in case.columns)
    ratio = [f"to {base.setup.name}"] if base else []
    yield from _rows(
        ["server", *["clients"] * several, first, *ratio, "spread", *others],
        (
            [key.setup.name, *[f"{_clients(key):,}"] * several, *_cells(key, case.columns, base, rounds)]
            for key in keys
        ),
    )


def _clients(key: Key) -> int:
    return key.setup.clients if isinstance(key.setup, Setup) else 1


def _cells(key: Key, columns: Sequence[str], base: Key | None, rounds: Rounds) -> Iterator[str]:
    first = columns[0]
    values = [found[key][first] for found in rounds if key in found]
    shown = COLUMNS[first][1]
    yield shown(statistics.median(values))
    if base is not None:
        yield _ratio(key, base, first, rounds)
    yield f"{shown(min(values))} - {shown(max(values))}"
    for name in columns[1:]:
        value = median_of(rounds, Figure(key, name))
        yield "" if value is None else COLUMNS[name][1](value)


def _ratio(key: Key, base: Key, name: str, rounds: Rounds) -> str:
    ratios = [found[key][name] / found[base][name] for found in rounds if key in found and base in found]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def _pivot(case: Case, rounds: Rounds) -> Iterator[str]:
    """Servers side by side: CPU of the base, the others as ratios to it."""
    setups = [(key, key.setup) for key in case.shown if isinstance(key.setup, Setup)]
    arms = list(dict.fromkeys(setup.arm for _, setup in setups))
    by_row: dict[tuple[str, int, str], dict[Arm, Key]] = {}
    for key, setup in setups:
        row = (f"{setup.message.size:,} B", setup.clients, key.drive.name)
        by_row.setdefault(row, {})[setup.arm] = key
    head = ["message", "clients", "", *(arm.name + (", µs" if arm == case.base else "") for arm in arms)]
    yield from _rows(
        head,
        (
            [size, f"{clients:,}", drive, *_pivot_cells(case, keys, arms, rounds)]
            for (size, clients, drive), keys in by_row.items()
        ),
    )


def _pivot_cells(case: Case, keys: dict[Arm, Key], arms: Sequence[Arm], rounds: Rounds) -> Iterator[str]:
    assert case.base is not None
    for arm in arms:
        value = median_of(rounds, Figure(keys[arm], "cpu_us"))
        if value is None:
            yield ""
        elif arm == case.base:
            yield _digits(value)
        else:
            yield f"{_ratio(keys[arm], keys[case.base], 'cpu_us', rounds)} ({_digits(value)})"


# --- the plot


def plot(cases: Sequence[Case], rounds: Rounds, path: Path) -> bool:
    """Draw CPU per delivery of every server, a panel for each case that has it; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        case for case in cases if case.base is not None and case.columns[0] == "cpu_us" and case.targets
    ]
    if not panels:
        return True
    lines = (len(panels) + 1) // 2
    figure, axes = pyplot.subplots(
        lines, 2, figsize=(13, 0.6 + 2.8 * lines), squeeze=False, layout="constrained"
    )
    for axis, case in zip(axes.flat, panels, strict=False):
        found = [
            (key.setup.name, value)
            for key in case.shown
            if (value := median_of(rounds, Figure(key, "cpu_us"))) is not None
        ]
        for place, (name, value) in enumerate(found):
            colour = "tab:orange" if name.startswith("tradewire") else "tab:gray"
            axis.plot(value, place, "o", color=colour)
            axis.annotate(f"  {_digits(value)}", (value, place), va="center")
        axis.set(xscale="log", yticks=range(len(found)), yticklabels=[name for name, _ in found])
        axis.set_title(textwrap.fill(case.title, 60), fontsize=9)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.invert_yaxis()
        axis.margins(x=0.2, y=0.1)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    figure.supxlabel("server CPU, µs per delivery, logarithmic: less is better")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return True
