"""The code of the fan-out benchmark with a handful of clients and messages: that it measures what it says, never how fast."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgpack
import pytest

from benchmarks import native
from benchmarks.arms import EMBEDDED, HUB, HUB_JSON, HUB_MSGPACK, JOINED, NAIVE, NATS, PLAIN, Arm
from benchmarks.cases import FEW, NAMES, Case, full, quick
from benchmarks.consuming import CONSUME, FIRST, Consuming, frames
from benchmarks.fanout import Run, check
from benchmarks.framing import handshake, masked
from benchmarks.load import Dial, Load, LoadError
from benchmarks.load_fallback import Client, Generator
from benchmarks.messages import NUMBER, Fill, Frame, Message, flat, publish, template
from benchmarks.processes import HubProcess, PrintingServer
from benchmarks.report import markdown, plot
from benchmarks.sessions import IDLE, Figures, Pace, Resyncing, Setup, Window
from benchmarks.targets import Bound, Figure, Key, Pair, Target
from hub.protocol.codec import Wire, frame_of

BOTH = pytest.mark.parametrize("fallback", [False, True], ids=["c", "python"])
WINDOW, SINGLE, PACE = Window(3, seconds=0.0), Window(1, seconds=60.0, most=3), Pace(200, 4)
SMALL = Fill(400)


def needs(arm: Arm) -> None:
    if (why := arm.missing()) is not None:
        pytest.skip(why)


# --- against servers


@pytest.mark.parametrize(
    ("arm", "message", "fallback"),
    [
        (HUB, SMALL, False),
        (HUB_JSON, Frame(30_000), True),
        (HUB_MSGPACK, Frame(300_000), False),
        (EMBEDDED, SMALL, False),
        (PLAIN, SMALL, True),
        (JOINED, Frame(300_000), False),
        (NATS, SMALL, False),
        (NATS, SMALL, True),
        (NAIVE, SMALL, True),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_setup_is_measured(arm: Arm, message: Message, fallback: bool, tmp_path: Path) -> None:
    needs(arm)
    # Of a dataframe the newest is what counts, so there is one at a time.
    drives = [WINDOW, PACE] if isinstance(message, Fill) else [SINGLE]
    figures = Setup(arm, message, 5).measure(drives, tmp_path, fallback=fallback)
    for drive in drives:
        found = figures[drive]
        assert found["cpu_us"] > 0
        assert 0 < found["p50_ms"] <= found["p99_ms"]
        assert found["bytes"] == pytest.approx(message.size, rel=0.35)


def test_an_idle_connection_has_no_cost_per_delivery(tmp_path: Path) -> None:
    needs(PLAIN)
    figures = Setup(PLAIN, SMALL, 25).measure([IDLE], tmp_path)[IDLE]
    assert {"connection_kib", "growth_kib"} == set(figures)


@BOTH
def test_clients_that_stall_or_ask_are_not_counted(fallback: bool, tmp_path: Path) -> None:
    setup = Setup(
        HUB_MSGPACK,
        SMALL,
        4,
        sets=2,
        stalled=2,
        resyncing=Resyncing(pairs=2, rows=20, columns=3, asker="json"),
    )
    figures = setup.measure([PACE], tmp_path, fallback=fallback)[PACE]
    assert figures["asked"] >= 1
    assert figures["growth_kib"] >= 0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HUB.start(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def loop(tmp_path: Path) -> PrintingServer:
    program = native.program("loop")
    if program is None:
        pytest.skip("there is no C compiler")
    return PrintingServer([program, "joined"], tmp_path)


@BOTH
def test_deliveries_are_messages_times_clients(fallback: bool, loop: PrintingServer) -> None:
    with loop, Load(fallback=fallback) as load:
        load.publisher(loop.port, Dial(handshake("/publish")))
        load.connect(7, loop.port, Dial(handshake()))
        load.publishes(template(masked(flat(400), text=True)))
        load.sample(1)
        assert load.count_frames(300) == 1
        measured = load.window(10, seconds=0.0, timeout_s=10)
        assert (measured.messages, measured.deliveries, measured.samples) == (10, 70, 70)
        assert measured.bytes == 70 * 404
        measured = load.window(4, seconds=60.0, timeout_s=10, most=12)
        assert (measured.messages, measured.deliveries) == (12, 84)
        measured = load.pace(500, 3, timeout_s=10)
        assert (measured.messages, measured.deliveries, measured.lost) == (3, 21, 0)


@BOTH
def test_the_number_is_put_into_each_message(fallback: bool, loop: PrintingServer) -> None:
    with (
        loop,
        Load(fallback=fallback) as load,
        socket.create_connection(("127.0.0.1", loop.port), 10) as sock,
    ):
        sock.sendall(handshake())
        stream = sock.makefile("rb")
        while stream.readline().strip():
            pass
        load.publisher(loop.port, Dial(handshake("/publish")))
        load.connect(1, loop.port, Dial(handshake()))
        load.publishes(template(masked(flat(400), text=True)))
        load.window(2, seconds=0.0, timeout_s=10)
        taken = []
        for _ in range(2):
            assert stream.read(4) == b"\x81\x7e\x01\x90"
            taken.append(int(json.loads(stream.read(400))["number"]))
        stream.close()
    assert taken[1] == taken[0] + 1


@BOTH
def test_what_a_server_refuses_is_told(fallback: bool, hub: HubProcess) -> None:
    refused = masked(msgpack.packb({"type": "publish", "id": NUMBER, "data": {"bot": "bench"}}), text=False)
    with Load(fallback=fallback) as load:
        load.publisher(*HUB.publisher(hub))
        load.connect(1, hub.port, HUB.subscriber(SMALL))
        load.publishes(template(refused))
        with pytest.raises(LoadError, match=r"0 deliveries of 1 messages.*unknown_topic"):
            load.window(1, seconds=0.0, timeout_s=0.3)
        with pytest.raises(LoadError, match="403"):
            load.connect(1, hub.port, Dial(handshake()))


def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="KeyError"):
        PrintingServer(
            ["python3", Path(__file__).parents[1] / "benchmarks/servers.py", "nobody"], tmp_path
        ).__enter__()


@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_the_consumer_is_measured(wire: str, tmp_path: Path) -> None:
    figures = Consuming(wire, count=2500).measure([CONSUME], tmp_path)
    assert figures[CONSUME]["rate"] > 0


# --- without one


def test_frames_are_counted_however_they_are_cut() -> None:
    stream = b"".join(
        frame_of(Wire.JSON, {"type": "x", "data": "y" * size}) for size in (0, 400, 70_000, 100, 400)
    )
    for step in (1, 2, 3, 7, 1000, len(stream)):
        generator = Generator(low=300, target=3, waiting=1)
        client = Client(None, counted=True, upgraded=True)  # type: ignore[arg-type]
        for at in range(0, len(stream), step):
            generator.feed(client, stream[at : at + step])
        assert (client.count, generator.deliveries, generator.waiting) == (3, 3, 0)


def test_messages_of_nats_are_counted_however_they_are_cut() -> None:
    inner = b"INFO {}\r\nPONG\r\n" + 3 * (b"MSG bench 1 12\r\nhello\r\nMSG 5\r\n") + b"PING\r\n"
    stream = bytes((0x82, len(inner))) + inner
    for step in range(1, len(stream) + 1):
        generator = Generator(nats=True)
        client = Client(None, counted=True, upgraded=True)  # type: ignore[arg-type]
        for at in range(0, len(stream), step):
            generator.feed(client, stream[at : at + step])
        assert client.count == 3


@pytest.mark.parametrize("size", [382, 400, 3000])
def test_a_fill_has_the_size_that_was_asked_for(size: int) -> None:
    assert len(flat(size)) == size


def test_a_fill_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="382 bytes at least"):
        flat(100)


def test_the_number_has_its_places() -> None:
    made = template(publish(SMALL, wide=True))
    # The id, and the fill's own mid and number.
    assert sorted(place.kind for place in made.numbers) == ["b", "d", "d"]
    with pytest.raises(ValueError, match="a place for the number"):
        template(b"nothing")


def test_prepared_frames_have_contiguous_offsets() -> None:
    block = frames(Wire.MSGPACK, 3)
    size = len(block) // 3
    read = [msgpack.unpackb(block[at + 4 : at + size]) for at in range(0, len(block), size)]
    assert [(m["offset"], m["prev"], m["mid"]) for m in read] == [
        (FIRST + i, FIRST + i - 1, f"bench-{FIRST + i}") for i in range(3)
    ]


# --- targets and reports

OURS, BASE = Key(Setup(HUB, SMALL, 1), WINDOW), Key(Setup(PLAIN, SMALL, 1), WINDOW)
PAIR = Pair(Figure(OURS, "cpu_us"), Figure(BASE, "cpu_us"))


def rounds(*values: tuple[float, float]) -> list[dict[Key, Figures]]:
    return [{OURS: {"cpu_us": ours}, BASE: {"cpu_us": base}} for ours, base in values]


@pytest.mark.parametrize(
    ("bounds", "figures", "word"),
    [
        ([Bound("ratio", 1.4, 1.2)], "1.50 x", "missed"),
        ([Bound("ratio", 1.6, 1.2)], "1.50 x", "met"),
        ([Bound("ratio", 1.6, 1.5)], "1.50 x", "met, with the stretch"),
        ([Bound("times", 0.6)], "0.67 x", "met"),
        ([Bound("times", 0.7)], "0.67 x", "missed"),
        ([Bound("over", 4.9, unit="ms")], "+5.00 ms", "missed"),
        ([Bound("ratio", 1.4), Bound("over", 5, unit="ms")], "1.50 x or +5.00 ms", "met"),
        ([Bound("value", 15, unit="KB")], "15.0 KB", "met"),
        ([Bound("value", 16, at_least=True)], "15.0", "missed"),
    ],
)
def test_a_target_counts_by_the_median_of_the_rounds(bounds: list[Bound], figures: str, word: str) -> None:
    verdict = Target("", "", {"": PAIR}, tuple(bounds)).verdict(rounds((15, 10), (40, 1), (11, 10.0)))
    assert (verdict.figures, verdict.word, verdict.held) == (figures, word, word != "missed")


def test_the_worst_variant_decides() -> None:
    variants = {"a": PAIR, "b": Pair(PAIR.base, PAIR.ours)}  # type: ignore[arg-type]
    verdict = Target("", "", variants, (Bound("ratio", 1),)).verdict(rounds((2, 1)))
    assert (verdict.figures, verdict.word) == ("a 2.00 x, b 0.50 x", "missed")


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    verdict = Target("", "", {"": PAIR}, (Bound("ratio", 1),)).verdict([{OURS: {"cpu_us": 1.0}}, {}])
    assert (verdict.word, verdict.held) == ("not measured", None)


def made_up(cases: tuple[Case, ...]) -> list[Mapping[Key, Figures]]:
    names = ("cpu_us", "rate", "p50_ms", "p99_ms", "bytes", "load", "connection_kib", "growth_kib", "asked")
    keys = dict.fromkeys(key for case in cases for key in case.measurements())
    return [
        {key: dict.fromkeys(names, float(i + number)) for i, key in enumerate(keys, 1)} for number in (0, 1)
    ]


def test_the_results_have_every_target_and_every_case() -> None:
    cases = full()
    text = markdown(cases, made_up(cases), about=["here"], missing=["freqtrade: not built"])
    assert [name for name in NAMES if f"\n## {name}: " not in text] == []
    assert "- freqtrade: not built\n" in text
    targets = [target for case in cases for target in case.targets]
    assert len(targets) == 18
    assert "not measured" not in text
    widths = [
        {line.count("|") for line in block.splitlines()} for block in text.split("\n\n") if block[0] == "|"
    ]
    assert [len(of) for of in widths] == [1] * len(widths)


def test_the_results_can_be_without_a_server() -> None:
    cases = full()
    found = [
        {
            key: figures
            for key, figures in round_.items()
            if getattr(key.setup, "arm", None) not in (PLAIN, JOINED)
        }
        for round_ in made_up(cases)
    ]
    text = markdown(cases, found, about=[], missing=[])
    assert f"| <= 1.4 x {PLAIN.name}, stretch 1.2 |  | not measured |" in text


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cases = full()
    assert plot(cases, made_up(cases), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


class Fake:
    """A measurement that is made up; its name, its number, or why there is none."""

    descriptors, block = 10, "fake"

    def __init__(self, name: str, asked: list[str], why: str | None = None) -> None:
        self.name, self.asked, self.why = name, asked, why

    def missing(self) -> str | None:
        return self.why

    def measure(self, drives: list[Pace], directory: Path) -> dict[Pace, Figures]:
        self.asked.append(self.name)
        if self.name == "broken":
            raise RuntimeError("it fell over")
        return {drive: {"cpu_us": 1.0} for drive in drives}


def test_those_that_are_compared_take_turns_and_what_fails_is_told(tmp_path: Path) -> None:
    asked: list[str] = []
    fakes = [Fake("a", asked), Fake("b", asked), Fake("broken", asked), Fake("absent", asked, "not there")]
    pair = Pair(*(Figure(Key(fake, PACE), "cpu_us") for fake in fakes[:2]))  # type: ignore[arg-type]
    target = Target("", "", {"": pair}, (Bound("ratio", 0.5),))
    cases = (Case("case", "", (target,), tuple(Key(fake, PACE) for fake in fakes)),)  # type: ignore[arg-type]
    run = Run(cases)
    run.round(tmp_path)
    run.round(tmp_path)
    assert asked == ["a", "b", "broken", "b", "broken", "a"]
    assert list(run.missing) == [
        "absent: not there",
        "broken, in round 1: it fell over",
        "broken, in round 2: it fell over",
    ]
    assert check(cases, run) == 1


def test_the_quick_check_measures_little() -> None:
    setups = {key.setup for case in quick() for key in case.measurements()}
    assert len(setups) <= 10
    assert max(setup.descriptors for setup in setups) < 1024
    assert {FEW, 1} <= {
        setup.clients
        for case in full()
        for setup in {k.setup for k in case.shown if isinstance(k.setup, Setup)}
    }
