"""The command line of `make run`. Everything for people goes to stderr; stdout gets one JSON line at the end."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from examples.run.candles import BadData
from examples.run.demo import Demo, Options
from examples.run.processes import ChildDied
from examples.run.settings import PRODUCER, USERNAME, Settings
from examples.run.view import View, make_view

__all__ = ["command"]

EXAMPLES = Path(__file__).resolve().parents[1]


def command() -> int:
    """0 at the end of the replay and after Ctrl-C, 1 after a failure, which is one line; 2 for wrong options."""
    arguments = _arguments()
    directory = Path(tempfile.mkdtemp(prefix="tradewire-"))
    view = make_view()
    try:
        with view:
            figures = asyncio.run(_run(arguments, Settings.fresh(directory), view))
        return _print(json.dumps(figures))
    except (BadData, ChildDied) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename or directory}: {error.strerror}\n")
        return 1
    finally:
        if arguments.keep:
            sys.stderr.write(f"configuration, trades and logs are kept in {directory}\n")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _print(line: str) -> int:
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(f"stdout cannot be written: {error.strerror}\n")
        # What is left in the buffer must not complain a second time when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\n")


def _arguments() -> argparse.Namespace:
    parser = _Parser(
        prog="make run",
        description="Hub, producer and consumer on real candles.",
        usage='make run ARGS="..."',
    )
    parser.add_argument(
        "--speed",
        type=_number(0, "a number from 0 up"),
        default=5.0,
        help="candles a second and pair; 0: as fast as the hub takes them",
    )
    parser.add_argument(
        "--seconds",
        type=_number(1e-3, "a number above 0"),
        help="replay so many seconds of candles at that speed; default: all",
    )
    parser.add_argument(
        "--data", type=Path, default=EXAMPLES / "data", help="directory of PAIR-TIMEFRAME.csv files"
    )
    parser.add_argument("--port", type=_port, help="port of the hub; default: 8080, or any free one; 0: any")
    parser.add_argument(
        "--ui", type=Path, help="folder of a FreqUI build, to be served at the hub's own address"
    )
    parser.add_argument("--keep", action="store_true", help="keep configuration, trades and logs")
    return parser.parse_args()


def _number(least: float, expected: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= 1e6:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return read


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, got {text!r}")
    return int(text)


def _options(arguments: argparse.Namespace) -> Options:
    """A number of candles where the speed gives one: the same replay is then the same also on a slow machine."""
    counted = arguments.seconds is not None and arguments.speed > 0
    return Options(
        data=arguments.data,
        speed=arguments.speed,
        candles=max(1, round(arguments.seconds * arguments.speed)) if counted else None,
        seconds=None if counted else arguments.seconds,
        port=arguments.port,
        ui=arguments.ui,
    )


async def _run(arguments: argparse.Namespace, settings: Settings, view: View) -> dict[str, Any]:
    demo = Demo(_options(arguments), settings, view)
    running = asyncio.create_task(demo.run(lambda demo: _explain(demo, settings, view)))
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            # A second Ctrl-C waits for nobody. The first one's cleaning up goes on and finds them gone.
            demo.kill()
        else:
            stopping = True
            running.cancel()

    # SIGHUP: the terminal was closed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await running
    except asyncio.CancelledError:
        return demo.figures()


def _explain(demo: Demo, settings: Settings, view: View) -> None:
    """How to look at it from outside while it runs."""
    command = os.path.relpath(Path(sys.executable).parent / "tradewire-consumer")
    websocket = demo.url.replace("http", "ws", 1)
    port = demo.url.rpartition(":")[2]
    view.say(f"hub        {demo.url} (websocket {websocket}/api/v1/message/ws, API {demo.url}/docs)")
    view.say(f"tail       TRADEWIRE_TOKEN=$(cat {settings.token_file}) {command} tail {websocket}")
    view.say(
        f"dashboard  open {os.path.relpath(EXAMPLES / 'dashboard.html')} in a browser; its token: {settings.token_file}"
    )
    view.say(
        f"ask it     {command} ctl --url {demo.url} --user {USERNAME} --password-file {settings.password_file} status"
    )
    view.say(
        f"FreqUI     add a bot with the URL {demo.url}, user {USERNAME}, password: {settings.password_file}"
        + (f"; or open {demo.url}" if demo.serves_ui else "")
    )
    view.say(
        f'freqtrade  external_message_consumer: {{"enabled": true, "producers": [{{"name": "{PRODUCER}", '
        f'"host": "127.0.0.1", "port": {port}, "ws_token": <what {settings.freqtrade_file} says>}}]}}'
    )
