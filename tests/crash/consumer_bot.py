"""A consumer bot for crash tests: `python -m tests.crash.consumer_bot PORT TOKEN`, in the directory that it keeps its database in.

For each fill it adds a row to `effects` and saves the position, in one transaction; nothing in the table keeps it from acting twice.
What it is told is lost goes into `losses`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

from consumer import backoff
from consumer.config import ConsumerConfig, ProducerConfig
from consumer.feed import run
from consumer.stores.sqlite import SqlitePositionStore
from hub.protocol.localbot import BotContext, Delivery, Lost, PositionStore

TABLES = """
    create table if not exists effects
        (id integer primary key autoincrement, bot text, n integer, topic text, epoch text, offset integer);
    create table if not exists losses
        (id integer primary key autoincrement, first integer, last integer, reason text);
"""

# A test kills the hub every second: each life counts as a healthy one, or a consumer would soon wait for half a minute.
backoff.HEALTHY_S = 0.0


class Bot:
    """Counts each fill."""

    def __init__(self) -> None:
        self.database = sqlite3.connect("bot.sqlite", check_same_thread=False, timeout=30)
        self.database.execute("pragma journal_mode = wal")
        self.database.execute("pragma synchronous = normal")
        self.database.executescript(TABLES)
        self.store = SqlitePositionStore(self.database)

    async def start(self, context: BotContext) -> PositionStore:
        return self.store

    def handle(self, delivery: Delivery) -> None:
        with self.database:
            if isinstance(delivery.message, Lost):
                lost = delivery.message
                values = (lost.first, lost.last, lost.reason)
                self.database.execute("insert into losses (first, last, reason) values (?, ?, ?)", values)
            elif delivery.position is not None:
                position = delivery.position
                n = delivery.payload["trade_id"]
                row = (delivery.bot, n, delivery.topic, position.epoch, position.offset)
                self.database.execute(
                    "insert into effects (bot, n, topic, epoch, offset) values (?, ?, ?, ?, ?)", row
                )
                self.store.save(delivery)

    async def stop(self) -> None:
        self.database.close()


def main(port: int, token: str) -> int:
    """Consume until SIGTERM."""
    producer = ProducerConfig(
        name="hub",
        host="127.0.0.1",
        port=port,
        ws_token=token,
        protocol="v2",
        topics=["entry_fill", "exit_fill"],
    )
    config = ConsumerConfig(enabled=True, producers=(producer,), sleep_time=1)
    return asyncio.run(run(config, Bot, data_dir=Path.cwd()))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
