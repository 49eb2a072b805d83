"""A publisher bot for crash tests: `python -m tests.crash.publisher_bot URL TOKEN BOT RATE`; the current directory holds its files.

It publishes fills 1, 2, 3 … at RATE a second through a durable outbox, and writes down, each with one O_APPEND write: in `submitted`
the number of a fill once it is in the outbox, in `acknowledged` number, epoch, offset and duplicate once the hub has it. Killed
between the two, it puts the same fill with the same id into the outbox again. SIGTERM ends it with 0 once all is acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from consumer import backoff
from consumer.publisher import Ack, Publication, Publisher
from tests.crash.fills import fill

OUTBOX = Path("outbox.sqlite")
FLUSH_S = 55.0

# A test kills the hub every second: each life counts as a healthy one, or a publisher would soon wait for half a minute.
backoff.HEALTHY_S = 0.0


class Journal:
    """A file of whole lines: what was written is there after a kill."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *values: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, values)) + "\n").encode())


def last_submitted(path: Path) -> tuple[int, int]:
    """The last fill that was submitted for certain, and the time of fill 0."""
    text = path.read_text() if path.exists() else ""
    lines = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        return 0, time.time_ns() // 1_000_000
    return int(lines[-1][0]), int(lines[0][1]) - int(lines[0][0])


async def main(url: str, token: str, bot: str, rate: float) -> None:
    """Publish until SIGTERM, then wait for what is not acknowledged."""
    n, ts = last_submitted(Path("submitted"))
    submitted, acknowledged = Journal(Path("submitted")), Journal(Path("acknowledged"))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    def told(number: int, done: asyncio.Future[Ack]) -> None:
        if not done.cancelled() and done.exception() is None:
            ack = done.result()
            assert ack.position is not None
            acknowledged.write(number, ack.position.epoch, ack.position.offset, ack.duplicate)

    async with Publisher(url, token, name=bot, outbox=OUTBOX) as publisher:
        while not stop.is_set():
            n += 1
            # The same fill, should it be submitted again: id, time and body.
            topic = "entry_fill" if n % 2 else "exit_fill"
            publication = Publication(bot=bot, topic=topic, data=fill(n), mid=f"fill-{n}", ts=ts + n)
            future = await publisher.submit(publication)
            submitted.write(n, ts + n)
            future.add_done_callback(lambda done, number=n: told(number, done))  # type: ignore[misc]
            try:
                async with asyncio.timeout(1 / rate):
                    await stop.wait()
            except TimeoutError:
                pass
        async with asyncio.timeout(FLUSH_S):
            await publisher.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
