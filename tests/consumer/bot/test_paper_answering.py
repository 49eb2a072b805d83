"""Answering for a PaperBot: requests of REST that come as calls, answered by a PaperBot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.answering import Answering
from hub.protocol.calls import BotAnswer, BotRequest
from tests.consumer.bot.test_api import traded

pytestmark = pytest.mark.anyio


def asked(method: str, path: str, query: str = "", body: Any = None) -> BotRequest:
    """A request, as calls carry it."""
    return BotRequest(method=method, path=path, query=query, body=body)


def plain(answer: BotAnswer) -> Any:
    """The body of an answer as the other side reads it."""
    return msgspec.json.decode(answer.body) if isinstance(answer.body, msgspec.Raw) else answer.body


async def test_requests_are_answered_as_rest_answers_them(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, _, _):
        answer = Answering(api)
        for request, status, body in (
            (asked("GET", "/trade/77"), 404, {"detail": "Trade not found."}),
            (asked("GET", "/nothing"), 404, {"detail": "Not Found"}),
            (asked("DELETE", "/status"), 404, {"detail": "Not Found"}),
            (asked("POST", "/stopbuy"), 200, {"status": (await api.pause()).status}),
            (asked("POST", "/start"), 200, {"status": "starting trader ..."}),
            (
                asked("POST", "/forceexit", body={"tradeid": "x"}),
                502,
                {"error": "Error querying /api/v1/forceexit: invalid argument"},
            ),
            (
                asked("POST", "/forceenter", body={"side": "long"}),
                422,
                {
                    "detail": [
                        {"type": "missing", "loc": ["body", "pair"], "msg": "Field required", "input": None}
                    ]
                },
            ),
            (
                asked("GET", "/pair_candles", "pair=BTC/USD&timeframe=xx"),
                502,
                {"detail": "timeframe 'xx': expected a count and one of s m h d w M y, such as 5m or 1h"},
            ),
        ):
            found = await answer(request)
            assert (found.status, plain(found)) == (status, body)
        limits = (await answer(asked("GET", "/trades", "limit=0"))).body["detail"]
        assert (limits[0]["loc"], limits[0]["type"]) == (["query", "limit"], "value_error")
        locks = (await answer(asked("POST", "/locks", body=[{"pair": "A/B"}]))).body["detail"]
        assert locks[0]["loc"] == ["body"]
        assert "until" in locks[0]["msg"]


async def test_candles_are_json(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, _, _):
        found = await Answering(api)(asked("GET", "/pair_candles", "pair=BTC/USD&timeframe=30m&limit=1"))
        assert found.status == 200
        assert plain(found)["data"][0][:2] == ["2018-12-02T01:30:00Z", 60.0]
