"""The command line `tradewire-consumer ctl`.

stdout has the answer and nothing else; questions and errors go to stderr. Exit status: 0 done, 1 it failed (one line says why), 2 the
command cannot be used as it is written (one line).
"""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.config import load_raw
from consumer.ctl.commands import LISTED, Call, Command, expected, find
from consumer.errors import BadRequest, ConfigError

if TYPE_CHECKING:
    from consumer.rest import RestClient

__all__ = ["ctl"]

DEFAULT_URL = "http://127.0.0.1:8080"
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_PIPE_COLUMNS = 1000
_PASSWORD_BYTES = 4096


def ctl(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND k=v", help="without one: the list of all")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help=f"of a hub or a freqtrade bot; default: {DEFAULT_URL}")
    ] = None,
    bot: Annotated[str | None, typer.Option(help="one of a hub's bots; default: its default bot")] = None,
    user: Annotated[str | None, typer.Option(envvar="TRADEWIRE_USER", show_envvar=True)] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="or the variable TRADEWIRE_PASSWORD, or asked for on a terminal")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="a hub's or freqtrade's file: address and login from its api_server"
        ),
    ] = None,
    ca_file: Annotated[str | None, typer.Option(help="PEM file of authorities to trust, with https")] = None,
    timeout: Annotated[float, typer.Option(help="seconds of silence", min=0.1, max=3600)] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="the answer's JSON on one line")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask before something is lost")] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="of reconcile: store the fills that the ledger missed")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="list the commands, or tell of one")] = False,
) -> None:
    """Ask or drive a bot: ctl status, ctl trade 3, ctl forceexit 3 amount=0.5."""
    if show or not words:
        _list_commands([find(words[0])] if words else LISTED)
        return
    command = find(words[0])
    call = command.read([*words[1:], *(["publish=true"] if publish else [])])
    if call.loses and not yes:
        _confirm(command, call.loses)
    section = {} if config is None else _api_server(config)
    secret = "" if call.operation == "ping" else None
    name = _username(user, section, secret)
    from consumer.rest import RestClient

    with RestClient(
        url or _address(section),
        name,
        _password(password_file, section, secret),
        bot=bot,
        timeout_s=timeout,
        ca_file=ca_file,
    ) as client:
        body = _asked(client, call)
    _print_json(body) if as_json else _print_tables(call.operation, body)


def _asked(client: RestClient, call: Call) -> bytes:
    if call.operation == "ping":
        return client.fetch_ping()
    if call.operation == "bots":
        return client.fetch_bots()
    if call.operation == "fills":
        return client.fetch_fills(**call.arguments)
    if call.operation == "reconcile":
        return client.fetch_reconcile(**call.arguments)
    return client.fetch(call.operation, call.arguments)


def _confirm(command: Command, loses: str) -> None:
    if not sys.stdin.isatty():
        raise BadRequest(f"{command.name}: {loses}; a script says so with --yes")
    if _question(f"{command.name}: {loses}. Go on? [y/N] ").lower() not in ("y", "yes"):
        raise SystemExit(1)


def _question(text: str) -> str:
    """The line that is typed at a question. typer's own prompt would leave a blank on stdout."""
    sys.stderr.write(text)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        # Ctrl-D: who asks gets no answer, and an empty one is an answer.
        sys.stderr.write("\n")
        raise SystemExit(1)
    return line.strip()


# --- where and who


def _api_server(path: Path) -> Mapping[str, Any]:
    section = load_raw(path).get("api_server")
    if not isinstance(section, dict):
        raise ConfigError("api_server", f"missing; expected this section in {path}")
    return section


def _address(section: Mapping[str, Any]) -> str:
    if not section:
        return DEFAULT_URL
    host, port = section.get("listen_ip_address", "127.0.0.1"), section.get("listen_port", 8080)
    if not isinstance(host, str) or not isinstance(port, int):
        raise ConfigError(
            "api_server", "expected an address in listen_ip_address and a number in listen_port"
        )
    host = _ANY_ADDRESS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _username(user: str | None, section: Mapping[str, Any], given: str | None) -> str:
    name = given if given is not None else user or section.get("username")
    if isinstance(name, str) and (name or given is not None):
        return name
    if sys.stdin.isatty():
        return _question("User: ")
    raise ConfigError("--user", "missing; expected a name here, in TRADEWIRE_USER or in --config")


def _password(file: Path | None, section: Mapping[str, Any], given: str | None) -> str:
    """From --password-file, TRADEWIRE_PASSWORD, the configuration, or the terminal, in this order."""
    if given is not None:
        return given
    if file is not None:
        return _read_password(file)
    found = os.environ.get("TRADEWIRE_PASSWORD") or section.get("password")
    if isinstance(found, str) and found:
        return found
    if sys.stdin.isatty():
        return getpass.getpass("Password: ", stream=sys.stderr)
    raise ConfigError(
        "--password-file", "missing; expected a file here, or the password in TRADEWIRE_PASSWORD or --config"
    )


def _read_password(file: Path) -> str:
    try:
        with file.open("rb") as source:
            text = source.read(_PASSWORD_BYTES).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError("--password-file", f"{file}: cannot be read: {reason}") from None
    if not text or not text.isprintable():
        raise ConfigError("--password-file", f"{file}: expected a password on one line")
    return text


# --- what is printed


def _console() -> Console:
    """A terminal's width is kept; what reads a pipe gets whole lines. rich keeps to NO_COLOR by itself."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_COLUMNS
    return console


def _print_tables(operation: str, body: bytes) -> None:
    from consumer.ctl.tables import show
    from consumer.rest import plain_json

    show(_console(), operation, plain_json(body), now_ms=int(time.time() * 1000))


def _print_json(body: bytes) -> None:
    """The answer as it came but for blanks, so with every digit; what could drive a terminal is escaped as JSON has it."""
    from consumer.rest import plain_json

    plain_json(body)
    text = msgspec.json.format(body, indent=-1).decode()
    escaped = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write(escaped + "\n")
    sys.stdout.flush()


def _list_commands(commands: tuple[Command, ...] | list[Command]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", ratio=1, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for command in commands:
        aliases = f" (also {', '.join(command.aliases)})" if command.aliases else ""
        table.add_row(Text(command.usage), Text(command.summary + aliases))
    console = _console()
    console.print(table)
    for command in commands if len(commands) == 1 else ():
        for parameter in command.parameters:
            default = (
                "" if parameter.required or parameter.default is None else f"; default {parameter.default}"
            )
            console.print(Text(f"  {parameter.name}: {expected(parameter.type)}{default}"))
