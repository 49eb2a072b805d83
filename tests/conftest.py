"""Settings shared by every test."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "tradewire",
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tradewire")


@pytest.fixture
def anyio_backend() -> str:
    """uvicorn and nats-py are asyncio-only, so the tests are too."""
    return "asyncio"
