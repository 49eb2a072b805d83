"""consumer.outbox_file, on real files: what a kill leaves, a full disk, damage, and who may have the file."""

from __future__ import annotations

import logging
import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from consumer import outbox_file
from consumer.errors import ConfigError, NotStored
from consumer.outbox_file import OutboxFile, Stored


class Told:
    """What the file told, and a way to wait for it."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.errors: list[NotStored] = []
        self.each: Callable[[], object] = lambda: None
        self._changed = threading.Condition()

    def __call__(self, numbers: Sequence[int], error: NotStored | None) -> None:
        if error is None:
            self.each()
        with self._changed:
            if error is None:
                self.numbers += numbers
            else:
                self.errors.append(error)
            self._changed.notify()

    def wait(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 20)


def message(number: int, text: str = "") -> Stored:
    return Stored(
        number, "a", "entry_fill", f"m{number}", 1000 + number, f'{{"trade_id":{number},"x":"{text}"}}'
    )


def opened(path: Path, told: Told | None = None) -> tuple[OutboxFile, list[Stored]]:
    file = OutboxFile(path, told or Told(), now_ms=lambda: 77)
    return file, file.open()


def left(path: Path) -> list[int]:
    """The numbers of what waits in a file."""
    file, waiting = opened(path)
    file.close()
    return [row.number for row in waiting]


def copied(path: Path, to: Path) -> Path:
    """What a kill at this moment would leave."""
    to.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if not file.name.endswith((".lock", "-shm")):
            shutil.copy(file, to)
    return to / path.name


def rows(path: Path, columns: str = "number, refused, refused_ms") -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT {columns} FROM message ORDER BY number").fetchall()
    finally:
        connection.close()


def test_what_was_told_is_there_in_order(tmp_path: Path) -> None:
    path, told = tmp_path / "new" / "o.sqlite", Told()
    file, waiting = opened(path, told)
    assert (waiting, file.next_number) == ([], 1)
    for number in (1, 2, 5):
        file.insert(message(number))
    told.wait(lambda: told.numbers == [1, 2, 5])
    file.close()
    again, waiting = opened(path)
    assert waiting == [message(1), message(2), message(5)]
    assert again.next_number == 6
    again.close()


def test_many_share_one_commit(tmp_path: Path) -> None:
    told, first, go_on = Told(), threading.Event(), threading.Event()
    told.each = lambda: first.set() or go_on.wait(20)
    file, _ = opened(tmp_path / "o.sqlite", told)
    file.insert(message(1))
    assert first.wait(20)
    for number in range(2, 101):
        file.insert(message(number))
    go_on.set()
    told.wait(lambda: len(told.numbers) == 100)
    assert file.statistics()["commits"] == 2
    file.close()


def test_a_kill_at_any_commit_leaves_all_that_was_told(tmp_path: Path) -> None:
    path, told = tmp_path / "o.sqlite", Told()
    snapshots: list[Path] = []
    told.each = lambda: snapshots.append(copied(path, tmp_path / f"kill-{len(snapshots)}"))
    file, _ = opened(path, told)
    for number in range(1, 9):
        file.insert(message(number, "x" * 5000))
        told.wait(lambda number=number: number in told.numbers)
        if number > 2:
            file.remove(number - 2)
    file.close()
    for number, snapshot in enumerate(snapshots, 1):
        assert left(snapshot) == list(range(max(1, number - 2), number + 1))
    assert left(path) == [7, 8]


def test_a_kill_within_a_commit_leaves_the_ones_before_it(tmp_path: Path) -> None:
    path, told = tmp_path / "o.sqlite", Told()
    file, _ = opened(path, told)
    sizes = []
    for number in (1, 2):
        file.insert(message(number, "x" * 9000))
        told.wait(lambda number=number: number in told.numbers)
        sizes.append((tmp_path / "o.sqlite-wal").stat().st_size)
    for cut in range(sizes[0], sizes[1], 1500):
        torn = copied(path, tmp_path / f"torn-{cut}")
        with torn.with_name("o.sqlite-wal").open("r+b") as wal:
            wal.truncate(cut)
        assert left(torn) == [1]
    file.close()


def test_a_removal_waits_for_the_next_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_file, "REMOVE_S", 60.0)
    path, told = tmp_path / "o.sqlite", Told()
    file, _ = opened(path, told)
    for number in (1, 2):
        file.insert(message(number))
    told.wait(lambda: told.numbers == [1, 2])
    commits = file.statistics()["commits"]
    file.remove(1)
    # Lost with a kill, which costs a repetition that the hub drops.
    assert left(copied(path, tmp_path / "killed")) == [1, 2]
    file.insert(message(3))
    told.wait(lambda: told.numbers == [1, 2, 3])
    assert [row[0] for row in rows(path)] == [2, 3]
    assert file.statistics()["commits"] == commits + 1
    file.remove(2)
    file.close()
    assert left(path) == [3]


def test_removals_that_cannot_be_committed_are_tried_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_file, "REMOVE_MANY", 2)
    monkeypatch.setattr(outbox_file, "REMOVE_S", 60.0)
    told, failed = Told(), threading.Event()
    file, _ = opened(tmp_path / "o.sqlite", told)
    for number in (1, 2):
        file.insert(message(number))
    told.wait(lambda: told.numbers == [1, 2])
    change = file._change

    def full(*_: object) -> None:
        failed.set()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(file, "_change", full)
    file.remove(1)
    file.remove(2)
    assert failed.wait(20)
    while not file.statistics()["commits_failed"]:
        pass
    # Not until REMOVE_S later, or somebody needs a commit.
    assert not file._batch.urgent
    monkeypatch.setattr(file, "_change", change)
    file.insert(message(3))
    told.wait(lambda: told.numbers == [1, 2, 3])
    assert file.statistics()["commits_failed"] == 1
    file.close()
    assert left(tmp_path / "o.sqlite") == [3]


def test_removals_do_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_file, "REMOVE_MANY", 2)
    path, told = tmp_path / "o.sqlite", Told()
    file, _ = opened(path, told)
    for number in (1, 2):
        file.insert(message(number))
    told.wait(lambda: told.numbers == [1, 2])
    file.remove(1)
    file.remove(2)
    while rows(path):
        pass
    monkeypatch.setattr(outbox_file, "REMOVE_S", 0.0)
    file.insert(message(3))
    told.wait(lambda: told.numbers == [1, 2, 3])
    file.remove(3)
    while rows(path):
        pass
    file.close()


def test_what_is_refused_stays_with_the_reason(tmp_path: Path) -> None:
    path, told = tmp_path / "o.sqlite", Told()
    file, _ = opened(path, told)
    for number in (1, 2, 3):
        file.insert(message(number))
    told.wait(lambda: told.numbers == [1, 2, 3])
    file.refuse(2, 20, "id_expired: too old")
    file.close()
    assert rows(path)[1] == (2, "id_expired: too old", 77)
    again, waiting = opened(path)
    assert [row.number for row in waiting] == [1, 3]
    assert again.statistics()["refused_kept"] == 1
    again.refuse(3, 20, "forbidden: no")
    again.close()
    assert opened_number(path) == 4


def opened_number(path: Path) -> int:
    file, _ = opened(path)
    file.close()
    return file.next_number


def test_refused_messages_are_bounded_and_the_loss_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_file, "REFUSED_MOST", 3)
    path, told = tmp_path / "o.sqlite", Told()
    file, _ = opened(path, told)
    for number in range(1, 8):
        file.insert(message(number))
    told.wait(lambda: len(told.numbers) == 7)
    with caplog.at_level(logging.WARNING):
        for number in range(1, 6):
            file.refuse(number, 20, "no")
        file.close()
    assert [row[0] for row in rows(path)] == [3, 4, 5, 6, 7]
    figures = file.statistics()
    assert (figures["refused_kept"], figures["refused_bytes"], figures["refused_dropped"]) == (3, 660, 2)
    assert "oldest refused messages had to go" in caplog.text
    monkeypatch.setattr(outbox_file, "REFUSED_BYTES", 600)
    again, _ = opened(path)
    again.refuse(6, 100, "no")
    again.close()
    assert [row[0] for row in rows(path)] == [5, 6, 7]


def test_a_full_disk_stores_nothing_tells_it_and_recovers(tmp_path: Path) -> None:
    path, told = tmp_path / "o.sqlite", Told()
    file, _ = opened(path, told)
    file.insert(message(1))
    told.wait(lambda: told.numbers == [1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        file.insert(message(2, "x" * 100_000))
        told.wait(lambda: told.errors)
        # What has room is still taken.
        file.insert(message(3))
        told.wait(lambda: told.numbers == [1, 3])
        file.insert(message(4, "x" * 100_000))
        told.wait(lambda: len(told.errors) == 2)
        file.remove(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = told.errors[0]
    assert (error.code, error.temporary) == ("not_durable", True)
    assert str(error).startswith(f"not_durable: {path}: ")
    assert "\n" not in str(error)
    file.insert(message(5, "x" * 100_000))
    told.wait(lambda: told.numbers == [1, 3, 5])
    assert file.statistics()["commits_failed"] == 2
    file.close()
    assert left(path) == [3, 5]


def test_two_do_not_have_one_file(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    file, _ = opened(path)
    with pytest.raises(
        ConfigError, match=r"outbox: .*o\.sqlite is in use by another publisher; each needs a"
    ):
        opened(path)
    file.close()
    assert left(path) == []


def damaged(path: Path) -> str:
    """What a file that cannot be read is refused with, a second time as well."""
    lines = set()
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            opened(path)
        lines.add(str(caught.value))
    (line,) = lines
    assert "\n" not in line
    return line


def filled(path: Path) -> Path:
    told = Told()
    file, _ = opened(path, told)
    for number in range(1, 40):
        file.insert(message(number, "x" * 500))
    told.wait(lambda: len(told.numbers) == 39)
    file.close()
    return path


@pytest.mark.parametrize("offset", [0, 100, 8192, 4096 * 3 + 5])
def test_a_damaged_file_is_refused_with_a_way_on(tmp_path: Path, offset: int) -> None:
    path = filled(tmp_path / "o.sqlite")
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)
    line = damaged(path)
    assert line.startswith(f"outbox: {path} is damaged (")
    assert line.endswith(
        "move it and o.sqlite-wal away to begin with an empty one; what was not published may be read there"
    )
    path.rename(tmp_path / "away")
    assert left(path) == []


@pytest.mark.parametrize("body", ["X'FF'", "'{'", "X'7B7D'"])
def test_a_row_that_is_no_message_is_damage(tmp_path: Path, body: str) -> None:
    path = filled(tmp_path / "o.sqlite")
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE message SET body = {body} WHERE number = 7")
    connection.commit()
    connection.close()
    assert "is damaged (row 7 is no message)" in damaged(path)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a diary, not a database, and long enough for a header of one" * 20)
    assert "is damaged (file is not a database)" in damaged(text)
    other = tmp_path / "other"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE message (x)")
    connection.close()
    assert damaged(other).endswith("expected an outbox or no file, found a database of something else")
    newer = filled(tmp_path / "newer")
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    assert damaged(newer).endswith("expected version 1 of an outbox, found 9")
    (tmp_path / "folder").mkdir()
    assert "folder cannot be opened: unable to open database file" in damaged(tmp_path / "folder")
    assert "below cannot be used: " in damaged(text / "below")


def test_an_empty_file_is_an_outbox_without_messages(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    path.touch()
    assert left(path) == []
