"""Settings of the PaperBot's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.bot import database
from tests.consumer.bot.desk import Desk


@pytest.fixture(scope="package", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """These tests kill no machine, so a commit need not be on the disk; it is most of their time otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(database.PRAGMAS, "synchronous", "OFF")
        yield


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[Any]:
    made: list[Desk] = []

    def make(**config: Any) -> Desk:
        made.append(Desk(tmp_path, **config))
        return made[-1]

    yield make
    for desk in made:
        desk.book.close()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits until all is published, however busy the machine is; it returns as soon as it is."""
    monkeypatch.setattr("consumer.bot.paper._GRACE_S", 120.0)
