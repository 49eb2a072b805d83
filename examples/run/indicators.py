"""What the example's producer computes: moving averages, RSI, and the signals that follow from them.

Everything looks backwards only, so a row computed from the whole file is the row a live bot would have computed.
"""

from __future__ import annotations

import pandas as pd

from examples.run.candles import CandleFile

__all__ = ["WARM_UP", "analyze"]

WARM_UP = 200
"""Candles before the first signal, until the slowest average has settled."""


def analyze(file: CandleFile) -> pd.DataFrame:
    """The candles of `file` with indicators, and freqtrade's columns for signals and tags; one row per candle."""
    frame = pd.DataFrame.from_dict(
        file.rows, orient="index", columns=["open", "high", "low", "close", "volume"]
    )
    frame.insert(0, "date", pd.to_datetime(frame.index, unit="ms", utc=True).as_unit("ms"))
    frame = frame.reset_index(drop=True)
    close = frame["close"]
    frame["ema_fast"] = close.ewm(span=12, adjust=False).mean()
    frame["ema_slow"] = close.ewm(span=48, adjust=False).mean()
    frame["rsi"] = rsi(close, 14)
    frame["volume_mean"] = frame["volume"].rolling(48).mean()
    _signals(frame)
    return frame


def rsi(close: pd.Series[float], length: int) -> pd.Series[float]:
    """Wilder's relative strength index, 0 to 100."""
    change = close.diff()
    up = change.clip(lower=0).ewm(alpha=1 / length, adjust=False).mean()
    down = (-change.clip(upper=0)).ewm(alpha=1 / length, adjust=False).mean()
    return 100 * up / (up + down)


def _signals(frame: pd.DataFrame) -> None:
    above = frame["ema_fast"] > frame["ema_slow"]
    before = above.shift(1, fill_value=False)
    warm = pd.Series(range(len(frame))) >= WARM_UP
    crossed_up = above & ~before & (frame["rsi"] < 70) & warm
    dip = above & (frame["rsi"] < 45) & (frame["rsi"].shift(1) >= 45) & warm
    crossed_down = ~above & before & warm
    hot = (frame["rsi"] > 78) & warm
    frame["enter_long"] = (crossed_up | dip).astype("int64")
    frame["enter_tag"] = _tags({"ema_cross": crossed_up, "dip": dip})
    frame["exit_long"] = (crossed_down | hot).astype("int64")
    frame["exit_tag"] = _tags({"ema_cross": crossed_down, "rsi_high": hot})


def _tags(rules: dict[str, pd.Series[bool]]) -> pd.Series[str]:
    """The name of the first rule that holds in each row, or an empty text."""
    names = list(rules)
    return pd.Series(
        [
            next((name for name, holds in zip(names, row, strict=True) if holds), "")
            for row in zip(*(rules[name].tolist() for name in names), strict=True)
        ],
        dtype="str",
    )
