"""Settings of the PaperBot's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from consumer.bot import database


@pytest.fixture(scope="package", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """These tests kill no machine, so a commit need not be on the disk; it is most of their time otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(database.PRAGMAS, "synchronous", "OFF")
        yield
