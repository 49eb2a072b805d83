"""Fixtures of the tests against real freqtrade: everything they start, they stop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bots import FakeExchange, interop_python


def pytest_configure() -> None:
    if not os.access(interop_python(), os.X_OK):
        raise pytest.UsageError(
            "no freqtrade environment: run `make test-interop`, or set TRADEWIRE_INTEROP_PYTHON"
        )


@pytest.fixture(scope="session")
def fake_exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeExchange]:
    with FakeExchange(tmp_path_factory.mktemp("exchange")) as exchange:
        yield exchange


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the processes of one test keep their files."""
    return tmp_path
