"""The terminal view of `make run`: progress, open positions, fills, lag and rates; plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.run.standing import FILLS_SHOWN, ShownFill, Standing, day_of, moment

__all__ = ["LiveView", "PlainView", "View", "make_view"]

_POSITIONS_SHOWN = 3
_PLAIN_EVERY_S = 5.0


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
    head.add_row(day_of(standing.producer.get("date_ms")), bar, f"{standing.share:.0%}")
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
            day_of(open_ms), Text(pair, style="bold"), "holds", f"{amount:g}", f"at {rate:g}", "", ""
        )
    if not shown:
        table.add_row(Text("no open position", style="dim"))
    return _padded(table, _POSITIONS_SHOWN)


def _fills(standing: Standing) -> RenderableType:
    table = _rows()
    for fill in standing.newest_fills:
        entered = fill.profit is None
        table.add_row(
            Text(moment(fill.date), style="dim"),
            Text(fill.pair),
            Text("entry" if entered else "exit", style="cyan" if entered else "magenta"),
            f"{fill.amount:g}",
            f"at {fill.rate:g}",
            Text("" if fill.profit is None else f"{fill.profit:+,.2f}", style=_sign(fill.profit or 0.0)),
            Text(fill.reason, style="dim"),
        )
    return _padded(table, FILLS_SHOWN)


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
