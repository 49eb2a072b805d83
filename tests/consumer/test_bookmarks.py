"""consumer.bookmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from feed_doubles import event, fill

from consumer.bookmarks import Bookmarks
from consumer.errors import ConfigError
from hub.protocol.envelope import Position


def test_what_was_committed_is_there_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    marks = Bookmarks.load(path)
    commit = marks.hook(fill(3))
    commit()
    commit()
    marks.write(idle=True)
    assert Bookmarks.load(path).positions == {"hub": Position("e1", 3)}


def test_only_messages_of_the_ledger_have_a_position(tmp_path: Path) -> None:
    marks = Bookmarks.load(tmp_path / "positions.json")
    marks.hook(event())()
    marks.write(idle=True)
    assert list(tmp_path.iterdir()) == []


def test_a_late_commit_does_not_turn_back(tmp_path: Path) -> None:
    marks = Bookmarks.load(tmp_path / "positions.json")
    first, second, third = (marks.hook(d) for d in (fill(8), fill(9), fill(1, epoch="e2")))
    third()
    second()
    first()
    assert marks.positions == {"hub": Position("e2", 1)}


def test_a_busy_bot_writes_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    marks = Bookmarks.load(path)
    for offset in range(1, 101):
        assert not path.exists()
        marks.hook(fill(offset))()
        marks.write(idle=False)
    assert Bookmarks.load(path).positions == {"hub": Position("e1", 100)}


@pytest.mark.parametrize(
    "text", ["", "3", "{}", '{"positions": 3}', '{"positions": {"hub": ["e1"]}}', "\xff"]
)
def test_a_damaged_file_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"positions\.json cannot be read"):
        Bookmarks.load(path)


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    marks = Bookmarks.load(path)
    marks.hook(fill(1))()
    marks.write(idle=True)
    assert [file.name for file in tmp_path.iterdir()] == ["positions.json"]
    assert json.loads(path.read_text()) == {"version": 1, "positions": {"hub": ["e1", 1]}}
