"""Settings of the PaperBot: freqtrade's own keys, and the section `paper` for what freqtrade does not have.

| key | default | meaning |
|---|---|---|
| dry_run_wallet | 1000 | starting balance of a new database: a number, or freqtrade's map of currency to number |
| stake_currency | "USDT" | the currency of wallet and stakes; pairs quoted in another one are never entered |
| stake_amount | "unlimited" | quote currency per trade; "unlimited" shares the tradable balance among `max_open_trades` |
| max_open_trades | 3 | -1: no limit (not together with an unlimited stake) |
| tradable_balance_ratio | 0.99 | the part of the balance that may be in trades |
| fee | 0.001 | ratio of the value of each order |
| minimal_roi | {} | {minutes: ratio}: take that profit once the trade is that old; empty: never |
| stoploss | -0.10 | ratio below the open rate, under 0; -1 or lower: never |
| order_types | {} | "market" or "limit" by `entry`, `exit`, `stoploss`, `force_entry`, `force_exit`, `emergency_exit` (`orders`) |
| unfilledtimeout | {} | age at which limit orders end: `entry` 10, `exit` 10, `unit` "minutes"; `exit_timeout_count` 0 |
| force_entry_enable | false | whether people may enter trades |
| exchange.pair_blacklist | [] | patterns of pairs that signals never enter (`patterns`) |
| initial_state | "running" | the state of a new database: "running", "paused" or "stopped" |
| timeframe | the first that arrives | frames of another timeframe are not looked at |
| bot_name | "bot" | name under which fills are published |
| exchange.name, fiat_display_currency | "paper", none | only shown in the messages |
| db_url | sqlite:///<data dir>/<bot_name>.sqlite | SQLAlchemy URL of the trades |
| paper.start_from | "live" | a fresh database begins behind the first snapshot ("live") or with the oldest row ("earliest") |
| paper.producer, paper.bot, paper.candle_type | the first that arrives | whose frames are traded |
| paper.wait_candles | none: wait for ever | give a pair up for a candle once others are this many candles ahead of it |
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from consumer.bot.patterns import BadPattern, Pattern
from consumer.bot.records import BotState
from consumer.bot.rules import LEAST_MONEY, MOST_MONEY
from consumer.errors import ConfigError
from hub.frames.timeframe import timeframe_ms
from hub.protocol.errors import BadFrame

__all__ = ["OrderKind", "PaperSettings", "UnfilledTimeout"]

log = logging.getLogger(__name__)

_UNLIMITED = "unlimited"
_MONEY = "a number from 0.00000001 to 1e15"
_UNITS_MS = {"seconds": 1000, "minutes": 60_000}

OrderKind = Literal["entry", "exit", "stoploss", "force_entry", "force_exit", "emergency_exit"]
"""What an order is for, as freqtrade's `order_types` has it."""

_ON_EXCHANGE = (
    "stoploss_on_exchange",
    "stoploss_on_exchange_interval",
    "stoploss_on_exchange_limit_ratio",
    "stoploss_price_type",
)
_KEYS: Mapping[str, Sequence[str]] = {
    "paper": ("start_from", "producer", "bot", "candle_type", "wait_candles"),
    # What a real exchange needs is known and of no effect here.
    "order_types": (*get_args(OrderKind), *_ON_EXCHANGE),
    "unfilledtimeout": ("entry", "exit", "unit", "exit_timeout_count"),
}
"""The sections whose unknown keys are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfilledTimeout:
    """freqtrade's `unfilledtimeout`: `entry` and `exit` in `unit`; after `exit_timeout_count` exits (0: never) an emergency exit."""

    entry: int = 10
    exit: int = 10
    unit: str = "minutes"
    exit_timeout_count: int = 0

    def after_ms(self, side: Literal["entry", "exit"]) -> int:
        """How old an order of this side may become, in ms."""
        return (self.entry if side == "entry" else self.exit) * _UNITS_MS[self.unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperSettings:
    """What a PaperBot runs by. `stake_amount` None is freqtrade's "unlimited", `max_open_trades` None its -1."""

    wallet: Decimal
    stake_currency: str
    stake_amount: Decimal | None
    max_open_trades: int | None
    tradable_ratio: Decimal
    fee: Decimal
    minimal_roi: tuple[tuple[int, Decimal], ...]
    stoploss: Decimal
    order_types: Mapping[OrderKind, str]
    unfilled_timeout: UnfilledTimeout
    force_entry: bool
    pair_blacklist: tuple[str, ...]
    initial_state: BotState
    timeframe: str | None
    name: str
    exchange: str
    fiat_currency: str | None
    db_url: URL
    start_from: Literal["live", "earliest"]
    producer: str | None
    bot: str | None
    candle_type: str | None
    wait_candles: int | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, name: str, data_dir: Path) -> PaperSettings:
        """Read the settings out of a whole configuration; `name` and `data_dir` are the defaults' ingredients.

        Raises:
            ConfigError: a value that cannot be used; names the key and what was expected.
        """
        stake_currency = _text(config, "stake_currency", "USDT")
        stake = _stake(config)
        slots = _slots(config)
        if stake is None and slots is None:
            raise ConfigError("stake_amount", 'expected a number when max_open_trades is -1, got "unlimited"')
        paper = _section(config, "paper")
        for path, known in _KEYS.items():
            _warn_unknown(_section(config, path), known, path)
        return cls(
            wallet=_wallet(config, stake_currency),
            stake_currency=stake_currency,
            stake_amount=stake,
            max_open_trades=slots,
            tradable_ratio=_ratio(config, "tradable_balance_ratio", "0.99", low="0", high="1"),
            fee=_ratio(config, "fee", "0.001", low="0", high="0.5"),
            minimal_roi=_roi(config),
            stoploss=_stoploss(config),
            order_types=_order_types(_section(config, "order_types")),
            unfilled_timeout=_unfilled_timeout(_section(config, "unfilledtimeout")),
            force_entry=_flag(config, "force_entry_enable"),
            pair_blacklist=_pair_blacklist(_section(config, "exchange")),
            initial_state=_initial_state(config),
            timeframe=_timeframe(config),
            name=name,
            exchange=_text(_section(config, "exchange"), "name", "paper", prefix="exchange.").capitalize(),
            fiat_currency=_optional_text(config, "fiat_display_currency", ""),
            db_url=_db_url(config, data_dir / (quote(name, safe=" ") + ".sqlite")),
            start_from=_start_from(paper),
            producer=_optional_text(paper, "producer", "paper."),
            bot=_optional_text(paper, "bot", "paper."),
            candle_type=_optional_text(paper, "candle_type", "paper."),
            wait_candles=_wait_candles(paper),
        )


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(key, f"expected a map, got {type(value).__name__}")
    return value


def _text(config: Mapping[str, Any], key: str, default: str, *, prefix: str = "") -> str:
    value = config.get(key, default)
    if not isinstance(value, str) or not value:
        raise ConfigError(prefix + key, f"expected a text that is not empty, got {value!r}")
    return value


def _optional_text(config: Mapping[str, Any], key: str, prefix: str) -> str | None:
    return None if config.get(key) in (None, "") else _text(config, key, "", prefix=prefix)


def _number(value: object, key: str, expected: str) -> Decimal:
    # bool is an int in Python, but `"fee": true` is a mistake.
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ConfigError(key, f"expected {expected}, got {value!r}")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ConfigError(key, f"expected {expected}, got {value!r}")
    return number


def _ratio(config: Mapping[str, Any], key: str, default: str, *, low: str, high: str) -> Decimal:
    expected = f"a number from {low} to {high}"
    number = _number(config.get(key, Decimal(default)), key, expected)
    if not Decimal(low) <= number <= Decimal(high):
        raise ConfigError(key, f"expected {expected}, got {number}")
    return number


def _stoploss(config: Mapping[str, Any]) -> Decimal:
    number = _ratio(config, "stoploss", "-0.10", low="-10", high="0")
    if not number:
        raise ConfigError("stoploss", "expected a number under 0, got 0")
    return number


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(key, f"expected true or false, got {value!r}")
    return value


def _order_types(section: Mapping[str, Any]) -> dict[OrderKind, str]:
    """By kind; a forced order is of the type of the others of its side when nothing else is said, as in freqtrade."""
    for key, value in section.items():
        if key in get_args(OrderKind) and value not in ("market", "limit"):
            raise ConfigError(f"order_types.{key}", f'expected "market" or "limit", got {value!r}')
    entry, leave = section.get("entry", "market"), section.get("exit", "market")
    return {
        "entry": entry,
        "exit": leave,
        "stoploss": section.get("stoploss", "market"),
        "force_entry": section.get("force_entry", entry),
        "force_exit": section.get("force_exit", leave),
        "emergency_exit": section.get("emergency_exit", "market"),
    }


def _unfilled_timeout(section: Mapping[str, Any]) -> UnfilledTimeout:
    unit = section.get("unit", "minutes")
    if not isinstance(unit, str) or unit not in _UNITS_MS:
        raise ConfigError("unfilledtimeout.unit", f'expected "minutes" or "seconds", got {unit!r}')
    return UnfilledTimeout(
        entry=_count(section, "entry", 10, low=1),
        exit=_count(section, "exit", 10, low=1),
        unit=unit,
        exit_timeout_count=_count(section, "exit_timeout_count", 0, low=0),
    )


def _count(section: Mapping[str, Any], key: str, default: int, *, low: int) -> int:
    value = section.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= 10**9:
        raise ConfigError(f"unfilledtimeout.{key}", f"expected a whole number from {low} up, got {value!r}")
    return value


def _pair_blacklist(exchange: Mapping[str, Any]) -> tuple[str, ...]:
    entries = exchange.get("pair_blacklist", [])
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise ConfigError("exchange.pair_blacklist", "expected a list of texts")
    for entry in entries:
        try:
            Pattern(entry)
        except BadPattern as error:
            raise ConfigError(
                "exchange.pair_blacklist", f"expected regular expressions, got {entry[:40]!r}: {error}"
            ) from None
    return tuple(dict.fromkeys(entries))


def _initial_state(config: Mapping[str, Any]) -> BotState:
    value = config.get("initial_state", BotState.RUNNING)
    try:
        return BotState(value)
    except ValueError:
        raise ConfigError(
            "initial_state", f'expected "running", "paused" or "stopped", got {value!r}'
        ) from None


def _timeframe(config: Mapping[str, Any]) -> str | None:
    timeframe = _optional_text(config, "timeframe", "")
    try:
        if timeframe is not None:
            timeframe_ms(timeframe)
    except BadFrame:
        raise ConfigError("timeframe", f'expected one such as "5m", got {timeframe!r}') from None
    return timeframe


def _db_url(config: Mapping[str, Any], path: Path) -> URL:
    if "db_url" not in config:
        # Not as text: a path may hold what means something in a URL.
        return URL.create("sqlite", database=str(path))
    try:
        return make_url(_text(config, "db_url", ""))
    except (ArgumentError, ValueError):
        raise ConfigError("db_url", "expected a URL such as sqlite:///trades.sqlite") from None


def _money(value: object, key: str, expected: str) -> Decimal:
    number = _number(value, key, expected)
    if not LEAST_MONEY <= number <= MOST_MONEY:
        raise ConfigError(key, f"expected {expected}, got {value!r}")
    return number


def _wallet(config: Mapping[str, Any], currency: str) -> Decimal:
    value = config.get("dry_run_wallet", 1000)
    if isinstance(value, Mapping):
        if currency not in value:
            raise ConfigError("dry_run_wallet", f"expected an amount of {currency}, the stake currency")
        value = value[currency]
    return _money(value, "dry_run_wallet", f"{_MONEY} or a map of currency to number")


def _stake(config: Mapping[str, Any]) -> Decimal | None:
    value = config.get("stake_amount", _UNLIMITED)
    if value == _UNLIMITED:
        return None
    return _money(value, "stake_amount", f'{_MONEY} or "unlimited"')


def _slots(config: Mapping[str, Any]) -> int | None:
    value = config.get("max_open_trades", 3)
    # freqtrade writes an unlimited number of slots as -1 or as infinity.
    if value == -1 or value == float("inf"):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError("max_open_trades", f"expected a whole number from 0 up, or -1, got {value!r}")
    return value


def _roi(config: Mapping[str, Any]) -> tuple[tuple[int, Decimal], ...]:
    table = _section(config, "minimal_roi")
    steps: dict[int, Decimal] = {}
    for minutes, ratio in table.items():
        age = str(minutes)
        if not (age.isascii() and age.isdecimal() and len(age) <= 9):
            raise ConfigError("minimal_roi", f"expected whole minutes from 0 up as keys, got {age[:40]!r}")
        if int(age) in steps:
            raise ConfigError("minimal_roi", f"expected each number of minutes once, got {age} twice")
        number = _number(ratio, f"minimal_roi.{age}", "a number")
        if abs(number) > MOST_MONEY:
            raise ConfigError(f"minimal_roi.{age}", f"expected a number from -1e15 to 1e15, got {ratio!r}")
        steps[int(age)] = number
    return tuple(sorted(steps.items()))


def _warn_unknown(section: Mapping[str, Any], known: Sequence[str], path: str) -> None:
    for key in sorted(map(str, set(section) - set(known))):
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        log.warning("%s.%s: not a key of this section, ignored%s", path, key, hint)


def _start_from(paper: Mapping[str, Any]) -> Literal["live", "earliest"]:
    value = paper.get("start_from", "live")
    if value == "live":
        return "live"
    if value == "earliest":
        return "earliest"
    raise ConfigError("paper.start_from", f'expected "live" or "earliest", got {value!r}')


def _wait_candles(paper: Mapping[str, Any]) -> int | None:
    value = paper.get("wait_candles")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError("paper.wait_candles", f"expected a whole number from 1 up, got {value!r}")
    return value
