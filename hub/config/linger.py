"""How long messages of a topic may wait for others: a map of topics, in ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.config.kinds import Kind, Warn, checked_name, read_json
from hub.config.wording import did_you_mean, expected, shape
from hub.protocol.errors import ConfigError
from hub.protocol.messages import TOPICS

__all__ = ["LINGERS", "LONGEST_MS"]

LONGEST_MS = 50


def _accept_lingers(name: str, value: Any, warn: Warn) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ConfigError(name, f"expected a map of topics, got {shape(value)}")
    lingers = {}
    for topic, linger_ms in value.items():
        checked_name("topic", name, topic)
        if topic not in TOPICS:
            warn(f"{name}.{topic}: no topic that this version knows{did_you_mean(topic, TOPICS)}")
        number = isinstance(linger_ms, int | float) and not isinstance(linger_ms, bool)
        # `not (0 <= x <= n)` is also true of NaN.
        if not number or not 0 <= linger_ms <= LONGEST_MS:
            raise expected(f"{name}.{topic}", f"ms from 0 to {LONGEST_MS}", linger_ms)
        lingers[topic] = float(linger_ms)
    return lingers


LINGERS = Kind(_accept_lingers, read_json)
