"""hub.protocol.known."""

from __future__ import annotations

from typing import Any

import pytest

from hub.protocol.envelope import Position
from hub.protocol.known import Known


def test_what_is_known_of_a_stream() -> None:
    known = Known("e1", 40, {("a", "entry_fill"): 44, ("b", "entry_fill"): 12})
    assert [known.of((bot, "entry_fill")) for bot in "abc"] == [44, 40, 40]
    assert known.position == Position("e1", 40)
    assert Known.at(Position("e1", 7)) == Known("e1", 7)


@pytest.mark.parametrize(
    ("epoch", "base", "last"),
    [
        ("", 0, {}),
        (None, 0, {}),
        ("e", -1, {}),
        ("e", 2**53, {}),
        ("e", True, {}),
        ("e", 1.0, {}),
        ("e", "1", {}),
        ("e", 0, {("a", "b"): -1}),
        ("e", 0, {("a", "b"): None}),
        ("e", 0, {("a", ""): 1}),
        ("e", 0, {("a",): 1}),
        ("e", 0, {("a", 5): 1}),
    ],
)
def test_what_no_ledger_has_is_refused(epoch: Any, base: Any, last: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        Known(epoch, base, last)


@pytest.mark.parametrize("recent", [{"": "e"}, {"d": ""}, {1: "e"}, {"d": None}])
def test_what_is_no_digest_of_an_epoch_is_refused(recent: Any) -> None:
    with pytest.raises(ValueError, match="expected a digest and an epoch"):
        Known("e", 0, {}, recent)


def test_what_is_remembered_moves_into_the_next_epoch() -> None:
    moved = Known("e", 5, {("a", "b"): 9}, {"d": "e"}).moved("f", 5, 7)
    assert moved == Known("f", 5, {("a", "b"): 7}, {"d": "e"})
