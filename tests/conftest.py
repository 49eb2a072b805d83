"""Settings shared by every test."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
# The same examples in every run, so that a check fails for a change and not by luck. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("tradewire", derandomize=True, **_COMMON)
settings.register_profile("explore", max_examples=3000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tradewire"))


@pytest.fixture
def anyio_backend() -> str:
    """uvicorn and nats-py are asyncio-only, so the tests are too."""
    return "asyncio"
