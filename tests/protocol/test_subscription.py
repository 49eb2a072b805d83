"""hub.protocol.subscription."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol.errors import BadFilter, OverlappingItems
from hub.protocol.messages import FrameKey
from hub.protocol.subscription import WHOLE, Item, Projection, Subscription, parse_want
from tests.protocol.strategies import PLAIN

KEY = FrameKey("BTC/USDT:USDT", "5m", "futures")
FRAMES = {"topics": ["analyzed_df"]}


def test_every_field_but_topics_may_be_left_out_or_a_star() -> None:
    for raw in ({}, dict.fromkeys(("bots", "pairs", "timeframes", "candle_types", "columns", "rows"), "*")):
        items, unknown = parse_want([FRAMES | raw])
        assert items == (Item(topics=frozenset({"analyzed_df"})),)
        assert unknown == []
        assert items[0].projection == WHOLE


def test_all_fields() -> None:
    raw = {
        "topics": ["analyzed_df", "future", "hub.candle_complete"],
        "bots": ["alpha"],
        "pairs": ["BTC/USDT:USDT"],
        "timeframes": ["5m"],
        "candle_types": ["futures"],
        "columns": ["close", "&-*"],
        "rows": 500,
        "unknown_field": 1,
    }
    (item,), unknown = parse_want([raw])
    assert unknown == ["future"]
    assert item.projection == Projection(("&-*", "close"), 500)
    assert item.takes("alpha", "future")
    assert not item.takes("beta", "future")
    assert item.takes_key(KEY)
    for other in (
        FrameKey("BTC/USDT", "5m", "futures"),
        FrameKey(KEY.pair, "1h", "futures"),
        FrameKey(KEY.pair, "5m", "spot"),
    ):
        assert not item.takes_key(other)


@pytest.mark.parametrize(
    ("want", "text"),
    [
        (None, "want: expected a list"),
        ("*", "want: expected a list"),
        ([5], r"want\[0\]: expected a map"),
        ([{}], r"want\[0\].topics"),
        ([{"topics": "*"}], r"want\[0\].topics: expected topics by name"),
        ([{"topics": ["*"]}], r"want\[0\].topics: expected topics by name"),
        ([{"topics": ["entry_fill"], "bots": ["*"]}], r'want\[0\].bots: "\*" is no name'),
        ([{"topics": ["a"]}, {"topics": [5]}], r"want\[1\].topics"),
        ([FRAMES | {"bots": "alpha"}], r"want\[0\].bots"),
        ([FRAMES | {"pairs": [None]}], r"want\[0\].pairs"),
        ([FRAMES | {"columns": 5}], r"want\[0\].columns"),
        ([FRAMES | {"rows": 0}], r"want\[0\].rows"),
        ([FRAMES | {"rows": True}], r"want\[0\].rows"),
        ([FRAMES | {"rows": 1.5}], r"want\[0\].rows"),
        ([{"topics": ["entry_fill"], "pairs": ["A/B"]}], "ledger topic entry_fill"),
        ([{"topics": ["analyzed_df", "exit"], "rows": 5}], "ledger topic exit"),
        ([FRAMES | {"pairs": ["x"] * 10_001}], "at most 10000"),
    ],
)
def test_bad_filters_name_the_item_and_the_field(want: Any, text: str) -> None:
    with pytest.raises(BadFilter, match=text):
        parse_want(want)


def test_items_that_match_one_key_have_equal_projections() -> None:
    parse_want([FRAMES | {"rows": 5}, FRAMES | {"rows": 5, "bots": ["a"]}])
    parse_want([FRAMES | {"rows": 5, "bots": ["a"]}, FRAMES | {"bots": ["b"]}])
    parse_want([FRAMES | {"rows": 5, "pairs": ["A"]}, FRAMES | {"pairs": ["B"]}])
    parse_want([{"topics": ["status"], "rows": 5}, {"topics": ["status"]}])
    for other in ({}, {"bots": ["a"]}, {"pairs": ["A", "B"]}, {"columns": ["close"], "rows": 5}):
        with pytest.raises(OverlappingItems, match=r"want\[0\] and want\[1\]"):
            parse_want([FRAMES | {"rows": 5, "bots": ["a"], "pairs": ["A"]}, FRAMES | other])


def test_a_subscription_is_bounded_by_the_rights_of_its_reader() -> None:
    items, _ = parse_want([{"topics": ["status", "analyzed_df"], "columns": ["close"]}])
    mine = Subscription(items, frozenset({"a"}))
    assert mine.wants("a", "status")
    assert not mine.wants("b", "status")
    assert mine.projection("a", "analyzed_df", KEY) == Projection(("close",), None)
    assert mine.projection("b", "analyzed_df", KEY) is None
    assert mine.projection("a", "whitelist", None) is None
    assert Subscription(items).wants("b", "status")
    assert mine != Subscription(items)


def test_equal_wishes_are_equal_and_hashable() -> None:
    one, _ = parse_want([FRAMES | {"bots": ["a", "b"], "columns": ["x", "y"]}])
    two, _ = parse_want([FRAMES | {"bots": ["b", "a", "a"], "columns": ["y", "x"], "pairs": "*"}])
    assert Subscription(one) == Subscription(two)
    assert hash(Subscription(one)) == hash(Subscription(two))


NAMES = st.lists(st.sampled_from("abc"), max_size=3) | st.just("*") | st.none()
ITEMS = st.fixed_dictionaries(
    {
        "topics": st.lists(
            st.sampled_from(["analyzed_df", "new_candle", "status", "whitelist"]), min_size=1, max_size=3
        )
    },
    optional={"bots": NAMES, "pairs": NAMES, "rows": st.sampled_from([None, 1, 2]), "columns": NAMES},
)


@given(st.lists(ITEMS, max_size=4))
def test_a_key_has_one_projection_or_the_items_are_refused(want: list[dict[str, Any]]) -> None:
    keys = [
        (b, t, FrameKey(p, "5m", "spot")) for b in "abc" for t in ("analyzed_df", "new_candle") for p in "abc"
    ]
    try:
        items, _ = parse_want(want)
    except OverlappingItems:
        return
    subscription = Subscription(items)
    for bot, topic, key in keys:
        found = {i.projection for i in items if i.takes(bot, topic) and i.takes_key(key)}
        assert len(found) <= 1
        assert subscription.projection(bot, topic, key) == (found.pop() if found else None)


@given(
    PLAIN
    | st.lists(
        PLAIN | ITEMS | st.dictionaries(st.sampled_from(["topics", "bots", "rows"]), PLAIN), max_size=3
    )
)
def test_any_wish_is_taken_or_refused(want: Any) -> None:
    try:
        items, unknown = parse_want(want)
    except (BadFilter, OverlappingItems):
        return
    hash(Subscription(items))
    assert unknown == sorted(unknown)
