"""What happened to an order in plain words, one line for the log. Names and tags are peers': they are made harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from consumer.bot.fills import Told
from consumer.wording import clean

__all__ = ["narrated"]

_LONGEST = 100

_Line = Callable[[Mapping[str, Any]], str]


def narrated(told: Sequence[Told | str]) -> Iterator[str]:
    """A line for each note and each message of an order of one commit; what was placed and filled at once is told as filled."""
    orders = [item for item in told if not isinstance(item, str)]
    filled = {(data["trade_id"], topic) for topic, data in orders if topic.endswith("_fill")}
    for item in told:
        if isinstance(item, str):
            yield clean(item)
            continue
        topic, data = item
        if (data["trade_id"], f"{topic}_fill") not in filled:
            yield f"{_short(data['pair'])}, trade {data['trade_id']}: {_LINES[topic](data)}"


def _placed(side: str) -> _Line:
    def line(data: Mapping[str, Any]) -> str:
        return f"{side} order placed, {data['order_type']}, {_size(data)}{_why(data)}"

    return line


def _entered(data: Mapping[str, Any]) -> str:
    return f"entered at {_minute(data['open_date'])}, {_size(data)}{_why(data)}"


def _left(data: Mapping[str, Any]) -> str:
    part = "a part left" if data["sub_trade"] else "left"
    profit = f"profit {data['profit_amount']:.8g} {data['stake_currency']} ({data['profit_ratio']:.2%})"
    return f"{part} at {_minute(data['close_date'])}, {_size(data)}, {profit}{_why(data)}"


def _cancelled(side: str) -> _Line:
    def line(data: Mapping[str, Any]) -> str:
        return f"{side} order cancelled: {data['reason']}"

    return line


_LINES: Mapping[str, _Line] = {
    "entry": _placed("entry"),
    "entry_fill": _entered,
    "entry_cancel": _cancelled("entry"),
    "exit": _placed("exit"),
    "exit_fill": _left,
    "exit_cancel": _cancelled("exit"),
}


def _size(data: Mapping[str, Any]) -> str:
    return f"{data['amount']:.8g} at {data['order_rate']:.8g}"


def _why(data: Mapping[str, Any]) -> str:
    """The tag of the order: of an exit its reason."""
    tag = data.get("exit_reason") or data.get("enter_tag")
    if tag == "force_exit":
        return ", forced by a person"
    return f" ({_short(tag)})" if tag else ""


def _minute(date: str) -> str:
    """A date of candle time without what every candle has in common."""
    return date[:16].replace("T", " ")


def _short(text: str) -> str:
    return clean(text[:_LONGEST])
