"""The terminal view of `make run`: progress, open positions, fills, lag and rates; plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = ["LiveView", "PlainView", "ShownFill", "Standing", "View", "make_view"]

_FILLS_SHOWN = 8
_POSITIONS_SHOWN = 3
_PLAIN_EVERY_S = 5.0


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
        return f"{_moment(self.date)} {self.pair} {self.topic} {self.amount:g} at {self.rate:g}{profit} ({self.reason})"


@dataclass(slots=True)
class Standing:
    """What the processes said of themselves, newest first where it is a list."""

    producer: dict[str, Any] = field(default_factory=dict)
    bot: dict[str, Any] = field(default_factory=dict)
    fills: dict[str, int] = field(default_factory=dict)
    newest_fills: deque[ShownFill] = field(default_factory=lambda: deque(maxlen=_FILLS_SHOWN))
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

    def fill(self, fill: ShownFill) -> None:
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

    def fill(self, fill: ShownFill) -> None:
        """One line."""
        self.say(fill.line())

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
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LiveView:
        self._stack.enter_context(_without_echo_of_control())
        self._stack.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, line: str) -> None:
        """Above the panel."""
        self._live.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def fill(self, fill: ShownFill) -> None:
        """Fills are part of the panel."""

    def show(self, standing: Standing) -> None:
        """Draw."""
        self._live.update(_panel(standing), refresh=True)


@contextlib.contextmanager
def _without_echo_of_control() -> Iterator[None]:
    """Keep the terminal from writing ^C into the panel, which would then be drawn one line too low."""
    try:
        import termios
    except ImportError:
        yield
        return
    try:
        before = termios.tcgetattr(sys.stdin)
    except (OSError, ValueError, termios.error):
        yield
        return
    quiet = list(before)
    quiet[3] &= ~termios.ECHOCTL
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def make_view() -> View:
    """The view for this stderr: NO_COLOR, TERM and a missing terminal are honoured."""
    console = Console(stderr=True)
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(console)


def _panel(standing: Standing) -> RenderableType:
    """Always of the same height, and nothing wraps: what moves up and down cannot be read."""
    return Panel(
        Group(
            _progress(standing),
            _figures(standing),
            Text(),
            _positions(standing),
            Text(),
            _fills(standing),
        ),
        title="tradewire: hub, producer, consumer",
        border_style="cyan",
    )


def _progress(standing: Standing) -> RenderableType:
    head = Table.grid(expand=True, padding=(0, 2))
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=1.0, completed=standing.share)
    head.add_row(_date(standing.producer.get("date_ms")), bar, f"{standing.share:.0%}")
    return head


def _figures(standing: Standing) -> RenderableType:
    bot, producer = standing.bot, standing.producer
    published = int(producer.get("published", 0))
    profit = float(bot.get("closed_profit", 0.0))
    table = Table.grid(padding=(0, 3))
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_row(
        f"published {published:,}",
        f"{published / standing.seconds:,.0f}/s",
        f"delivered {int(bot.get('delivered', 0)):,}",
        f"lag {standing.lag:,}",
    )
    table.add_row(
        f"fills {sum(standing.fills.values()):,}",
        f"closed {int(bot.get('closed_trades', 0)):,}",
        f"open {len(bot.get('open', []))}",
        Text.assemble("profit ", (f"{profit:+,.2f} {bot.get('currency', '')}", _sign(profit))),
    )
    return table


def _positions(standing: Standing) -> RenderableType:
    table = _rows()
    shown = standing.bot.get("open", [])[:_POSITIONS_SHOWN]
    for pair, open_ms, rate, amount in shown:
        table.add_row(
            _date(open_ms), Text(pair, style="bold"), "holds", f"{amount:g}", f"at {rate:g}", "", ""
        )
    if not shown:
        table.add_row(Text("no open position", style="dim"))
    return _padded(table, _POSITIONS_SHOWN)


def _fills(standing: Standing) -> RenderableType:
    table = _rows()
    for fill in standing.newest_fills:
        entered = fill.profit is None
        table.add_row(
            Text(_moment(fill.date), style="dim"),
            Text(fill.pair),
            Text("entry" if entered else "exit", style="cyan" if entered else "magenta"),
            f"{fill.amount:g}",
            f"at {fill.rate:g}",
            Text("" if fill.profit is None else f"{fill.profit:+,.2f}", style=_sign(fill.profit or 0.0)),
            Text(fill.reason, style="dim"),
        )
    return _padded(table, _FILLS_SHOWN)


def _rows() -> Table:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "left", "right", "left", "right", "left"):
        table.add_column(no_wrap=True, overflow="ellipsis", justify=justify)
    return table


def _padded(table: Table, height: int) -> Table:
    while table.row_count < height:
        table.add_row()
    return table


def _sign(value: float) -> str:
    return "green" if value >= 0 else "red"


def _date(ms: int | None) -> str:
    return _moment(datetime.fromtimestamp(ms / 1000, UTC)) if ms is not None else "starting ..."


def _moment(date: datetime | None) -> str:
    return f"{date:%Y-%m-%d %H:%M}" if date is not None else "?"
