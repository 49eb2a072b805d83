"""The command line `tradewire-hub ledger`: verify, stats, export. Each only reads, also beside a running hub."""

from __future__ import annotations

import os
import sqlite3
import sys
import typing
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from hub.config import load
from hub.core.ledger import Query
from hub.protocol.errors import ConfigError

__all__ = ["app"]

T = TypeVar("T")
MAX_PAGE = 500

app = typer.Typer(
    no_args_is_help=True, help="Look at the ledger on disk: read only, also beside a running hub."
)
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="The hub's file; it says where the ledger is.")
]
Directory = Annotated[
    Path | None, typer.Option("--path", help="The ledger's directory, in place of --config.")
]
Names = Annotated[list[str] | None, typer.Option(help="Only this; may be given several times.")]
Time = Annotated[str | None, typer.Option(help="A time: ISO 8601 (UTC without an offset), or ms since 1970.")]


@app.command()
def verify(config: ConfigFile = None, path: Directory = None) -> None:
    """Read everything and check it: checksums, numbers, predecessors, ids, the mark. Exit status 1 when something is wrong."""
    from hub.log.audit import audit

    directory = _directory(config, path)
    result = _read(lambda: audit(directory))
    for finding in result.findings:
        typer.echo(finding)
    if result.more:
        typer.echo(f"and {result.more} more")
    verdict = f"{len(result.findings) + result.more} findings" if result.findings else "all is well"
    typer.echo(
        f"{directory}: epoch {result.epoch or 'unknown'}, offsets {result.floor + 1} to {result.head}, "
        f"{result.records} records read, {result.damaged} damaged: {verdict}"
    )
    if result.findings:
        raise SystemExit(1)


@app.command()
def stats(config: ConfigFile = None, path: Directory = None) -> None:
    """Epoch, floor, head, messages by bot and topic, bytes, oldest and newest, sizes of the files."""
    from hub.log.summary import summarize

    directory = _directory(config, path)
    summary = _read(lambda: summarize(directory))
    typer.echo(f"ledger   {directory}")
    typer.echo(f"epoch    {summary.epoch}")
    typer.echo(f"offsets  floor {summary.floor}, head {summary.head}: {summary.entries} messages")
    typer.echo(f"damaged  {summary.damaged}")
    typer.echo(f"bytes    {summary.bytes}")
    typer.echo(f"oldest   {_shown(summary.oldest_ms)}")
    typer.echo(f"newest   {_shown(summary.newest_ms)}")
    for stream in summary.streams:
        typer.echo(
            f"stream   {stream.bot} {stream.topic}: {stream.records} messages, the last is {stream.last}"
        )
    for name, size in summary.files.items():
        typer.echo(f"file     {name}: {size} bytes")


@app.command()
def export(
    config: ConfigFile = None,
    path: Directory = None,
    bot: Names = None,
    topic: Names = None,
    since: Time = None,
    until: Time = None,
    after: Annotated[int, typer.Option(min=0, help="Only offsets above this.")] = 0,
) -> None:
    """Messages as JSON lines on stdout, oldest first; a message that cannot be read any more is a line with `damaged`."""
    from hub.log.export import export as lines

    query = Query(
        after=after,
        bots=frozenset(bot) if bot else None,
        topics=frozenset(topic) if topic else None,
        since_ms=_ms("--since", since),
        until_ms=_ms("--until", until),
        limit=MAX_PAGE,
    )
    directory = _directory(config, path)
    try:
        _read(lambda: _write(lines(directory, query)))
    except BrokenPipeError:
        # Who reads has seen enough; and nothing is flushed to nobody at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(lines: Iterable[bytes]) -> None:
    for line in lines:
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _directory(config: Path | None, path: Path | None) -> Path:
    if path is not None:
        return path
    try:
        loaded = load(config, os.environ, store_secrets=False)
        if loaded.hub.ledger.kind != "sqlite" or loaded.ledger_dir is None:
            raise ConfigError(
                "hub.ledger.kind", f'expected "sqlite" to look at, got "{loaded.hub.ledger.kind}"'
            )
    except ConfigError as error:
        _fail(str(error))
    return loaded.ledger_dir


def _read(read: Callable[[], T]) -> T:
    from hub.log.books import OtherVersion
    from hub.log.database import said

    try:
        return read()
    except BrokenPipeError:
        raise
    except FileNotFoundError as error:
        _fail(str(error))
    except OtherVersion as error:
        _fail(f"the ledger is of another version: {error}")
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        _fail(f"the ledger cannot be read: {said(error)}; `ledger verify` tells more")


def _ms(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if text.isdecimal() and len(text) < 16:
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"expected a time such as 2026-11-22T10:00 or ms since 1970, got {text[:40]!r}", param_hint=name
        ) from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _shown(ms: int | None) -> str:
    if ms is None:
        return "none"
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def _fail(text: str) -> typing.NoReturn:
    typer.echo(f"error: {text}", err=True)
    raise SystemExit(1)
