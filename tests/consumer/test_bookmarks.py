"""consumer.bookmarks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from feed_doubles import advanced, digest, event, fill, lost

from consumer.bookmarks import EVERY_S, Bookmarks, read_file
from consumer.errors import BotFailed, ConfigError, StoreFailed
from hub.protocol.envelope import Position
from hub.protocol.known import Known
from hub.protocol.localbot import Delivery

ALPHA, BETA = ("alpha", "entry_fill"), ("beta", "entry_fill")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "positions.json"


@pytest.fixture
def marks(path: Path, clock: Clock) -> Bookmarks:
    return Bookmarks.of_file(path, {}, clock=clock)


def pass_through(marks: Bookmarks, *deliveries: Delivery, idle: bool = True) -> None:
    """What a lane does with each."""
    for delivery in deliveries:
        commit = marks.hook(delivery)
        if delivery.topic == "advanced":
            marks.advance(delivery.message)  # type: ignore[arg-type]
        commit()
        marks.settle(delivery, idle=idle)


def test_what_was_committed_is_there_for_the_next_run(marks: Bookmarks, path: Path) -> None:
    commit = marks.hook(fill(3, base=1))
    commit()
    commit()
    marks.settle(fill(3, base=1), idle=True)
    assert read_file(path) == {"hub": Known("e1", 1, {ALPHA: 3})}


def test_only_messages_of_the_ledger_have_a_position(marks: Bookmarks, tmp_path: Path) -> None:
    pass_through(marks, event())
    marks.close()
    assert list(tmp_path.iterdir()) == []


def test_a_commit_stands_for_all_before_and_a_late_one_does_not_turn_back(marks: Bookmarks) -> None:
    first, second, third = (
        marks.hook(d) for d in (fill(8, base=5), fill(9, base=5, bot="beta"), fill(10, base=5))
    )
    second()
    assert marks.known == {"hub": Known("e1", 5, {ALPHA: 8, BETA: 9})}
    first()
    assert marks.known == {"hub": Known("e1", 5, {ALPHA: 8, BETA: 9})}
    third()
    assert marks.known == {"hub": Known("e1", 5, {ALPHA: 10, BETA: 9})}


def test_another_epoch_begins_anew(marks: Bookmarks) -> None:
    pass_through(marks, fill(8, base=5), fill(2, base=1, epoch="e2"))
    assert marks.known == {"hub": Known("e2", 1, {ALPHA: 2})}


def test_a_base_is_noted_at_its_place_and_forgets_what_is_below(marks: Bookmarks) -> None:
    pass_through(marks, fill(8, base=5), fill(9, base=5, bot="beta"), advanced(8))
    assert marks.known == {"hub": Known("e1", 8, {BETA: 9})}
    pass_through(marks, advanced(3, anew=True))
    assert marks.known == {"hub": Known("e1", 3)}
    pass_through(marks, advanced(1))
    assert marks.known == {"hub": Known("e1", 3)}


def test_who_knows_no_base_has_one_number(marks: Bookmarks) -> None:
    pass_through(marks, fill(8))
    assert marks.known == {"hub": Known("e1", 8)}


def test_an_idle_base_is_stored_now_and_then_and_at_the_end(
    marks: Bookmarks, path: Path, clock: Clock
) -> None:
    pass_through(marks, advanced(4))
    assert read_file(path) == {"hub": Known("e1", 4)}
    pass_through(marks, advanced(5))
    assert read_file(path) == {"hub": Known("e1", 4)}
    clock.now += EVERY_S
    # The same one again, as a heartbeat tells it.
    pass_through(marks, advanced(5))
    assert read_file(path) == {"hub": Known("e1", 5)}
    pass_through(marks, advanced(6))
    marks.close()
    assert read_file(path) == {"hub": Known("e1", 6)}


@pytest.mark.parametrize("to", [advanced(60), advanced(3, anew=True), advanced(3, epoch="e2")])
def test_a_base_behind_a_loss_or_of_a_new_ledger_is_stored_at_once(
    to: Delivery, marks: Bookmarks, path: Path
) -> None:
    pass_through(marks, advanced(4), lost(5, 60), to)
    position = to.message.position  # type: ignore[union-attr]
    assert read_file(path) == {"hub": Known(position.epoch, position.offset)}


def test_a_busy_bot_writes_now_and_then(marks: Bookmarks, path: Path) -> None:
    for offset in range(1, 101):
        assert not path.exists()
        pass_through(marks, fill(offset), idle=False)
    assert read_file(path) == {"hub": Known("e1", 100)}


def test_what_was_handed_over_is_not_stored_before_it_is_committed(marks: Bookmarks, path: Path) -> None:
    marks.hook(fill(7, base=5))
    marks.close()
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "{}",
        '{"positions": 3}',
        '{"positions": {"hub": ["e1"]}}',
        '{"positions": {"hub": ["e1", -1]}}',
        '{"version": 2, "positions": {"hub": {"epoch": "e1", "base": 1.5, "last": []}}}',
        '{"version": 2, "positions": {"hub": {"epoch": "", "base": 1, "last": []}}}',
        '{"version": 2, "positions": {"hub": {"epoch": "e1", "base": 1, "last": [["a", 3, 5]]}}}',
        '{"version": 2, "positions": {"hub": {"epoch": "e1", "base": 1, "last": [["a", "b", true]]}}}',
        "\xff",
        pytest.param("[" * 100_000, id="nested"),
    ],
)
def test_a_damaged_file_is_told(text: str, path: Path) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"positions\.json cannot be read"):
        read_file(path)


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    path.write_text('{"version": 3, "positions": {}}')
    with pytest.raises(ConfigError, match="newer version"):
        read_file(path)


def test_version_1_is_a_start(path: Path) -> None:
    path.write_text('{"version": 1, "positions": {"hub": ["e1", 7]}}')
    assert read_file(path) == {"hub": Known("e1", 7)}


def test_the_file_is_whole_or_not_there_and_durable_before_the_next(
    marks: Bookmarks, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            steps.append(name)
            return real(*args)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", noted("replace", Path.replace))
    pass_through(marks, fill(2, base=1))
    assert steps == ["fsync", "replace", "fsync"]
    assert [file.name for file in path.parent.iterdir()] == ["positions.json"]
    last = [["alpha", "entry_fill", 2]]
    stored = {"version": 2, "positions": {"hub": {"epoch": "e1", "base": 1, "last": last, "recent": {}}}}
    assert json.loads(path.read_text()) == stored


def test_what_was_acted_on_last_is_remembered_in_later_epochs(marks: Bookmarks, path: Path) -> None:
    pass_through(marks, fill(8, base=5, mid="a"), fill(2, base=1, epoch="e2", mid="b"))
    known = Known("e2", 1, {ALPHA: 2}, {digest("a"): "e1", digest("b"): "e2"})
    assert read_file(path) == {"hub": known}
    again = Bookmarks.of_file(path, read_file(path))
    pass_through(again, fill(3, base=1, epoch="e2", mid="a", repeated=True), advanced(5, epoch="e2"))
    again.close()
    assert read_file(path) == {"hub": Known("e2", 5, {}, {digest("b"): "e2", digest("a"): "e2"})}


def test_a_file_of_a_time_before_messages_were_remembered_is_read(path: Path) -> None:
    last = [["alpha", "entry_fill", 2]]
    path.write_text(
        json.dumps({"version": 2, "positions": {"hub": {"epoch": "e1", "base": 1, "last": last}}})
    )
    assert read_file(path) == {"hub": Known("e1", 1, {ALPHA: 2})}


def test_a_file_that_cannot_be_written_ends_the_run(marks: Bookmarks, path: Path) -> None:
    path.with_suffix(".partial").mkdir()
    with pytest.raises(BotFailed, match="cannot be stored"):
        pass_through(marks, fill(1))


def test_producers_that_are_not_configured_keep_their_places(path: Path) -> None:
    marks = Bookmarks.of_file(path, {"away": Known("e9", 3, {ALPHA: 5})})
    pass_through(marks, fill(1))
    assert read_file(path) == {"away": Known("e9", 3, {ALPHA: 5}), "hub": Known("e1", 1)}


# --- with a bot's own store


class Store:
    """A PositionStore in memory that notes what it is asked."""

    def __init__(self, **known: Known) -> None:
        self.known = dict(known)
        self.asked: list[tuple[Any, ...]] = []
        self.saves = True

    def load(self, producer: str) -> Known | None:
        return self.known.get(producer)

    def saved(self, delivery: Delivery) -> bool:
        return self.saves

    def advance(self, producer: str, known: Known, *, anew: bool = False) -> None:
        self.asked.append((producer, known, anew))


def of_store(store: Store, path: Path, clock: Clock, **filed: Known) -> Bookmarks:
    return Bookmarks.of_store(store, path, filed, ["hub"], clock=clock)


def test_a_store_is_only_told_what_the_bot_cannot_save(path: Path, clock: Clock) -> None:
    store = Store()
    marks = of_store(store, path, clock)
    pass_through(marks, advanced(4))
    assert store.asked == [("hub", Known("e1", 4), False)]
    pass_through(marks, fill(6, base=5), fill(7, base=5), advanced(7))
    marks.settle(advanced(7), idle=True)
    assert len(store.asked) == 1
    clock.now += EVERY_S
    pass_through(marks, advanced(7))
    assert store.asked[1:] == [("hub", Known("e1", 7), False)]
    pass_through(marks, advanced(2, anew=True))
    assert store.asked[2:] == [("hub", Known("e1", 2), True)]
    marks.close()
    assert len(store.asked) == 3


def test_what_a_bot_forgets_to_save_is_saved_and_told_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(hub=Known("e1", 4))
    store.saves = False
    marks = of_store(store, path, clock)
    pass_through(marks, fill(6, base=4), fill(7, base=4))
    assert [known for _, known, _ in store.asked] == [
        Known("e1", 4, {ALPHA: 6}),
        Known("e1", 4, {ALPHA: 7}),
    ]
    (told,) = caplog.messages
    assert told.startswith("entry_fill of alpha was not saved with its effect")


def test_a_repetition_is_stored_for_the_bot_that_was_not_given_it(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(hub=Known("e2", 4, {}, {digest("a"): "e1"}))
    store.saves = False
    marks = of_store(store, path, clock)
    pass_through(marks, fill(6, base=4, epoch="e2", mid="a", repeated=True))
    assert store.asked == [("hub", Known("e2", 4, {ALPHA: 6}, {digest("a"): "e2"}), False)]
    assert caplog.messages == []


def test_what_was_in_the_file_moves_into_the_store(path: Path, clock: Clock) -> None:
    path.write_text("{}")
    store = Store(hub=Known("e1", 9))
    marks = of_store(store, path, clock, hub=Known("e1", 4), away=Known("e2", 3))
    assert marks.known == {"hub": Known("e1", 9), "away": Known("e2", 3)}
    assert store.asked == [("away", Known("e2", 3), False)]
    assert not path.exists()


def test_the_file_keeps_up_with_a_bot_that_returns_a_position(path: Path, clock: Clock) -> None:
    filed = {"hub": Known("e1", 2), "other": Known("e2", 3)}
    marks = Bookmarks.of_position(Position("e1", 5), path, filed, ["hub", "other"], clock=clock)
    assert marks.known == {"hub": Known("e1", 5), "other": Known("e2", 3)}
    pass_through(marks, fill(6, base=5))
    marks.close()
    # So a bot that keeps no number any more, or returns a store, does not act again on what came since.
    assert read_file(path) == {"hub": Known("e1", 5, {ALPHA: 6}), "other": Known("e2", 3)}


@pytest.mark.parametrize("method", ["saved", "advance"])
def test_whatever_a_store_raises_is_one_line(
    method: str, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("x")

    marks = of_store(store, path, clock)
    monkeypatch.setattr(store, method, fail)
    with pytest.raises(StoreFailed, match=f"Store.{method}: KeyError: 'x'"):
        pass_through(marks, advanced(1), fill(2, base=1))
    monkeypatch.setattr(store, "load", lambda producer: 3)
    with pytest.raises(StoreFailed, match="expected a Known or None, got int"):
        of_store(store, path, clock)


def test_what_is_the_same_in_the_next_epoch_moves_in_one_write(marks: Bookmarks, path: Path) -> None:
    pass_through(marks, fill(43, base=40), fill(60, base=40, bot="beta"), idle=False)
    moved = advanced(40, epoch="e2", anew=True, same=Position("e1", 50))
    pass_through(marks, moved, idle=False)
    assert read_file(path) == {"hub": Known("e2", 40, {ALPHA: 43, BETA: 50})}
    pass_through(marks, advanced(45, epoch="e3", anew=True, same=Position("e2", 45)), idle=False)
    assert read_file(path) == {"hub": Known("e3", 45)}
    pass_through(marks, advanced(5, epoch="e5", anew=True, same=Position("e4", 50)), idle=False)
    assert read_file(path) == {"hub": Known("e5", 5)}
