"""The commands of ctl: the operations of BotAPI by the names that users of freqtrade-client know, and their arguments in words.

A command's parameters are its operation's, so a new operation is a command at once. Written down here is only where freqtrade-client
2026.9 calls something otherwise, takes it in another form, or has one command for two operations.

A word is `key=value`, or a value alone for the next parameter that has none yet. Values are read by the parameter's type; a list is
joined by commas, and takes all values that are left.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any

import msgspec

from consumer.errors import BadRequest
from consumer.wording import clean, nearest
from hub.protocol.botapi import OPERATIONS, LockOrder
from hub.protocol.operations import Operation, Parameter, Place

__all__ = ["COMMANDS", "LISTED", "Call", "Command", "expected", "find"]

_KEYED = re.compile(r"(\w+)=(.*)", re.DOTALL)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be asked. `loses` says in words what it takes away that nobody brings back; empty for all else."""

    operation: str
    arguments: dict[str, Any] = {}
    loses: str = ""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command. `keys` are freqtrade-client's names of parameters, `aliases` other names of the command.

    `operation` is of OPERATIONS, or ping, bots, fills or reconcile. `call` makes the call of the arguments that were given.
    """

    name: str
    operation: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    keys: Mapping[str, str] = {}
    aliases: tuple[str, ...] = ()
    call: Callable[[Command, dict[str, Any]], Call]

    @property
    def usage(self) -> str:
        """The command with its parameters, those in brackets may be left out."""
        return " ".join([self.name, *map(_shown, self.parameters)])

    def read(self, words: Sequence[str]) -> Call:
        """The call that `words` ask for. Raises BadRequest, which names the word at fault and what was expected."""
        texts = self._texts(words)
        for parameter in self.parameters:
            if parameter.required and parameter.name not in texts:
                raise BadRequest(
                    f"{self.name}: {parameter.name}: missing; expected {expected(parameter.type)}"
                )
        types = {p.name: p.type for p in self.parameters}
        return self.call(self, {n: _value(f"{self.name}: {n}", text, types[n]) for n, text in texts.items()})

    def _texts(self, words: Sequence[str]) -> dict[str, str]:
        texts: dict[str, str] = {}
        bare = []
        for word in words:
            if (found := _KEYED.fullmatch(word)) is None:
                bare.append(word)
                continue
            name = self.keys.get(found[1], found[1])
            if name not in (p.name for p in self.parameters):
                raise BadRequest(f"{self.name}: no parameter {found[1][:60]}{self._nearest(found[1])}")
            if name in texts:
                raise BadRequest(f"{self.name}: {name}: given twice")
            texts[name] = found[2]
        for parameter in self.parameters:
            if bare and parameter.name not in texts:
                many = _many(parameter.type)
                texts[parameter.name] = ",".join(bare) if many else bare[0]
                bare = [] if many else bare[1:]
        if bare:
            raise BadRequest(f"{self.name}: {clean(bare[0])[:60]!r}: too many values; expected: {self.usage}")
        return texts

    def _nearest(self, key: str) -> str:
        names = [p.name for p in self.parameters]
        if not names:
            return "; it takes none"
        return nearest(key, [*names, *self.keys]) or f"; expected {', '.join(names)}"


def find(name: str) -> Command:
    """The command of that name or alias. Raises BadRequest with the nearest one."""
    if name in COMMANDS:
        return COMMANDS[name]
    if name in _WEBSERVER:
        raise BadRequest(f"{name}: belongs to freqtrade's webserver mode, in which no bot trades")
    raise BadRequest(
        f"{clean(name)[:60]}: no such command{nearest(name, COMMANDS) or '; ctl --show lists them'}"
    )


# --- reading values

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def expected(kind: Any) -> str:
    """A type in words."""
    kinds = _kinds(kind)
    if any(typing.get_origin(k) is list for k in kinds):
        return "values joined by commas"
    if datetime in kinds:
        return "a date such as 2026-11-22 13:26:07Z"
    for k in kinds:
        if isinstance(k, type) and issubclass(k, StrEnum):
            return " or ".join(repr(str(member)) if not member else str(member) for member in k)
    return next((_WORDS[k] for k in (bool, str, float, int) if k in kinds), "a value") + _bounds(kind)


def _bounds(kind: Any) -> str:
    lowest = [
        m.ge for m in getattr(kind, "__metadata__", ()) if isinstance(m, msgspec.Meta) and m.ge is not None
    ]
    return f" from {lowest[0]}" if lowest else ""


def _kinds(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a type, None left out."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    alternatives = typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return tuple(k for k in alternatives if k is not NoneType)


def _many(kind: Any) -> bool:
    return any(typing.get_origin(k) is list for k in _kinds(kind))


def _value(key: str, text: str, kind: Any) -> Any:
    source: Any = [part.strip() for part in text.split(",") if part.strip()] if _many(kind) else text
    kinds = _kinds(kind)
    if str in kinds:
        # As written: "null" and "5" are texts here.
        return text
    try:
        value = msgspec.convert(source, _union(kinds, kind), strict=False)
    except msgspec.ValidationError:
        value = None
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise BadRequest(f"{key}: expected {expected(kind)}, got {clean(text)[:60]!r}")
    return value


def _union(kinds: tuple[Any, ...], kind: Any) -> Any:
    return kinds[0] if len(kinds) == 1 and typing.get_origin(kind) is not typing.Annotated else kind


def _shown(parameter: Parameter) -> str:
    more = "..." if _many(parameter.type) else ""
    return f"{parameter.name.upper()}{more}" if parameter.required else f"[{parameter.name}{more}]"


# --- the table


def _plain_call(command: Command, arguments: dict[str, Any]) -> Call:
    loses = _LOSES.get(command.operation, "")
    if command.operation == "force_exit" and arguments.get("tradeid") == "all":
        loses = "this leaves every open trade now"
    return Call(operation=command.operation, arguments=arguments, loses=loses)


def _blacklist(_: Command, arguments: dict[str, Any]) -> Call:
    if "add" not in arguments:
        return Call(operation="blacklist")
    return Call(operation="add_to_blacklist", arguments={"blacklist": arguments["add"]})


def _lock(_: Command, arguments: dict[str, Any]) -> Call:
    until: datetime = arguments["until"]
    if until.tzinfo is None:
        arguments = {**arguments, "until": until.replace(tzinfo=UTC)}
    return Call(operation="add_locks", arguments={"locks": [LockOrder(**arguments)]})


def _candles(_: Command, arguments: dict[str, Any]) -> Call:
    operation = "chosen_pair_candles" if "columns" in arguments else "pair_candles"
    return Call(operation=operation, arguments=arguments)


_LOSES = {
    "stop": "the bot then acts on nothing any more, its open trades included",
    "delete_trade": "the bot forgets the trade; what it bought stays at the exchange and is yours to sell",
}
_NAMES = {
    "force_enter": "forceenter",
    "force_exit": "forceexit",
    "open_custom_data": "list_open_trades_custom_data",
    "custom_data": "list_custom_data",
    "add_to_blacklist": "blacklist_add",
    "delete_from_blacklist": "blacklist_delete",
    "add_locks": "lock_add",
}
_ALIASES = {"force_exit": ("forcesell",), "pause": ("stopbuy", "stopentry")}
_BY_TRADE = {"trade_id": "tradeid"}
_KEYS: dict[str, dict[str, str]] = {
    "daily": {"days": "timescale"},
    "weekly": {"weeks": "timescale"},
    "monthly": {"months": "timescale"},
    "trade": _BY_TRADE,
    "delete_trade": _BY_TRADE,
    "cancel_open_order": _BY_TRADE,
    "reload_trade": _BY_TRADE,
    "force_exit": _BY_TRADE | {"order_type": "ordertype"},
    "delete_lock": {"lock_id": "lockid"},
    "force_enter": {"order_type": "ordertype", "stake_amount": "stakeamount", "enter_tag": "entry_tag"},
}
_WEBSERVER = ("strategies", "pairlists_available", "available_pairs", "pair_history")


def _given(*parameters: tuple[str, Any, bool]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(name=name, place=Place.BODY, type=kind, default=msgspec.NODEFAULT if required else None)
        for name, kind, required in parameters
    )


_SPECIAL: dict[str, dict[str, Any]] = {
    "blacklist": {
        "summary": "The pairs that it never enters; with values, add them.",
        "parameters": _given(("add", list[str], False)),
        "call": _blacklist,
    },
    "add_to_blacklist": {"keys": {"add": "blacklist"}},
    "add_locks": {
        "summary": "Lock a pair, or * for all, until a date.",
        "parameters": _given(
            ("pair", str, True), ("until", datetime, True), ("side", str, False), ("reason", str, False)
        ),
        "call": _lock,
    },
    "pair_candles": {
        "summary": "The newest analyzed candles of a pair; with columns, only those and what charts need.",
        "parameters": OPERATIONS["chosen_pair_candles"].parameters,
        "call": _candles,
    },
}


def _command(operation: Operation) -> Command:
    said: dict[str, Any] = {
        "name": _NAMES.get(operation.name, operation.name),
        "operation": operation.name,
        "summary": operation.summary.partition("\n")[0],
        "parameters": operation.parameters,
        "keys": _KEYS.get(operation.name, {}),
        "aliases": _ALIASES.get(operation.name, ()),
        "call": _plain_call,
    }
    return Command(**said | _SPECIAL.get(operation.name, {}))


def _commands() -> Iterable[Command]:
    yield Command(
        name="ping", operation="ping", summary="Whether it answers; needs no password.", call=_plain_call
    )
    yield Command(name="bots", operation="bots", summary="The bots of a hub.", call=_plain_call)
    yield Command(
        name="fills",
        operation="fills",
        summary="A page of a hub's ledger, oldest first; of the bot, or of all.",
        parameters=_given(
            ("since", str, False),
            ("until", str, False),
            ("topic", list[str], False),
            ("limit", int, False),
            ("after", int, False),
            ("epoch", str, False),
        ),
        call=_plain_call,
    )
    yield Command(
        name="reconcile",
        operation="reconcile",
        summary="Compare a hub's ledger with the bot's own trades; with publish, store the fills that it missed.",
        parameters=_given(("bot", str, False), ("publish", bool, False), ("since", str, False)),
        call=_plain_call,
    )
    for operation in OPERATIONS.values():
        if operation.name != "chosen_pair_candles":
            yield _command(operation)


def _forcebuy(enter: Command) -> Command:
    """freqtrade-client's, whose second value is the price."""
    by_name = {p.name: p for p in enter.parameters}
    first = ("pair", "price")
    parameters = (*(by_name[n] for n in first), *(p for p in enter.parameters if p.name not in first))
    return msgspec.structs.replace(enter, name="forcebuy", parameters=parameters)


LISTED = tuple(_commands())
"""Every command once, in the order of BotAPI."""
COMMANDS = {name: command for command in LISTED for name in (command.name, *command.aliases)}
COMMANDS["forcebuy"] = _forcebuy(COMMANDS["forceenter"])
"""Every command by its name and its aliases."""
