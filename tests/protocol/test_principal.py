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
