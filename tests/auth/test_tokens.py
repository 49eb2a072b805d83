"""hub.auth.tokens: what each token stands for, and that every one is compared."""

from __future__ import annotations

import hmac

import pytest

from hub.auth.tokens import TokenTable
from hub.config import BotToken, PublisherEntry, Secret
from hub.protocol.errors import ConfigError
from hub.protocol.principal import EVERY_BOT

from .credentials import ALPHA, ANY_PUBLISHER, PUBLISHER, READER, SECOND_READER, config


def test_a_plain_token_reads_all_bots_and_publishes_none() -> None:
    principal = TokenTable(config()).find(READER.encode())
    assert principal is not None
    assert (principal.name, principal.reads, principal.publishes) == ("ws_token[0]", EVERY_BOT, frozenset())
    assert (principal.legacy_bot, principal.expires_ms) == ("main", None)


def test_each_token_of_a_list_counts() -> None:
    principal = TokenTable(config()).find(SECOND_READER.encode())
    assert principal is not None
    assert principal.name == "ws_token[1]"


def test_a_mapped_token_sees_its_bot_only() -> None:
    principal = TokenTable(config()).find(ALPHA.encode())
    assert principal is not None
    assert (principal.reads, principal.publishes, principal.legacy_bot) == ({"alpha"}, frozenset(), "alpha")
    assert not principal.may_read("main")


def test_a_publisher_publishes_and_reads_its_bots() -> None:
    principal = TokenTable(config()).find(PUBLISHER.encode())
    assert principal is not None
    assert (principal.name, principal.publishes, principal.reads) == ("pub", {"alpha"}, {"alpha"})
    assert principal.may_publish("alpha")
    assert not principal.may_publish("main")
    assert principal.legacy_bot == "alpha"


def test_a_publisher_of_every_bot_sees_the_default_bot() -> None:
    principal = TokenTable(config()).find(ANY_PUBLISHER.encode())
    assert principal is not None
    assert principal.may_publish("whatever")
    assert (principal.reads, principal.legacy_bot) == (EVERY_BOT, "main")


def test_a_publisher_of_several_bots_never_sees_a_default_bot_that_it_may_not_read() -> None:
    publisher = PublisherEntry(name="p", token=Secret("p" * 40), bots=frozenset({"alpha", "beta"}))
    principal = TokenTable(config(publishers=(publisher,))).find(b"p" * 40)
    assert principal is not None
    assert principal.legacy_bot is None


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"wrong",
        READER[:-1].encode(),
        f"{READER} ".encode(),
        "tökèn".encode(),
        b"\xff\x00",
        READER.upper().encode(),
    ],
)
def test_anything_else_is_nobody(token: bytes) -> None:
    assert TokenTable(config()).find(token) is None


def test_empty_tokens_let_nobody_in() -> None:
    table = TokenTable(config(server={"ws_token": (Secret(""),)}))
    assert table.find(b"") is None


def test_a_token_may_have_any_characters() -> None:
    table = TokenTable(config(server={"ws_token": (Secret("tökèn \ud800"),)}))
    assert table.find("tökèn \ud800".encode("utf-8", "surrogatepass")) is not None


def test_every_token_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TokenTable(config())
    compared = []
    real = hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return real(a, b)

    monkeypatch.setattr("hub.auth.tokens.hmac.compare_digest", counting)
    for token in (READER, ANY_PUBLISHER, "nobody"):
        compared.clear()
        table.find(token.encode())
        assert len(compared) == 5


@pytest.mark.parametrize(
    "hub",
    [
        {"tokens": (BotToken(name="a", token=Secret(READER), bot="alpha"),)},
        {"publishers": (PublisherEntry(name="p", token=Secret(READER), bots=frozenset({"alpha"})),)},
        {"publishers": (PublisherEntry(name="p", token=Secret(ALPHA), bots=frozenset({"alpha"})),)},
    ],
)
def test_a_token_in_two_roles_is_a_config_error_without_the_token(hub: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenTable(config(**hub))
    assert "expected a token of its own for" in str(caught.value)
    assert "0123456789" not in str(caught.value)


def test_the_same_plain_token_twice_is_one() -> None:
    table = TokenTable(config(server={"ws_token": (Secret(READER), Secret(READER))}))
    principal = table.find(READER.encode())
    assert principal is not None
    assert principal.name == "ws_token[0]"
