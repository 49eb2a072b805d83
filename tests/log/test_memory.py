"""hub.log.memory: what is its own. What every log promises is in test_contract."""

from __future__ import annotations

import asyncio

from hub.core.ledger import Query
from hub.log.memory import MemoryLog
from tests.log.messages import append, entry


def test_an_id_is_remembered_as_long_as_its_entry() -> None:
    size = entry("0").size
    log = MemoryLog("e", 3 * size)
    asyncio.run(append(log, *(entry(str(i)) for i in range(1, 6))))
    assert log.floor == 2
    assert len(log._ids) == 3
    assert log.bytes == 3 * size


def test_a_long_search_lets_the_loop_turn_and_sees_what_comes_and_goes_meanwhile() -> None:
    log = MemoryLog("e", 1 << 40)

    async def main() -> None:
        await append(log, *(entry(str(number)) for number in range(3000)))
        search = asyncio.create_task(log.find(Query(limit=10_000)))
        await asyncio.sleep(0)
        log.limit_bytes = log.bytes // 3
        await append(log, entry("9000"))
        assert 1024 < log.floor < 3000
        found = await search
        offsets = [slot.offset for slot in found.entries]
        assert offsets == [*range(1, 1025), *range(log.floor + 1, 3002)]
        assert (found.after, found.floor, found.head) == (None, log.floor, 3001)

    asyncio.run(main())
