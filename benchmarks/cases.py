"""The cases of the fan-out benchmark: what is measured, what it is compared with, and what it is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.arms import (
    EMBEDDED,
    FREQTRADE,
    HUB,
    HUB_JSON,
    HUB_MSGPACK,
    JOINED,
    NAIVE,
    NATS,
    PLAIN,
    UWS,
    Arm,
    Wire,
)
from benchmarks.consuming import CONSUME, Consuming
from benchmarks.messages import Fill, Frame, Message
from benchmarks.sessions import IDLE, Drive, Pace, Resyncing, Setup, Window
from benchmarks.targets import Bound, Figure, Key, Pair, Target

__all__ = ["CLIENTS", "NAMES", "Case", "full", "quick"]

CLIENTS, FEW, QUICK_CLIENTS = 1000, 100, 500
SMALL, MIDDLE, LARGE = Fill(400), Fill(3000), Frame(300_000)
SATURATED, SHALLOW, SINGLE = Window(64), Window(2), Window(1)
TWENTY, TEN, TWO, FIFTY = Pace(20, 30), Pace(10, 40), Pace(2, 3), Pace(50, 200)
FLOOD = Window(64, seconds=60, most=100_000)
STALLED = 20
LEDGER_MIB, CLIENT_MIB, SLICE_MIB = 32, 1 / 16, 1 / 16
"""Of hub.memory.ledger_bytes what the newest messages and the pages of the database get; the bound of a client's transport; what is
written to it at once."""

HUBS: Mapping[str, Arm] = {"freqtrade's wire": HUB, "v2.json": HUB_JSON, "v2.msgpack": HUB_MSGPACK}
FAST: tuple[Arm, ...] = (*HUBS.values(), PLAIN, JOINED, NATS, UWS)
ALL: tuple[Arm, ...] = (*HUBS.values(), EMBEDDED, PLAIN, JOINED, NATS, UWS, NAIVE)


@dataclass(frozen=True)
class Case:
    """One row or more of the results.

    `shown` are the measurements that its table has, with these `columns`; the table's ratios are to `base`, of the first column.
    """

    name: str
    title: str
    targets: tuple[Target, ...]
    shown: tuple[Key, ...]
    columns: tuple[str, ...] = ("cpu_us", "rate", "p50_ms", "p99_ms", "bytes", "load")
    base: Arm | None = None
    note: str = ""

    def measurements(self) -> Iterator[Key]:
        """All that has to be measured, each once."""
        yield from dict.fromkeys(
            [*self.shown, *(figure.key for target in self.targets for figure in target.figures())]
        )


# --- how targets and tables are put together


def _key(arm: Arm, drive: Drive, message: Message, clients: int) -> Key:
    return Key(Setup(arm, message, clients), drive)


def _table(drive: Drive, arms: Sequence[Arm], message: Message, clients: int) -> tuple[Key, ...]:
    return tuple(_key(arm, drive, message, clients) for arm in arms)


def _against(
    base: Arm,
    drive: Drive,
    message: Message,
    clients: int,
    *,
    figure: str = "cpu_us",
    hubs: Mapping[str, Arm] = HUBS,
) -> dict[str, Pair]:
    """This hub on several wires, each against the same server."""
    return {
        wire: Pair(
            Figure(_key(hub, drive, message, clients), figure),
            Figure(_key(base, drive, message, clients), figure),
        )
        for wire, hub in hubs.items()
    }


def _cpu(
    base: Arm, drive: Drive, message: Message, clients: int, limit: float, stretch: float | None = None
) -> Target:
    """CPU per delivery as a part of another server's."""
    return Target(
        "CPU per delivery",
        f"<= {limit:g} x {base.name}" + (f", stretch {stretch:g}" if stretch else ""),
        _against(base, drive, message, clients),
        (Bound("ratio", limit, stretch),),
    )


# --- CPU per delivery


def _rate(clients: int) -> Case:
    return Case(
        "rate-20",
        f"20 messages a second to {clients} clients, 400 B",
        (
            _cpu(PLAIN, TWENTY, SMALL, clients, 1.4, 1.2),
            _cpu(NATS, TWENTY, SMALL, clients, 0.6),
        ),
        _table(TWENTY, ALL, SMALL, clients),
        base=PLAIN,
    )


def _saturated(clients: int) -> Case:
    return Case(
        "saturated-64",
        f"Saturated, 64 outstanding, {clients} clients, 400 B",
        (
            _cpu(JOINED, SATURATED, SMALL, clients, 1.25),
            _cpu(NATS, SATURATED, SMALL, clients, 0.3),
            _cpu(UWS, SATURATED, SMALL, clients, 1.0),
        ),
        _table(SATURATED, ALL, SMALL, clients),
        base=JOINED,
    )


def _shallow(clients: int) -> Case:
    return Case(
        "saturated-2",
        f"Saturated, 2 outstanding, {clients} clients, 400 B",
        (
            _cpu(JOINED, SHALLOW, SMALL, clients, 1.25),
            _cpu(NATS, SHALLOW, SMALL, clients, 0.5),
        ),
        _table(SHALLOW, ALL, SMALL, clients),
        base=JOINED,
    )


def _freqtrade(clients: int) -> Case:
    return Case(
        "freqtrade",
        f"Against freqtrade, saturated, 64 outstanding, {clients} clients, 400 B",
        (
            Target(
                "CPU per delivery",
                ">= 300 x less than freqtrade",
                _against(FREQTRADE, SATURATED, SMALL, clients),
                (Bound("times", 300),),
            ),
        ),
        _table(SATURATED, (*HUBS.values(), FREQTRADE), SMALL, clients),
        base=HUB,
    )


def _middle() -> Case:
    return Case(
        "size-3k",
        f"3 KB fills to {FEW} clients, saturated, 64 outstanding",
        (_cpu(JOINED, SATURATED, MIDDLE, FEW, 1.4),),
        _table(SATURATED, FAST, MIDDLE, FEW),
        base=JOINED,
    )


def _large() -> Case:
    return Case(
        "size-300k",
        f"300 KB dataframes to {FEW} clients, one outstanding",
        (_cpu(JOINED, SINGLE, LARGE, FEW, 1.4),),
        _table(SINGLE, FAST, LARGE, FEW),
        base=JOINED,
        note="This hub is given a dataframe that replaces its key's window; it checks it, stores it and encodes it for the"
        " subscribers' wire (the ledger refuses messages above 256 KiB). The others pass on a text of that size.",
    )


def _matrix(clients: int) -> Case:
    drives: Mapping[Message, Sequence[Drive]] = {
        SMALL: (SATURATED, TWENTY),
        MIDDLE: (SATURATED, TWENTY),
        LARGE: (SINGLE, TWO),
    }
    return Case(
        "matrix",
        "Sizes, clients, wires: CPU per delivery",
        (),
        tuple(
            key
            for message in drives
            for count in (1, FEW, clients)
            for drive in drives[message]
            for key in _table(drive, (JOINED, HUB, HUB_MSGPACK), message, count)
        ),
        base=JOINED,
        note="Of C in µs; of the hub the ratio to it, and in brackets µs. With one client it is what a message costs to take,"
        " check, store and acknowledge.",
    )


# --- latency


def _latency() -> Case:
    return Case(
        "latency",
        f"10 messages a second to {FEW} clients, 400 B",
        (
            Target(
                "p50, publish to receipt",
                f"<= 1.3 x {PLAIN.name}",
                _against(PLAIN, TEN, SMALL, FEW, figure="p50_ms"),
                (Bound("ratio", 1.3),),
            ),
        ),
        _table(TEN, (*ALL, FREQTRADE), SMALL, FEW),
        columns=("p50_ms", "p99_ms", "cpu_us"),
        base=PLAIN,
        note="This hub syncs each fill to its disk before it delivers it; the others store nothing.",
    )


def _resync() -> Case:
    held = Resyncing(pairs=50, rows=1500, columns=100, asker=None)
    quiet = Setup(HUB_MSGPACK, SMALL, 20, resyncing=held)
    wires: Mapping[str, Wire] = {
        "v2.msgpack": "msgpack",
        "v2.json": "json",
        "freqtrade's wire": "freqtrade",
    }
    asked = {name: replace(quiet, resyncing=replace(held, asker=wire)) for name, wire in wires.items()}
    return Case(
        "resync",
        "One client resyncs 50 pairs of 1500 rows and 100 columns, again and again, while 20 others get 50 fills a second",
        (
            Target(
                "p99 of the fills",
                "<= 10 ms above the run without it",
                {
                    name: Pair(Figure(Key(setup, FIFTY), "p99_ms"), Figure(Key(quiet, FIFTY), "p99_ms"))
                    for name, setup in asked.items()
                },
                (Bound("over", 10, unit="ms"),),
            ),
        ),
        tuple(Key(setup, FIFTY) for setup in (quiet, *asked.values())),
        columns=("p50_ms", "p99_ms", "asked", "cpu_us"),
        note="The others are on v2.msgpack.",
    )


# --- memory


def _idle(clients: int) -> Case:
    many = 5 * clients

    def pair(hub: Arm, count: int) -> Pair:
        return Pair(Figure(_key(hub, IDLE, SMALL, count), "connection_kib"))

    return Case(
        "idle",
        "An idle connection",
        (
            Target(
                "resident memory",
                "<= 27 KB, stretch 20",
                {
                    **{f"{wire}, {clients} clients:": pair(hub, clients) for wire, hub in HUBS.items()},
                    f"freqtrade's wire, {many} clients:": pair(HUB, many),
                },
                (Bound("value", 27, 20, unit="KB"),),
            ),
        ),
        (*_table(IDLE, ALL, SMALL, clients), _key(HUB, IDLE, SMALL, many)),
        columns=("connection_kib",),
    )


def _stalled() -> Case:
    reading = Setup(HUB_MSGPACK, SMALL, FEW - STALLED)
    stalled = replace(reading, stalled=STALLED)

    def pair(figure: str) -> Pair:
        return Pair(Figure(Key(stalled, FLOOD), figure), Figure(Key(reading, FLOOD), figure))

    return Case(
        "stalled",
        f"{STALLED} of {FEW} clients never read, 100 000 fills of 400 B, 64 outstanding",
        (
            Target(
                "growth of resident memory, at its peak",
                f"<= {LEDGER_MIB} MiB, what `hub.memory.ledger_bytes` gives messages and pages, and 64 KiB for each of the {STALLED}",
                {"": Pair(pair("growth_kib").ours)},
                (Bound("value", LEDGER_MIB + STALLED * CLIENT_MIB, scale=1 / 1024, unit="MiB"),),
            ),
            Target(
                "growth above that of the run without them",
                f"<= 64 KiB, and a write of 64 KiB, for each of the {STALLED}",
                {"": pair("growth_kib")},
                (Bound("over", STALLED * (CLIENT_MIB + SLICE_MIB), scale=1 / 1024, unit="MiB"),),
            ),
            Target(
                "p99 of the others",
                "within 20 % or 5 ms of the run without them",
                {"": pair("p99_ms")},
                (Bound("ratio", 1.2), Bound("over", 5, unit="ms")),
            ),
        ),
        (Key(reading, FLOOD), Key(stalled, FLOOD)),
        columns=("p50_ms", "p99_ms", "growth_kib", "cpu_us", "rate"),
    )


# --- what else


def _sets(clients: int) -> Case:
    counts = (1, 20, clients)
    setups = {count: Setup(HUB_MSGPACK, SMALL, clients, sets=count) for count in counts}
    drives: Sequence[Drive] = (SATURATED, SHALLOW, TWENTY)
    return Case(
        "sets",
        f"{clients} clients in 1, 20 and {clients} distinct subscription sets, 400 B",
        (
            Target(
                f"CPU per delivery, {clients} sets against 1",
                "<= 3 x",
                {
                    f"{drive.name}:": Pair(
                        Figure(Key(setups[clients], drive), "cpu_us"), Figure(Key(setups[1], drive), "cpu_us")
                    )
                    for drive in drives
                },
                (Bound("ratio", 3),),
            ),
        ),
        tuple(Key(setup, drive) for drive in drives for setup in setups.values()),
        columns=("cpu_us", "rate", "p50_ms", "p99_ms"),
        note="Every client gets every message; what makes a set distinct is the name of a further bot in it.",
    )


def _consumer() -> Case:
    consumers = {wire: Consuming(wire) for wire in ("msgpack", "json")}
    return Case(
        "consumer",
        "The typed consumer on one core, fills of 400 B",
        (
            Target(
                "messages a second",
                ">= 100 000, stretch 300 000",
                {
                    f"v2.{wire}": Pair(Figure(Key(consuming, CONSUME), "rate"))
                    for wire, consuming in consumers.items()
                },
                (Bound("value", 100_000, 300_000, at_least=True, unit="msg/s"),),
            ),
        ),
        tuple(Key(consuming, CONSUME) for consuming in consumers.values()),
        columns=("rate", "cpu_us"),
    )


def full(clients: int = CLIENTS) -> tuple[Case, ...]:
    """All cases, with `clients` in place of 1000 where descriptors are few."""
    return (
        _rate(clients),
        _saturated(clients),
        _shallow(clients),
        _freqtrade(clients),
        _middle(),
        _large(),
        _latency(),
        _idle(clients),
        _stalled(),
        _resync(),
        _sets(clients),
        _consumer(),
        _matrix(clients),
    )


NAMES = tuple(case.name for case in full())

# --- the check for regressions


def _loose(name: str, drive: Drive, message: Message, clients: int, limits: Mapping[Arm, float]) -> Case:
    """Limits for the CPU per delivery as a part of each baseline's, beyond which something is broken."""
    hubs = {wire: HUBS[wire] for wire in ("freqtrade's wire", "v2.msgpack")}
    loose = tuple(
        Target(
            "CPU per delivery",
            f"<= {limit:g} x {base.name}",
            _against(base, drive, message, clients, hubs=hubs),
            (Bound("ratio", limit),),
        )
        for base, limit in limits.items()
    )
    return Case(name, f"{drive.name}, {clients} clients, {message.size:,} B", loose, ())


def quick() -> tuple[Case, ...]:
    """The check for regressions: few servers, and about twice what the figures are."""
    return (
        _loose("rate-20", TWENTY, SMALL, QUICK_CLIENTS, {PLAIN: 4, NAIVE: 0.7}),
        _loose("saturated-64", SATURATED, SMALL, QUICK_CLIENTS, {JOINED: 6, NAIVE: 0.06}),
        _loose("saturated-2", SHALLOW, SMALL, QUICK_CLIENTS, {JOINED: 4, NAIVE: 0.2}),
        _loose("size-300k", SINGLE, LARGE, FEW // 2, {JOINED: 6}),
    )
