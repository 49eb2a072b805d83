"""The load generator as this process sees it: one program with all clients and the publisher, driven over its stdin.

The program is load.c, built on first use, or load_fallback.py where there is no compiler. What its commands do: load.c. Times in
seconds, latencies in ms.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from benchmarks import native
from benchmarks.messages import Template
from benchmarks.processes import ROOT, bound_to_us

__all__ = ["Dial", "Load", "LoadError", "Measured"]

ANSWER_S = 60.0
END_S = 5.0
FALLBACK = Path(__file__).with_name("load_fallback.py")


class LoadError(RuntimeError):
    """The load could not be put on the server as asked; the text says why."""


@dataclass(frozen=True)
class Dial:
    """What a connection sends: the request of its upgrade (none: no websocket), then what is said first."""

    request: bytes = b""
    first: bytes = b""


@dataclass(frozen=True)
class Measured:
    """Of one measurement. `deliveries`: messages times the clients that are counted; `bytes`: all that came, to every client."""

    messages: int
    deliveries: int
    bytes: int
    seconds: float
    load_cpu_s: float
    lost: int
    asked: int
    samples: int
    p50_ms: float
    p99_ms: float
    most_ms: float


class Load:
    """The generator within the block. Every method raises LoadError when the server closes, refuses or does not answer in time."""

    def __init__(self, *, fallback: bool = False) -> None:
        built = None if fallback else native.program("load")
        command: list[str | Path] = [built] if built is not None else [sys.executable, FALLBACK]
        self._process = subprocess.Popen(
            bound_to_us(command), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(END_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    # --- connections

    def connect(
        self,
        count: int,
        port: int,
        dial: Dial,
        how: Literal["reads", "stalls", "asks"] = "reads",
        *,
        again: bytes = b"",
        quiet_ms: int = 0,
    ) -> None:
        """Open `count` connections that subscribe. `stalls`: they never read. `asks`: not counted, they say `again` and again."""
        self._dial(dial)
        if again:
            self._blob("again", again)
        self._ask(f"connect {count} {port} {how} {quiet_ms}")

    def publisher(self, port: int, dial: Dial) -> None:
        """Open the connection that publishes."""
        self._dial(dial)
        self._ask(f"publisher {port} {'websocket' if dial.request else 'raw'}")

    def _dial(self, dial: Dial) -> None:
        self._blob("request", dial.request)
        self._blob("first", dial.first)

    def publishes(self, template: Template) -> None:
        """What the publisher sends from now on."""
        self._blob("message", template.payload)
        self._ask("number n 0 0")
        for place in template.numbers:
            self._ask(f"number {place.kind} {place.offset} {place.width}")

    def sample(self, every: int) -> None:
        """Take latencies at every `every`th client."""
        self._ask(f"sample {every}")

    # --- what counts as a message

    def count_nats(self) -> None:
        """Each MSG of NATS's protocol within the frames."""
        self._ask("count nats")

    def count_frames(self, least_bytes: int) -> int:
        """Frames of at least so many bytes; publishes one message to see of how many it consists, and says it.

        Raises:
            LoadError: not all clients got the same.
        """
        self._ask(f"count frames {least_bytes} {1 << 40} 1")
        probe = self._ask("probe")
        if probe["least"] != probe["most"] or not probe["least"]:
            raise LoadError(
                f"of one message clients got {probe['least']} to {probe['most']} frames; the publisher heard {probe['heard']}"
            )
        self._ask(f"count frames {least_bytes} {1 << 40} {probe['least']}")
        return int(probe["least"])

    # --- measuring

    def window(self, size: int, *, seconds: float, timeout_s: float, most: int = 1 << 40) -> Measured:
        """Publish `size` messages, the next ones when all clients have the last; until `seconds` are over or `most` are out."""
        return self._measured(f"window {size} {seconds} {timeout_s} {most}", timeout_s)

    def pace(self, rate: float, count: int, *, timeout_s: float) -> Measured:
        """Publish `count` messages at `rate` a second, and wait for the last."""
        return self._measured(f"pace {rate} {count} {timeout_s}", timeout_s)

    def rest(self, seconds: float) -> int:
        """Only read; the number of connections that were lost so far."""
        return int(self._ask(f"rest {seconds}", ANSWER_S + seconds)["lost"])

    def _measured(self, command: str, timeout_s: float) -> Measured:
        answer = self._ask(command, timeout_s + ANSWER_S)
        late, heard = answer.pop("late"), answer.pop("heard")
        if late:
            raise LoadError(
                f"`{command}`: {answer['deliveries']} deliveries of {answer['messages']} messages, {answer['lost']} connections"
                f" lost; the publisher heard {heard}"
            )
        return Measured(**answer)

    # --- the pipe

    def _blob(self, name: str, content: bytes) -> None:
        self._say(f"blob {name} {len(content)}\n".encode() + content)

    def _ask(self, command: str, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        self._say(f"{command}\n".encode())
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while not select.select([self._process.stdout], [], [], 0.5)[0]:
            if time.monotonic() > deadline:
                raise LoadError(f"`{command}`: no answer within {timeout_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise LoadError(f"`{command}`: the load generator ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LoadError(f"`{command}`: {answer['error']}")
        return answer

    def _say(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise LoadError("the load generator ended") from None
