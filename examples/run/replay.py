"""The producer of `make run`: replays candles with indicators and signals to a hub, as a bot that analyzes them live would.

First the whitelist and a block of candles on which the indicators have settled; then, candle by candle in order of dates, for each
pair that has the candle one analyzed row and its new_candle. Nothing is published for a candle that the exchange does not have.
Says on stdout in JSON lines how far it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from consumer.errors import ConsumerError
from consumer.publisher import Ack, Publication, Publisher
from examples.run.candles import BadData, CandleFile, read_directory
from examples.run.indicators import WARM_UP, analyze
from hub.frames.columns import Columns

__all__ = ["Replay", "main"]

CANDLE_TYPE = "spot"
_REPORT_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Replay:
    """What is replayed: `dates` in ms, the first `warm_up` of them as a block; `frames` by pair; where outages end."""

    timeframe: str
    dates: list[int]
    warm_up: int
    frames: dict[str, Columns]
    outages: tuple[int, ...]

    @classmethod
    def of(cls, files: list[CandleFile], candles: int | None) -> Replay:
        """All of `files`, or `candles` dates behind the block; the last date is one that every pair has.

        Behind such a date nobody needs to wait in case more comes. Raises BadData when there is none behind the block.
        """
        every = sorted(set().union(*(file.rows for file in files)))
        shared = set(every).intersection(*(file.rows for file in files))
        ends = [index + 1 for index, date in enumerate(every) if date in shared and index >= WARM_UP]
        if not ends:
            raise BadData(f"expected a date that every pair has behind the first {WARM_UP} candles")
        wanted = len(every) if candles is None else WARM_UP + candles
        end = next((end for end in ends if end >= wanted), ends[-1])
        frames = {file.pair: Columns.from_pandas(analyze(file)) for file in files}
        outages = tuple(sorted(after for file in files for _, after in file.outages))
        return cls(files[0].timeframe, every[:end], WARM_UP, frames, outages)

    def rows_until(self, date_ms: int) -> int:
        """Candles of all pairs up to and with a date."""
        return sum(_until(frame, date_ms + 1) for frame in self.frames.values())

    def gaps_until(self, date_ms: int) -> int:
        """Outages of all pairs that ended by a date."""
        return sum(after <= date_ms for after in self.outages)

    def is_shared(self, date_ms: int) -> bool:
        """Whether every pair has the candle."""
        return all(date_ms in frame.date_ms[_until(frame, date_ms) :][:1] for frame in self.frames.values())

    def start(self, bot: str) -> Iterator[Publication]:
        """The whitelist and each pair's block."""
        yield Publication(bot=bot, topic="whitelist", data=list(self.frames))
        for pair, frame in self.frames.items():
            block = frame.slice(0, _until(frame, self.dates[self.warm_up - 1] + 1))
            if block.n:
                yield self._frame(bot, pair, block, replace=True)
                yield self._candle(bot, pair)

    def candle(self, bot: str, date_ms: int) -> Iterator[Publication]:
        """What there is to say of one date, pair by pair."""
        for pair, frame in self.frames.items():
            at = _until(frame, date_ms)
            if at < frame.n and int(frame.date_ms[at]) == date_ms:
                yield self._frame(bot, pair, frame.slice(at, at + 1), replace=False)
                yield self._candle(bot, pair)

    def _frame(self, bot: str, pair: str, rows: Columns, *, replace: bool) -> Publication:
        key = (pair, self.timeframe, CANDLE_TYPE)
        return Publication(bot=bot, topic="analyzed_df", key=key, frame=rows, replace=replace)

    def _candle(self, bot: str, pair: str) -> Publication:
        return Publication(bot=bot, topic="new_candle", data=[pair, self.timeframe, CANDLE_TYPE])


class _Reporter:
    """Counts acknowledgements and tells of them, not too often: what waits in the outbox is not published yet."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._told = -math.inf
        self._index = 0
        self._published = 0
        self._failure: BaseException | None = None

    async def submit(self, publisher: Publisher, publications: Iterable[Publication], index: int) -> None:
        """Submit what there is to say of the first `index` dates; raises what refused an earlier message."""
        for publication in publications:
            future = await publisher.submit(publication)
            future.add_done_callback(partial(self._acknowledged, index))
        self.check()

    def check(self) -> None:
        """Raise what refused a message."""
        if self._failure is not None:
            raise self._failure

    def _acknowledged(self, index: int, future: asyncio.Future[Ack]) -> None:
        if future.cancelled():
            return
        self._failure = self._failure or future.exception()
        self._published += 1
        self._index = max(self._index, index)
        now = time.monotonic()
        if now - self._told >= _REPORT_EVERY_S:
            self._told = now
            self.tell(self._index)

    def tell(self, index: int, *, done: bool = False) -> None:
        """Say how far it is: the first `index` dates are published."""
        replay, date_ms = self._replay, self._replay.dates[index - 1]
        figures = {
            "candle": index,
            "of": len(replay.dates),
            "date_ms": date_ms,
            "published": self._published,
            "rows": replay.rows_until(date_ms),
            "gaps": replay.gaps_until(date_ms),
            "done": done,
        }
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()


async def publish(
    replay: Replay, publisher: Publisher, bot: str, *, speed: float, seconds: float | None = None
) -> None:
    """Publish the replay at `speed` candles a second and pair; 0 is as fast as the hub takes them.

    A pace that is missed is caught up. With `seconds` it ends after that time, at a date that every pair has, so that
    nothing waits for more. Raises what refused a message.
    """
    reporter = _Reporter(replay)
    await reporter.submit(publisher, replay.start(bot), replay.warm_up)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    end = replay.warm_up
    for index in range(replay.warm_up, len(replay.dates)):
        if speed > 0:
            await asyncio.sleep(begin + (index - replay.warm_up) / speed - loop.time())
        end = index + 1
        await reporter.submit(publisher, replay.candle(bot, replay.dates[index]), end)
        if seconds is not None and loop.time() - begin >= seconds and replay.is_shared(replay.dates[index]):
            break
    await publisher.flush()
    # The callbacks of the last acknowledgements run in the next turn of the loop.
    await asyncio.sleep(0)
    reporter.check()
    reporter.tell(end, done=True)


async def _run(arguments: argparse.Namespace) -> None:
    files = read_directory(arguments.data)
    for problem in [problem for file in files for problem in file.problems]:
        sys.stderr.write(f"{problem}\n")
    replay = Replay.of(files, arguments.candles)
    async with Publisher(arguments.url, os.environ["TRADEWIRE_TOKEN"], name=arguments.bot) as publisher:
        await publish(replay, publisher, arguments.bot, speed=arguments.speed, seconds=arguments.seconds)


def _until(frame: Columns, date_ms: int) -> int:
    """How many rows are before `date_ms`."""
    return int(np.searchsorted(frame.date_ms, date_ms))


def main() -> int:
    """The entry point of the process; the token comes in TRADEWIRE_TOKEN, so that no list of processes shows it."""
    parser = argparse.ArgumentParser(description="Replay candles to a hub.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--bot", default="alpha")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speed", type=float, default=0.0)
    parser.add_argument("--candles", type=int)
    parser.add_argument("--seconds", type=float)
    try:
        asyncio.run(_run(parser.parse_args()))
    except (BadData, ConsumerError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
