"""hub.protocol.errors."""

from __future__ import annotations

from collections.abc import Iterator

from hub.protocol.close_codes import CloseAction
from hub.protocol.errors import (
    ConfigError,
    ErrorCode,
    HandshakeRefused,
    HubError,
    Overloaded,
    ProtocolError,
    RequestError,
)


def below(cls: type[HubError]) -> Iterator[type[HubError]]:
    for child in cls.__subclasses__():
        yield child
        yield from below(child)


def test_one_tree_and_whose_fault_shows_in_the_type() -> None:
    for cls in below(ProtocolError):
        assert issubclass(cls, ProtocolError)
        assert cls.close_code.action is CloseAction.STOP
    for cls in below(RequestError):
        assert issubclass(cls, RequestError)
        assert isinstance(cls.code, ErrorCode)


def test_what_may_succeed_later_says_so() -> None:
    temporary = {
        str(cls.code) for cls in below(RequestError) if issubclass(cls, RequestError) and cls.temporary
    }
    assert temporary == {"not_durable", "overloaded", "draining", "deadline", "bot_gone"}


def test_the_error_object() -> None:
    error = Overloaded("full", data={"a": 1}, retry_after_ms=5)
    expected = {
        "code": "overloaded",
        "message": "full",
        "temporary": True,
        "retry_after_ms": 5,
        "data": {"a": 1},
    }
    assert error.as_data() == expected
    assert RequestError("no").as_data() == {"code": "bad_request", "message": "no", "temporary": False}


def test_texts() -> None:
    assert str(ConfigError("hub.port", "expected a number")) == "hub.port: expected a number"
    assert str(ConfigError("", "expected a map")) == "expected a map"
    refused = HandshakeRefused(503, "full", retry_after=5)
    assert (refused.status, refused.retry_after, str(refused)) == (503, 5, "full")
