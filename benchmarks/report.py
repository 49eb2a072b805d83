"""Results for people: a table of targets, a table for each case, and a plot."""

from __future__ import annotations

import statistics
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
    several = len({_clients(key) for key in case.shown}) > 1
    for drive in drives:
        keys = [key for key in case.shown if key.drive == drive]
        if len(drives) > 1:
            yield from (f"{drive.name[0].upper()}{drive.name[1:]}:", "")
        base = next(
            (key for key in keys if isinstance(key.setup, Setup) and key.setup.arm == case.base), None
        )
        first = case.columns[0]
        head = ["server", *(["clients"] if several else []), *(COLUMNS[name][0] for name in case.columns)]
        head[2 + several : 2 + several] = [*([f"to {base.setup.name}"] if base else []), "spread"]
        rows = [
            [
                key.setup.name,
                *([str(_clients(key))] if several else []),
                *_cells(key, case.columns, base, first, rounds),
            ]
            for key in keys
            if any(key in found for found in rounds)
        ]
        yield from _rows(head, rows)
        yield ""


def _clients(key: Key) -> int:
    return key.setup.clients if isinstance(key.setup, Setup) else 1


def _cells(key: Key, columns: Sequence[str], base: Key | None, first: str, rounds: Rounds) -> Iterator[str]:
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
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(9, 0.8 + 2.6 * len(panels)), squeeze=False, layout="constrained"
    )
    for axis, case in zip(axes[:, 0], panels, strict=True):
        bars = [
            (key.setup.name, value)
            for key in case.shown
            if (value := median_of(rounds, Figure(key, "cpu_us"))) is not None
        ]
        names = [name for name, _ in bars]
        colours = ["tab:orange" if name.startswith("tradewire") else "tab:gray" for name in names]
        drawn = axis.barh(names, [value for _, value in bars], color=colours)
        axis.bar_label(drawn, [f" {_digits(value)}" for _, value in bars])
        axis.set(xscale="log", title=case.title)
        axis.invert_yaxis()
        axis.margins(x=0.15)
    axes[-1, 0].set_xlabel("server CPU, µs per delivery (logarithmic)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True
