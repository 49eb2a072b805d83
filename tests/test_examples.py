"""The examples, each against a real hub on a free port; and the main job `make run` with little data."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html.parser
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from websockets.asyncio.client import connect

from consumer import BotAPI, ConsumerConfig, ProducerConfig, RestClient, feed
from consumer.errors import BotRefused, PublishError
from consumer.publisher import Ack, Publication
from consumer.stores.sqlalchemy import SqlAlchemyPositionStore
from examples.copy_bot import CopyBot
from examples.run.__main__ import main as entry_point
from examples.run.candles import BadData, CandleFile, read_directory, read_file
from examples.run.command import command
from examples.run.demo import Demo, Options
from examples.run.indicators import WARM_UP, analyze
from examples.run.processes import Child, ChildDied
from examples.run.replay import Replay, publish
from examples.run.settings import Settings, write_consumer
from examples.run.standing import ShownFill, Standing
from examples.run.view import LiveView, PlainView, _panel
from hub.protocol.localbot import BotContext, Delivery
from hub.server import Hub

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
READER, ALPHA = "reader-" + "r" * 40, "alpha-" + "a" * 40
HEADER = "date,open,high,low,close,volume\n"


def config(**api_server: Any) -> dict[str, Any]:
    return {
        "api_server": {
            "listen_port": 0,
            "username": "u",
            "password": "p" * 40,
            "jwt_secret_key": "j" * 40,
            "ws_token": READER,
            **api_server,
        },
        "hub": {
            "default_bot": "alpha",
            "publishers": [{"name": "alpha", "token": ALPHA, "bots": ["alpha"]}],
            "allowed_origins": ["null"],
            "drain_s": 1,
        },
    }


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(config()) as running:
        yield running


def run(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=50, check=False
    )


# --- the short scripts


@pytest.mark.parametrize(
    "path", sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.html")]), ids=lambda p: p.name
)
def test_an_example_has_fewer_than_60_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


def test_producer_and_consumer(hub: Hub) -> None:
    websocket = hub.url.replace("http", "ws", 1)
    produced = run("simple_producer.py", TRADEWIRE_URL=websocket, TRADEWIRE_TOKEN=ALPHA)
    assert produced.returncode == 0, produced.stderr
    assert "entry_fill is durable at" in produced.stdout
    env = {**os.environ, "TRADEWIRE_PORT": str(hub.port), "TRADEWIRE_TOKEN": READER}
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "simple_consumer.py")],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    ) as consumer:
        try:
            assert consumer.stdout is not None
            assert consumer.stdout.readline().startswith("alpha BTC/USDT: 100 candles, analyzed 20")
            fill = {"trade_id": 1, "pair": "ETH/USDT", "amount": 2.0}
            hub.publish("exit_fill", fill, bot="beta").result(10)
            assert consumer.stdout.readline() == "beta exit_fill: 2.0 ETH/USDT\n"
        finally:
            consumer.kill()
    again = run("simple_producer.py", TRADEWIRE_URL=websocket, TRADEWIRE_TOKEN=ALPHA)
    assert again.stdout.endswith(", again\n")


class Watched(CopyBot):
    """Tells the test's event loop what was handled."""

    handled: asyncio.Queue[Delivery]

    async def start(self, context: BotContext) -> SqlAlchemyPositionStore:
        self.loop = asyncio.get_running_loop()
        return await super().start(context)

    def handle(self, delivery: Delivery) -> None:
        super().handle(delivery)
        self.loop.call_soon_threadsafe(self.handled.put_nowait, delivery)


@pytest.mark.anyio
async def test_a_bot_that_copies_each_fill_once(hub: Hub, tmp_path: Path) -> None:
    producer = ProducerConfig(name="hub", host="127.0.0.1", port=hub.port, ws_token=READER, protocol="v2")
    config = ConsumerConfig(enabled=True, producers=(producer,), raw={})
    fills = 0

    async def published() -> None:
        nonlocal fills
        fills += 1
        fill = {"trade_id": fills, "pair": f"C{fills}/USDT", "amount": 2.0}
        await asyncio.wrap_future(hub.publish("entry_fill", fill, bot="alpha"))

    for _ in range(3):
        Watched.handled = asyncio.Queue()
        running = asyncio.ensure_future(feed.run(config, Watched, data_dir=tmp_path))
        while (await Watched.handled.get()).topic != "connected":
            pass
        await published()
        while (delivery := await Watched.handled.get()).payload != {
            "trade_id": fills,
            "pair": f"C{fills}/USDT",
            "amount": 2.0,
        }:
            assert delivery.topic != "lost"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await published()
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.sqlite")) as database:
        copied = [pair for (pair,) in database.execute("SELECT pair FROM fills ORDER BY id")]
        missed = database.execute("SELECT COUNT(*) FROM missed").fetchone()[0]
    # The last was published after the last run.
    assert copied == [f"C{n}/USDT" for n in (1, 2, 3, 4, 5)]
    assert missed == 0


def test_embedded_bot(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config()))
    done = run("embedded_bot.py", str(tmp_path / "config.json"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("the hub listens on http://127.0.0.1:")
    assert [line.split(" is durable at")[0] for line in lines[1:]] == ["trade 1", "trade 2", "trade 3"]


def test_a_bot_that_answers_rest(hub: Hub) -> None:
    url = hub.url.replace("http", "ws", 1)
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "rest_bot.py")],
        cwd=ROOT,
        env={**os.environ, "TRADEWIRE_URL": url, "TRADEWIRE_TOKEN": ALPHA},
        stdout=subprocess.PIPE,
        text=True,
    ) as bot:
        try:
            assert bot.stdout is not None
            assert bot.stdout.readline() == "attached as alpha\n"
            with RestClient(hub.url, "u", "p" * 40, bot="alpha") as client:
                assert client.ask(BotAPI.count).max == 3
                assert client.ask(BotAPI.pause).status == "paused"
                for operation, told in (
                    (BotAPI.pause, "already paused"),
                    (BotAPI.stop, "does not answer stop"),
                ):
                    with pytest.raises(BotRefused, match=told):
                        client.ask(operation)
        finally:
            bot.kill()


def test_health_probe(hub: Hub) -> None:
    healthy = run("health_probe.py", hub.url)
    assert healthy.returncode == 0, healthy.stdout
    with socket.socket() as taken:
        # Bound but not listening: a connection is refused for sure.
        taken.bind(("127.0.0.1", 0))
        down = run("health_probe.py", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert down.returncode == 1
    assert "Traceback" not in down.stderr


class Page(html.parser.HTMLParser):
    """The ids of a page and its script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.script = ""
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        assert not [name for name, value in attrs if name in ("src", "href")], (
            "one file, nothing from elsewhere"
        )

    def handle_data(self, data: str) -> None:
        if self._tag == "script":
            self.script += data


def test_the_dashboard_uses_only_what_it_has(tmp_path: Path) -> None:
    page = Page((EXAMPLES / "dashboard.html").read_text())
    assert set(re.findall(r'\$\("(\w+)"\)', page.script)) <= page.ids
    node = shutil.which("node")
    if node is not None:
        (tmp_path / "script.js").write_text(page.script)
        subprocess.run([node, "--check", str(tmp_path / "script.js")], check=True, timeout=30)


@pytest.mark.anyio
async def test_the_dashboards_handshake_and_subscription(hub: Hub) -> None:
    bearer = "bearer." + base64.urlsafe_b64encode(READER.encode()).rstrip(b"=").decode()
    uri = hub.url.replace("http", "ws", 1) + "/api/v1/message/ws"
    protocols: Any = ["tradewire.v2.json", bearer]
    async with connect(uri, subprotocols=protocols, origin="null", compression=None) as socket:  # type: ignore[arg-type]
        assert json.loads(await socket.recv())["data"]["heartbeat_ms"] > 0
        want = {"want": [{"topics": ["entry_fill", "exit_fill"]}], "from": "earliest"}
        await socket.send(json.dumps({"type": "subscribe", "id": 1, "data": want}))
        reply = json.loads(await socket.recv())
        assert reply["ok"]
        assert {"epoch", "offset"} <= set(reply["data"])
        hub.publish("entry_fill", {"trade_id": 1, "pair": "BTC/USDT"}, bot="beta")
        message = json.loads(await socket.recv())
        assert (message["type"], message["bot"]) == ("entry_fill", "beta")


# --- candles


def csv_file(directory: Path, *lines: str, name: str = "BTC_USD-30m.csv", header: str = HEADER) -> Path:
    path = directory / name
    path.write_text(header + "".join(f"{line}\n" for line in lines))
    return path


def line(minute: int, rates: str = "10,12,9,11,5") -> str:
    return f"2019-01-01T{minute // 60:02}:{minute % 60:02}:00Z,{rates}"


def test_the_data_is_whole_but_for_its_nine_outages() -> None:
    files = read_directory(EXAMPLES / "data")
    assert [file.pair for file in files] == ["BTC/USD", "ETH/USD", "XRP/USD"]
    assert [len(file.rows) for file in files] == [5029, 5027, 5025]
    assert [len(file.outages) for file in files] == [3, 3, 3]
    assert not any(file.problems for file in files)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (line(30, "10,12,9,11"), "expected 6 columns, got 5"),
        (line(30, "ten,12,9,11,5"), "open: expected a number, got 'ten'"),
        (line(30, "10,12,9,nan,5"), "close: expected a finite number, got 'nan'"),
        (line(30, "10,9,12,11,5"), "high is below low"),
        (line(30, "10,12,9,13,5"), "open or close is outside of low and high"),
        (line(30, "10,12,0,11,5"), "low: expected a rate above 0"),
        (line(30, "10,12,9,11,-1"), "volume: expected 0 or more"),
        (line(31), "the date is not that of a candle of this timeframe"),
        ("yesterday,10,12,9,11,5", "expected a date, got 'yesterday'"),
        ("1969-12-31,10,12,9,11,5", "expected a date, got '1969-12-31'"),
        ("9999-12-31T23:30-10:00,10,12,9,11,5", "expected a date, got '9999-12-31T23:30-10:00'"),
        ('"2019-01-01T00:30:00Z,10,12,9,11,5', "unexpected end of data"),
    ],
)
def test_a_bad_row_is_skipped_and_told_and_nothing_else_is_lost(
    bad: str, problem: str, tmp_path: Path
) -> None:
    file = read_file(csv_file(tmp_path, line(0), bad, line(60), line(90)))
    assert file.problems == [f"BTC_USD-30m.csv:3: skipped: {problem}"]
    assert len(file.rows) == 3
    assert len(file.outages) == 1


def test_rows_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    file = read_file(csv_file(tmp_path, line(0), line(60), line(30), line(90)))
    assert file.problems == [
        "BTC_USD-30m.csv:4: put in order: the date is before that of an earlier line",
    ]
    assert list(file.rows) == sorted(file.rows)
    assert file.outages == []


def test_a_date_twice_is_told_and_the_first_row_kept(tmp_path: Path) -> None:
    file = read_file(csv_file(tmp_path, line(0), line(0), line(0, "1,2,1,2,1")))
    assert [problem.partition("skipped: ")[2] for problem in file.problems] == [
        "the date is there already",
        "the date is there already, with other values",
    ]
    assert list(file.rows.values()) == [(10.0, 12.0, 9.0, 11.0, 5.0)]


def test_columns_may_stand_in_any_order_and_dates_be_ms(tmp_path: Path) -> None:
    header = "volume,close,low,high,open,date\n"
    file = read_file(csv_file(tmp_path, "5,11,9,12,10,1546300800000", header=header))
    assert file.rows == {1_546_300_800_000: (10.0, 12.0, 9.0, 11.0, 5.0)}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("BTC_USD-30m.csv", "", "expected the columns"),
        ("BTC_USD-30m.csv", "date,open\n", "high is missing"),
        ("BTC_USD-30m.csv", HEADER, "found none that can be used"),
        ("BTC_USD-30m.csv", HEADER + "1546300800,1,1,1,1,1\n", "BTC_USD-30m.csv:2: skipped: the date is not"),
        ("BTC_USD-soon.csv", HEADER, "expected a name such as"),
        ("candles.csv", HEADER, "expected a name such as"),
        ("BTC_USD-30m.txt", HEADER, "found none"),
    ],
)
def test_data_of_no_use_is_told_in_one_line(name: str, text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadData, match=expected) as caught:
        read_directory(tmp_path)
    assert "\n" not in str(caught.value)


def test_blank_lines_a_byte_order_mark_and_other_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = csv_file(tmp_path, line(0), "", line(30), header="\ufeff\n" + HEADER)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    file = read_file(path)
    assert len(file.rows) == 2
    assert file.problems == []


def test_bytes_of_no_encoding_only_cost_their_row(tmp_path: Path) -> None:
    path = tmp_path / "BTC_USD-30m.csv"
    path.write_bytes((HEADER + line(0) + "\n").encode() + b"\xff\xfe\x00,1\n" + (line(30) + "\n").encode())
    file = read_file(path)
    assert len(file.rows) == 2
    assert len(file.problems) == 1


# --- indicators and replay


def part(file: CandleFile, start: int, stop: int) -> CandleFile:
    return CandleFile(file.pair, file.timeframe, dict(list(file.rows.items())[start:stop]))


def test_indicators_look_backwards_only() -> None:
    file = read_directory(EXAMPLES / "data")[0]
    whole, prefix = analyze(part(file, 0, 900)), analyze(part(file, 0, 600))
    pd.testing.assert_frame_equal(whole.iloc[:600], prefix)


def test_no_signal_before_the_indicators_are_warm() -> None:
    frame = analyze(read_directory(EXAMPLES / "data")[0])
    assert not frame["enter_long"].iloc[:WARM_UP].any()
    assert frame["enter_long"].any()
    assert (frame["enter_tag"] != "").equals(frame["enter_long"] == 1)


def test_a_replay_ends_at_a_date_that_every_pair_has() -> None:
    files = read_directory(EXAMPLES / "data")
    # The 1598th candle behind the block is within the outage of two pairs.
    replay = Replay.of(files, 1598)
    assert all(replay.dates[-1] in file.rows for file in files)
    assert len(replay.dates) == WARM_UP + 1598 + 3
    assert replay.gaps_until(replay.dates[-1]) == 3
    assert Replay.of(files, 4500).gaps_until(Replay.of(files, 4500).dates[-1]) == 9


def test_a_replay_ends_with_the_pair_that_ends_first(tmp_path: Path) -> None:
    for path in (EXAMPLES / "data").glob("*.csv"):
        shorter = path.read_text().splitlines(keepends=True)[: 400 if path.name.startswith("ETH") else 500]
        (tmp_path / path.name).write_text("".join(shorter))
    files = read_directory(tmp_path)
    assert [file.problems for file in files] == [
        [],
        ["ETH/USD ends at 2018-12-09 07:00, before others; the replay ends there"],
        [],
    ]
    assert Replay.of(files, None).dates[-1] == max(files[1].rows)


def test_pairs_without_a_date_in_common_are_told() -> None:
    first, second, _ = read_directory(EXAMPLES / "data")
    with pytest.raises(BadData, match="that every pair has"):
        Replay.of([part(first, 0, 300), part(second, 400, 700)], None)


def test_a_replay_publishes_each_candle_once_and_none_that_is_missing() -> None:
    files = [part(file, 1700, 2000) for file in read_directory(EXAMPLES / "data")]
    replay = Replay.of(files, None)
    dates: dict[str, list[int]] = {file.pair: [] for file in files}
    publications = list(replay.start("alpha"))
    for date in replay.dates[replay.warm_up :]:
        publications += replay.candle("alpha", date)
    assert publications[0].data == ["BTC/USD", "ETH/USD", "XRP/USD"]
    for publication in publications:
        if publication.topic == "analyzed_df":
            assert publication.frame is not None
            assert publication.key is not None
            dates[publication.key[0]] += publication.frame.date_ms.tolist()
    last = replay.dates[-1]
    assert dates == {file.pair: [date for date in file.rows if date <= last] for file in files}
    assert last == min(max(file.rows) for file in files)
    assert sum(map(len, dates.values())) == replay.rows_until(replay.dates[-1])


class LatePublisher:
    """A Publisher that acknowledges when it is flushed, or refuses."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.waiting: list[asyncio.Future[Ack]] = []
        self.failure = failure

    async def submit(self, publication: Publication) -> asyncio.Future[Ack]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    async def flush(self) -> None:
        for future in self.waiting:
            if self.failure is not None:
                future.set_exception(self.failure)
            else:
                future.set_result(Ack())


@pytest.mark.anyio
async def test_progress_is_what_the_hub_has(capsys: pytest.CaptureFixture[str]) -> None:
    files = [part(file, 0, 220) for file in read_directory(EXAMPLES / "data")]
    replay, publisher = Replay.of(files, None), LatePublisher()
    await publish(replay, publisher, "alpha", speed=0)  # type: ignore[arg-type]
    first, *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["candle"], first["published"], first["done"]) == (WARM_UP, 1, False)
    assert (last["candle"], last["published"], last["done"]) == (220, len(publisher.waiting), True)
    assert last["rows"] == 660


@pytest.mark.anyio
async def test_a_refused_message_ends_the_replay(capsys: pytest.CaptureFixture[str]) -> None:
    files = [part(file, 0, 220) for file in read_directory(EXAMPLES / "data")]
    publisher = LatePublisher(PublishError("forbidden", "not yours"))
    with pytest.raises(PublishError):
        await publish(Replay.of(files, None), publisher, "alpha", speed=0)  # type: ignore[arg-type]
    assert '"done": true' not in capsys.readouterr().out


# --- the view


FILL = ShownFill(
    date=datetime(2019, 1, 1, tzinfo=UTC),
    pair="BTC/USD",
    topic="exit_fill",
    amount=0.5,
    rate=3700.0,
    profit=-12.5,
    currency="USD",
    reason="[bold]",
)


def standing() -> Standing:
    made = Standing(step_ms=1_800_000)
    made.producer = {"candle": 50, "of": 100, "date_ms": 1_546_300_800_000, "published": 300}
    made.bot = {
        "acted_ms": 1_546_297_200_000,
        "delivered": 290,
        "closed_profit": -1.5,
        "currency": "USD",
        "open": [["BTC/USD", 1_546_300_800_000, 3700.0, 0.1]],
    }
    made.fills = {"entry_fill": 2, "exit_fill": 1}
    made.newest_fills.append(FILL)
    return made


def test_the_view_shows_where_it_stands() -> None:
    assert Standing().lag == 0
    assert standing().lag == 2
    assert "50% 2019-01-01 00:00" in standing().line()
    out, stdout = io.StringIO(), sys.stdout
    with LiveView(Console(file=out, force_terminal=True, width=100)) as view:
        assert sys.stdout is stdout
        view.show(Standing())
        view.show(standing())
        view.say("above")
        view.fill(FILL)
    shown = out.getvalue()
    assert "BTC/USD" in shown
    assert "[bold]" in shown
    assert "-1.50 USD" in shown


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_panel_keeps_its_height(width: int) -> None:
    heights = set()
    for fills in (0, 1, 8):
        shown = standing()
        shown.newest_fills.clear()
        shown.newest_fills.extend([FILL] * fills)
        shown.bot["open"] = shown.bot["open"] * fills
        out = io.StringIO()
        Console(file=out, width=width).print(_panel(shown))
        heights.add(out.getvalue().count("\n"))
    # With the four lines above it, a terminal of 24 lines holds it.
    assert heights == {18}


def test_the_plain_view_says_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with PlainView(Console(file=out, width=40)) as view:
        view.show(standing())
        view.fill(FILL)
    assert out.getvalue() == "2019-01-01 00:00 BTC/USD exit_fill 0.5 at 3700 -12.50 USD ([bold])\n"


# --- the main job


def write_little_data(directory: Path) -> Path:
    """Some 260 candles of each pair with the two outages of January, after a block to warm up on."""
    directory.mkdir()
    for path in (EXAMPLES / "data").glob("*.csv"):
        lines = path.read_text().splitlines(keepends=True)
        kept = [row for row in lines if "2019-01-02" <= row < "2019-01-12"]
        (directory / path.name).write_text("".join([lines[0], *kept]))
    return directory


@pytest.fixture
def little_data(tmp_path: Path) -> Path:
    return write_little_data(tmp_path / "data")


class KillingDemo(Demo):
    """A run in which the consumer is killed with SIGKILL twice, as soon as it has acted on something."""

    kills = 0
    acting: asyncio.Event

    def _move(self) -> None:
        if self.standing.bot.get("acted_ms"):
            self.acting.set()
        super()._move()

    async def start_consumer(self, port: int) -> Child:
        self.acting = asyncio.Event()
        return await super().start_consumer(port)

    async def _watch(self, name: str) -> None:
        while name == "consumer" and self.kills < 2:
            await self.acting.wait()
            await self.child("consumer").stop(signal.SIGKILL)
            self.kills += 1
            await self.start_consumer(int(self.url.rpartition(":")[2]))
        await super()._watch(name)


async def played(kind: type[Demo], directory: Path, data: Path, speed: float) -> tuple[Any, list[Any], Demo]:
    """Run the main job; returns its figures, the table of trades, and the run."""
    settings = Settings.fresh(directory)
    demo = kind(Options(data=data, speed=speed, port=0), settings, PlainView(Console(file=io.StringIO())))
    figures = await demo.run()
    with sqlite3.connect(settings.bot_directory / "paper.sqlite") as database:
        trades = list(database.execute("select * from trades order by id"))
    database.close()
    return figures, trades, demo


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Any]]:
    """The figures and trades of a run without disturbance, as fast as it goes."""
    directory = tmp_path_factory.mktemp("calm")
    data = write_little_data(directory / "data")
    figures, trades, _ = asyncio.run(played(Demo, directory, data, 0))
    return figures, trades


@pytest.mark.timeout(180)
@pytest.mark.anyio
async def test_the_same_replay_gives_the_same_trades_also_through_kills(
    tmp_path: Path, little_data: Path, calm: tuple[Any, list[Any]]
) -> None:
    figures, trades = calm
    assert figures["gaps"] == 6
    rows = sum(len(file.rows) for file in read_directory(little_data))
    assert figures["candles"] == rows
    assert figures["published"] == 1 + 3 * 2 + 2 * (rows - 3 * WARM_UP)
    assert len(trades) > 10
    closed = [trade for trade in trades if not trade[2]]
    assert figures["fills"] == {"entry_fill": len(trades), "exit_fill": len(closed)}
    rough, same, demo = await played(KillingDemo, tmp_path, little_data, 150)
    assert isinstance(demo, KillingDemo)
    assert demo.kills == 2
    assert same == trades
    assert rough["fills"] == figures["fills"]
    assert rough["closed_profit"] == figures["closed_profit"]


@pytest.mark.timeout(180)
@pytest.mark.anyio
async def test_freqtrades_wire_gives_the_same_trades(
    tmp_path: Path, little_data: Path, calm: tuple[Any, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_legacy(settings: Settings, port: int, currency: str) -> None:
        write_consumer(settings, port, currency)
        written = json.loads(settings.consumer_file.read_text())
        (producer,) = written["external_message_consumer"]["producers"]
        del producer["bots"]
        producer["protocol"] = "freqtrade"
        producer["ws_token"] = settings.freqtrade
        settings.consumer_file.write_text(json.dumps(written))

    monkeypatch.setattr("examples.run.demo.write_consumer", write_legacy)
    _, same, _ = await played(Demo, tmp_path, little_data, 200)
    assert same == calm[1]


def make_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.run", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_make_run_ends_with_one_line_of_json(little_data: Path) -> None:
    done = make_run("--data", str(little_data), "--speed", "0", "--seconds", "30", "--port", "0")
    assert done.returncode == 0, done.stderr
    (last,) = done.stdout.splitlines()
    assert set(json.loads(last)) == {"candles", "published", "delivered", "fills", "gaps", "closed_profit"}
    for told in ("hub  ", "tail  ", "dashboard  ", "freqtrade  "):
        assert told in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_stdout_that_is_full_is_one_line() -> None:
    source = "import sys; from examples.run.command import _print; sys.exit(_print('{}'))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", source],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=50, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "stdout cannot be written: No space left on device\n")


def test_a_port_in_use_is_one_line(little_data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = make_run("--data", str(little_data), "--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    (told,) = done.stderr.splitlines()
    assert f"cannot listen on 127.0.0.1:{port}" in told


def test_data_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = make_run("--data", str(tmp_path / "none"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.anyio
async def test_a_process_that_dies_is_told_and_the_others_are_reaped(
    tmp_path: Path, little_data: Path
) -> None:
    settings = Settings.fresh(tmp_path)
    demo = Demo(Options(data=little_data, speed=1, port=0), settings, PlainView(Console(file=io.StringIO())))
    with pytest.raises(ChildDied, match="producer ended with SIGKILL"):
        await demo.run(lambda running: os.kill(running.child("producer").process.pid, signal.SIGKILL))
    for name in ("hub", "consumer", "producer"):
        assert demo.child(name).process.returncode is not None


@pytest.mark.anyio
async def test_a_stop_asked_for_is_clean(tmp_path: Path, little_data: Path) -> None:
    settings = Settings.fresh(tmp_path)
    demo = KillingDemo(
        Options(data=little_data, speed=1, port=0), settings, PlainView(Console(file=io.StringIO()))
    )
    demo.kills = 2
    started = asyncio.Event()
    running = asyncio.ensure_future(demo.run(lambda _: started.set()))
    await started.wait()
    await demo.acting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert {demo.child(name).process.returncode for name in ("hub", "consumer")} == {0}


@pytest.mark.anyio
async def test_a_second_stop_waits_for_nobody(tmp_path: Path, little_data: Path) -> None:
    demo = Demo(
        Options(data=little_data, speed=1, port=0),
        Settings.fresh(tmp_path),
        PlainView(Console(file=io.StringIO())),
    )
    started = asyncio.Event()
    running = asyncio.ensure_future(demo.run(lambda _: started.set()))
    await started.wait()
    # A child that is stopped does not answer SIGTERM.
    for name in ("hub", "consumer", "producer"):
        os.kill(demo.child(name).process.pid, signal.SIGSTOP)
    running.cancel()
    await asyncio.sleep(0)
    demo.kill()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert {demo.child(n).process.returncode for n in ("hub", "consumer", "producer")} == {-signal.SIGKILL}


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--speed", "fast", "expected a number from 0 up, got 'fast'"),
        ("--speed", "-1", "expected a number from 0 up, got '-1'"),
        ("--seconds", "0", "expected a number above 0, got '0'"),
        ("--seconds", "nan", "expected a number above 0, got 'nan'"),
        ("--port", "99999", "expected a number from 0 to 65535, got '99999'"),
    ],
)
def test_a_wrong_option_is_one_line(
    option: str,
    value: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["make run", option, value])
    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", f"make run: {option}: {expected}\n")


def test_ctrl_c_while_the_command_is_imported_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("examples.run.command.command", interrupted)
    assert entry_point() == 130
    assert capsys.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.anyio
async def test_many_bad_lines_are_told_by_a_few(tmp_path: Path, little_data: Path) -> None:
    path = little_data / "ETH_USD-30m.csv"
    path.write_text(path.read_text() + "bad\n" * 500)
    out = io.StringIO()
    Demo(Options(data=little_data), Settings.fresh(tmp_path), PlainView(Console(file=out)))._read()
    lines = out.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[-1] == "ETH/USD: 490 more lines like these"


@pytest.mark.anyio
async def test_the_obituary_has_the_last_words(tmp_path: Path) -> None:
    child = await Child.start("sinner", "-c", "raise SystemExit('too soon')", directory=tmp_path)
    with pytest.raises(ChildDied, match=r"^sinner ended with status 1: too soon$"):
        await child.watch()
    assert (tmp_path / "sinner.log").read_text() == "too soon\n"


def test_secrets_are_for_the_user_only_and_never_shown(tmp_path: Path) -> None:
    settings = Settings.fresh(tmp_path)
    assert settings.token_file.stat().st_mode & 0o077 == 0
    assert settings.reader not in repr(settings)
