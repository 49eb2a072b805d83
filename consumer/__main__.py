"""The command line `tradewire-consumer`: look at what a hub or a bot sends, run a local bot on it, ask or drive a bot."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.text import Text

__all__ = ["main"]

# Another package of PyPI installs a top-level `hub` too; whichever comes first in the path is imported.
if find_spec("hub") is None or find_spec("hub.protocol") is None:  # pragma: no cover
    typer.echo(
        "tradewire-consumer: the package `hub` here is not tradewire's; uninstall the other `hub`", err=True
    )
    raise SystemExit(1)

from consumer.client import Client
from consumer.config import ConsumerConfig, ProducerConfig, load
from consumer.connection import Endpoint
from consumer.ctl.command import ctl
from consumer.errors import BadRequest, ConfigError, ConsumerError
from consumer.wording import clean
from hub.frames.columns import Columns
from hub.protocol.localbot import CandleComplete, Connected, Delivery, Disconnected, Lost
from hub.protocol.messages import (
    AnalyzedDf,
    DeliveryClass,
    GenericMessage,
    Message,
    NewCandle,
    Whitelist,
    delivery_class,
)
from hub.protocol.values import plain

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="tradewire's consumer: watch the messages of bots, run a bot of your own on them, and ask or drive a bot.",
)

DEFAULT_BOT = "consumer.bot:PaperBot"
DEFAULT_DATA_DIR = Path("tradewire-data")
_SHOWN = (
    "pair",
    "direction",
    "amount",
    "order_rate",
    "open_rate",
    "close_rate",
    "profit_ratio",
    "enter_tag",
    "exit_reason",
)


# Of click, or of the copy of it that newer versions of typer have.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """Entry point: every failure that is expected is one line on stderr and exit status 1, or 2 for a wrong command."""
    try:
        # Standalone typer frames a mistake in five lines. Without any word it gives its help.
        status = app(standalone_mode=len(sys.argv) < 2)
        raise SystemExit(status if isinstance(status, int) else 0)
    except _UsageError as error:
        _fail(" ".join(error.format_message().split()), 2)
    except typer.Abort:
        raise SystemExit(1) from None
    except BadRequest as error:
        # Found out before anything was sent: the command line is wrong.
        _fail(str(error), 2 if error.status is None else 1)
    except ConsumerError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Whoever read our output is gone; what the interpreter flushes at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def _say(text: str) -> None:
    typer.echo(f"tradewire-consumer: {text}", err=True)


def _fail(text: str, status: int = 1) -> None:
    _say(text)
    raise SystemExit(status)


@app.command()
def tail(
    url: Annotated[str, typer.Argument(help="ws://host:port, http://host:port or host:port", metavar="URL")],
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TRADEWIRE_TOKEN",
            show_envvar=True,
            help="better in the variable than in the shell's history",
        ),
    ] = None,
    topics: Annotated[str, typer.Option(help="comma-separated; default: all")] = "*",
    bots: Annotated[str, typer.Option(help="comma-separated; default: all that the token may read")] = "*",
    protocol: Annotated[str, typer.Option(help="auto, v2 or freqtrade")] = "auto",
    ca_file: Annotated[str | None, typer.Option(help="PEM file of authorities to trust, with wss")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Print messages live, until Ctrl-C. A hub that is down is waited for."""
    producer = _producer(url, token, topics, bots, protocol, ca_file)
    _quiet_logging()
    show = _json_line if as_json else _human_line()
    _until_stopped(lambda: _tail(producer, show))


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="file with the section external_message_consumer")],
    bot: Annotated[str, typer.Option(help="module:Class of a LocalBot")] = DEFAULT_BOT,
    data_dir: Annotated[
        Path, typer.Option(help="where the bot's trades and positions are kept")
    ] = DEFAULT_DATA_DIR,
) -> None:
    """Feed a local bot until SIGINT or SIGTERM."""
    settings = _enabled(config)
    bot_class = _bot_class(bot)
    _quiet_logging()
    # Of ours more is for those who ask, as over REST; stderr stays with the warnings.
    logging.getLogger("consumer").setLevel(logging.INFO)
    from consumer import feed

    # feed installs its own signal handlers: a bot stops only between two messages.
    running = feed.run(settings, bot_class, data_dir=data_dir, say=_say, read=lambda: _enabled(config))
    raise SystemExit(asyncio.run(running))


app.command()(ctl)

# --- tail


def _producer(
    url: str, token: str | None, topics: str, bots: str, protocol: str, ca_file: str | None
) -> ProducerConfig:
    endpoint = Endpoint.parse(url, token or None, ca_file=ca_file)
    if not endpoint.token:
        raise ConfigError(
            "--token", "missing; expected a ws_token here, in TRADEWIRE_TOKEN or in the URL's query"
        )
    if protocol not in ("auto", "v2", "freqtrade"):
        raise ConfigError("--protocol", "expected auto, v2 or freqtrade")
    return ProducerConfig(
        name=f"{endpoint.host}:{endpoint.port}",
        host=endpoint.host,
        port=endpoint.port,
        secure=endpoint.secure,
        path=endpoint.path,
        ws_token=endpoint.token,
        ca_file=ca_file,
        protocol=cast(Literal["auto", "v2", "freqtrade"], protocol),
        topics=_names(topics),
        bots=_names(bots),
    )


def _names(text: str) -> Literal["*"] | list[str]:
    return "*" if text.strip() in ("*", "") else [name.strip() for name in text.split(",") if name.strip()]


async def _tail(producer: ProducerConfig, show: Callable[[Delivery], None]) -> None:
    async with Client(producer, ConsumerConfig(initial_candle_limit=1)) as client:
        async for delivery in client:
            show(delivery)


def _json_line(delivery: Delivery) -> None:
    sys.stdout.write(json.dumps(_as_data(delivery), ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _as_data(delivery: Delivery) -> dict[str, Any]:
    """A delivery as plain values: what is set, and rows as maps from column to value."""
    data: dict[str, Any] = {"type": delivery.topic, "producer": delivery.producer, "bot": delivery.bot}
    if delivery.ts_ms is not None:
        data["ts"] = delivery.ts_ms
    if delivery.position is not None:
        data |= {"epoch": delivery.position.epoch, "offset": delivery.position.offset}
    return data | {"data": _message_data(delivery.message)}


def _message_data(message: Any) -> Any:
    if isinstance(message, AnalyzedDf) and isinstance(message.df, Columns):
        rows = [_row_data(message.df, i) for i in range(message.df.n)]
        return {"key": plain(message.key), "la": plain(message.la), "rows": rows, **plain(message.extra)}
    if isinstance(message, GenericMessage):
        data = _printable(message.data)
        return data if message.problem is None else {"problem": message.problem, "data": data}
    if isinstance(message, Message):
        values = {n: getattr(message, n) for n in message.__struct_fields__ if n != "extra"}
        # A field that is None may have been null or not there at all.
        fields = {name: plain(value) for name, value in values.items() if value is not None}
        return fields["data"] if isinstance(message, Whitelist | NewCandle) else fields | plain(message.extra)
    return {name: plain(getattr(message, name)) for name in message.__dataclass_fields__}


def _row_data(frame: Columns, i: int) -> dict[str, Any]:
    """A row as a map, its date in ms since 1970 UTC whatever the unit of the column."""
    row = dict(zip(frame.schema.names, frame.row(i), strict=True))
    return {**plain(row), "date": int(frame.date_ms[i])}


def _printable(data: Any) -> Any:
    """What an unknown message carries, with buffers named by their size."""
    if isinstance(data, Mapping):
        return {str(key): _printable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_printable(value) for value in data]
    return f"<{len(data)} bytes>" if isinstance(data, bytes) else plain(data)


def _human_line() -> Callable[[Delivery], None]:
    console = Console(highlight=False, soft_wrap=True)

    def show(delivery: Delivery) -> None:
        when = datetime.fromtimestamp(delivery.ts_ms / 1000, UTC) if delivery.ts_ms else datetime.now(UTC)
        line = Text(f"{when:%H:%M:%S} ", style="dim")
        line.append(f"{clean(delivery.bot)} ", style="cyan")
        line.append(f"{clean(delivery.topic)} ", style=_style(delivery))
        line.append(clean(_summary(delivery)))
        console.print(line)

    return show


def _style(delivery: Delivery) -> str:
    if isinstance(delivery.message, Lost | Disconnected) or delivery.topic == "exception":
        return "bold red"
    if isinstance(delivery.message, Connected):
        return "green"
    return "bold yellow" if delivery_class(delivery.topic) is DeliveryClass.LEDGER else ""


def _summary(delivery: Delivery) -> str:
    message = delivery.message
    if isinstance(message, Disconnected):
        return f"{message.reason}; trying again"
    if isinstance(message, Connected):
        return (
            ""
            if message.resumed is None
            else "resumed"
            if message.resumed
            else "not everything could be resumed"
        )
    if isinstance(message, Lost):
        span = f" {message.first}..{message.last}" if message.first is not None else ""
        return f"{', '.join(message.topics) or 'messages'}{span}: {message.reason}"
    if isinstance(message, CandleComplete):
        candle = datetime.fromtimestamp(message.candle_ms / 1000, UTC)
        missing = f", missing {', '.join(message.missing)}" if message.missing else ""
        return f"{candle:%Y-%m-%d %H:%M} {message.timeframe}: {len(message.pairs)} pairs{missing}"
    if isinstance(message, AnalyzedDf) and isinstance(message.df, Columns):
        return _frame_summary(message, message.df, delivery.snapshot)
    return _fields_summary(message)


def _frame_summary(message: AnalyzedDf, frame: Columns, snapshot: bool) -> str:
    key = message.key
    text = f"{key.pair} {key.timeframe} {key.candle_type}: {frame.n} rows"
    if snapshot:
        text += " (snapshot)"
    if frame.n:
        row = dict(zip(frame.schema.names, frame.row(frame.n - 1), strict=True))
        last = datetime.fromtimestamp(int(frame.date_ms[-1]) / 1000, UTC)
        text += f", last {last:%Y-%m-%d %H:%M}"
        if isinstance(row.get("close"), float):
            text += f" close {row['close']!r}"
    return text


def _fields_summary(message: Any) -> str:
    data = _message_data(message)
    if isinstance(data, dict) and isinstance(message, Message) and message.delivery is DeliveryClass.LEDGER:
        shown = {name: data[name] for name in _SHOWN if data.get(name) is not None}
        return f"#{data.get('trade_id', '-')} " + " ".join(f"{name}={value}" for name, value in shown.items())
    if isinstance(data, dict):
        set_fields = {name: value for name, value in data.items() if value is not None}
        if len(set_fields) == 1:
            return str(next(iter(set_fields.values())))
        return json.dumps(set_fields, ensure_ascii=False)[:500]
    return json.dumps(data, ensure_ascii=False)[:500] if isinstance(data, list) else str(data)


# --- running


def _enabled(path: Path) -> ConsumerConfig:
    """The configuration of a file that a bot can be run by."""
    settings = load(path)
    if not settings.enabled:
        raise ConfigError("external_message_consumer.enabled", "expected true, or there is nothing to run")
    return settings


def _quiet_logging() -> None:
    """Warnings and worse on stderr, whatever the levels of loggers are."""
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.WARNING, format="tradewire-consumer: %(message)s", handlers=[stderr])


def _until_stopped(work: Callable[[], Awaitable[None]]) -> None:
    """Run until it ends or SIGINT or SIGTERM comes; a stop that was asked for is exit status 0."""

    async def supervised() -> None:
        task = asyncio.ensure_future(work())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Not on Windows, where Ctrl-C raises KeyboardInterrupt.
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    try:
        asyncio.run(supervised())
    except KeyboardInterrupt:
        return


def _one_line(error: BaseException) -> str:
    """An exception of somebody else's module, with the line of theirs that it came from."""
    at = extract_tb(error.__traceback__)[-1]
    path, line = (
        (error.filename, error.lineno) if isinstance(error, SyntaxError) else (at.filename, at.lineno)
    )
    text = error.msg if isinstance(error, SyntaxError) else next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text} ({Path(path or '?').name}:{line})"


def _bot_class(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith("."):
        raise ConfigError("--bot", "expected module:Class")
    # As with `python -m`: a bot beside the configuration is found without being installed.
    sys.path.insert(0, os.getcwd())
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError("--bot", f"{name}: there is no module {error.name}") from None
    except (Exception, SystemExit) as error:
        raise ConfigError("--bot", f"{name}: {module} cannot be imported: {_one_line(error)}") from None
    found = getattr(imported, attribute, None)
    if found is None:
        raise ConfigError("--bot", f"{name}: {module} has no {attribute}")
    if not callable(found):
        raise ConfigError("--bot", f"{name}: expected a class")
    return found


if __name__ == "__main__":
    main()
