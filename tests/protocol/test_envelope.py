"""hub.protocol.envelope."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol.envelope import Broadcast, Notice, Position, Reply, Rev, parse_envelope, reply, reply_error
from hub.protocol.errors import NotAMessage, NotDurable
from tests.protocol.strategies import PLAIN

FILL = {
    "type": "entry_fill",
    "bot": "a",
    "ts": 1,
    "epoch": "e",
    "offset": 5,
    "prev": 3,
    "mid": "m",
    "data": {"x": 1},
}


def test_a_ledger_broadcast() -> None:
    message = parse_envelope(FILL)
    assert isinstance(message, Broadcast)
    assert message.position == Position("e", 5)
    assert (message.prev, message.mid, message.data, message.rev) == (3, "m", {"x": 1}, None)


def test_a_state_broadcast_with_what_a_newer_hub_adds() -> None:
    raw = {
        "type": "analyzed_df",
        "bot": "a",
        "key": ["X", "5m", "spot"],
        "rev": ["r", 1, 2, "new"],
        "part": [1, 2, 3],
        "new": 1,
    }
    message = parse_envelope(raw)
    assert isinstance(message, Broadcast)
    assert (message.rev, message.part, message.position) == (Rev("r", 1, 2), (1, 2), None)
    assert raw["part"] == [1, 2, 3]


def test_replies() -> None:
    good, bad = parse_envelope(reply(7, {"a": 1})), parse_envelope(reply_error(8, NotDurable("no").as_data()))
    assert good == Reply(id=7, ok=True, data={"a": 1})
    assert isinstance(bad, Reply)
    assert bad.error is not None
    assert (bad.ok, bad.error["code"], bad.error["temporary"]) == (False, "not_durable", True)


def test_notices_keep_all_their_fields() -> None:
    gap = parse_envelope({"type": "hub.gap", "epoch": "e", "from": 1, "to": 2})
    assert isinstance(gap, Notice)
    assert gap.fields["to"] == 2
    assert gap.data == {}
    assert parse_envelope({"type": "hub.x", "data": {"a": 1}}).data == {"a": 1}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"offset": "5"}, "offset"),
        ({"bot": 5}, "bot"),
        ({"ts": "now"}, "ts"),
        ({"rev": ["r", 1]}, "rev"),
        ({"key": "X"}, "key"),
        ({"part": [1]}, "part"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(NotAMessage, match=f"entry_fill: .*{field}"):
        parse_envelope(FILL | change)


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["hub.reply", "entry_fill", "hub.gap", "x"])},
        optional=dict.fromkeys(
            ("bot", "id", "ok", "data", "error", "offset", "rev", "part", "key", "epoch"), PLAIN
        ),
    )
)
def test_any_map_is_one_of_three_kinds_or_refused(raw: dict[str, Any]) -> None:
    try:
        kind = parse_envelope(raw)
    except NotAMessage:
        return
    assert isinstance(kind, Broadcast | Reply | Notice)
    assert isinstance(kind, Reply) == (raw["type"] == "hub.reply")
    assert isinstance(kind, Broadcast) == (raw["type"] != "hub.reply" and "bot" in raw)


def test_positions_are_ordered_within_an_epoch() -> None:
    assert Position("e", 2) > Position("e", 1)
