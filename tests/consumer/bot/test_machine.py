"""consumer.bot.machine and the words of consumer.bot.humanized."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.bot.humanized import ago
from consumer.bot.machine import Machine

DAY_S = 86_400


def stat(proc: Path, *cores: str) -> None:
    (proc / "stat").write_text("\n".join(["cpu  9 9 9 9", *cores, "intr 5", "cpufreq 1"]))


def test_loads_are_those_since_the_last_question(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    # user nice system idle iowait irq softirq steal guest: guest time is in user time already.
    stat(tmp_path, "cpu0 10 0 10 60 20 0 0 0 10", "cpu1 0 0 0 100 0 0 0 0 0")
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 750 kB\n")
    first = machine.load()
    assert (first.cpu_pct, first.cpu_avg, first.ram_pct) == ([20.0, 0.0], 10.0, 25.0)
    stat(tmp_path, "cpu0 60 0 10 110 20 0 0 0 10", "cpu1 0 0 25 175 0 0 0 0 0")
    second = machine.load()
    assert [(core.cpu, core.pct) for core in second.cpu_load] == [(0, 50.0), (1, 25.0)]
    assert set(second.cpu_load_avg) == {"1m", "5m", "15m"}
    assert machine.load().cpu_pct == [0.0, 0.0]


def test_without_proc_there_is_nothing_to_tell(tmp_path: Path) -> None:
    load = Machine(tmp_path / "none").load()
    assert (load.cpu_pct, load.cpu_load, load.cpu_avg, load.ram_pct) == ([], [], 0.0, 0.0)
    assert load.cpu_count >= 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "now"), (0.9, "now"), (1, "a second ago"), (59, "59 seconds ago"), (60, "a minute ago"), (90, "2 minutes ago"),
        (150, "2 minutes ago"), (3570, "an hour ago"), (9000, "2 hours ago"), (84_600, "a day ago"), (15 * DAY_S, "15 days ago"),
        (16 * DAY_S, "a month ago"), (350 * DAY_S, "11 months ago"), (351 * DAY_S, "a year ago"), (365 * DAY_S, "a year ago"),
        (366 * DAY_S, "1 year, 1 day ago"), (381 * DAY_S, "1 year, 1 month ago"), (716 * DAY_S, "2 years ago"),
        (913 * DAY_S, "3 years ago"),
    ],
)  # fmt: skip
def test_how_long_ago(seconds: float, text: str) -> None:
    """As freqtrade 2026.9 says them (tests/interop/test_paper_metrics.py asks it)."""
    assert ago(0, int(seconds * 1000)) == text
