"""Answering: requests of a hub against a BotAPI."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from consumer.answering import Answering
from hub.protocol.answers import Count, OpenTrade, ResultText
from hub.protocol.botapi import BotAPI, BotBusy, BotError, NotFound
from hub.protocol.calls import BotAnswer, BotRequest

pytestmark = pytest.mark.anyio


class Bot:
    """Three operations, and what they were asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None

    async def count(self) -> Count:
        if self.error is not None:
            raise self.error
        return Count(current=1, max=3, total_stake=float("nan"))

    async def trade(self, *, tradeid: int) -> OpenTrade:
        raise NotFound("Trade not found.")

    async def force_exit(self, **arguments: Any) -> ResultText:
        self.asked.append(arguments)
        return ResultText(result="Created exit order for trade 3.")


async def answered(bot: Bot, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    answer: BotAnswer = await Answering(bot)(BotRequest(method=method, path=path, body=body))  # type: ignore[arg-type]
    content = msgspec.json.decode(answer.body) if isinstance(answer.body, msgspec.Raw) else answer.body
    return answer.status, content


async def test_an_operation_is_performed_with_its_arguments() -> None:
    bot = Bot()
    answer = await answered(bot, "POST", "/forcesell", {"tradeid": "3", "amount": 0.5})
    assert answer == (200, {"result": "Created exit order for trade 3."})
    assert bot.asked == [{"tradeid": "3", "ordertype": None, "amount": 0.5, "price": None}]


async def test_what_json_cannot_carry_is_null() -> None:
    assert await answered(Bot(), "GET", "/count") == (200, {"current": 1, "max": 3, "total_stake": None})


async def test_wrong_requests_are_told_by_name() -> None:
    assert await answered(Bot(), "GET", "/nothing") == (404, {"detail": "Not Found"})
    status, body = await answered(Bot(), "POST", "/forceexit", {})
    assert status == 422
    assert body == {
        "detail": [{"type": "missing", "loc": ["body", "tradeid"], "msg": "Field required", "input": None}]
    }


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (
            BotError("trader is not running"),
            (502, {"error": "Error querying /api/v1/count: trader is not running"}),
        ),
        (BotBusy("too many wait"), (503, {"detail": "too many wait"})),
    ],
)
async def test_errors_of_the_bot_have_freqtrades_shapes(error: Exception, answer: tuple[int, Any]) -> None:
    bot = Bot()
    bot.error = error
    assert await answered(bot, "GET", "/count") == answer
    assert await answered(bot, "GET", "/trade/7") == (404, {"detail": "Trade not found."})


async def test_a_failure_is_told_without_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    bot = Bot()
    bot.error = KeyError("a secret")
    status, body = await answered(bot, "GET", "/count")
    assert status == 502
    assert "secret" not in str(body)
    assert "count failed: KeyError" in caplog.text
    assert "secret" not in caplog.text


class Partial(BotAPI):
    async def count(self) -> Count:
        return Count(current=1, max=3, total_stake=0)


@pytest.mark.parametrize("bot", [Bot(), Partial()], ids=["without the method", "with the protocol's"])
async def test_what_a_bot_leaves_out_is_refused_and_not_passed_for_done(bot: Any) -> None:
    assert (await answered(bot, "GET", "/count"))[0] == 200
    told = {"error": "Error querying /api/v1/stop: this bot does not answer stop"}
    assert await answered(bot, "POST", "/stop") == (502, told)
