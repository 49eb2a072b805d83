"""hub.auth.redact: no log line has a credential."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from hub.auth.redact import Redaction, install, secrets_of
from hub.config import Secret, Upstream

from .credentials import ALPHA, JWT_KEY, PASSWORD, PUBLISHER, READER, config

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0eXBlIjoiYWNjZXNzIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET /api/v1/message/ws?token=canary HTTP/1.1", "GET /api/v1/message/ws?token=*** HTTP/1.1"),
        ("/ws?a=1&token=canary%20x&b=2", "/ws?a=1&token=***&b=2"),
        ("/ws?TOKEN=canary", "/ws?TOKEN=***"),
        ("/ws?ticket=canary", "/ws?ticket=***"),
        ("ws_token=canary access_token=canary", "ws_token=*** access_token=***"),
        ("next=%2Fws%3Ftoken%3Dcanary", "next=%2Fws%3Ftoken%3D***"),
        ("Authorization: Bearer canary", "Authorization: ***"),
        ("authorization: Basic Y2FuYXJ5", "authorization: ***"),
        ("(b'authorization', b'Bearer canary')", "(b'authorization', b'***')"),
        ("{'authorization': 'Basic canary', 'x': 'y'}", "{'authorization': '***', 'x': 'y'}"),
        ("Authorization=canary", "Authorization=***"),
        ("sent Bearer canary-1234", "sent Bearer ***"),
        (
            "Sec-WebSocket-Protocol: tradewire.v2.json, bearer.Y2FuYXJ5",
            "Sec-WebSocket-Protocol: tradewire.v2.json, bearer.***",
        ),
        (f"got {JWT} here", "got *** here"),
        (
            "a token is expected; basic authentication failed",
            "a token is expected; basic authentication failed",
        ),
        ("", ""),
    ],
)
def test_texts(text: str, clean: str) -> None:
    redaction = Redaction()
    assert redaction(text) == clean
    assert redaction(clean) == clean


def test_the_configured_secrets_are_hidden_wherever_they_stand() -> None:
    upstream = Upstream(
        name="u",
        host="h",
        ws_token=Secret("upstream-canary"),
        username="me",
        password=Secret("password-canary"),
    )
    redaction = Redaction(secrets_of(config(upstreams=(upstream,))))
    for secret in (READER, ALPHA, PUBLISHER, JWT_KEY, PASSWORD, "upstream-canary", "password-canary"):
        assert redaction(f"x{secret}y") == "x***y"


def test_short_secrets_do_not_blank_out_words() -> None:
    assert Redaction([Secret("a"), Secret("")])("a banana") == "a banana"


@pytest.fixture
def lines() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    logger = logging.Logger("canary.test")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redaction([Secret("known-canary")]))
    logger.addHandler(handler)
    yield logger, stream
    handler.close()


def test_records_with_arguments(lines: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = lines
    logger.warning('%s - "WebSocket %s" [accepted]', ("127.0.0.1", 5), "/api/v1/message/ws?token=canary")
    logger.warning("%(path)s at 100%%", {"path": "/ws?token=canary"})
    logger.warning("token=%s and 5%%", "canary")
    logger.warning("%s: %s", "Authorization", "canary")
    logger.warning("known-canary %d%%", 5)
    logger.warning("100% of token=canary")
    logger.warning(Exception("token=canary"))
    assert stream.getvalue().splitlines() == [
        "('127.0.0.1', 5) - \"WebSocket /api/v1/message/ws?token=***\" [accepted]",
        "/ws?token=*** at 100%",
        "token=*** and 5%",
        "Authorization: ***",
        "*** 5%",
        "100% of token=***",
        "token=***",
    ]


def test_arguments_stay_arguments_for_access_log_formatters() -> None:
    record = logging.LogRecord(
        "uvicorn.access",
        logging.INFO,
        "",
        0,
        '%s - "%s %s HTTP/%s" %d',
        ("c", "GET", "/?token=canary", "1.1", 200),
        None,
    )
    assert Redaction().filter(record)
    assert record.args == ("c", "GET", "/?token=***", "1.1", 200)


def test_tracebacks(lines: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = lines
    try:
        raise ValueError("bad url ws://h/ws?token=canary")
    except ValueError:
        logger.exception("failed")
    assert "canary" not in stream.getvalue().replace("test_tracebacks", "").replace('token=canary")', "")
    assert "ValueError: bad url ws://h/ws?token=***" in stream.getvalue()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("canary")


def test_what_cannot_be_checked_is_left_out(lines: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = lines
    logger.warning("one %s two %s", "token=canary")
    logger.warning("odd %s", Unprintable())
    assert stream.getvalue().splitlines() == [
        "one %s two %s (unprintable arguments)",
        "odd %s (unprintable arguments)",
    ]


def test_install_reaches_children_through_the_handlers_and_can_be_taken_back() -> None:
    parent = logging.getLogger("canary_parent")
    child = logging.getLogger("canary_parent.child")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    parent.addHandler(handler)
    parent.propagate = False
    redaction = Redaction()
    try:
        remove = install(redaction, ["canary_parent"])
        install(redaction, ["canary_parent"])
        assert handler.filters == parent.filters == [redaction]
        child.warning("token=canary")
        parent.warning("token=canary")
        remove()
        assert handler.filters == parent.filters == []
    finally:
        parent.removeHandler(handler)
        parent.propagate = True
    assert stream.getvalue() == "token=***\ntoken=***\n"


def test_uvicorns_loggers_are_known() -> None:
    from hub.auth.redact import LOGGERS

    assert {"", "uvicorn.error", "uvicorn.access", "websockets.server"} <= set(LOGGERS)
    assert sys.modules["hub.auth.redact"].__all__ == ["LOGGERS", "Redaction", "install", "secrets_of"]
