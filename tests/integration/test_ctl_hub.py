"""RestClient and the command line against a whole hub."""

from __future__ import annotations

import json
import sys

import pytest

from consumer import BotAPI, RestClient
from consumer.__main__ import main
from consumer.errors import BotRefused, Unauthorized
from hub.server import Hub

from .conftest import CONFIG

API = CONFIG["api_server"]


def client(hub: Hub, **more: str) -> RestClient:
    given = {"username": API["username"], "password": API["password"]} | more
    return RestClient(hub.url, **given)  # type: ignore[arg-type]


def test_a_hub_is_asked(hub: Hub) -> None:
    hub.publish("whitelist", ["BTC/USDT", "ETH/USDT"], bot="alpha").result(10)
    with client(hub) as asking:
        asking.ping()
        assert asking.ask(BotAPI.show_config).bot_name == "alpha"
        assert asking.ask(BotAPI.whitelist).whitelist == ["BTC/USDT", "ETH/USDT"]
        with pytest.raises(BotRefused, match="bot alpha is not reachable over REST"):
            asking.ask(BotAPI.status)
    with client(hub, password="wrong") as asking, pytest.raises(Unauthorized):
        asking.ask(BotAPI.version)


def test_the_command_line_asks_a_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRADEWIRE_USER", API["username"])
    monkeypatch.setenv("TRADEWIRE_PASSWORD", API["password"])
    monkeypatch.setattr(sys, "argv", ["tradewire-consumer", "ctl", "--url", hub.url, "show_config", "--json"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert json.loads(capsys.readouterr().out)["bot_name"] == "alpha"
