"""A process with a ledger that is killed, or finds its disk full: what test_durability runs.

`publish DIRECTORY RUN` stores messages, several at once, and says the offset and id of each on stdout when it is acknowledged.
`fill DIRECTORY` stores under a limit for the size of a file until it is refused, lifts the limit, stores on, and says how that went.
`open DIRECTORY` only opens it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
from pathlib import Path

from hub.core.ledger import Append
from hub.log.sqlite import SqliteLog
from hub.protocol.errors import NotDurable
from tests.log.messages import entry, whole

PUBLISHERS = 8


async def publish(directory: Path, run: str) -> None:
    log = SqliteLog(directory)
    state = await log.open()
    say({"epoch": state.epoch, "head": state.head})

    async def one(publisher: int) -> None:
        number = 0
        while True:
            number += 1
            message = entry(f"{run}/{publisher}/{number}", bot=f"b{publisher}", ts=1, pad=200)
            (result,) = await log.append([Append(message, None)])
            say({"offset": result.offset, "mid": message.mid})

    await asyncio.gather(*(one(i) for i in range(PUBLISHERS)))


async def open_only(directory: Path) -> None:
    say("opening")
    log = SqliteLog(directory)
    await log.open()
    await asyncio.sleep(10)


async def fill(directory: Path) -> None:
    clock = [0]
    log = SqliteLog(directory, monotonic_ms=lambda: clock[0])
    state = await log.open()
    # Room for the database and some of the WAL.
    limit = log.directory.database.stat().st_size + 120_000
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    stored, refused, number = 0, [], 0
    while len(refused) < 5:
        number += 1
        clock[0] += 1000
        try:
            await log.append([Append(entry(str(number), pad=3000), None)])
            stored += 1
        except NotDurable as error:
            refused.append(f"{log.statistics()['failing']} {error.retry_after_ms} {error}")
    readable = len(await whole(log))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    clock[0] += 10_000
    after = [await log.append([Append(entry(str(i), pad=3000), None)]) for i in range(1, number + 3)]
    offsets = [result.offset for (result,) in after]
    slots = await whole(log)
    await log.close()
    say(
        {
            "epoch": state.epoch,
            "stored": stored,
            "readable": readable,
            "refused": refused,
            "offsets": offsets,
            "slots": [slot.offset for slot in slots],
        }
    )


def say(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def main() -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    command, directory = sys.argv[1], Path(sys.argv[2])
    asyncio.run(
        publish(directory, sys.argv[3])
        if command == "publish"
        else fill(directory)
        if command == "fill"
        else open_only(directory)
    )


if __name__ == "__main__":
    main()
