"""consumer.config."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from consumer.config import ConsumerConfig, ProducerConfig, load
from consumer.errors import ConfigError

SECRET = "s3cret-token-of-a-producer"
PRODUCER = {"name": "default", "host": "127.0.0.1", "ws_token": SECRET}


def write(tmp_path: Path, section: Any, **more: Any) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"external_message_consumer": section, **more}))
    return path


def test_freqtrades_section_with_its_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, {"enabled": True, "producers": [PRODUCER]}), {})
    assert config.enabled
    assert (config.wait_timeout, config.ping_timeout, config.sleep_time) == (15, 10, 10)
    assert (config.initial_candle_limit, config.message_size_limit) == (None, 8)
    assert not config.remove_entry_exit_signals
    (producer,) = config.producers
    assert (producer.name, producer.host, producer.port, producer.secure) == (
        "default",
        "127.0.0.1",
        8080,
        False,
    )
    assert (producer.protocol, producer.bots, producer.path) == ("auto", "*", "/api/v1/message/ws")


def test_all_keys(tmp_path: Path) -> None:
    producer = PRODUCER | {"port": 9000, "secure": True, "protocol": "v2", "path": "/x", "ca_file": "/ca.pem"}
    producer |= {"bots": ["a"], "topics": ["entry_fill"], "columns": ["close", "&-*"], "encoding": "json"}
    section = {
        "enabled": True,
        "producers": [producer],
        "wait_timeout": 300,
        "ping_timeout": 5,
        "sleep_time": 1,
    }
    section |= {"remove_entry_exit_signals": True, "initial_candle_limit": 0, "message_size_limit": 20}
    config = load(write(tmp_path, section), {})
    assert config.initial_candle_limit == 0
    assert config.message_size_bytes == 20 * 1024 * 1024
    assert config.producers[0].columns == ["close", "&-*"]


def test_comments_and_trailing_commas(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(
        '{ // mine\n "external_message_consumer": {"enabled": false, /* none */ "producers": [],},}'
    )
    assert load(path, {}).producers == ()


def test_the_rest_of_a_freqtrade_config_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, {}, timeframe="1h", trading_mode="futures", dry_run_wallet=1000)
    config = load(path, {})
    assert config.raw["dry_run_wallet"] == 1000
    assert (config.timeframe, config.candle_type) == ("1h", "futures")
    assert ConsumerConfig().candle_type is None
    assert ConsumerConfig(raw={"trading_mode": "margin"}).candle_type == "spot"


@pytest.mark.parametrize(
    ("section", "key", "expected"),
    [
        ({"producers": [{"name": "a", "ws_token": "x"}]}, "producers[0].host", "missing"),
        (
            {"producers": [PRODUCER | {"port": "8080"}]},
            "producers[0].port",
            "expected a whole number, got text",
        ),
        ({"producers": [PRODUCER | {"port": 70000}]}, "producers[0].port", "65535"),
        (
            {"producers": [PRODUCER | {"ws_token": 12345678}]},
            "producers[0].ws_token",
            "expected text in quotes",
        ),
        ({"producers": [PRODUCER | {"protocol": "v3"}]}, "producers[0].protocol", "v3"),
        ({"producers": [PRODUCER | {"host": "http://x"}]}, "producers[0].host", "without scheme"),
        ({"producers": [PRODUCER | {"ca_file": "x"}]}, "producers[0].ca_file", "secure"),
        ({"producers": [PRODUCER, PRODUCER]}, "producers[1].name", "once"),
        ({"producers": PRODUCER}, "producers", "expected a list"),
        ({"enabled": True, "producers": []}, "producers", "at least one"),
        ({"enabled": "yes"}, "enabled", "true or false"),
        ({"initial_candle_limit": 1501}, "initial_candle_limit", "1500"),
        ({"initial_candle_limit": -1}, "initial_candle_limit", "0"),
        ({"message_size_limit": 0}, "message_size_limit", "1"),
        ({"wait_timeout": -1}, "wait_timeout", "0"),
        ([], "external_message_consumer", "map"),
    ],
)
def test_an_error_names_the_key_and_what_was_expected(
    tmp_path: Path, section: Any, key: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, section), {})
    assert caught.value.key.endswith(key)
    assert expected in caught.value.expected
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.json", {})
    broken = tmp_path / "broken.json"
    broken.write_text('{\n"external_message_consumer": {"producers": [{"ws_token": ' + SECRET + "!}]}}")
    with pytest.raises(ConfigError, match="line 2 is not JSON") as caught:
        load(broken, {})
    assert SECRET not in str(caught.value)
    broken.write_text("[1]")
    with pytest.raises(ConfigError, match="object in braces"):
        load(broken, {})
    broken.write_text("{}")
    with pytest.raises(ConfigError, match="external_message_consumer: missing"):
        load(broken, {})
    broken.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(broken, {})


def test_the_environment_is_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"enabled": False, "wait_timeout": 30, "producers": [PRODUCER]})
    env = {
        "TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__ENABLED": "true",
        "TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__WAIT_TIMEOUT": "60",
        "FREQTRADE__EXTERNAL_MESSAGE_CONSUMER__WAIT_TIMEOUT": "90",
        "FREQTRADE__EXTERNAL_MESSAGE_CONSUMER__SLEEP_TIME": "3",
        "TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__PRODUCERS__0__HOST": "hub.example",
        "TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__PRODUCERS__1__NAME": "second",
        "TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__PRODUCERS__1__HOST": "b",
        "TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__PRODUCERS__1__WS_TOKEN": "12345678",
        "TRADEWIRE__PUBLISH__TOKEN": "007",
        "TRADEWIRE__MAX_OPEN_TRADES": "2",
        "TRADEWIRE_TOKEN": "not one of these",
        "HOME": "/",
    }
    config = load(path, env)
    assert config.enabled
    assert (config.wait_timeout, config.sleep_time) == (60, 3)
    assert [p.host for p in config.producers] == ["hub.example", "b"]
    assert config.producers[1].ws_token == "12345678"
    assert config.raw["publish"] == {"token": "007"}
    assert config.raw["max_open_trades"] == 2


def test_a_list_as_json(tmp_path: Path) -> None:
    env = {"TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__PRODUCERS": json.dumps([PRODUCER])}
    assert load(write(tmp_path, {}), env).producers[0].ws_token == SECRET


def test_secrets_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("1234\n")
    prefix = "TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__PRODUCERS__0__"
    path = write(tmp_path, {"producers": [PRODUCER | {"secure": True}]})
    config = load(path, {prefix + "WS_TOKEN_FILE": str(secret), prefix + "CA_FILE": "/ca.pem"})
    assert (config.producers[0].ws_token, config.producers[0].ca_file) == ("1234", "/ca.pem")
    with pytest.raises(ConfigError, match="WS_TOKEN_FILE: the file it names cannot be read"):
        load(path, {prefix + "WS_TOKEN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("name", ["PRODUCERS__7__HOST", "PRODUCERS__X__HOST", "ENABLED__X"])
def test_variables_that_lead_nowhere(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, {"enabled": False, "producers": [PRODUCER]})
    with pytest.raises(ConfigError, match="environment"):
        load(path, {f"TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__{name}": "1"})


def test_unknown_keys_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(write(tmp_path, {"wait_timeot": 3, "producers": [PRODUCER | {"ws_tokn": SECRET}]}), {})
    assert (
        "external_message_consumer.wait_timeot: not a key of this section, ignored; did you mean wait_timeout?"
        in caplog.text
    )
    assert "did you mean ws_token?" in caplog.text
    assert SECRET not in caplog.text


def test_no_secret_in_a_repr(tmp_path: Path) -> None:
    from rich.pretty import pretty_repr

    config = load(write(tmp_path, {"producers": [PRODUCER]}, api_server={"password": SECRET}), {})
    for shown in (repr(config), str(config), repr(config.producers), f"{config.producers[0]}"):
        assert SECRET not in shown
        assert "default" in shown
    assert SECRET not in pretty_repr(config.producers[0])


def test_made_in_code() -> None:
    producer = ProducerConfig(name="a", host="b", ws_token="c")
    assert ConsumerConfig(producers=(producer,)).producers[0].port == 8080


@pytest.mark.parametrize("name", ["", "x" * 65, 3, "a\x1bb"])
def test_a_name_that_no_bot_can_have_is_one_line(name: object) -> None:
    with pytest.raises(ConfigError, match=r"^bot_name: expected"):
        _ = ConsumerConfig(raw={"bot_name": name}).bot_name


def test_a_key_of_publish_that_does_not_exist_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish = {"host": "h", "token": "t" * 40, "attch": False}
    config = load(write(tmp_path, {"producers": [PRODUCER]}, publish=publish), {})
    assert config.publish is not None
    assert config.publish.attach
    assert [record.getMessage() for record in caplog.records] == [
        "publish.attch: not a key of this section, ignored; did you mean attach?"
    ]
