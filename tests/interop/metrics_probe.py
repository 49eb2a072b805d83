"""freqtrade's own statistics, one list of trades a line.

    python metrics_probe.py < LINES

Runs inside a freqtrade environment. A line is `{"trades": [[close date in ms, profit], ...], "first": ms, "last": ms, "start": number,
"ago": seconds}` and is answered with the figures of freqtrade.data.metrics over it, and how freqtrade says `ago`.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
from freqtrade.data import metrics
from freqtrade.util import dt_humanize_delta, dt_now


def answer(line: dict[str, Any]) -> dict[str, Any]:
    frame = pd.DataFrame(line["trades"], columns=["close_ms", "profit_abs"])
    frame["close_date"] = pd.to_datetime(frame["close_ms"], unit="ms", utc=True)
    frame["profit_ratio"] = frame["profit_abs"] / line["start"]
    first, last = (datetime.fromtimestamp(line[name] / 1000, UTC) for name in ("first", "last"))
    start = line["start"]
    mean, ratio = metrics.calculate_expectancy(frame)
    fall = metrics.calculate_max_drawdown(frame, starting_balance=start)
    days = max((last - first).days, 1)
    return {
        "expectancy": float(mean),
        "expectancy_ratio": float(ratio),
        "sharpe": float(metrics.calculate_sharpe(frame, first, last, start)),
        "sortino": float(metrics.calculate_sortino(frame, first, last, start)),
        "calmar": float(metrics.calculate_calmar(frame, first, last, start)),
        "sqn": float(metrics.calculate_sqn(frame, start)),
        "cagr": float(metrics.calculate_cagr(days, start, start + float(frame["profit_abs"].sum()))),
        "max_drawdown": float(fall.relative_account_drawdown),
        "max_drawdown_abs": float(fall.drawdown_abs),
        "high": fall.high_date.value // 1_000_000,
        "low": fall.low_date.value // 1_000_000,
        "current_drawdown": float(fall.current_relative_account_drawdown),
        "current_drawdown_abs": float(fall.current_drawdown_abs),
        "current_high_value": float(fall.current_high_value),
        "current_high": fall.current_high_date.value // 1_000_000,
        "ago": dt_humanize_delta(dt_now() - timedelta(seconds=line["ago"])),
    }


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
