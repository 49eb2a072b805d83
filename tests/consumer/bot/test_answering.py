"""consumer.answering: requests of REST that come as calls, answered by a PaperBot."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.answering import Answering
from hub.protocol.botapi import OPERATIONS
from tests.consumer.bot.test_api import running, traded

pytestmark = pytest.mark.anyio


class Asked(msgspec.Struct, frozen=True):
    """A request, as calls carry it."""

    method: str
    path: str
    query: str = ""
    body: Any = None


async def test_requests_are_answered_as_rest_answers_them(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, _, _):
        answer = Answering(api)
        for request, status, body in (
            (Asked("GET", "/trade/77"), 404, {"detail": "Trade not found."}),
            (Asked("GET", "/nothing"), 404, {"detail": "Not Found"}),
            (Asked("DELETE", "/status"), 404, {"detail": "Not Found"}),
            (Asked("POST", "/stopbuy"), 200, {"status": (await api.pause()).status}),
            (Asked("POST", "/start"), 200, {"status": "starting trader ..."}),
            (
                Asked("POST", "/forceexit", body={"tradeid": "x"}),
                502,
                {"error": "Error querying /api/v1/forceexit: invalid argument"},
            ),
            (
                Asked("POST", "/forceenter", body={"side": "long"}),
                422,
                {
                    "detail": [
                        {"type": "missing", "loc": ["body", "pair"], "msg": "Field required", "input": None}
                    ]
                },
            ),
            (
                Asked("GET", "/pair_candles", "pair=BTC/USD&timeframe=xx"),
                502,
                {"detail": "timeframe 'xx': expected a count and one of s m h d w M y, such as 5m or 1h"},
            ),
        ):
            found = await answer(request)
            assert (found.status, found.body) == (status, body)
        limits = (await answer(Asked("GET", "/trades", "limit=0"))).body["detail"]
        assert (limits[0]["loc"], limits[0]["type"]) == (["query", "limit"], "value_error")
        locks = (await answer(Asked("POST", "/locks", body=[{"pair": "A/B"}]))).body["detail"]
        assert locks[0]["loc"] == ["body"]
        assert "until" in locks[0]["msg"]


async def test_candles_are_plain_values(tmp_path: Path) -> None:
    async with traded(tmp_path) as (api, _, _):
        found = await Answering(api)(Asked("GET", "/pair_candles", "pair=BTC/USD&timeframe=30m&limit=1"))
        assert found.status == 200
        assert json.loads(json.dumps(found.body)) == found.body
        assert found.body["data"][0][:2] == ["2018-12-02T01:30:00Z", 60.0]


async def test_an_unexpected_exception_is_one_line_and_tells_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (api, _, _):

        async def broken(**_: Any) -> None:
            raise RuntimeError("secret 123")

        monkeypatch.setattr(api, "force_enter", broken)
        with caplog.at_level(logging.ERROR):
            found = await Answering(api)(Asked("POST", "/forcebuy", body={"pair": "A/B"}))
        assert (found.status, found.body) == (
            502,
            {"error": "Error querying /api/v1/forcebuy: internal error"},
        )
        assert [record.getMessage() for record in caplog.records] == [
            f"POST {OPERATIONS['force_enter'].path}: unexpected RuntimeError"
        ]
        assert caplog.records[0].exc_info is None
