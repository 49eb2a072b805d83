"""What one client or publisher may cost the hub: every request and every block of rows is bounded work."""

from __future__ import annotations

from typing import Any

import pytest

from hub.core import candles
from hub.core.candles import MAX_OPEN, CandleClock


def test_a_long_block_costs_the_candle_clock_no_more_than_its_newest_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = CandleClock(10.0)
    clock.whitelist("a", ["X", "Y"])
    clock.rows("a", "X", "1s", [0], 0.0)
    told: list[int] = []
    tell = CandleClock._tell

    def counted(self: CandleClock, *args: Any, **more: Any) -> dict[str, Any]:
        told.append(1)
        return tell(self, *args, **more)

    monkeypatch.setattr(candles.CandleClock, "_tell", counted)
    clock.rows("a", "X", "1s", list(range(1, 100_000)), 0.0)
    assert len(clock._tracks["a", "1s"].open) <= MAX_OPEN
    assert len(told) <= MAX_OPEN
    (last,) = [d["candle_ms"] for d in clock.rows("a", "Y", "1s", [99_999], 0.0)][-1:]
    assert last == 99_999
