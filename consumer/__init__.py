"""Consume bots through a tradewire hub, or straight from a freqtrade bot; publish to a hub; ask, drive or answer for a bot over REST.

Names are imported on first use: `import consumer` alone loads nothing heavy, and never a web framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer.attachment import Attachment
    from consumer.client import Client, Consumer
    from consumer.config import ConsumerConfig, ProducerConfig, load
    from consumer.data import ProducerData
    from consumer.publisher import Ack, Publication, Publisher
    from consumer.rest import BotAPI, RestClient

__all__ = [
    "Ack",
    "Attachment",
    "BotAPI",
    "Client",
    "Consumer",
    "ConsumerConfig",
    "ProducerConfig",
    "ProducerData",
    "Publication",
    "Publisher",
    "RestClient",
    "load",
]

_HOME = {
    "Ack": "publisher",
    "Attachment": "attachment",
    "BotAPI": "rest",
    "Client": "client",
    "Consumer": "client",
    "ConsumerConfig": "config",
    "ProducerConfig": "config",
    "ProducerData": "data",
    "Publication": "publisher",
    "Publisher": "publisher",
    "RestClient": "rest",
    "load": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
