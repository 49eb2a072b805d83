"""How a run of `make run` stands: what its processes said of themselves."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

__all__ = ["FILLS_SHOWN", "ShownFill", "Standing", "day_of", "moment"]

FILLS_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFill:
    """What is shown of a fill. `profit` is that of an exit."""

    date: datetime | None
    pair: str
    topic: str
    amount: float
    rate: float
    profit: float | None
    currency: str
    reason: str

    def line(self) -> str:
        """All of it in one line."""
        profit = "" if self.profit is None else f" {self.profit:+.2f} {self.currency}"
        return f"{moment(self.date)} {self.pair} {self.topic} {self.amount:g} at {self.rate:g}{profit} ({self.reason})"


@dataclass(slots=True)
class Standing:
    """What the processes said of themselves, newest first where it is a list."""

    producer: dict[str, Any] = field(default_factory=dict)
    bot: dict[str, Any] = field(default_factory=dict)
    fills: dict[str, int] = field(default_factory=dict)
    newest_fills: deque[ShownFill] = field(default_factory=lambda: deque(maxlen=FILLS_SHOWN))
    step_ms: int = 1
    begin: float = field(default_factory=time.monotonic)

    @property
    def share(self) -> float:
        """How much of the replay is published, 0 to 1."""
        return float(self.producer.get("candle", 0)) / max(1, int(self.producer.get("of", 1)))

    @property
    def lag(self) -> int:
        """How many candles the bot is behind the producer."""
        published, acted = self.producer.get("date_ms"), self.bot.get("acted_ms")
        return 0 if published is None or acted is None else max(0, (published - acted) // self.step_ms)

    @property
    def seconds(self) -> float:
        """How long the run has gone on."""
        return max(time.monotonic() - self.begin, 1e-3)

    def line(self) -> str:
        """All of it in one line."""
        bot, producer = self.bot, self.producer
        return (
            f"{self.share:4.0%} {day_of(producer.get('date_ms'))}"
            f"  published {producer.get('published', 0)}"
            f" ({producer.get('published', 0) / self.seconds:.0f}/s)"
            f"  delivered {bot.get('delivered', 0)}  lag {self.lag} candles"
            f"  fills {sum(self.fills.values())}  open {len(bot.get('open', []))}"
            f"  closed profit {bot.get('closed_profit', 0.0):+.2f} {bot.get('currency', '')}"
        )


def day_of(ms: int | None) -> str:
    """A candle's date, from ms since 1970 UTC."""
    return moment(datetime.fromtimestamp(ms / 1000, UTC)) if ms is not None else "starting ..."


def moment(date: datetime | None) -> str:
    """A date as it is shown."""
    return f"{date:%Y-%m-%d %H:%M}" if date is not None else "?"
