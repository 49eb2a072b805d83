"""hub.protocol.principal."""

from __future__ import annotations

from hub.protocol.principal import EVERY_BOT, Principal


def test_reading_and_publishing_are_different_rights() -> None:
    plain = Principal(name="token")
    assert plain.may_read("any")
    assert not plain.may_publish("any")
    bound = Principal(name="bot", reads=frozenset({"b"}), publishes=frozenset({"a"}))
    assert (bound.may_read("a"), bound.may_read("b"), bound.may_publish("a"), bound.may_publish("b")) == (
        False,
        True,
        True,
        False,
    )
    assert Principal(name="x", publishes=EVERY_BOT).may_publish("any")


def test_a_star_read_from_a_config_is_every_bot() -> None:
    principal = Principal(name="x", reads=frozenset(["*"]), publishes=frozenset(["*", "a"]))
    assert principal.may_read("any")
    assert principal.scopes == ["read:*", "publish:*", "publish:a"]


def test_controlling_is_a_right_of_its_own() -> None:
    plain = Principal(name="x", publishes=EVERY_BOT)
    assert not plain.may_control("a")
    bound = Principal(name="x", reads=frozenset({"b"}), controls=frozenset({"b", "a"}))
    assert (bound.may_control("a"), bound.may_control("c"), bound.may_read("a")) == (True, False, False)
    assert bound.scopes == ["read:b", "control:a", "control:b"]
    assert Principal(name="x", controls=EVERY_BOT).may_control("any")
