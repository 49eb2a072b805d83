"""hub.auth.authenticator: handshakes, Basic and Bearer, publishers, origins."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.auth.authenticator import Authenticator, Header, authorization
from hub.auth.passwords import MalformedBasic
from hub.config import Secret
from hub.protocol.errors import ConfigError, Forbidden, HandshakeRefused
from hub.protocol.principal import EVERY_BOT, Principal

from .credentials import (
    ALPHA,
    ANY_PUBLISHER,
    JWT_KEY,
    NOW_MS,
    PUBLISHER,
    READER,
    authenticator,
    basic,
    config,
)

HOST: Header = (b"host", b"hub.example:8080")


def shake(
    query: bytes | str = b"",
    *,
    headers: list[Header] | None = None,
    offered: list[str] | None = None,
    v2: bool = False,
    by: Authenticator | None = None,
) -> Principal:
    query = query if isinstance(query, bytes) else query.encode()
    by = by or authenticator()
    return by.websocket(headers or [HOST], query, offered or [], v2=v2, client=("192.0.2.1", 5))


def refused(*args: Any, **keys: Any) -> tuple[int, str]:
    with pytest.raises(HandshakeRefused) as caught:
        shake(*args, **keys)
    text = str(caught.value)
    assert "0123456789" not in text
    assert "\n" not in text
    return caught.value.status, text


def bearer(token: str) -> list[Header]:
    return [HOST, (b"authorization", f"Bearer {token}".encode())]


def subprotocol(token: str) -> str:
    return "bearer." + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def access(by: Authenticator) -> str:
    principal = by.basic(basic().split()[1].encode())
    assert principal is not None
    return by.issue(principal)[0]


# --- freqtrade's wire


def test_a_token_in_the_query() -> None:
    assert shake(f"token={READER}").name == "ws_token[0]"
    assert shake(f"other=1&token={ALPHA}&more=2").legacy_bot == "alpha"


def test_an_access_jwt_in_the_query() -> None:
    by = authenticator()
    principal = shake(f"token={access(by)}", by=by)
    assert principal == Principal(
        name="user:Freqtrader",
        reads=EVERY_BOT,
        controls=EVERY_BOT,
        legacy_bot="main",
        expires_ms=(NOW_MS // 1000 + 900) * 1000,
    )
    assert not principal.publishes


def test_a_refresh_jwt_is_refused() -> None:
    by = authenticator()
    user = by.basic(basic().split()[1].encode())
    assert user is not None
    assert refused(f"token={by.issue(user)[1]}", by=by)[0] == 403


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"token=",
        b"token",
        b"token=wrong",
        b"token=\xff\xfe",
        b"token=%ff%00",
        b"Token=x",
        "token=tökèn".encode(),
        b"&&&=&",
        b"%74oken=x",
    ],
)
def test_no_or_a_wrong_token_is_403(query: bytes) -> None:
    assert refused(query)[0] == 403


def test_a_percent_encoded_token_is_read_by_bytes() -> None:
    by = authenticator(server={"ws_token": (Secret("tö kèn+"),)})
    for query in (b"token=t%C3%B6%20k%C3%A8n%2B", b"token=t%c3%b6+k%c3%a8n%2b", "token=tö%20kèn%2B".encode()):
        assert shake(query, by=by).name == "ws_token[0]"


def test_on_freqtrades_wire_only_the_query_counts() -> None:
    assert refused(headers=bearer(READER))[0] == 403
    assert refused(offered=[subprotocol(READER)])[0] == 403
    # A proxy in front may have its own Authorization.
    assert shake(f"token={READER}", headers=bearer("something-else")).name == "ws_token[0]"


def test_two_tokens_in_the_query_are_400() -> None:
    assert refused(f"token={READER}&token={ALPHA}")[0] == 400


# --- our wires


def test_v2_by_header() -> None:
    assert shake(headers=bearer(READER), v2=True).name == "ws_token[0]"
    assert shake(headers=bearer(PUBLISHER), v2=True).publishes == {"alpha"}
    lower = [(b"authorization", b"bearer  " + READER.encode())]
    assert shake(headers=lower, v2=True).name == "ws_token[0]"


def test_v2_by_subprotocol() -> None:
    assert shake(offered=["tradewire.v2.json", subprotocol(READER)], v2=True).name == "ws_token[0]"
    by = authenticator(server={"ws_token": (Secret("tökèn???>>>"),)})
    assert "_" in subprotocol("tökèn???>>>") or "-" in subprotocol("tökèn???>>>")
    assert shake(offered=[subprotocol("tökèn???>>>")], v2=True, by=by).name == "ws_token[0]"


def test_v2_by_jwt() -> None:
    by = authenticator()
    assert shake(headers=bearer(access(by)), v2=True, by=by).expires_ms is not None


@pytest.mark.parametrize(
    "offered", ["bearer.", "bearer.!!", "bearer.A", "bearer.\u00fc", subprotocol("wrong")]
)
def test_v2_with_a_broken_subprotocol_is_403(offered: str) -> None:
    assert refused(offered=[offered], v2=True)[0] == 403


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"\xff", b"Basic eDp5", b"Digest x"]
)
def test_v2_with_a_broken_header_is_403(value: bytes) -> None:
    assert refused(headers=[HOST, (b"authorization", value)], v2=True)[0] == 403


def test_v2_takes_no_token_in_the_query_unless_told_to() -> None:
    status, text = refused(f"token={READER}", v2=True)
    assert status == 403
    assert "allow_query_token" in text
    by = authenticator(allow_query_token=True)
    assert shake(f"token={READER}", v2=True, by=by).name == "ws_token[0]"


def test_v2_has_no_tickets_yet() -> None:
    status, text = refused("ticket=abc", v2=True)
    assert status == 403
    assert "tickets" in text


@pytest.mark.parametrize(
    ("query", "headers", "offered"),
    [
        (f"token={READER}", bearer(READER), []),
        (f"ticket=x&token={READER}", [HOST], []),
        ("", bearer(READER), [subprotocol(READER)]),
        ("", [HOST], [subprotocol(READER), subprotocol(READER)]),
        ("", [*bearer(READER), (b"authorization", b"Bearer x")], []),
    ],
)
def test_v2_with_two_credentials_is_400(query: str, headers: list[Header], offered: list[str]) -> None:
    assert refused(query, headers=headers, offered=offered, v2=True)[0] == 400


# --- origins


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (b"http://hub.example:8080", b"hub.example:8080"),
        (b"https://hub.example", b"hub.example"),
        (b"https://hub.example", b"hub.example:443"),
        (b"http://hub.example:80", b"hub.example"),
        (b"http://[::1]:8080", b"[::1]:8080"),
        (b"HTTP://Hub.Example:8080", b"hub.EXAMPLE:8080"),
    ],
)
def test_the_hosts_own_origin(origin: bytes, host: bytes) -> None:
    assert shake(f"token={READER}", headers=[(b"Host", host), (b"Origin", origin)]).name == "ws_token[0]"


@pytest.mark.parametrize(
    "origin",
    [
        b"http://evil.example",
        b"http://hub.example",
        b"http://hub.example:8081",
        b"https://hub.example:8080.evil.example",
        b"http://hub.example:8080@evil.example",
        b"null",
        b"",
        b"hub.example:8080",
        b"\xff",
        b"*",
    ],
)
@pytest.mark.parametrize("v2", [False, True])
def test_a_foreign_origin_is_403_whatever_the_credential(origin: bytes, v2: bool) -> None:
    headers = [*bearer(READER), (b"origin", origin)]
    status, text = refused(b"" if v2 else f"token={READER}", headers=headers, v2=v2)
    assert status == 403
    assert "Origin" in text


def test_allowed_origins_of_either_section() -> None:
    by = authenticator(
        allowed_origins=("https://a.example", "null"), server={"CORS_origins": ("https://b.example",)}
    )
    for origin in (b"https://a.example", b"https://B.example", b"null"):
        assert shake(f"token={READER}", headers=[HOST, (b"origin", origin)], by=by)
    assert refused(f"token={READER}", headers=[HOST, (b"origin", b"https://c.example")], by=by)[0] == 403


def test_every_origin_can_be_allowed() -> None:
    by = authenticator(allowed_origins=("*",))
    assert shake(f"token={READER}", headers=[HOST, (b"origin", b"https://c.example")], by=by)


def test_two_origins_or_hosts_are_refused() -> None:
    own = (b"origin", b"http://hub.example:8080")
    assert refused(f"token={READER}", headers=[HOST, own, own])[0] == 403
    assert refused(f"token={READER}", headers=[HOST, HOST, own])[0] == 403
    everyone = authenticator(allowed_origins=("*",))
    assert refused(f"token={READER}", headers=[HOST, own, own], by=everyone)[0] == 403


# --- REST


def test_basic() -> None:
    principal = authenticator().basic(basic().split()[1].encode())
    assert principal == Principal(
        name="user:Freqtrader", reads=EVERY_BOT, controls=EVERY_BOT, legacy_bot="main", expires_ms=None
    )
    assert authenticator().basic(basic("Freqtrader", "wrong").split()[1].encode()) is None
    with pytest.raises(MalformedBasic):
        authenticator().basic(b"!!!")


def test_bearer_takes_access_jwts_only() -> None:
    by = authenticator()
    principal = by.bearer(access(by).encode())
    assert principal is not None
    assert principal.name == "user:Freqtrader"
    assert by.bearer(READER.encode()) is None
    assert by.bearer(b"") is None


def test_refresh() -> None:
    by = authenticator()
    user = by.basic(basic().split()[1].encode())
    assert user is not None
    access_token, refresh_token = by.issue(user)
    renewed = by.refresh(refresh_token.encode())
    assert renewed is not None
    assert by.bearer(renewed.encode()) is not None
    assert by.refresh(access_token.encode()) is None
    assert by.refresh(b"") is None


def test_a_token_ends_with_the_clock() -> None:
    now = NOW_MS
    by = Authenticator(config(), lambda: now)
    token = access(by).encode()
    now += 15 * 60 * 1000
    assert by.bearer(token) is None


def test_only_users_control_bots() -> None:
    by = authenticator()
    assert shake(f"token={access(by)}", by=by).may_control("any")
    assert not any(shake(f"token={token}").controls for token in (READER, ALPHA, PUBLISHER, ANY_PUBLISHER))


def test_publishers() -> None:
    by = authenticator()
    named = by.publisher(bearer(PUBLISHER))
    assert named is not None
    assert named.publishes == {"alpha"}
    everyone = by.publisher(bearer(ANY_PUBLISHER))
    assert everyone is not None
    assert everyone.may_publish("any")
    for headers in ([HOST], bearer("wrong"), [(b"authorization", basic().encode())], bearer(PUBLISHER) * 2):
        assert by.publisher(headers) is None


@pytest.mark.parametrize("token", [READER, ALPHA, "jwt"])
def test_reading_is_not_publishing(token: str) -> None:
    by = authenticator()
    with pytest.raises(Forbidden, match="may not publish"):
        by.publisher(bearer(access(by) if token == "jwt" else token))


def test_authorization() -> None:
    assert authorization([(b"Authorization", b"  BEARER   abc  ")]) == (b"bearer", b"abc")
    assert authorization([]) == (b"", b"")
    assert authorization([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")]) == (b"", b"")


def test_an_authenticator_shows_no_secret() -> None:
    by = authenticator()
    assert not any(s in repr(by) + str(vars(by)) for s in (READER, JWT_KEY))


def test_a_key_that_cannot_be_one_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="jwt_secret_key"):
        authenticator(server={"jwt_secret_key": Secret("")})


# --- whatever a client sends

NAMES = st.sampled_from([b"authorization", b"origin", b"host", b"Origin", b"x"])
VALUES = st.binary(max_size=30) | st.sampled_from(
    [
        f"Bearer {READER}".encode(),
        b"Bearer",
        b"null",
        b"http://hub.example:8080",
        b"hub.example:8080",
        b"http://[::1]",
    ]
)
QUERIES = st.binary(max_size=40) | st.binary(max_size=20).map(lambda value: b"token=" + value)
OFFERS = st.text(max_size=20) | st.text(max_size=20).map(lambda text: f"bearer.{text}")


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4), QUERIES, st.lists(OFFERS, max_size=3), st.booleans())
def test_a_handshake_ends_in_a_principal_or_a_refusal(
    headers: list[Header], query: bytes, offered: list[str], v2: bool
) -> None:
    try:
        outcome: str | int = AUTHENTICATOR.websocket(headers, query, offered, v2=v2).name
    except HandshakeRefused as error:
        outcome = error.status
    assert outcome in ((400, 403, "ws_token[0]") if v2 else (400, 403))


AUTHENTICATOR = authenticator()
