"""hub.auth.jwt: freqtrade's tokens, and every way in which one can be wrong."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt as pyjwt
import pytest

from hub.auth.jwt import ACCESS_S, REFRESH_S, JwtKey
from hub.config import Secret
from hub.protocol.errors import ConfigError

from .credentials import JWT_KEY, NOW_MS

KEY = JwtKey(Secret(JWT_KEY))
NOW = NOW_MS // 1000
CLAIMS: dict[str, Any] = {"identity": {"u": "Freqtrader"}, "exp": NOW + 60, "iat": NOW, "type": "access"}


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(claims: dict[str, Any], *, key: str = JWT_KEY, algorithm: str = "HS256") -> bytes:
    return pyjwt.encode(claims, key, algorithm=algorithm).encode()


def test_the_claims_are_exactly_freqtrades() -> None:
    options: Any = {"verify_exp": False, "verify_iat": False}
    access = pyjwt.decode(KEY.issue_access("Freqtrader", NOW_MS), JWT_KEY, ["HS256"], options=options)
    assert access == {"identity": {"u": "Freqtrader"}, "exp": NOW + 900, "iat": NOW, "type": "access"}
    refresh = pyjwt.decode(KEY.issue_refresh("Freqtrader", NOW_MS), JWT_KEY, ["HS256"], options=options)
    assert refresh == {"identity": {"u": "Freqtrader"}, "exp": NOW + 2_592_000, "iat": NOW, "type": "refresh"}
    header = pyjwt.get_unverified_header(KEY.issue_access("x", NOW_MS))
    assert header == {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize(("kind", "lifetime_s"), [("access", ACCESS_S), ("refresh", REFRESH_S)])
def test_a_token_is_good_until_it_ends(kind: str, lifetime_s: int) -> None:
    token = getattr(KEY, f"issue_{kind}")("Freqtrader", NOW_MS).encode()
    end_ms = (NOW + lifetime_s) * 1000
    assert KEY.verify(token, kind, NOW_MS) == ("Freqtrader", end_ms)
    assert KEY.verify(token, kind, end_ms - 1) is not None
    assert KEY.verify(token, kind, end_ms) is None


def test_access_and_refresh_are_not_interchangeable() -> None:
    assert KEY.verify(KEY.issue_refresh("u", NOW_MS).encode(), "access", NOW_MS) is None
    assert KEY.verify(KEY.issue_access("u", NOW_MS).encode(), "refresh", NOW_MS) is None


def test_a_token_of_freqtrade_with_the_same_key_is_good() -> None:
    assert KEY.verify(signed(CLAIMS), "access", NOW_MS) == ("Freqtrader", (NOW + 60) * 1000)


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": 1e300},
        {"exp": NOW - 1},
        {"type": None},
        {"type": "admin"},
        {"identity": None},
        {"identity": "Freqtrader"},
        {"identity": {}},
        {"identity": {"u": ""}},
        {"identity": {"u": 5}},
        {"nbf": NOW + 30},
        {"nbf": "soon"},
        {"iat": NOW + 120},
        {"iat": "today"},
        {"iat": float("nan")},
    ],
)
def test_wrong_claims(changed: dict[str, Any]) -> None:
    claims = {k: v for k, v in {**CLAIMS, **changed}.items() if v is not None}
    payload = json.dumps(claims).encode()
    token = pyjwt.PyJWS().encode(payload, JWT_KEY, algorithm="HS256").encode()
    assert KEY.verify(token, "access", NOW_MS) is None


def test_a_clock_that_was_set_back_a_little_ends_no_token() -> None:
    assert KEY.verify(signed(CLAIMS | {"iat": NOW + 60}), "access", NOW_MS) is not None
    without = {key: value for key, value in CLAIMS.items() if key != "iat"}
    assert KEY.verify(signed(without), "access", NOW_MS) is not None


def test_another_key_is_nobody() -> None:
    assert KEY.verify(signed(CLAIMS, key="x" * 64), "access", NOW_MS) is None


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_with_the_right_key_is_nobody(algorithm: str) -> None:
    long = JwtKey(Secret(JWT_KEY * 2))
    assert long.verify(signed(CLAIMS, key=JWT_KEY * 2), "access", NOW_MS) is not None
    assert long.verify(signed(CLAIMS, key=JWT_KEY * 2, algorithm=algorithm), "access", NOW_MS) is None


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"crit": "b64"},
        {"b64": False, "crit": ["b64"]},
        {"alg": "hs256"},
        {"alg": ["HS256"]},
        {"kid": 5},
    ],
)
def test_a_header_that_asks_for_more_than_we_do_is_nobody(header: dict[str, Any]) -> None:
    head = f"{segment({'alg': 'HS256', 'typ': 'JWT'} | header)}.{segment(CLAIMS)}"
    mac = hmac.digest(JWT_KEY.encode(), head.encode(), "sha256")
    token = f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}".encode()
    assert KEY.verify(token, "access", NOW_MS) is None


def test_a_jwt_in_a_jwt_is_nobody() -> None:
    outer = pyjwt.PyJWS().encode(signed(CLAIMS), JWT_KEY, algorithm="HS256", headers={"cty": "JWT"})
    assert KEY.verify(outer.encode(), "access", NOW_MS) is None


def test_a_long_token_is_nobody_though_it_is_signed() -> None:
    token = signed(CLAIMS | {"pad": "x" * 100_000})
    assert KEY.verify(token, "access", NOW_MS) is None
    assert KEY.signed_for(token) is None


def test_whose_a_token_of_ours_is_whatever_it_is_good_for() -> None:
    assert KEY.signed_for(signed(CLAIMS | {"exp": NOW - 5})) == "Freqtrader"
    assert KEY.signed_for(KEY.issue_refresh("u", NOW_MS).encode()) == "u"
    assert KEY.signed_for(signed(CLAIMS, key="x" * 64)) is None
    assert KEY.signed_for(b"a.b.c") is None


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None])
def test_an_unsigned_token_is_nobody(algorithm: str | None) -> None:
    for signature in ("", segment({})):
        token = f"{segment({'alg': algorithm, 'typ': 'JWT'})}.{segment(CLAIMS)}.{signature}".encode()
        assert KEY.verify(token, "access", NOW_MS) is None


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b'"x"', b"\xff", b"{", b"[" * 100_000])
def test_a_signed_payload_that_is_no_claims(payload: bytes) -> None:
    token = pyjwt.PyJWS().encode(payload, JWT_KEY, algorithm="HS256").encode()
    assert KEY.verify(token, "access", NOW_MS) is None


@pytest.mark.parametrize(
    "token",
    [b"", b".", b"..", b"a.b.c", b"a.b.c.d", b"\xff\xfe", "ü.ü.ü".encode(), b"e30.e30.", b"." * 10_000],
)
def test_anything_else_is_nobody(token: bytes) -> None:
    assert KEY.verify(token, "access", NOW_MS) is None


def test_each_changed_byte_of_a_token_is_seen() -> None:
    token = bytearray(KEY.issue_access("Freqtrader", NOW_MS).encode())
    for i in range(len(token)):
        changed = bytes(token[:i]) + (b"A" if token[i] != ord("A") else b"B") + bytes(token[i + 1 :])
        assert KEY.verify(changed, "access", NOW_MS) is None


def test_a_short_key_works_without_a_warning() -> None:
    # Warnings are errors here, and PyJWT has one for keys like the seed's.
    key = JwtKey(Secret("somethingrandom"))
    assert key.verify(key.issue_access("u", NOW_MS).encode(), "access", NOW_MS) is not None


@pytest.mark.parametrize(
    "secret",
    ["", "-----BEGIN PUBLIC KEY-----\nMFw=\n-----END PUBLIC KEY-----", '{"kty": "oct", "k": "AAAA"}'],
)
def test_what_cannot_be_a_key_is_a_config_error(secret: str) -> None:
    with pytest.raises(ConfigError, match=r"^api_server\.jwt_secret_key: expected a secret text"):
        JwtKey(Secret(secret))


def test_a_key_may_have_any_characters() -> None:
    key = JwtKey(Secret("schlüssel \ud800"))
    assert key.verify(key.issue_access("jö", NOW_MS).encode(), "access", NOW_MS) is not None
