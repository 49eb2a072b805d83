"""Schedules: what a world is made of, and what befalls it when. Made by chance, printable, and made smaller by leaving out."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

__all__ = ["Op", "Reader", "Schedule", "make", "smaller", "whole"]

LEDGER = ("entry_fill", "exit_fill", "entry")
BOTS = ("a", "b")
HUB_POINTS = ("append", "written", "fsync", "fsynced", "telling", "read")
READER_POINTS = ("deliver", "effect", "save", "saved", "settled")
WRITER_POINTS = ("submit", "storing", "stored", "acked", "removed")


@dataclass(frozen=True)
class Reader:
    """A consumer: what it subscribes to, how long its bot takes for a message, and when it first comes."""

    topics: tuple[str, ...] = LEDGER
    bots: tuple[str, ...] | None = None
    encoding: str = "json"
    takes_s: float = 0.0
    comes_s: float = 0.0


@dataclass(frozen=True)
class Op:
    """Something that happens `after_s` after the one before."""

    after_s: float
    name: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"+{self.after_s:g}s {self.name}{self.args!r}"


@dataclass(frozen=True)
class Schedule:
    """A world and its fate. The same schedule always does the same."""

    seed: int
    writers: int = 1
    readers: tuple[Reader, ...] = (Reader(),)
    keep: int = 1 << 60
    tail_bytes: int = 1 << 20
    page_bytes: int = 64 * 1024
    pad_bytes: int = 0
    pending_bytes: int = 1 << 20
    in_flight: int = 256
    ops: tuple[Op, ...] = ()

    def __str__(self) -> str:
        keep = "all" if self.keep >= 1 << 60 else str(self.keep)
        bounds = f"tail {self.tail_bytes}, page {self.page_bytes}, pad {self.pad_bytes}, pending {self.pending_bytes}"
        lines = [
            f"seed {self.seed}: {self.writers} writers, keeps {keep}, {bounds}, in flight {self.in_flight}",
            *(f"  r{i}: {reader}" for i, reader in enumerate(self.readers)),
            *(f"  {op}" for op in self.ops),
        ]
        return "\n".join(lines)


def make(rng: random.Random, favour: Mapping[str, float] = MappingProxyType({})) -> Schedule:
    """A schedule by chance. `favour` multiplies how often something happens."""
    writers = rng.choice((1, 1, 2))
    readers = [_reader(rng, i) for i in range(rng.choice((1, 2, 3)))]
    short = rng.random() < 0.3
    weights = [weight * favour.get(name, 1.0) for name, weight, _ in _OPS]
    ops = [_op(rng, weights, writers, len(readers)) for _ in range(rng.randint(4, 18))]
    return Schedule(
        seed=rng.randint(0, 1 << 30),
        writers=writers,
        readers=tuple(readers),
        keep=rng.choice((3, 8, 20)) if short else 1 << 60,
        tail_bytes=rng.choice((1 << 20, 4000)),
        page_bytes=rng.choice((64 * 1024, 700)),
        pad_bytes=rng.choice((0, 0, 700)),
        pending_bytes=rng.choice((1 << 20, 1 << 20, 12_000)),
        in_flight=rng.choice((256, 256, 3)),
        ops=tuple(ops),
    )


def _reader(rng: random.Random, number: int) -> Reader:
    return Reader(
        topics=rng.choice((LEDGER, LEDGER, ("entry_fill",), ("exit_fill", "entry"))),
        bots=rng.choice((None, None, ("a",), ("b",))),
        encoding=rng.choice(("json", "msgpack")),
        takes_s=rng.choice((0.0, 0.0, 0.02, 0.3)),
        comes_s=rng.choice((0.0, 0.0, 4.0, 15.0)) if number else 0.0,
    )


def _op(rng: random.Random, weights: list[float], writers: int, readers: int) -> Op:
    after_s = rng.choice((0.0, 0.001, 0.01, 0.1, 0.5, 2.0))
    kind = rng.choices([name for name, _, _ in _OPS], weights)[0]
    return Op(after_s, kind, _ARGUMENTS[kind](rng, writers, readers))


def _publish(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.randrange(writers), rng.choice((1, 1, 1, 2, 2, 5, 12, 30)))


def _down_s(rng: random.Random) -> float:
    return rng.choice((0.0, 0.05, 1.0, 3.0))


def _kill_hub(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (_down_s(rng), rng.choice((None, *HUB_POINTS)), rng.randint(1, 3), rng.choice((0, 0, 0, 0, 1, 3)))


def _kill_reader(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.randrange(readers), _down_s(rng), rng.choice((None, *READER_POINTS)), rng.randint(1, 4))


def _kill_writer(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.randrange(writers), _down_s(rng), rng.choice((None, *WRITER_POINTS)), rng.randint(1, 4))


def _client(rng: random.Random, writers: int, readers: int) -> str:
    number = rng.randrange(writers + readers)
    return f"w{number}" if number < writers else f"r{number - writers}"


def _cut(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    heard_s = (0.0, 0.05, 1.0, 4.0)
    return (_client(rng, writers, readers), rng.choice(heard_s), rng.choice(heard_s))


def _silence(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (_client(rng, writers, readers), rng.choice((0.5, 4.0, 12.0)))


def _skip(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.randrange(readers),)


def _full(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.choice((0.2, 2.0)), rng.random() < 0.5)


def _damage(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.randint(0, 30),)


def _stall(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.randrange(readers), rng.choice((1.0, 6.0, 20.0)))


def _fill(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.randrange(writers), rng.choice((0.2, 2.0)))


def _drain(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.choice((0.0, 0.5, 2.0)), _down_s(rng))


def _wait(rng: random.Random, writers: int, readers: int) -> tuple[Any, ...]:
    return (rng.choice((0.5, 3.0)),)


_Arguments = Callable[[random.Random, int, int], tuple[Any, ...]]
_OPS: tuple[tuple[str, float, _Arguments], ...] = (
    ("publish", 12, _publish),
    ("kill_hub", 3, _kill_hub),
    ("kill_reader", 3, _kill_reader),
    ("kill_writer", 2, _kill_writer),
    ("cut", 4, _cut),
    ("silence", 1, _silence),
    ("skip", 1, _skip),
    ("full", 1, _full),
    ("fill", 0.5, _fill),
    ("damage", 0.5, _damage),
    ("stall", 1, _stall),
    ("drain", 1, _drain),
    ("wait", 2, _wait),
)
_ARGUMENTS = {name: arguments for name, _, arguments in _OPS}


def whole(schedule: Schedule) -> Schedule:
    """The schedule on a disk that loses nothing which was written to it."""
    ops = (replace(op, args=(*op.args[:3], 0)) if op.name == "kill_hub" else op for op in schedule.ops)
    return replace(schedule, ops=tuple(ops))


def smaller(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The schedule with whatever can be left out while it still fails."""
    size = max(1, len(schedule.ops) // 2)
    while size:
        at = 0
        while at < len(schedule.ops):
            without = replace(schedule, ops=schedule.ops[:at] + schedule.ops[at + size :])
            if fails(without):
                schedule = without
            else:
                at += size
        size //= 2
    return schedule
