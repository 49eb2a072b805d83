"""hub.log.memory: what is its own. What every log promises is in test_contract."""

from __future__ import annotations

import asyncio

from hub.log.memory import MemoryLog
from tests.log.messages import append, entry


def test_an_id_is_remembered_as_long_as_its_entry() -> None:
    size = entry("0").size
    log = MemoryLog("e", 3 * size)
    asyncio.run(append(log, *(entry(str(i)) for i in range(1, 6))))
    assert log.floor == 2
    assert len(log._ids) == 3
    assert log.bytes == 3 * size
