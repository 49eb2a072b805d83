"""consumer.launch: the hub's command names what is missing in one line."""

from __future__ import annotations

import importlib.machinery
from typing import Any

import pytest

from consumer import launch


def without(*names: str) -> Any:
    def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
        return None if name in names else importlib.machinery.ModuleSpec(name, None)

    return find_spec


def test_another_package_named_hub_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", without("hub.protocol"))
    with pytest.raises(SystemExit, match="not tradewire's"):
        launch.hub()


def test_a_base_install_is_told_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", without("starlette", "uvicorn"))
    with pytest.raises(SystemExit, match=r"needs starlette, uvicorn; .*tradewire\[hub\]"):
        launch.hub()
