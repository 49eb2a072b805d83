"""hub.config: what is read, from where, what is refused and what is never said."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.config import ApiServer, Config, HubSection, Secret, Upstream, describe, is_loopback, load
from hub.protocol.errors import ConfigError

SEED = (
    '{"enabled": true, "listen_ip_address": "127.0.0.1", "listen_port": 8080, "verbosity": "error", '
    '"enable_openapi": false, "jwt_secret_key": "somethingrandom", "CORS_origins": [], '
    '"username": "Freqtrader", "password": "SuperSecret1!", "ws_token": "sercet_Ws_t0ken"}'
)
STRONG: dict[str, Any] = {
    "username": "me",
    "password": "canary-password-1",
    "jwt_secret_key": "canary-jwt-0123456789abcdefghijklmnop",
    "ws_token": "canary-ws-0123456789abcdefghijklmnopq",
}
CANARIES = [v for k, v in STRONG.items() if k != "username"]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


class Files:
    """Writes configurations and loads them with a home of their own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "config.json"
        self.env = {"HOME": str(directory / "home")}

    def load(self, document: object, env: Mapping[str, str] | None = None) -> Config:
        text = document if isinstance(document, str) else json.dumps(document)
        self.path.write_text(text)
        return load(self.path, {**self.env, **(env or {})})

    def api(self, **keys: Any) -> Config:
        return self.load({"api_server": {**STRONG, **keys}})

    def hub(self, **keys: Any) -> Config:
        return self.load({"api_server": STRONG, "hub": keys})

    def refused(self, document: object, env: Mapping[str, str] | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(document, env)
        text = str(caught.value)
        assert "\n" not in text
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return text

    def refused_hub(self, **keys: Any) -> str:
        return self.refused({"api_server": STRONG, "hub": keys})

    def refused_api(self, **keys: Any) -> str:
        return self.refused({"api_server": {**STRONG, **keys}})


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# --- the seed and freqtrade's files


def test_the_seed_starts_on_loopback_with_one_warning(files: Files) -> None:
    config = files.load(f'{{"api_server": {SEED}}}')
    assert len(config.warnings) == 1
    assert all(key in config.warnings[0] for key in ("jwt_secret_key", "password", "ws_token"))
    assert not any(s in config.warnings[0] for s in ("SuperSecret1!", "sercet_Ws_t0ken", "somethingrandom"))
    assert config.api_server.username == "Freqtrader"
    assert config.api_server.listen_port == 8080
    assert config.api_server.ws_token[0].reveal() == "sercet_Ws_t0ken"
    assert config.generated == ()


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.4", "::"])
def test_the_seed_is_refused_off_loopback(files: Files, address: str) -> None:
    document = {"api_server": {**json.loads(SEED), "listen_ip_address": address}}
    assert files.refused(document).startswith(
        "api_server.jwt_secret_key: expected a secret of at least 32 bytes"
    )


def test_a_whole_freqtrade_configuration_with_comments_and_trailing_commas(files: Files) -> None:
    config = files.load(
        """// freqtrade's file
        {
            "max_open_trades": 3, /* not ours */
            "exchange": {"name": "binance", "key": "k", },
            "api_server": {
                "enabled": true,
                "listen_port": 8081, // a comment
                "ws_token": ["canary-ws-0123456789abcdefghijklmnopq", "canary-w2-0123456789abcdefghijklmnopq",],
                "password": "canary-password-1", "username": "me",
                "jwt_secret_key": "canary-jwt-0123456789abcdefghijklmnop",
            },
        }"""
    )
    assert config.api_server.listen_port == 8081
    assert [len(t) for t in config.api_server.ws_token] == [37, 37]
    assert config.warnings == ()


def test_a_byte_order_mark_is_no_error(files: Files) -> None:
    assert files.load("\ufeff{}").api_server.listen_port == 8080


def test_defaults(files: Files) -> None:
    config = files.hub()
    assert config.api_server.enabled is True
    assert (config.api_server.listen_ip_address, config.api_server.verbosity) == ("127.0.0.1", "error")
    assert config.hub.limits == config.hub.limits.__class__()
    assert (config.hub.limits.message, config.hub.limits.requests_per_s) == (1_048_576, 50)
    assert config.hub.memory.candles == 1500
    assert config.hub.slow.grace_s == 30.0
    assert (config.hub.heartbeat_ms, config.hub.pong_timeout_ms, config.hub.drain_s) == (15_000, 10_000, 10.0)
    assert config.default_bot == "default"


# --- errors of the file


def test_a_missing_file_is_one_line(tmp_path: Path, home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json: no such file"):
        load(tmp_path / "nowhere.json", home)


def test_a_directory_is_one_line(tmp_path: Path, home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, home)


def test_not_utf8_is_one_line(files: Files) -> None:
    files.path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match="expected UTF-8"):
        load(files.path, files.env)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a": 1,,}', ":1:10: not valid JSON: unexpected character"),
        ('{\n"api_server": {"ws_token": canary}}', ":2:28: not valid JSON: unexpected character"),
        ('{"api_server": {"ws_token": "canary', ":1:36: not valid JSON: the file ends too early"),
        ("", ":1:1: not valid JSON: the file ends too early"),
    ],
)
def test_bad_json_names_file_line_and_column_and_nothing_of_the_file(
    files: Files, text: str, where: str
) -> None:
    said = files.refused(text)
    assert said == f"{files.path}{where}"


def test_nested_too_deeply(files: Files) -> None:
    assert "nested too deeply" in files.refused("[" * 100_000)


@pytest.mark.parametrize(("text", "what"), [("[]", "a list"), ('"x"', "text"), ("null", "null")])
def test_the_document_is_a_map(files: Files, text: str, what: str) -> None:
    assert files.refused(text).endswith(f"expected a map of sections, got {what}")


def test_a_huge_file_is_refused(files: Files) -> None:
    assert "expected at most" in files.refused(" " * (4 * 1024 * 1024) + "{}")


@pytest.mark.parametrize("section", ["api_server", "hub"])
def test_a_section_is_a_map(files: Files, section: str) -> None:
    assert files.refused({section: [1]}) == f"{section}: expected a map, got a list"


# --- errors of keys


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("listen_port", "80a", 'expected a whole number from 1 to 65535 (0: any free port), got "80a"'),
        ("listen_port", True, "expected a whole number from 1 to 65535 (0: any free port), got true"),
        ("listen_port", 65536, "expected a whole number from 1 to 65535 (0: any free port), got 65536"),
        ("listen_port", 80.5, "expected a whole number from 1 to 65535 (0: any free port), got 80.5"),
        ("enabled", "yes", 'expected true or false, got "yes"'),
        ("enabled", 1, "expected true or false, got 1"),
        ("verbosity", "debug", 'expected "error" or "info", got "debug"'),
        ("listen_ip_address", "example.org", 'expected an IP address or localhost, got "example.org"'),
        ("listen_ip_address", 1, "expected an IP address or localhost, got 1"),
        ("CORS_origins", "http://x", 'expected a list of origins, got "http://x"'),
        ("username", "a:b", "expected text in quotes without a colon, got text"),
    ],
)
def test_an_error_names_the_key_and_what_was_expected(files: Files, key: str, value: Any, said: str) -> None:
    assert files.refused_api(**{key: value}) == f"api_server.{key}: {said}"


@pytest.mark.parametrize("key", ["password", "jwt_secret_key", "ws_token"])
@pytest.mark.parametrize("value", [123456789, 1.5, True, None, {"canary": 1}])
def test_a_secret_is_text_in_quotes_and_its_value_is_never_echoed(files: Files, key: str, value: Any) -> None:
    said = files.refused_api(**{key: value})
    assert said.startswith(f"api_server.{key}: expected text in quotes")
    assert "canary" not in said
    assert "123456789" not in said


def test_each_token_of_a_list_is_checked(files: Files) -> None:
    said = files.refused_api(ws_token=["canary-ws-0123456789abcdefghijklmnopq", 5])
    assert said == "api_server.ws_token[1]: expected text in quotes, got a number"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"limits": {"connections": 0}},
            "hub.limits.connections: expected a whole number from 1 to 10000000, got 0",
        ),
        ({"limits": 3}, "hub.limits: expected a map, got a number"),
        (
            {"trusted_proxies": ["example.org"]},
            'hub.trusted_proxies[0]: expected an IP address or a network such as 10.0.0.0/8, got "example.org"',
        ),
        (
            {"trusted_proxies": "10.0.0.1"},
            'hub.trusted_proxies: expected a list of IP addresses and networks, got "10.0.0.1"',
        ),
        (
            {"throttle": {"per_minute": 0}},
            "hub.throttle.per_minute: expected a whole number from 1 to 10000000, got 0",
        ),
        ({"slow": {"grace_s": "x"}}, 'hub.slow.grace_s: expected a number from 0 to 3600, got "x"'),
        ({"drain_s": -1}, "hub.drain_s: expected a number from 0 to 3600, got -1"),
        ({"heartbeat_ms": 1}, "hub.heartbeat_ms: expected a whole number from 10 to 3600000, got 1"),
        (
            {"default_bot": ""},
            "hub.default_bot: expected a name of 1 to 64 bytes (name: expected 1 to 64 bytes, got 0)",
        ),
        (
            {"allowed_origins": ["example.org"]},
            'hub.allowed_origins[0]: expected an origin such as https://example.org:8443, got "example.org"',
        ),
        (
            {"allowed_origins": ["http://x/path"]},
            (
                "hub.allowed_origins[0]: expected an origin such as "
                'https://example.org:8443, got "http://x/path"'
            ),
        ),
        ({"tokens": 1}, "hub.tokens: expected a map of ws_token to bot, or a list of {name, token, bot}"),
        ({"publishers": [{"name": "p", "bots": "*"}]}, "hub.publishers[0].token: expected a value, got none"),
        (
            {"publishers": [{"name": "p", "token": "t", "bots": []}]},
            'hub.publishers[0].bots: expected "*" or a list of names of bots, got a list',
        ),
        ({"publishers": {}}, "hub.publishers: expected a list, got a map"),
        ({"publishers": [5]}, "hub.publishers[0]: expected a map, got a number"),
        (
            {"upstreams": [{"name": "a", "host": "http://h", "ws_token": "t"}]},
            (
                "hub.upstreams[0].host: expected a host "
                'name or an IP address without scheme, port or path, got "http://h"'
            ),
        ),
        (
            {"upstreams": [{"name": "a", "host": "h", "ws_token": "t", "port": 0}]},
            "hub.upstreams[0].port: expected a whole number from 1 to 65535, got 0",
        ),
        (
            {"upstreams": [{"name": "a", "host": "h", "ws_token": ""}]},
            "hub.upstreams[0].ws_token: expected a secret, got an empty text",
        ),
        (
            {"upstreams": [{"name": "a", "host": "h", "ws_token": "t", "username": "u"}]},
            "hub.upstreams[0].password: expected a value beside username, got none",
        ),
        (
            {"upstreams": [{"name": "a", "host": "h", "ws_token": "t", "password": "p"}]},
            "hub.upstreams[0].username: expected a value beside password, got none",
        ),
        (
            {"upstreams": [{"name": "a", "host": "h", "ws_token": "t", "username": "u", "password": 1}]},
            "hub.upstreams[0].password: expected text in quotes, got a number",
        ),
        (
            {"upstreams": [{"name": "a", "host": "h", "ws_token": "t", "rest_timeout_s": 0}]},
            "hub.upstreams[0].rest_timeout_s: expected a number from 0.1 to 300, got 0",
        ),
        (
            {"upstreams": [{"name": "a", "host": "h", "ws_token": "t", "reconcile": True}]},
            'hub.upstreams[0].reconcile: expected "off" or "report" or "publish", got true',
        ),
        (
            {"upstreams": [{"name": "a", "host": "h", "ws_token": "t", "reconcile": "publish"}]},
            "hub.upstreams[0].reconcile: expected username and password beside it: it asks the bot's REST",
        ),
        ({"bots": {"a": {"stoploss": "x"}}}, "hub.bots.a.stoploss: expected `float | null`, got `str`"),
        ({"linger_ms": 5}, "hub.linger_ms: expected a map of topics, got a number"),
        ({"linger_ms": {"status": 51}}, "hub.linger_ms.status: expected ms from 0 to 50, got 51"),
        ({"linger_ms": {"status": True}}, "hub.linger_ms.status: expected ms from 0 to 50, got true"),
        ({"bots": {"a": 1}}, "hub.bots.a: expected a map of show_config's fields, got a number"),
        ({"bots": []}, "hub.bots: expected a map of bots, got a list"),
        ({"state_dir": ""}, 'hub.state_dir: expected a directory, got ""'),
    ],
)
def test_errors_of_the_hub_section(files: Files, keys: dict[str, Any], said: str) -> None:
    assert files.refused_hub(**keys) == said


def test_not_a_number_is_not_in_a_range(files: Files) -> None:
    assert "hub.drain_s: expected a number" in files.refused('{"hub": {"drain_s": NaN}}')


def test_a_long_value_is_cut_in_the_error(files: Files) -> None:
    assert len(files.refused_api(listen_ip_address="x" * 5000)) < 200


@pytest.mark.parametrize(
    ("keys", "comes_to"),
    [
        ({}, "off"),
        ({"reconcile": "off"}, "off"),
        ({"username": "u", "password": "p"}, "report"),
        ({"username": "u", "password": "p", "reconcile": None}, "report"),
        ({"username": "u", "password": "p", "reconcile": "off"}, "off"),
        ({"username": "u", "password": "p", "reconcile": "publish"}, "publish"),
    ],
)
def test_an_upstream_is_reconciled_where_its_rest_may_be_used(
    files: Files, keys: dict[str, Any], comes_to: str
) -> None:
    (upstream,) = files.hub(upstreams=[{"name": "a", "host": "h", "ws_token": "t", **keys}]).hub.upstreams
    assert upstream.reconciles == comes_to


@pytest.mark.parametrize("key", ["tokens", "publishers", "upstreams"])
def test_names_are_unique(files: Files, key: str) -> None:
    common = {"name": "twice", "token": "x" * 40, "bot": "a", "bots": "*", "host": "h", "ws_token": "t"}
    wanted = {
        "tokens": ("name", "token", "bot"),
        "publishers": ("name", "token", "bots"),
        "upstreams": ("name", "host", "ws_token"),
    }[key]
    first = {k: common[k] for k in wanted}
    second = {**first, "token": "y" * 40} if "token" in first else first
    assert files.refused_hub(**{key: [first, second]}) == (
        f'hub.{key}[1].name: expected each name once, got "twice" again'
    )


# --- unknown keys


def test_unknown_keys_warn_with_a_guess(files: Files) -> None:
    config = files.load(
        {
            "api_server": {**STRONG, "listen_prot": 1, "zzz": 1},
            "hub": {"limits": {"conections": 1}},
            "api_servr": {},
        }
    )
    assert set(config.warnings) == {
        "api_servr: unknown section, ignored; did you mean api_server?",
        "api_server.listen_prot: unknown key, ignored; did you mean listen_port?",
        "api_server.zzz: unknown key, ignored",
        "hub.limits.conections: unknown key, ignored; did you mean connections?",
    }


def test_an_unknown_topic_that_lingers_warns(files: Files) -> None:
    config = files.load({"hub": {"linger_ms": {"entry_fil": 5, "status": 2.5}}})
    assert config.hub.linger_ms == {"entry_fil": 5.0, "status": 2.5}
    assert any(
        "hub.linger_ms.entry_fil: no topic that this version knows; did you mean entry_fill?" in line
        for line in config.warnings
    )


def test_an_unknown_field_of_show_config_warns(files: Files) -> None:
    config = files.hub(bots={"a": {"stratgy": "X", "max_open_trades": 3}})
    assert config.warnings == ("hub.bots.a.stratgy: unknown key, ignored; did you mean strategy?",)
    assert config.hub.bots == {"a": {"max_open_trades": 3.0}}


def test_files_that_freqtrade_would_add_are_told_of(files: Files) -> None:
    assert files.load({"add_config_files": ["x.json"]}).warnings == (
        "add_config_files: not followed; give the file that holds api_server",
    )


def test_trusted_proxies(files: Files) -> None:
    config = files.hub(trusted_proxies=["127.0.0.1", "10.0.0.0/8", "FD00::/8"])
    assert config.hub.trusted_proxies == ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


def test_an_origin_with_a_slash_is_mended_with_a_warning(files: Files) -> None:
    config = files.api(CORS_origins=["https://UI.example/", "null", "*"])
    assert config.api_server.CORS_origins == ("https://ui.example", "null", "*")
    assert config.warnings == (
        "api_server.CORS_origins[0]: a browser sends no slash at the end of an origin; read as https://UI.example",
    )


# --- tokens, publishers, upstreams


def test_tokens_as_a_map_and_as_a_list(files: Files) -> None:
    as_map = files.hub(tokens={"a" * 40: "alpha", "b" * 40: "beta"})
    assert [(t.name, t.token.reveal()[0], t.bot) for t in as_map.hub.tokens] == [
        ("token-1", "a", "alpha"),
        ("token-2", "b", "beta"),
    ]
    as_list = files.hub(
        tokens=[{"token": "a" * 40, "bot": "alpha"}, {"name": "n", "token": "b" * 40, "bot": "beta"}]
    )
    assert [(t.name, t.bot) for t in as_list.hub.tokens] == [("token-1", "alpha"), ("n", "beta")]


CANARY = "canary-0123456789abcdefghijklmnopqrstuv"


@pytest.mark.parametrize(
    "tokens",
    [
        {CANARY: ""},
        {CANARY: 5},
        {CANARY: "x" * 65},
        {"alpha": CANARY},
        {"name": "n", "token": CANARY, "bot": "b"},
        [{CANARY: "alpha"}],
        [{"token": CANARY}],
        [{"token": CANARY, "bot": "a", "oops" + CANARY: 1}],
        [{"token": {"x": CANARY}, "bot": "a"}],
        [CANARY],
        CANARY,
    ],
)
def test_a_misshapen_token_table_never_shows_a_token(files: Files, tokens: Any) -> None:
    said = files.refused_hub(tokens=tokens)
    assert said.startswith("hub.tokens")
    assert "canary" not in said


def test_publishers(files: Files) -> None:
    config = files.hub(
        publishers=[
            {"name": "one", "token": "a" * 40, "bots": ["alpha", "beta"]},
            {"name": "all", "token": "b" * 40, "bots": "*"},
        ]
    )
    assert [p.bots for p in config.hub.publishers] == [{"alpha", "beta"}, {"*"}]


def test_the_default_bot(files: Files) -> None:
    def upstream(name: str) -> dict[str, Any]:
        return {"name": name, "host": "10.0.0.1", "ws_token": "short is theirs"}

    assert files.hub(upstreams=[upstream("alpha")]).default_bot == "alpha"
    assert files.hub(upstreams=[upstream("alpha"), upstream("beta")]).default_bot == "default"
    assert files.hub(upstreams=[upstream("alpha")], default_bot="mine").default_bot == "mine"


def test_the_tokens_of_others_are_not_judged(files: Files) -> None:
    keys = {"api_server": {**STRONG, "listen_ip_address": "0.0.0.0"}}
    hub = {"upstreams": [{"name": "a", "host": "[::1]", "ws_token": "sercet_Ws_t0ken", "secure": True}]}
    config = files.load({**keys, "hub": hub})
    assert config.warnings == ()
    assert config.hub.upstreams[0] == Upstream(
        name="a", host="::1", ws_token=Secret("sercet_Ws_t0ken"), port=8080, secure=True
    )


@pytest.mark.parametrize(
    "hub",
    [
        {"tokens": {STRONG["ws_token"]: "alpha"}},
        {"publishers": [{"name": "p", "token": STRONG["ws_token"], "bots": "*"}]},
        {
            "tokens": {"z" * 40: "alpha"},
            "publishers": [{"name": "p", "token": "z" * 40, "bots": "*"}],
        },
    ],
)
def test_a_token_has_one_role(files: Files, hub: dict[str, Any]) -> None:
    said = files.refused_hub(**hub)
    assert "expected a token of its own, got that of" in said
    assert "canary" not in said
    assert "zzz" not in said


def test_the_same_ws_token_twice_is_one(files: Files) -> None:
    assert files.api(ws_token=[STRONG["ws_token"]] * 2).warnings == ()


# --- strength


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"jwt_secret_key": "short"}, "api_server.jwt_secret_key"),
        ({"jwt_secret_key": "somethingRandomSomethingRandom123"}, "api_server.jwt_secret_key"),
        ({"ws_token": "short"}, "api_server.ws_token"),
        ({"ws_token": ["x" * 40, "short"]}, "api_server.ws_token[1]"),
        ({"password": "short"}, "api_server.password"),
        ({"password": ""}, "api_server.password"),
        ({"password": "SuperSecret1!"}, "api_server.password"),
        ({"password": "SUPERSecurePassword"}, "api_server.password"),
    ],
)
def test_weak_secrets_warn_on_loopback_and_are_refused_elsewhere(
    files: Files, keys: dict[str, Any], named: str
) -> None:
    warnings = files.api(**keys).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{named}: too short or publicly known")
    said = files.refused_api(**keys, listen_ip_address="0.0.0.0")
    assert said.startswith(f"{named}: expected ")
    assert said.endswith("since 0.0.0.0 is open to other machines")
    assert not any(secret in said for secret in ("short,", "SuperSecret", "SUPER", "somethingRandom"))


def test_weak_secrets_are_refused_behind_a_proxy_too(files: Files) -> None:
    config = {"api_server": json.loads(SEED), "hub": {"trusted_proxies": ["127.0.0.1"]}}
    assert files.refused(config).endswith("since hub.trusted_proxies lets other machines in")


def test_weak_tokens_of_the_hub_section_too(files: Files) -> None:
    hub = {"tokens": {"tiny": "alpha"}, "publishers": [{"name": "p", "token": "small", "bots": "*"}]}
    warnings = files.hub(**hub).warnings
    assert warnings[0].startswith("hub.tokens[0].token, hub.publishers[0].token: ")


def test_an_empty_ws_token_is_none_and_an_empty_jwt_key_is_refused(files: Files) -> None:
    assert files.api(ws_token="", listen_ip_address="0.0.0.0").warnings == ()
    assert (
        files.refused_api(jwt_secret_key="")
        == "api_server.jwt_secret_key: expected a secret, got an empty text"
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "example.org"])
def test_not_loopback(address: str) -> None:
    assert not is_loopback(address)


# --- the environment


def test_the_environment_goes_over_the_file(files: Files) -> None:
    config = files.load(
        {"api_server": {**STRONG, "listen_port": 1111}, "hub": {"limits": {"items": 5, "keys": 6}}},
        {
            "TRADEWIRE__API_SERVER__LISTEN_PORT": "8081",
            "TRADEWIRE__API_SERVER__CORS_ORIGINS": "https://a.example, https://b.example",
            "TRADEWIRE__API_SERVER__ENABLE_OPENAPI": "Yes",
            "TRADEWIRE__HUB__LIMITS__CONNECTIONS": "7",
            "TRADEWIRE__HUB__LIMITS__KEYS": " 8 ",
            "TRADEWIRE__HUB__DRAIN_S": "2.5",
            "TRADEWIRE__HUB__ALLOWED_ORIGINS": '["https://c.example"]',
            "TRADEWIRE__HUB__TOKENS": json.dumps({CANARY: "alpha"}),
            "TRADEWIRE__HUB__PUBLISHERS": json.dumps([{"name": "p", "token": "p" * 40, "bots": "*"}]),
        },
    )
    assert config.api_server.listen_port == 8081
    assert config.api_server.CORS_origins == ("https://a.example", "https://b.example")
    assert config.api_server.enable_openapi is True
    assert (config.hub.limits.connections, config.hub.limits.items, config.hub.limits.keys) == (7, 5, 8)
    assert config.hub.drain_s == 2.5
    assert config.hub.allowed_origins == ("https://c.example",)
    assert config.hub.tokens[0].bot == "alpha"
    assert config.hub.publishers[0].name == "p"
    assert config.warnings == ()


def test_freqtrades_variables_lie_beneath_ours(files: Files) -> None:
    env = {
        "FREQTRADE__API_SERVER__LISTEN_PORT": "8082",
        "FREQTRADE__API_SERVER__USERNAME": "theirs",
        "TRADEWIRE__API_SERVER__LISTEN_PORT": "8083",
        "FREQTRADE__EXCHANGE__KEY": "k",
        "FREQTRADE__HUB__DRAIN_S": "nothing of ours",
    }
    config = files.load({"api_server": STRONG}, env)
    assert (config.api_server.listen_port, config.api_server.username) == (8083, "theirs")
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        (
            "API_SERVER__LISTEN_PORT",
            "80a",
            'expected a whole number from 1 to 65535 (0: any free port), got "80a"',
        ),
        (
            "API_SERVER__LISTEN_PORT",
            "70000",
            "expected a whole number from 1 to 65535 (0: any free port), got 70000",
        ),
        ("API_SERVER__ENABLED", "maybe", 'expected true or false, got "maybe"'),
        ("HUB__DRAIN_S", "soon", 'expected a number from 0 to 3600, got "soon"'),
        ("HUB__DRAIN_S", "nan", 'expected a number from 0 to 3600, got "nan"'),
        ("HUB__UPSTREAMS", "[", "expected JSON"),
        ("HUB__TOKENS", "{canary", "expected JSON"),
    ],
)
def test_an_error_names_the_variable(files: Files, variable: str, text: str, said: str) -> None:
    assert (
        files.refused({"api_server": STRONG}, {f"TRADEWIRE__{variable}": text})
        == f"TRADEWIRE__{variable}: {said}"
    )


@pytest.mark.parametrize("text", ["12345", "1e5", "true", "null", "007"])
def test_secrets_of_the_environment_are_never_coerced(files: Files, text: str) -> None:
    env = {f"TRADEWIRE__API_SERVER__{key.upper()}": text for key in STRONG}
    server = files.load({}, env).api_server
    secrets = (server.password, server.jwt_secret_key, *server.ws_token)
    assert [secret.reveal() for secret in secrets] == [text] * 3
    assert server.username == text


def test_a_list_of_tokens_in_a_variable(files: Files) -> None:
    config = files.load(
        {"api_server": STRONG}, {"TRADEWIRE__API_SERVER__WS_TOKEN": json.dumps(["a" * 40, "1" * 40])}
    )
    assert [t.reveal()[0] for t in config.api_server.ws_token] == ["a", "1"]
    said = files.refused({"api_server": STRONG}, {"TRADEWIRE__API_SERVER__WS_TOKEN": "[1234567]"})
    assert said == "TRADEWIRE__API_SERVER__WS_TOKEN[0]: expected text in quotes, got a number"


def test_a_value_in_a_file_of_its_own(files: Files, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{CANARY}\n")
    env = {"TRADEWIRE__API_SERVER__WS_TOKEN_FILE": str(secret)}
    assert files.load({"api_server": STRONG}, env).api_server.ws_token[0].reveal() == CANARY
    secret.write_text("8085\r\n")
    env = {"FREQTRADE__API_SERVER__LISTEN_PORT_FILE": str(secret)}
    assert files.load({"api_server": STRONG}, env).api_server.listen_port == 8085


def test_errors_of_a_value_in_a_file_of_its_own(files: Files, tmp_path: Path) -> None:
    variable = "TRADEWIRE__API_SERVER__PASSWORD_FILE"
    missing = files.refused({}, {variable: str(tmp_path / "none")})
    assert missing == f"{variable}: cannot read {tmp_path / 'none'}: No such file or directory"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert files.refused({}, {variable: str(tmp_path / "bytes")}).startswith(
        f"{variable}: expected a file of UTF-8"
    )
    both = files.refused({}, {variable: "x", "TRADEWIRE__API_SERVER__PASSWORD": "y"})
    assert both == f"{variable}: expected this or TRADEWIRE__API_SERVER__PASSWORD, got both"


def test_unknown_variables_warn_but_those_of_the_consumer_do_not(files: Files) -> None:
    env = {
        "TRADEWIRE__API_SERVER__LISTEN_PROT": "1",
        "TRADEWIRE__API_SERVER": "1",
        "TRADEWIRE__HUB__LIMITS__CONNECTIONS__MORE": "1",
        "TRADEWIRE__HUBB__X": "1",
        "TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__ENABLED": "1",
    }
    assert set(files.load({"api_server": STRONG}, env).warnings) == {
        "TRADEWIRE__API_SERVER__LISTEN_PROT: unknown variable, ignored",
        "TRADEWIRE__API_SERVER: unknown variable, ignored",
        "TRADEWIRE__HUB__LIMITS__CONNECTIONS__MORE: unknown variable, ignored",
        "TRADEWIRE__HUBB__X: unknown section, ignored; did you mean TRADEWIRE__HUB?",
    }


def test_a_variable_inside_what_is_no_map(files: Files) -> None:
    env = {"TRADEWIRE__HUB__LIMITS__ITEMS": "3"}
    assert files.refused({"hub": {"limits": 5}}, env) == "hub.limits: expected a map, got a number"


# --- generated secrets


def test_without_a_configuration(home: dict[str, str]) -> None:
    config = load(None, home)
    server = config.api_server
    assert (server.listen_ip_address, server.listen_port, server.username) == ("127.0.0.1", 8080, "tradewire")
    assert all(len(s) >= 32 for s in (server.password, server.jwt_secret_key, *server.ws_token))
    assert len({server.password, server.jwt_secret_key, *server.ws_token}) == 3
    assert config.warnings == ()
    assert config.path is None
    assert config.state_dir == Path(home["HOME"]) / ".local/state/tradewire"
    assert config.generated == ("username", "password", "jwt_secret_key", "ws_token")
    assert load(None, home) == config


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_only_the_user_can_read_the_generated_secrets(home: dict[str, str]) -> None:
    old = os.umask(0)
    try:
        directory = load(None, home).state_dir
    finally:
        os.umask(old)
    assert directory is not None
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "secrets.json").stat().st_mode) == 0o600
    assert [p.name for p in directory.iterdir()] == ["secrets.json"]


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_secrets_that_others_may_read_are_refused(home: dict[str, str], mode: int) -> None:
    directory = load(None, home).state_dir
    assert directory is not None
    (directory / "secrets.json").chmod(mode)
    with pytest.raises(ConfigError, match=f"others may read it; expected mode 0600, got {mode:04o}"):
        load(None, home)


def test_generated_secrets_fill_only_what_is_left_out(files: Files) -> None:
    config = files.load({"api_server": {"username": "me", "ws_token": CANARY}})
    assert config.generated == ("password", "jwt_secret_key")
    assert config.api_server.username == "me"
    assert config.api_server.ws_token[0].reveal() == CANARY
    assert len(config.api_server.password) >= 32


def test_a_complete_configuration_makes_no_file(files: Files) -> None:
    config = files.api()
    assert config.state_dir is not None
    assert not config.state_dir.exists()


def test_checking_a_configuration_makes_no_file(home: dict[str, str]) -> None:
    config = load(None, home, store_secrets=False)
    assert config.state_dir is not None
    assert not config.state_dir.exists()
    assert len(config.api_server.password) >= 32


def test_where_the_state_directory_is(files: Files, tmp_path: Path) -> None:
    assert files.hub(state_dir=str(tmp_path / "s")).state_dir == tmp_path / "s"
    assert files.hub(state_dir="~/s").state_dir == Path(files.env["HOME"]) / "s"
    xdg = {"XDG_STATE_HOME": str(tmp_path / "xdg")}
    assert files.load({}, xdg).state_dir == tmp_path / "xdg" / "tradewire"
    relative = files.load({}, {"XDG_STATE_HOME": "relative"})
    assert relative.state_dir == Path(files.env["HOME"]) / ".local/state/tradewire"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"username": 1}', "\udcff"])
def test_a_broken_file_of_secrets_is_one_line(home: dict[str, str], text: str) -> None:
    directory = Path(home["HOME"]) / ".local/state/tradewire"
    directory.mkdir(parents=True)
    path = directory / "secrets.json"
    path.touch(mode=0o600)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="remove it to have a new one made"):
        load(None, home)


def test_a_state_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfigError, match=r"secrets\.json: cannot be used: Not a directory"):
        load(None, {"HOME": str(tmp_path / "home")})


def test_the_directory_of_a_ui(files: Files, tmp_path: Path) -> None:
    assert files.hub().ui_dir is None
    for directory in (tmp_path / "dist", Path(files.env["HOME"]) / "dist"):
        directory.mkdir(parents=True)
        (directory / "index.html").write_text("<title>a build</title>")
    assert files.hub(ui_dir=str(tmp_path / "dist")).ui_dir == tmp_path / "dist"
    assert files.hub(ui_dir="~/dist").ui_dir == Path(files.env["HOME"]) / "dist"
    given = {"TRADEWIRE__HUB__UI_DIR": str(tmp_path / "dist")}
    assert files.load({}, given).ui_dir == tmp_path / "dist"


def test_a_directory_without_an_index_is_no_ui(files: Files, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "index.html").write_text("outside")
    (tmp_path / "linked" / "index.html").symlink_to(tmp_path / "index.html")
    for name in ("empty", "linked", "gone", "index.html"):
        text = files.refused_hub(ui_dir=str(tmp_path / name))
        assert text.startswith("hub.ui_dir: expected a directory that holds a readable index.html, got ")
    assert files.refused_hub(ui_dir="\ud800") == "hub.ui_dir: cannot be used: UnicodeEncodeError"
    assert files.refused_hub(ui_dir="a" * 5000) == "hub.ui_dir: cannot be used: File name too long"


def test_processes_that_start_together_agree_on_the_secrets(home: dict[str, str]) -> None:
    with ThreadPoolExecutor(16) as threads:
        configs = list(threads.map(lambda _: load(None, home), range(64)))
    assert len({config.api_server.ws_token[0] for config in configs}) == 1
    directory = configs[0].state_dir
    assert directory is not None
    assert [p.name for p in directory.iterdir()] == ["secrets.json"]


# --- secrets stay secret


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("canary")
    assert "canary" not in f"{secret} {secret!r} {[secret]} {secret:}"
    assert secret.reveal() == "canary"
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode({"secret": secret})


def test_secrets_compare_by_value_and_count_bytes() -> None:
    assert Secret("ä") == Secret("ä")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert len(Secret("ä\ud800")) == 5


def test_no_text_of_a_configuration_has_a_secret(files: Files) -> None:
    hub = {
        "tokens": {CANARY: "alpha"},
        "publishers": [{"name": "p", "token": CANARY + "p", "bots": ["alpha"]}],
        "upstreams": [
            {"name": "u", "host": "h", "ws_token": CANARY + "u", "username": "me", "password": CANARY + "p"}
        ],
    }
    document = {"api_server": {**STRONG, "pasword": "canary-typo"}, "hub": hub}
    config = files.load(document)
    text = repr(config) + str(config) + describe(config) + "".join(config.warnings)
    assert "canary" not in text
    assert 'hub.tokens[0].bot = "alpha"' in text
    assert "api_server.jwt_secret_key = set (37 bytes)" in text
    assert "hub.upstreams[0].ws_token = set (40 bytes)" in text


def test_describe_tells_what_is_in_force(files: Files) -> None:
    lines = describe(files.load({"api_server": {"listen_port": 9, "password": "x"}})).splitlines()
    assert f"file = {files.path}" in lines
    assert "api_server.listen_port = 9" in lines
    assert "api_server.password = set (1 bytes)" in lines
    assert any(
        line.startswith("api_server.jwt_secret_key = set (") and line.endswith("(generated)")
        for line in lines
    )
    assert any(
        line.startswith("api_server.ws_token[0] = set (") and line.endswith("(generated)") for line in lines
    )
    assert "hub.limits.message = 1048576" in lines
    assert "bot of clients that name none = default" in lines


def test_describe_of_an_empty_secret(files: Files) -> None:
    assert "api_server.password = empty" in describe(files.api(password="")).splitlines()


def test_a_configuration_made_by_hand_needs_no_file() -> None:
    server = ApiServer(
        username="u", password=Secret("p"), jwt_secret_key=Secret("j" * 40), ws_token=(Secret("w" * 40),)
    )
    config = Config(api_server=server, hub=HubSection(default_bot="mine"))
    assert config.default_bot == "mine"
    assert "state directory = none" in describe(config)


def test_a_mapping_in_place_of_a_file(home: dict[str, str], tmp_path: Path) -> None:
    document = {
        "api_server": {**STRONG, "ws_token": Secret("w" * 40), "CORS_origins": ("http://x",)},
        "hub": {"state_dir": tmp_path, "limits": {"items": 3}},
    }
    before = copy.deepcopy(document)
    config = load(document, {**home, "TRADEWIRE__HUB__LIMITS__ITEMS": "4"})
    assert document == before
    assert config.path is None
    assert config.state_dir == tmp_path
    assert config.hub.limits.items == 4
    assert config.api_server.ws_token == (Secret("w" * 40),)


def test_an_object_in_a_mapping_is_told_by_its_type(home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r'^api_server\.listen_port: expected a whole .*, got "Secret"$'):
        load({"api_server": {**STRONG, "listen_port": Secret("canary")}}, home)
    with pytest.raises(ConfigError, match=r'^hub\.drain_s: expected a number from 0 to 3600, got "object"$'):
        load({"api_server": STRONG, "hub": {"drain_s": object()}}, home)


def test_loading_leaves_its_arguments_alone(files: Files) -> None:
    env = {**files.env, "TRADEWIRE__HUB__LIMITS__ITEMS": "3"}
    before = copy.deepcopy(env)
    files.path.write_text("{}")
    load(files.path, env)
    assert env == before


# --- whatever is written there

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "*", "a", CANARY, "::1", "http://x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "token", "bot", "bots", "host", "ws_token", "port", CANARY]), inner, max_size=4
    ),
    max_leaves=8,
)  # fmt: skip
API_KEYS = st.sampled_from([*ApiServer.__struct_fields__, "other"])
HUB_KEYS = st.sampled_from([*HubSection.__struct_fields__, "other"])


@given(st.dictionaries(API_KEYS, JSON, max_size=3), st.dictionaries(HUB_KEYS, JSON, max_size=3))
def test_anything_else_is_a_config_error_of_one_line(api: dict[str, Any], hub: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        files = Files(Path(directory))
        try:
            config = files.load({"api_server": {**STRONG, **api}, "hub": hub})
        except ConfigError as error:
            said = str(error)
            assert "\n" not in said
        else:
            said = describe(config) + "".join(config.warnings)
        for value in STRONG.values():
            assert value == "me" or value not in said


@given(JSON, st.sampled_from(["password", "jwt_secret_key", "ws_token"]))
def test_no_misshapen_secret_is_ever_said(value: Any, key: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            config = Files(Path(directory)).api(**{key: value})
            said = describe(config) + repr(config) + "".join(config.warnings)
        except ConfigError as error:
            said = str(error)
        assert CANARY not in said


def test_a_state_directory_that_cannot_be_a_name_is_one_line() -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        load({"hub": {"state_dir": "/nowhere/\ud800"}}, {})


def test_a_variable_of_a_file_in_lower_case_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("t" * 40 + "\n")
    config = load({}, {"TRADEWIRE__API_SERVER__ws_token_file": str(secret), "HOME": str(tmp_path)})
    assert config.api_server.ws_token[0].reveal() == "t" * 40
