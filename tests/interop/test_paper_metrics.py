"""A PaperBot's statistics equal those that freqtrade's own functions make of the same closed trades."""

from __future__ import annotations

import json
import math
import random
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from bots import HERE, interop_python

from consumer.bot import metrics
from consumer.bot.humanized import ago

HOUR = 3_600_000
FIRST = 1_795_348_800_000


@pytest.fixture(scope="module")
def freqtrade() -> Iterator[subprocess.Popen[str]]:
    """freqtrade's statistics in a process of their own (metrics_probe.py)."""
    command = [interop_python(), str(HERE / "metrics_probe.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.communicate(timeout=20)


def asked(process: subprocess.Popen[str], **line: Any) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(line) + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def profits_of(seed: int) -> list[float]:
    """Profits with wins, losses and draws, of very different sizes from one list to the next."""
    chance = random.Random(seed)
    size = 10 ** chance.uniform(-3, 2)
    return [
        0.0 if chance.random() < 0.1 else round(chance.gauss(chance.uniform(-0.3, 0.5), 1) * size, 8)
        for _ in range(chance.choice([1, 2, 3, 10, 200]))
    ]


CASES = [
    *(profits_of(seed) for seed in range(40)),
    [1.0], [-1.0], [0.0], [1.0, 2.0], [1.0, 1.0], [0.1, 0.1, 0.1], [-1.0, -2.0], [-0.1, -0.1], [0.0, 0.0], [1.0, -1.0],
    [5.0, -3.0, 2.0, -4.0], [10.0, -3.0, -8.0, 20.0, -9.0], [100.0, -50.0, 900.0, -60.0],
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)))
def test_statistics_are_freqtrades(freqtrade: subprocess.Popen[str], case: int) -> None:
    profits, start = CASES[case], random.Random(case).choice([990.0, 9900.0, 123.45])
    dates = [FIRST + i * HOUR for i in range(len(profits))]
    last = dates[-1] + random.Random(case).choice([0, 5 * HOUR, 40 * HOUR])
    theirs = asked(
        freqtrade,
        trades=list(zip(dates, profits, strict=True)),
        first=FIRST,
        last=last,
        start=start,
        ago=0,
    )
    fall = metrics.drawdown(profits, start)
    days = max((last - FIRST) // (24 * HOUR), 1)
    mean, ratio = metrics.expectancy(profits)
    ours = {
        "expectancy": mean,
        "expectancy_ratio": ratio,
        "sharpe": metrics.sharpe(profits, FIRST, last, start),
        "sortino": metrics.sortino(profits, FIRST, last, start),
        "calmar": metrics.calmar(profits, FIRST, last, start),
        "sqn": metrics.sqn(profits, start),
        "cagr": metrics.cagr(days, start, start + math.fsum(profits)),
        "max_drawdown": fall.ratio,
        "max_drawdown_abs": fall.amount,
        "high": dates[fall.high_at],
        "low": dates[fall.low_at],
        "current_drawdown": fall.current_ratio,
        "current_drawdown_abs": fall.current_amount,
        "current_high_value": fall.current_high,
    }
    for name, value in ours.items():
        assert math.isclose(value, theirs[name], rel_tol=1e-9, abs_tol=1e-9), (name, value, theirs[name])
    # A high that the very last trade made is dated at the one before it by freqtrade.
    if fall.current_high_at < len(profits) - 1:
        assert dates[fall.current_high_at] == theirs["current_high"]


def test_how_long_ago_is_said_as_freqtrade_says_it(freqtrade: subprocess.Popen[str]) -> None:
    day = 86_400
    spans = [0, 1, 2, 59, 60, 89, 90, 149, 150, 151, 210, 3569, 3570, 5399, 5400, 9000, 9001, 84_599, 84_600]
    spans += [n * day + 100 for n in (1, 2, 15, 16, 45, 46, 76, 77, 350, 351, 365, 366, 380, 381, 715, 716)]
    spans += [n * day + 100 for n in (730, 912, 913, 1277, 1278)]
    spans += [random.Random(seed).randrange(1000 * day) for seed in range(150)]
    base = {"trades": [[FIRST, 1.0]], "first": FIRST, "last": FIRST, "start": 100}
    for span in spans:
        assert ago(0, span * 1000 + 1) == asked(freqtrade, **base, ago=span)["ago"], span
