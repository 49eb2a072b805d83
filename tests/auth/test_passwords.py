"""hub.auth.passwords: HTTP Basic."""

from __future__ import annotations

import base64

import pytest

from hub.auth.passwords import MalformedBasic, PasswordCheck
from hub.config import Secret


def encoded(text: str, charset: str = "utf-8") -> bytes:
    return base64.b64encode(text.encode(charset))


def test_the_right_password() -> None:
    check = PasswordCheck("me", Secret("p:a:ss"))
    assert check(encoded("me:p:a:ss"))


@pytest.mark.parametrize("text", ["me:", ":", "me:p:a:s", "me:p:a:sss", "ME:p:a:ss", "m:ep:a:ss", ":p:a:ss"])
def test_a_wrong_one(text: str) -> None:
    assert not PasswordCheck("me", Secret("p:a:ss"))(encoded(text))


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_charsets_of_clients(charset: str) -> None:
    assert PasswordCheck("jö", Secret("pässwörd"))(encoded("jö:pässwörd", charset))


def test_a_password_beyond_latin_1() -> None:
    assert PasswordCheck("me", Secret("пароль"))(encoded("me:пароль"))


def test_an_empty_password_is_only_matched_by_an_empty_one() -> None:
    check = PasswordCheck("me", Secret(""))
    assert check(encoded("me:"))
    assert not check(encoded("me:x"))


@pytest.mark.parametrize("given", [b"", b"!!!", b"bWU", encoded("no colon"), b"\xff", b"bWU6 cGFzcw=="])
def test_malformed(given: bytes) -> None:
    with pytest.raises(MalformedBasic):
        PasswordCheck("me", Secret("pass"))(given)
