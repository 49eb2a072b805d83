"""Settings shared by every test."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
# The same examples in every run, so that a check fails for a change and not by luck. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("tradewire", derandomize=True, **_COMMON)
settings.register_profile("explore", max_examples=3000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tradewire"))


_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _state_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A hub in a test that names no `state_dir` keeps its ledger here, not with the user's."""
    # A name only: few tests start a hub, and the hub makes the directory.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state{next(_NUMBERS)}"))


@pytest.fixture
def anyio_backend() -> str:
    """uvicorn and nats-py are asyncio-only, so the tests are too."""
    return "asyncio"
