"""The terminal view of `make run`: progress, open positions, fills, lag and rates; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = ["LiveView", "PlainView", "Standing", "View", "make_view"]

_FILLS_SHOWN = 8
_PLAIN_EVERY_S = 5.0


@dataclass(slots=True)
class Standing:
    """What the processes said of themselves, newest first where it is a list."""

    producer: dict[str, Any] = field(default_factory=dict)
    bot: dict[str, Any] = field(default_factory=dict)
    fills: dict[str, int] = field(default_factory=dict)
    newest_fills: deque[str] = field(default_factory=lambda: deque(maxlen=_FILLS_SHOWN))
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
            f"{self.share:4.0%} {_date(producer.get('date_ms'))}"
            f"  published {producer.get('published', 0)}"
            f" ({producer.get('published', 0) / self.seconds:.0f}/s)"
            f"  delivered {bot.get('delivered', 0)}  lag {self.lag} candles"
            f"  fills {sum(self.fills.values())}  open {len(bot.get('open', []))}"
            f"  closed profit {bot.get('closed_profit', 0.0):+.2f} {bot.get('currency', '')}"
        )


class View(Protocol):
    """Where a run is shown."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, line: str) -> None:
        """One line that stays."""

    def fill(self, line: str) -> None:
        """A fill came."""

    def show(self, standing: Standing) -> None:
        """The figures changed."""


class PlainView:
    """Lines on stderr: every fill, and the figures every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = time.monotonic()

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, line: str) -> None:
        """One line."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def fill(self, line: str) -> None:
        """One line."""
        self.say(line)

    def show(self, standing: Standing) -> None:
        """One line, not too often."""
        if time.monotonic() - self._told >= _PLAIN_EVERY_S:
            self._told = time.monotonic()
            self.say(standing.line())


class LiveView:
    """A panel that is drawn over itself; lines that stay go above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # stdout is for the figures of the end and must stay what it is.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def say(self, line: str) -> None:
        """Above the panel."""
        self._live.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def fill(self, line: str) -> None:
        """Fills are part of the panel."""

    def show(self, standing: Standing) -> None:
        """Draw."""
        self._live.update(_panel(standing), refresh=True)


def make_view() -> View:
    """The view for this stderr: NO_COLOR, TERM and a missing terminal are honoured."""
    console = Console(stderr=True)
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(console)


def _panel(standing: Standing) -> RenderableType:
    bot, producer = standing.bot, standing.producer
    head = Table.grid(expand=True, padding=(0, 2))
    head.add_column()
    head.add_column(ratio=1)
    head.add_column(justify="right")
    head.add_row(
        _date(producer.get("date_ms")), ProgressBar(total=1.0, completed=standing.share), f"{standing.share:.0%}"
    )
    profit = bot.get("closed_profit", 0.0)
    figures = Text.assemble(
        f"published {producer.get('published', 0)} ({producer.get('published', 0) / standing.seconds:.0f}/s)   ",
        f"delivered {bot.get('delivered', 0)}   lag {standing.lag} candles   ",
        f"fills {sum(standing.fills.values())}   closed profit ",
        (f"{profit:+.2f} {bot.get('currency', '')}", "green" if profit >= 0 else "red"),
    )
    return Panel(
        Group(head, figures, Text(), _positions(bot.get("open", [])), Text(), *_fills(standing)),
        title="tradewire: hub, producer, consumer",
        border_style="cyan",
    )


def _positions(positions: list[list[Any]]) -> RenderableType:
    if not positions:
        return Text("no open position", style="dim")
    table = Table.grid(padding=(0, 3))
    for pair, open_ms, rate, amount in positions:
        table.add_row(Text(pair, style="bold"), _date(open_ms), f"{amount:g} at {rate:g}")
    return table


def _fills(standing: Standing) -> list[Text]:
    return [Text(line, style="dim" if index else "") for index, line in enumerate(standing.newest_fills)]


def _date(ms: int | None) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}" if ms is not None else "starting ..."
