"""hub.core.late_fills: what is remembered, and for which message."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from hub.core.bot_trades import SOURCE, Fill
from hub.core.entry import Entry
from hub.core.late_fills import LateFills

NOW = 1_795_360_000_000


def fill(order: str = "o1", *, amount: float = 1.0, rate: float = 100.0) -> Fill:
    return Fill(
        topic="entry_fill",
        trade_id=7,
        pair="A/B",
        open_ms=NOW,
        order_id=order,
        filled_ms=NOW,
        amounts=(amount,),
        rate=rate,
        make=dict,
    )


def message(bot: str = "alpha", topic: str = "entry_fill", *, mid: str | None = None, **data: Any) -> Entry:
    body = {"trade_id": 7, "pair": "A/B", "amount": 1.0, "open_rate": 100.0} | data
    return Entry(bot, topic, NOW, orjson.dumps(body), mid=mid, publisher="p")


def test_nothing_is_taken_of_nothing() -> None:
    assert LateFills().take(message(), NOW) is None


def test_one_message_is_taken_for_one_fill() -> None:
    late = LateFills()
    stored = late.storing("alpha", fill(), NOW)
    assert late.take(message(), NOW) is stored
    assert late.take(message(mid="another"), NOW) is None
    assert len(late) == 0


def test_the_message_that_was_taken_is_taken_again() -> None:
    """Its publisher did not hear of it, and says it again, perhaps an hour later."""
    late = LateFills(1)
    stored = late.storing("alpha", fill(), NOW)
    for now in (NOW, NOW + 3_600_000):
        assert late.take(message(mid="a"), now) is stored
    other = late.storing("alpha", fill("o2", amount=2), NOW)
    assert late.take(message(mid="b", amount=2), NOW) is other
    assert late.take(message(mid="a"), NOW) is None
    late.give_up(message(mid="b"))
    assert late.take(message(mid="b", amount=2), NOW) is None


def test_the_order_that_a_message_names_is_the_one() -> None:
    late = LateFills()
    stored = [late.storing("alpha", fill(order), NOW) for order in ("o1", "o2")]
    assert late.take(message(order_id="o2", amount=9), NOW) is stored[1]
    assert late.take(message(order_id="of-the-bot's-own"), NOW) is stored[0]


@pytest.mark.parametrize(
    "other",
    [
        {"bot": "beta"},
        {"topic": "exit_fill"},
        {"trade_id": 8},
        {"pair": "A/C"},
        {"amount": 2},
        {"open_rate": 99},
        {"open_date": "2020-01-01"},
        {"source": SOURCE},
        {"trade_id": None},
    ],
)
def test_another_message_is_not_taken(other: dict[str, Any]) -> None:
    late = LateFills()
    late.storing("alpha", fill(), NOW)
    assert late.take(message(**other), NOW) is None
    assert (len(late), late.of_bot("alpha"), late.of_bot("beta")) == (1, 1, 0)


def test_what_is_remembered_is_bounded_in_number_and_time() -> None:
    late = LateFills(2, late_ms=1000)
    first, *others = [late.storing("alpha", fill(f"o{n}", amount=n), NOW + n) for n in range(3)]
    assert len(late) == 2
    assert late.take(message(order_id="o0", amount=5), NOW) is None
    late.forget(first)
    assert late.take(message(order_id="o1", amount=5), NOW + 1001) is others[0]
    assert late.take(message(order_id="o2", amount=5), NOW + 1003) is None
    assert len(late) == 0


def test_an_offset_is_told_now_or_when_it_is_known() -> None:
    stored = LateFills().storing("alpha", fill(), NOW)
    told: list[int | None] = []
    stored.when_known(told.append)
    assert told == []
    stored.settle(5)
    stored.when_known(told.append)
    assert told == [5, 5]
