"""consumer.__main__: the command line, without a hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from consumer_doubles import KEY, START_MS, rows

from consumer import __main__ as main
from consumer.errors import ConfigError
from hub.protocol.envelope import Position
from hub.protocol.localbot import CandleComplete, Connected, Delivery, Disconnected, Lost
from hub.protocol.messages import AnalyzedDf, EntryFill, FrameKey, GenericMessage, Status, Whitelist

LA = datetime(2026, 11, 22, 14, 1, tzinfo=UTC)


def delivery(topic: str, message: Any, **more: Any) -> Delivery:
    return Delivery(producer="p", bot="alpha", topic=topic, message=message, **more)


FRAME = delivery(
    "analyzed_df", AnalyzedDf(key=FrameKey(*KEY), df=rows(0, 2, value=1e-11), la=LA), snapshot=True
)
FILL = delivery(
    "entry_fill",
    EntryFill(trade_id=7, pair="BTC/USDT", amount=0.5, extra={"colour": "red"}),
    ts_ms=START_MS,
    position=Position("e7", 42),
)


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for each in (
        FILL,
        FRAME,
        delivery("whitelist", Whitelist(data=[])),
        delivery("x", GenericMessage(name="x", data={"a": b"123", "b": [float("nan")]}, problem="odd")),
        delivery("disconnected", Disconnected(producer="p", reason="refused")),
    ):
        main._json_line(each)
    fill, frame, whitelist, generic, gone = map(json.loads, capsys.readouterr().out.splitlines())
    assert fill == {
        "type": "entry_fill", "producer": "p", "bot": "alpha", "ts": START_MS, "epoch": "e7", "offset": 42,
        "data": {"trade_id": 7, "pair": "BTC/USDT", "amount": 0.5, "colour": "red"},
    }  # fmt: skip
    assert frame["data"]["rows"][0] == {"date": START_MS, "close": 1e-11}
    assert frame["data"]["key"] == list(KEY)
    assert whitelist["data"] == []
    assert generic["data"] == {"problem": "odd", "data": {"a": "<3 bytes>", "b": [None]}}
    assert gone["data"] == {"producer": "p", "reason": "refused"}


def test_human_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show = main._human_line()
    show(FILL)
    show(FRAME)
    show(delivery("status", Status(status="running\x1b[31m\nred")))
    show(delivery("lost", Lost(producer="p", topics=("entry_fill",), first=3, last=5, reason="retention")))
    show(delivery("connected", Connected(producer="p", resumed=False)))
    show(
        delivery(
            "hub.candle_complete",
            CandleComplete(timeframe="5m", candle_ms=START_MS, pairs=("A",), missing=("B",), deadline=True),
        )
    )
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "\x1b" not in out
    assert "alpha entry_fill #7 pair=BTC/USDT amount=0.5" in lines[0]
    assert "BTC/USDT 5m spot: 2 rows (snapshot)" in lines[1]
    assert "close 1e-11" in lines[1]
    assert "running" in lines[2]
    assert "entry_fill 3..5: retention" in lines[3]
    assert "not everything could be resumed" in lines[4]
    assert "1 pairs, missing B" in lines[5]
    assert len(lines) == 6


def test_options_become_a_producer() -> None:
    producer = main._producer("wss://hub/x?token=t", None, "a, b,", "*", "v2", "/ca")
    assert (producer.host, producer.port, producer.secure, producer.path) == ("hub", 443, True, "/x")
    assert (producer.topics, producer.bots, producer.ws_token) == (["a", "b"], "*", "t")
    with pytest.raises(ConfigError, match="--token: missing"):
        main._producer("hub", None, "*", "*", "auto", None)
    with pytest.raises(ConfigError, match="--protocol"):
        main._producer("hub", "t", "*", "*", "v3", None)


def test_a_bot_is_found_or_named() -> None:
    assert main._bot_class("consumer.errors:ConfigError") is ConfigError
    for name, text in (
        ("nothing", "expected module:Class"),
        (".relative:Bot", "expected module:Class"),
        ("no_such_module:Bot", "there is no module no_such_module"),
        ("consumer.errors:Bot", "consumer.errors has no Bot"),
        ("consumer.errors:__doc__", "expected a class"),
    ):
        with pytest.raises(ConfigError, match=text):
            main._bot_class(name)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def x(:", "SyntaxError: invalid syntax (mybot.py:1)"),
        ("\nraise RuntimeError('boom')", "RuntimeError: boom (mybot.py:2)"),
        ("from json import nonsense", "ImportError: cannot import name 'nonsense'"),
        ("import sys; sys.exit(4)", "SystemExit: 4 (mybot.py:1)"),
        ("import no_such_module_", "there is no module no_such_module_"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    source: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mybot.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "mybot", raising=False)
    with pytest.raises(ConfigError) as caught:
        main._bot_class("mybot:Bot")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIRE")}
    done = subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env=env,
        cwd=cwd,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["tail", "ftp://x", "--token", "s3cret"], "URL: expected ws://host:port"),
        (["tail", "ws://x:1"], "--token: missing"),
        (["run", "--config", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["run", "--config", "off.json"], "external_message_consumer.enabled: expected true"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], text: str) -> None:
    (tmp_path / "off.json").write_text('{"external_message_consumer": {"enabled": false, "producers": []}}')
    code, out, err = run(*arguments, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("tradewire-consumer: ")
    assert text in err
    assert err.count("\n") == 1
    assert "s3cret" not in err


LOGGING_BOT = """
import logging

class Bot:
    async def start(self, context):
        kept = logging.Handler()
        kept.emit = lambda record: print(record.name, record.levelname)
        logging.getLogger().addHandler(kept)
        for name in ("consumer.bot.book", "somebody.else"):
            for tell in (logging.getLogger(name).info, logging.getLogger(name).warning):
                tell("text")
        raise RuntimeError("enough")

    def handle(self, delivery): ...

    async def stop(self): ...
"""


def test_a_log_book_gets_more_of_ours_than_stderr(tmp_path: Path) -> None:
    producer = {"name": "p", "host": "127.0.0.1", "ws_token": "t"}
    section = {"enabled": True, "producers": [producer]}
    (tmp_path / "c.json").write_text(json.dumps({"external_message_consumer": section}))
    (tmp_path / "mybot.py").write_text(LOGGING_BOT)
    status, out, err = run("run", "--config", "c.json", "--bot", "mybot:Bot", cwd=tmp_path)
    assert status == 1
    assert out.splitlines() == [
        "consumer.bot.book INFO", "consumer.bot.book WARNING", "somebody.else WARNING",
    ]  # fmt: skip
    assert err.splitlines() == [
        "tradewire-consumer: text",
        "tradewire-consumer: text",
        "tradewire-consumer: Bot.start: RuntimeError: enough (mybot.py:12)",
    ]
