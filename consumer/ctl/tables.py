"""Answers of a bot as tables for people.

What comes in is the answer's plain JSON, so that a bot of another version, with a field more or less, still gets its table; an answer
of a form that is not known here is shown as it is. Every text of the peer is cleaned of control characters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from consumer.wording import clean

__all__ = ["rendered", "show"]

Row = Mapping[str, Any]
Format = Callable[[Any], Text]
Column = tuple[str, Callable[[Row], Text], bool]
"""A heading, the cell of a row, and whether it is a number."""


def show(console: Console, operation: str, data: Any, *, now_ms: int) -> None:
    """Print an answer to `operation`; ages are counted up to `now_ms` (ms since 1970 UTC)."""
    for each in rendered(operation, data, now_ms=now_ms):
        console.print(each)


def rendered(operation: str, data: Any, *, now_ms: int) -> list[RenderableType]:
    """What `show` prints."""
    known = _FORMS.get(operation)
    if known is not None:
        try:
            return list(known(data, now_ms))
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            pass
    return list(_generic(data))


# --- cells


def _plain(value: Any) -> Text:
    if value is None or value == "":
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int | float):
        return Text(_digits(value))
    if isinstance(value, str):
        return Text(clean(value))
    return Text(clean(json.dumps(value, ensure_ascii=False))[:500])


def _digits(value: float) -> str:
    """A number with up to eight digits that count, with an exponent only where zeros would be too many."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    text = f"{value:.8g}"
    return f"{Decimal(text):f}" if "e" in text and 1e-12 <= abs(value) < 1e15 else text


def _signed(value: Any, digits: str) -> Text:
    style = "" if not value else "green" if value > 0 else "red"
    return Text(f"{value:+{digits}}", style=style)


def _percent(value: Any) -> Text:
    return _plain(None) if value is None else _signed(value, ".2f").append(" %")


def _ratio(value: Any) -> Text:
    return _plain(None) if value is None else _percent(value * 100)


def _money(value: Any) -> Text:
    """A profit or loss: to the cent from one up, else four digits that count."""
    if value is None:
        return _plain(None)
    return _signed(value, ".2f" if abs(value) >= 1 or value == 0 else ".4g")


def _age(ms: Any, now_ms: int) -> Text:
    return _plain(None) if not ms else Text(_duration((now_ms - ms) / 1000))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"


def _moment(ms: Any) -> Text:
    if not ms:
        return _plain(None)
    return Text(f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}")


# --- tables


def _column(heading: str, key: str, form: Format = _plain, *, number: bool | None = None) -> Column:
    right = form is not _plain if number is None else number
    return heading, lambda row: form(row.get(key)), right


def _table(columns: Sequence[Column], rows: Iterable[Row], *, title: str = "") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, title=title or None, title_justify="left")
    for heading, _, number in columns:
        justify: Literal["right", "left"] = "right" if number else "left"
        table.add_column(Text(clean(heading)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*[cell(row) for _, cell, _ in columns])
    return table


def _pairs(values: Iterable[tuple[str, Text]], *, title: str = "") -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, title=title or None, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, cell in values:
        table.add_row(Text(clean(name)), cell)
    return table


def _mapping(data: Row) -> Table:
    return _pairs((str(name), _plain(value)) for name, value in data.items())


def _note(text: str) -> Text:
    return Text(clean(text), style="dim")


# --- any answer


def _generic(data: Any) -> Iterable[RenderableType]:
    if isinstance(data, dict):
        texts = [v for v in data.values() if isinstance(v, str)]
        yield (
            Text(clean(texts[0]))
            if len(data) == len(texts) == 1
            else _mapping(data)
            if data
            else _note("none")
        )
    elif isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        names = dict.fromkeys(name for row in data for name in row)
        numbers = {n for n in names if all(isinstance(row.get(n), int | float) for row in data)}
        yield _table([_column(name, name, number=name in numbers) for name in names], data)
    elif isinstance(data, list):
        yield from (_plain(value) for value in data) if data else (_note("none"),)
    else:
        yield _plain(data)


class _Fitted:
    """Rows of many columns: as many as the width takes, whole, and the others' names below.

    Those that are `last` are left out first, then from the right.
    """

    def __init__(self, columns: Sequence[Column], rows: Sequence[Row], last: Sequence[str] = ()) -> None:
        self._columns, self._last, self._count = columns, last, len(rows)
        # Here, where a row of another form is noticed and shown as it is.
        self._cells = {heading: [cell(row) for row in rows] for heading, cell, _ in columns}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = self._cells
        widths = {h: max(cell_len(clean(h)), *(c.cell_len for c in cells[h]), 0) + 2 for h in cells}
        shown = list(cells)
        leave = [heading for heading in shown if heading not in self._last] + [*reversed(self._last)]
        # The last column has no gap behind it, and one column is always shown.
        while sum(widths[heading] for heading in shown) - 2 > options.max_width and len(shown) > 1:
            shown.remove(leave.pop())
        columns = [column for column in self._columns if column[0] in shown]
        table = _table(columns, ())
        for i in range(self._count):
            table.add_row(*[cells[heading][i] for heading in shown])
        yield table
        if hidden := [clean(heading) for heading in cells if heading not in shown]:
            yield _note(f"not shown, for want of room: {', '.join(hidden)}")


def _frame(names: Sequence[str], rows: Sequence[Row]) -> _Fitted:
    numbers = {n for n in names if any(isinstance(row.get(n), int | float) for row in rows)}

    def column(name: str) -> Column:
        return name, lambda row: _frame_cell(name, row.get(name)), name in numbers

    return _Fitted([column(name) for name in names], rows)


def _frame_cell(name: str, value: Any) -> Text:
    if name == "date" and isinstance(value, str):
        return Text(clean(value.removesuffix(":00Z").replace("T", " ")))
    return _plain(value)


def _rows_of_columns(data: Any, _: int) -> Iterable[RenderableType]:
    """`columns` and `data`: candles and the wallet's history."""
    names = [str(name) for name in data["columns"]]
    rows = [dict(zip(names, row, strict=True)) for row in data["data"]]
    if rows:
        # With a leading underscore: what charts need and people have already.
        yield _frame([name for name in names if not name.startswith("_")], rows)
    yield _note(f"{len(rows)} rows")


# --- trades


def _status(data: Any, now_ms: int) -> Iterable[RenderableType]:
    if not data:
        return [_note("no open trade")]
    columns = [
        _column("ID", "trade_id", number=True),
        _pair_column(data),
        _column("Amount", "amount", number=True),
        _column("Open rate", "open_rate", number=True),
        _column("Rate", "current_rate", number=True),
        _column("Profit", "profit_pct", _percent),
        _column(_quote(data), "profit_abs", _money),
        ("Age", lambda row: _age(row.get("open_fill_timestamp") or row.get("open_timestamp"), now_ms), True),
        _column("Tag", "enter_tag"),
        ("Open order", _open_order, False),
    ]
    return [_Fitted(columns, data, ("Tag", "Amount", "Open order", "Rate", "Open rate", "Age"))]


def _pair_column(data: Sequence[Row]) -> Column:
    """With the side where a trade is short or has leverage."""

    def cell(row: Row) -> Text:
        text = _plain(row["pair"])
        if row.get("is_short"):
            text.append(" short", style="magenta")
        if (row.get("leverage") or 1) != 1:
            text.append(f" {_digits(row['leverage'])}x")
        return text

    return "Pair", cell, False


def _quote(data: Sequence[Row]) -> str:
    """The currency of a list of trades, for the heading of their profit."""
    quotes = {row.get("quote_currency") for row in data}
    return str(quotes.pop()) if len(quotes) == 1 else "Profit abs"


def _open_order(row: Row) -> Text:
    waiting = [order for order in row.get("orders", []) if order.get("is_open")]
    if not waiting:
        return Text("yes") if row.get("has_open_orders") else _plain(None)
    order = waiting[-1]
    return Text(clean(f"{order['ft_order_side']} {order['order_type']} {_digits(order['safe_price'])}"))


def _trades(data: Any, _: int) -> Iterable[RenderableType]:
    rows = data["trades"]
    columns = [
        _column("ID", "trade_id", number=True),
        _pair_column(rows),
        _column("Opened (UTC)", "open_timestamp", _moment, number=False),
        _column("Closed (UTC)", "close_timestamp", _moment, number=False),
        _column("Amount", "amount", number=True),
        _column("Open rate", "open_rate", number=True),
        _column("Close rate", "close_rate", number=True),
        _column("Profit", "close_profit_pct", _percent),
        _column(_quote(rows), "close_profit_abs", _money),
        _column("Tag", "enter_tag"),
        _column("Exit reason", "exit_reason"),
    ]
    if rows:
        yield _Fitted(columns, rows, ("Tag", "Amount", "Opened (UTC)", "Open rate", "Close rate"))
    first = data.get("offset", 0)
    yield _note(f"{len(rows)} of {data['total_trades']} trades" + (f", from {first}" if first else ""))


def _trade(data: Any, now_ms: int) -> Iterable[RenderableType]:
    """One trade: as in status, and its orders. A text where none was made."""
    if set(data) == {"status"}:
        yield _plain(data["status"])
        return
    yield from _status([data], now_ms)
    if orders := data.get("orders"):
        yield _note("")
        yield _orders(orders)


def _whole_trade(data: Any, now_ms: int) -> Iterable[RenderableType]:
    values = [(name, _plain(value)) for name, value in data.items() if name != "orders" and value is not None]
    return [*_trade(data, now_ms), _note(""), _pairs(values)]


def _orders(rows: Sequence[Row]) -> _Fitted:
    columns = [
        _column("Order", "ft_order_side"),
        _column("Type", "order_type"),
        _column("Status", "status"),
        _column("Amount", "amount", number=True),
        _column("Filled", "filled", number=True),
        _column("Price", "safe_price", number=True),
        _column("Placed (UTC)", "order_timestamp", _moment, number=False),
        _column("Tag", "ft_order_tag"),
        _column("ID", "order_id"),
    ]
    return _Fitted(columns, rows, ("ID", "Tag", "Filled"))


def _custom_data(data: Any, _: int) -> Iterable[RenderableType]:
    rows = [{"trade_id": trade["trade_id"], **entry} for trade in data for entry in trade["custom_data"]]
    if not rows:
        return [_note("none")]
    names = {"trade_id": "Trade", "key": "Key", "type": "Type", "value": "Value", "updated_at": "Updated"}
    return [_table([_column(h, name, number=name == "trade_id") for name, h in names.items()], rows)]


# --- money and statistics


def _balance(data: Any, _: int) -> Iterable[RenderableType]:
    stake = data["stake"]
    columns = [
        _column("Currency", "currency"),
        _column("Free", "free", number=True),
        _column("Used", "used", number=True),
        _column("Balance", "balance", number=True),
        _column(f"in {stake}", "est_stake", number=True),
        _column("the bot's", "est_stake_bot", number=True),
    ]
    yield _table(columns, data["currencies"])
    yield _note("")
    totals = [
        ("Total", Text(f"{_digits(data['total'])} {clean(stake)}")),
        ("The bot's", Text(f"{_digits(data['total_bot'])} {clean(stake)}")),
        ("Since the start", _percent(data["starting_capital_pct"])),
        ("Starting capital", Text(f"{_digits(data['starting_capital'])} {clean(stake)}")),
    ]
    if data["symbol"]:
        totals.append(("Value", Text(f"{data['value']:.2f} {clean(data['symbol'])}")))
    if data["note"]:
        totals.append(("Note", _plain(data["note"])))
    yield _pairs(totals)


_PROFIT_ROWS = (
    ("Profit", "coin", _money),
    ("of the capital", "percent", _percent),
    ("mean of the trades", "percent_mean", _percent),
    ("sum of the trades", "percent_sum", _percent),
)
_PROFIT_MORE: tuple[tuple[str, str, Format], ...] = (
    ("Trades", "trade_count", _plain),
    ("closed", "closed_trade_count", _plain),
    ("won", "winning_trades", _plain),
    ("lost", "losing_trades", _plain),
    ("Mean duration", "avg_duration", _plain),
    ("Best pair", "best_pair", _plain),
    ("its profit", "best_pair_profit_abs", _money),
    ("Profit factor", "profit_factor", _plain),
    ("Expectancy", "expectancy", _plain),
    ("Sharpe, Sortino", "sharpe", _plain),
    ("Max drawdown", "max_drawdown_abs", _plain),
    ("Trading volume", "trading_volume", _plain),
    ("First trade", "first_trade_date", _plain),
    ("Latest trade", "latest_trade_date", _plain),
    ("Bot started", "bot_start_date", _plain),
)


def _profit(data: Any, _: int, title: str = "") -> Iterable[RenderableType]:
    rows: list[Row] = [
        {"what": what, "closed": form(data[f"profit_closed_{key}"]), "all": form(data[f"profit_all_{key}"])}
        for what, key, form in _PROFIT_ROWS
    ]
    if data["profit_closed_fiat"] or data["profit_all_fiat"]:
        fiat = {"closed": _money(data["profit_closed_fiat"]), "all": _money(data["profit_all_fiat"])}
        rows.append({"what": "in the fiat currency", **fiat})
    columns: list[Column] = [
        ("", lambda row: Text(row["what"]), False),
        ("closed trades", lambda row: row["closed"], True),
        ("with open ones", lambda row: row["all"], True),
    ]
    yield _table(columns, rows, title=title)
    yield _note("")
    more = {name: form(data.get(key)) for name, key, form in _PROFIT_MORE}
    more["Sharpe, Sortino"].append(", ").append_text(_plain(data.get("sortino")))
    won = data.get("winrate")
    if won is not None:
        more["won"].append(f" ({won * 100:.0f} %)")
    more["Max drawdown"].append(f" ({data['max_drawdown'] * 100:.2f} %)")
    yield _pairs(more.items())


def _profit_all(data: Any, now_ms: int) -> Iterable[RenderableType]:
    for side in ("all", "long", "short"):
        if data.get(side) is not None:
            yield from _profit(data[side], now_ms, "" if side == "all" else side)


def _periods(data: Any, _: int) -> Iterable[RenderableType]:
    columns = [
        _column("Date", "date"),
        _column(f"Profit {data['stake_currency']}".strip(), "abs_profit", _money),
        _column("Profit", "rel_profit", _ratio),
        _column("Trades", "trade_count", number=True),
        _column("Balance before", "starting_balance", number=True),
    ]
    if data["fiat_display_currency"]:
        columns.insert(2, _column(data["fiat_display_currency"], "fiat_value", _money))
    return [_table(columns, data["data"])]


def _performance(heading: str, key: str) -> Callable[[Any, int], Iterable[RenderableType]]:
    columns = [
        _column(heading, key),
        _column("Trades", "count", number=True),
        _column("Profit", "profit_pct", _percent),
        _column("Profit abs", "profit_abs", _money),
    ]
    return lambda data, _: [_table(columns, data) if data else _note("no closed trade")]


def _stats(data: Any, _: int) -> Iterable[RenderableType]:
    rows = [{"reason": reason, **counts} for reason, counts in data["exit_reasons"].items()]
    columns = [
        _column("Exit reason", "reason"),
        _column("won", "wins", number=True),
        _column("even", "draws", number=True),
        _column("lost", "losses", number=True),
    ]
    yield _table(columns, rows) if rows else _note("no closed trade")
    yield _note("")
    names = {"wins": "won", "draws": "even", "losses": "lost"}
    durations = data["durations"]
    yield _pairs(
        (
            f"Mean duration, {name}",
            _plain(None) if durations[key] is None else Text(_duration(durations[key])),
        )
        for key, name in names.items()
    )


def _count(data: Any, _: int) -> Iterable[RenderableType]:
    limit = "any number" if data["max"] < 0 else data["max"]
    yield Text(f"{data['current']} open of {limit}, {_digits(data['total_stake'])} staked")


# --- pairs, locks, the bot


def _pair_list(data: Any, _: int) -> Iterable[RenderableType]:
    names = data["whitelist"] if "whitelist" in data else data["blacklist"]
    yield from (_plain(name) for name in names)
    method = f" by {', '.join(map(str, data['method']))}" if data.get("method") else ""
    yield _note(f"{len(names)} pairs{method}")
    for pair, error in (data.get("errors") or {}).items():
        said = error.get("error_msg", error) if isinstance(error, dict) else error
        yield Text(clean(f"{pair}: {said}"), style="red")


def _locks(data: Any, now_ms: int) -> Iterable[RenderableType]:
    columns: list[Column] = [
        _column("ID", "id", number=True),
        _column("Pair", "pair"),
        _column("Side", "side"),
        _column("Until (UTC)", "lock_end_timestamp", _moment, number=False),
        ("Left", lambda row: Text(_duration((row["lock_end_timestamp"] - now_ms) / 1000)), True),
        _column("Reason", "reason"),
    ]
    return [_table(columns, data["locks"]) if data["locks"] else _note("no lock")]


_LEVELS = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red", "DEBUG": "dim"}


def _logs(data: Any, _: int) -> Iterable[RenderableType]:
    for when, _ms, logger, level, message in data["logs"]:
        line = Text(f"{clean(str(when))} ", style="dim")
        line.append(f"{clean(str(level))} ", style=_LEVELS.get(level, ""))
        line.append(f"{clean(str(logger))}: ", style="cyan")
        yield line.append(" ".join(clean(part) for part in str(message).splitlines()))


def _markets(data: Any, _: int) -> Iterable[RenderableType]:
    columns = [
        _column(name.capitalize(), name) for name in ("symbol", "base", "quote", "spot", "swap", "active")
    ]
    yield _table(columns, data["markets"].values())
    yield _note(f"{len(data['markets'])} markets of {data['exchange_id']}")


def _strategy(data: Any, _: int) -> Iterable[RenderableType]:
    yield from (Text(clean(line.expandtabs())) for line in data["code"].splitlines())


def _sysinfo(data: Any, _: int) -> Iterable[RenderableType]:
    load = ", ".join(f"{name}: {_digits(value)}" for name, value in data["cpu_load_avg"].items())
    yield _pairs(
        [
            ("CPU", Text(f"{data['cpu_avg']:.1f} % of {data['cpu_count']} cores")),
            ("Load", Text(clean(load))),
            ("Memory", Text(f"{data['ram_pct']:.1f} %")),
        ]
    )


# --- a hub's ledger


def _fills(data: Any, _: int) -> Iterable[RenderableType]:
    rows = [{**fill["data"], **{k: v for k, v in fill.items() if k != "data"}} for fill in data["fills"]]
    columns = [
        _column("Offset", "offset", number=True),
        _column("Time (UTC)", "ts", _moment, number=False),
        _column("Bot", "bot"),
        _column("Topic", "topic"),
        _column("Trade", "trade_id", number=True),
        _column("Pair", "pair"),
        _column("Amount", "amount", number=True),
        ("Rate", lambda row: _plain(row.get("close_rate") or row.get("open_rate")), True),
        _column("Source", "source"),
    ]
    if rows:
        yield _Fitted(columns, rows, ("Source", "Bot", "Rate", "Amount"))
    yield _note(f"{len(rows)} messages; the ledger has offsets {data['floor'] + 1} to {data['head']}")
    if data["damaged"]:
        yield Text(clean(f"cannot be read: {data['damaged']}"), style="red")
    if data["after"] is not None:
        yield _note(clean(f"more: after={data['after']} epoch={data['epoch']}"))


def _reconciliation(data: Any, _: int) -> Iterable[RenderableType]:
    missing = [
        {
            **fill,
            "outcome": f"at offset {fill['offset']}"
            if fill["offset"]
            else fill["refused"] or "not published",
        }
        for fill in data["missing"]
    ]
    columns = [
        _column("Missed", "topic"),
        _column("Trade", "trade_id", number=True),
        _column("Pair", "pair"),
        _column("Filled (UTC)", "ts", _moment, number=False),
        _column("Amount", "amount", number=True),
        _column("Rate", "rate", number=True),
        _column("Outcome", "outcome"),
        _column("Order", "order_id"),
    ]
    if missing:
        yield _Fitted(columns, missing, ("Order", "Rate", "Amount"))
    unknown = [
        _column("Unknown to the bot", "topic"),
        _column("Offset", "offset", number=True),
        _column("Trade", "trade_id", number=True),
        _column("Pair", "pair"),
        _column("Time (UTC)", "ts", _moment, number=False),
    ]
    if data["unknown"]:
        yield _table(unknown, data["unknown"])
    yield _note(
        f"{data['missing_count']} missed of {data['fills']} fills in {data['trades']} trades, {data['published']} published; "
        f"{data['unknown_count']} of {data['messages']} messages unknown to the bot"
    )
    if not data["complete"]:
        yield _note("not all trades were read")
    if data["damaged"]:
        yield Text(
            f"{data['damaged']} slots of the ledger cannot be read, so nothing is published", style="red"
        )


_FORMS: dict[str, Callable[[Any, int], Iterable[RenderableType]]] = {
    "fills": _fills,
    "reconcile": _reconciliation,
    "status": _status,
    "trades": _trades,
    "trade": _whole_trade,
    "cancel_open_order": _trade,
    "reload_trade": _trade,
    "force_enter": _trade,
    "open_custom_data": _custom_data,
    "custom_data": _custom_data,
    "balance": _balance,
    "profit": _profit,
    "profit_all": _profit_all,
    "daily": _periods,
    "weekly": _periods,
    "monthly": _periods,
    "performance": _performance("Pair", "pair"),
    "entries": _performance("Entry tag", "enter_tag"),
    "exits": _performance("Exit reason", "exit_reason"),
    "mix_tags": _performance("Entry tag and exit reason", "mix_tag"),
    "stats": _stats,
    "count": _count,
    "whitelist": _pair_list,
    "blacklist": _pair_list,
    "add_to_blacklist": _pair_list,
    "delete_from_blacklist": _pair_list,
    "locks": _locks,
    "add_locks": _locks,
    "delete_lock": _locks,
    "delete_locks": _locks,
    "logs": _logs,
    "markets": _markets,
    "strategy": _strategy,
    "sysinfo": _sysinfo,
    "pair_candles": _rows_of_columns,
    "chosen_pair_candles": _rows_of_columns,
    "historic_balance": _rows_of_columns,
}
