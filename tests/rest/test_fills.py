"""hub.rest.fills: pages of the ledger, whose they are, and what a client may ask."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from auth.credentials import ALPHA, PUBLISHER, READER, basic

from hub.core.entry import Entry
from hub.core.ledger import Append, Damaged, Found, Query
from hub.log.memory import MemoryLog
from hub.protocol.errors import LedgerBusy, LedgerUnreadable
from hub.protocol.messages import LEDGER_TOPICS
from hub.rest import fills as module

from .service import Node, Service

pytestmark = pytest.mark.anyio

USER = {"Authorization": basic()}
PATH = "/api/v1/fills"
T0 = 1_795_356_000_000


def entry(number: int, bot: str = "alpha", topic: str = "entry_fill", body: bytes | None = None) -> Entry:
    body = body or b'{"trade_id":%d,"pair":"BTC/USDT","novelty":[1.0,4.2e-11]}' % number
    return Entry(bot, topic, T0 + 1000 * number, body, mid=f"m{number}", publisher="p")


async def service(*entries: Entry, **settings: Any) -> Service:
    made = Service(Node(), **settings)
    await made.node.log.append([Append(e, None) for e in entries])
    return made


async def page(made: Service, query: str = "", token: str | None = None, path: str = PATH) -> Any:
    headers = USER if token is None else {"Authorization": f"Bearer {token}"}
    response = await made.get(f"{path}?{query}", headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def offsets(made: Service, query: str = "", token: str | None = None, path: str = PATH) -> list[int]:
    return [fill["offset"] for fill in (await page(made, query, token, path))["fills"]]


MIXED = [
    entry(1),
    entry(2, "beta"),
    entry(3, topic="entry"),
    entry(4, topic="exit_fill"),
    entry(5, topic="protection_trigger"),
]


# --- what a page has


async def test_a_fill_is_answered_as_it_was_published() -> None:
    body = b'{"trade_id":7,"pair":"BTC/USDT","amount":1e-7,"rate":4.2e-11,"one":1.0,"big":9007199254740993,"x":{"y":null}}'
    made = await service(entry(1, body=body))
    response = await made.get(PATH, headers=USER)
    assert body in response.content
    (fill,) = response.json()["fills"]
    assert {k: v for k, v in fill.items() if k != "data"} == {
        "offset": 1,
        "prev": 0,
        "bot": "alpha",
        "topic": "entry_fill",
        "ts": T0 + 1000,
        "mid": "m1",
    }


async def test_an_empty_ledger() -> None:
    assert await page(await service()) == {
        "epoch": "e1",
        "floor": 0,
        "head": 0,
        "fills": [],
        "damaged": [],
        "after": None,
    }


async def test_pages_lead_through_the_whole_ledger() -> None:
    made = await service(*(entry(n) for n in range(1, 8)))
    seen, after, pages = [], 0, 0
    while after is not None:
        answer = await page(made, f"limit=3&after={after}&epoch=e1")
        seen += [fill["offset"] for fill in answer["fills"]]
        after, pages = answer["after"], pages + 1
    assert (seen, pages) == (list(range(1, 8)), 3)


async def test_a_page_is_bounded_in_bytes() -> None:
    made = await service()
    await page(made)
    assert [query.limit_bytes for query in made.node.queries] == [1 << 20]
    assert made.node.queries[0].limit == 500


async def test_topics_bots_and_times_choose() -> None:
    made = await service(*MIXED)
    assert await offsets(made) == [1, 2, 4]
    assert await offsets(made, "topic=*") == [1, 2, 3, 4, 5]
    assert await offsets(made, "topic=entry&topic=exit_fill") == [3, 4]
    assert await offsets(made, "bot=alpha") == [1, 4]
    assert await offsets(made, "bot=alpha&bot=beta") == [1, 2, 4]
    assert await offsets(made, f"since={T0 + 2000}&until={T0 + 4000}") == [2]
    assert await offsets(made, "since=2026-11-22T14:00:02Z&until=2026-11-22T15:00:04%2B01:00") == [2]
    assert await offsets(made, "since=2026-11-22t14:00:04z") == [4]
    assert await offsets(made, path="/bots/beta/api/v1/fills") == [2]
    assert await offsets(made, "bot=alpha", path="/bots/beta/api/v1/fills") == [2]


async def test_slots_that_cannot_be_read_are_named() -> None:
    made = await service(*MIXED)

    async def find(_query: Query) -> Found:
        return Found([entry(1), Damaged(2)], 3, 0, 9)

    made.node.log.find = find  # type: ignore[method-assign]
    answer = await page(made)
    assert (answer["damaged"], answer["after"], answer["head"]) == ([2], 3, 9)


async def test_another_epoch_is_said() -> None:
    response = await (await service(*MIXED)).get(f"{PATH}?epoch=e0&after=3", headers=USER)
    assert response.status_code == 409
    assert response.json() | {"epoch": "e1", "floor": 0, "head": 5} == response.json()
    assert "e1" in response.json()["detail"]


async def test_the_errors_have_schemas() -> None:
    responses = (await service()).rest.openapi()["paths"]["/fills"]["get"]["responses"]
    assert {status for status, told in responses.items() if "content" in told} == set(responses)
    assert responses["503"]["headers"]


async def test_a_cursor_beyond_the_head_finds_nothing() -> None:
    answer = await page(await service(*MIXED), f"after={2**53 - 1}")
    assert (answer["fills"], answer["after"]) == ([], None)


# --- who may


@pytest.mark.parametrize("token", [READER, PUBLISHER])
async def test_the_tokens_of_websockets_read_what_they_may(token: str) -> None:
    assert await offsets(await service(*MIXED), "bot=alpha", token) == [1, 4]


async def test_a_token_of_one_bot_reads_that_bot_and_learns_of_no_other() -> None:
    made = await service(*MIXED)
    assert await offsets(made, token=ALPHA) == [1, 4]
    secret = await page(made, "bot=beta", ALPHA)
    nobody = await page(made, "bot=nobody", ALPHA)
    assert secret == nobody == await page(made, "", ALPHA, "/bots/beta/api/v1/fills")
    assert secret["fills"] == []
    assert await offsets(made, "bot=beta&bot=alpha", ALPHA) == [1, 4]


async def test_an_access_jwt() -> None:
    made = await service(*MIXED)
    login = await made.request("POST", "/api/v1/token/login", headers=USER)
    assert await offsets(made, token=login.json()["access_token"]) == [1, 2, 4]
    refresh = {"Authorization": f"Bearer {login.json()['refresh_token']}"}
    assert (await made.get(PATH, headers=refresh)).status_code == 401


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic eDp5", "Digest x"])
async def test_without_a_valid_credential(authorization: str | None) -> None:
    made = await service(*MIXED)
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await made.get(PATH, headers=headers)
    assert response.status_code == 401
    assert list(response.json()) == ["detail"]
    assert made.node.queries == []


# --- what is refused


WRONG = [
    "limit=0",
    "limit=501",
    "limit=x",
    "after=-1",
    f"after={2**53}",
    "after=1e3",
    "since=yesterday",
    "since=2026-11-22T14:00:00",
    "since=2026-11-22T14:00:00+00:00",
    "since=-1",
    "since=" + "9" * 30,
    "until=NaN",
    "topic=status",
    "topic=",
    f"epoch={'e' * 65}",
    "&".join(["bot=a"] * 65),
    "&".join(["topic=*"] * 65),
]


async def test_wrong_parameters_are_422() -> None:
    made = await service(*MIXED)
    async with made.client() as client:
        for query in WRONG:
            response = await client.get(f"{PATH}?{query}", headers=USER)
            assert response.status_code == 422, query
            (error,) = response.json()["detail"]
            assert error["loc"][0] == "query"
    assert made.node.queries == []


async def test_every_ledger_topic_may_be_asked_for() -> None:
    made = await service(*MIXED)
    query = "&".join(f"topic={topic}" for topic in sorted(LEDGER_TOPICS))
    assert await offsets(made, query) == [1, 2, 3, 4, 5]


class Stuck(MemoryLog):
    """Searches that do not end before they may."""

    def __init__(self) -> None:
        super().__init__("e1", 1 << 20)
        self.free = asyncio.Event()

    async def find(self, query: Query) -> Found:
        await self.free.wait()
        return await super().find(query)


@pytest.mark.parametrize("kind", [LedgerUnreadable, LedgerBusy])
async def test_a_ledger_that_cannot_be_searched_now(
    monkeypatch: pytest.MonkeyPatch, kind: type[LedgerUnreadable]
) -> None:
    async def refused(_query: Query) -> Found:
        raise kind("the ledger's own words")

    made = Service()
    monkeypatch.setattr(made.node, "search", refused)
    response = await made.get(PATH, headers=USER)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert json.loads(response.content) == {"detail": "the ledger's own words"}


async def test_a_search_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEARCH_S", 0.0)
    made = Service()
    made.node.log = Stuck()
    response = await made.get(PATH, headers=USER)
    assert response.status_code == 503
    assert json.loads(response.content) == {"detail": "the search took too long"}
