"""The ledger on disk across kills, full disks and damage. Longer loops: tests/crash/test_ledger_files.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from hub.core.ledger import Append, Damaged, Ended, LogState, Read
from hub.log import database
from hub.log.books import EPOCHS, read_books
from hub.log.mark import MarkFile
from hub.log.sqlite import SqliteLog
from hub.protocol.errors import ConfigError, NotDurable
from tests.log.damage import build, flip, judge
from tests.log.killing import Tally, check, killed, victim
from tests.log.messages import append, entry, opened, results, until, whole

pytestmark = pytest.mark.anyio


async def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    tally = Tally()
    for i in range(3):
        killed(tmp_path, f"run{i}", tally, after=40 + 30 * i)
    assert len(tally.acknowledged) >= 200
    await check(tmp_path, tally)


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    process = victim("fill", str(tmp_path), stderr=-1)
    out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    said = json.loads(out)
    assert all(text.startswith("1 1000 the ledger could not store") for text in said["refused"])
    assert said["stored"] >= 10
    assert said["readable"] >= said["stored"]
    # Every message has one number, in the end; those refused may have been stored, and keep theirs then.
    assert sorted(said["offsets"]) == said["slots"] == list(range(1, len(said["slots"]) + 1))
    lines = [line for line in err.splitlines() if line]
    assert [line.split()[0] for line in lines] == ["ERROR", "WARNING"], err
    assert "takes nothing: " in lines[0]
    assert "takes messages again" in lines[1]
    async with opened(tmp_path) as log:
        assert len(await whole(log)) == len(said["slots"])


async def test_after_a_failure_nothing_is_acknowledged_before_all_is_on_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> bool:
        raise OSError(errno.EIO, "disk I/O error")

    now = [0]
    async with opened(tmp_path, monotonic_ms=lambda: now[0]) as log:
        await append(log, entry("1"))
        with monkeypatch.context() as patch:
            # The commit is done, and cannot be told.
            patch.setattr(MarkFile, "write", broken)
            with pytest.raises(NotDurable, match="disk I/O error"):
                await append(log, entry("2"))
        with monkeypatch.context() as patch:
            patch.setattr(database, "checkpoint", broken)
            for again in ("1", "2", "3"):
                now[0] += 1000
                with pytest.raises(NotDurable):
                    await append(log, entry(again))
            assert [slot.offset for slot in await whole(log)] == [1], "what nobody was told of is not read"
        with pytest.raises(NotDurable):
            await append(log, entry("1"))
        now[0] += 10_000
        assert await append(log, entry("1"), entry("2"), entry("3")) == [(1, True), (2, True), (3, False)]
        assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.parametrize("killed_hub", [False, True], ids=["closed", "killed"])
async def test_one_flipped_bit_loses_nothing_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, killed_hub: bool
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "damaged").mkdir()
    ledger = await build(tmp_path / "made", 40, killed=killed_hub, room=12_000)
    assert ledger.floor > 0
    at = tmp_path / "damaged"
    random_bits = random.Random(4)
    caplog.set_level(logging.CRITICAL)
    for name in ["ledger.sqlite"] * 14 + (["ledger.sqlite-wal"] * 8 if killed_hub else ["ledger.mark"] * 4):
        ledger.put(at)
        bit = random_bits.randrange(8 * (at / name).stat().st_size)
        flip(at / name, bit)
        assert await judge(ledger, at) != "epoch", (name, bit)


async def test_a_wal_that_was_cut_gives_a_new_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "made").mkdir()
    ledger = await build(tmp_path / "made", 40, killed=True)
    at = tmp_path / "cut"
    at.mkdir()
    for part in (0, 3, 2):
        ledger.put(at)
        wal = at / "ledger.sqlite-wal"
        with wal.open("r+b") as file:
            file.truncate(wal.stat().st_size * part // 4)
        caplog.clear()
        assert await judge(ledger, at) == "epoch"
        (record,) = caplog.records
        assert "new epoch" in record.message
        assert "up to 40 were acknowledged; they are lost" in record.message


async def test_what_is_the_same_across_two_cuts(tmp_path: Path) -> None:
    async def cut(head: int) -> LogState:
        """Publish up to `head`, then lose what came since the database was last copied."""
        log = SqliteLog(tmp_path)
        state = await log.open()
        saved = log.directory.database.read_bytes()
        await append(log, *(entry(f"{len(saved)}{state.epoch}{i}") for i in range(state.head, head)))
        await log.close()
        log.directory.database.write_bytes(saved)
        return state

    async with opened(tmp_path) as log:
        await append(log, *(entry(str(i)) for i in range(1, 6)))
    first = await cut(9)
    second = await cut(7)
    log = SqliteLog(tmp_path)
    third = await log.open()
    await log.close()
    assert first.lineage == ()
    assert second.lineage == (Ended(first.epoch, 5, 9),)
    assert third.lineage == (Ended(first.epoch, 5, 9), Ended(second.epoch, 5, 7))
    async with opened(tmp_path) as log:
        assert len(await whole(log)) == 5


async def test_what_a_mark_cannot_know_is_not_told(tmp_path: Path) -> None:
    home = tmp_path / "home"

    async def state(path: Path) -> LogState:
        log = SqliteLog(path)
        state = await log.open()
        await log.close()
        return state

    async with opened(home) as log:
        await append(log, *(entry(str(i)) for i in range(1, 6)))
    epoch = (await state(home)).epoch
    # The mark that came along is that of the copy: the ledger itself may have gone on.
    shutil.copytree(home, tmp_path / "copy")
    assert (await state(tmp_path / "copy")).lineage == (Ended(epoch, 5, None),)
    # Another file beside the mark that knows how far it had come.
    shutil.copy(home / "ledger.sqlite", tmp_path / "saved")
    async with opened(home) as log:
        await append(log, entry("6"))
    (tmp_path / "saved").rename(home / "ledger.sqlite")
    restored = await state(home)
    assert restored.lineage == (Ended(epoch, 5, 6),)
    (home / "ledger.mark").unlink()
    unmarked = await state(home)
    assert unmarked.lineage == (*restored.lineage, Ended(restored.epoch, 5, None))
    # A mark of another ledger says nothing of this one.
    (home / "ledger.mark").write_bytes((tmp_path / "copy" / "ledger.mark").read_bytes())
    assert (await state(home)).lineage[2:] == (Ended(unmarked.epoch, 5, None),)
    epoch = (await state(home)).epoch
    (home / "ledger.sqlite").unlink()
    assert (await state(home)).lineage == (Ended(epoch, 0, 5),)


async def test_the_newest_epochs_are_remembered_and_survive_a_salvage(tmp_path: Path) -> None:
    epochs = []
    for i in range(EPOCHS + 4):
        log = SqliteLog(tmp_path)
        state = await log.open()
        epochs.append(state.epoch)
        await append(log, entry(str(i + 1)))
        await log.close()
        log.directory.mark.unlink()
    log = SqliteLog(tmp_path)
    state = await log.open()
    await log.close()
    assert [ended.epoch for ended in state.lineage] == epochs[-EPOCHS:]
    assert [ended.upto for ended in state.lineage] == list(range(5, EPOCHS + 5))
    with log.directory.database.open("r+b") as file:
        # Not the schema, and no table that salvage reads: the sequence.
        file.seek(database.PAGE_BYTES * 2)
        file.write(bytes(database.PAGE_BYTES))
    salvaged = SqliteLog(tmp_path)
    again = await salvaged.open()
    await salvaged.close()
    assert salvaged.directory.damaged().name.endswith("-2"), "it was malformed"
    assert (again.epoch, again.lineage) == (state.epoch, state.lineage)


async def test_a_damaged_record_is_named_once_and_those_behind_it_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as log:
        await append(log, *(entry(str(i), pad=50) for i in range(1, 31)))
    database = log.directory.database
    data = database.read_bytes()
    at = data.index(b'"number":"7"')
    with database.open("r+b") as file:
        file.seek(at)
        file.write(b"x")
    for _ in range(2):
        caplog.clear()
        async with opened(tmp_path) as log:
            for _ in range(2):
                slots = await whole(log)
                assert [slot.offset for slot in slots] == list(range(1, 31))
                assert [slot.offset for slot in slots if isinstance(slot, Damaged)] == [7]
            await until(lambda: log.statistics()["damaged"] == 1)
            assert await append(log, entry("7")) == [(7, True)], "nobody knows what it held"
    assert not caplog.records, "it was told in the first round"


async def test_the_books_are_brought_up_to_the_newest_record(tmp_path: Path) -> None:
    stored = {}
    async with opened(tmp_path) as log:
        for i in range(1, 301):
            one = entry(str(i), bot=f"b{i % 7}")
            await append(log, one)
            stored[one.stream] = one.offset
            if i in (255, 256, 257, 300):
                copy = tmp_path / str(i)
                copy.mkdir()
                for name in ("ledger.sqlite", "ledger.sqlite-wal"):
                    shutil.copy(tmp_path / name, copy)
                with contextlib.closing(database.connect(copy / "ledger.sqlite")) as connection:
                    books = read_books(connection)
                assert (books.streams, books.meta.head) == (stored, i)
                assert books.meta.bytes == log.statistics()["bytes"]
                assert books.written == (0 if i < 256 else 256)
    log = SqliteLog(tmp_path)
    assert (await log.open()).streams == stored
    await log.close()


async def test_a_damaged_record_that_the_books_do_not_know_could_be_of_any_stream(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await append(log, *(entry(str(i), bot=f"b{i % 2}") for i in range(1, 10)))
    file = log.directory.database
    data = file.read_bytes()
    with file.open("r+b") as damaged:
        damaged.seek(data.index(b'"number":"8"'))
        damaged.write(b"x")
    for round_, prevs in enumerate(([8, 9, 8], [10, 11, 8])):
        fresh = [entry(f"{bot}{round_}", bot=bot, ts=99) for bot in ("b0", "b1", f"new{round_}")]
        async with opened(tmp_path) as log:
            await append(log, *fresh)
        assert [one.prev for one in fresh] == prevs


# --- the epoch


async def test_a_restart_keeps_epoch_numbers_and_ids(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    state = await log.open()
    await append(log, entry("1"), entry("2", bot="b"))
    assert len(await whole(log)) == 2
    await log.close()
    await log.close()
    assert not log.directory.wal.exists()
    log = SqliteLog(tmp_path)
    again = await log.open()
    assert (again.epoch, again.floor, again.head) == (state.epoch, 0, 2)
    assert again.streams == {("a", "entry_fill"): 1, ("b", "entry_fill"): 2}
    assert await append(log, entry("1")) == [(1, True)]
    one = entry("3")
    assert await append(log, one) == [(3, False)]
    assert one.prev == 1
    await log.close()


async def test_the_mark_tells_a_restored_copy_and_what_it_cannot_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    log = SqliteLog(home)
    await log.open()
    await append(log, entry("1"))
    await log.close()
    shutil.copytree(home, tmp_path / "backup")
    async with opened(home) as log:
        await append(log, entry("2"))

    async def reason(path: Path) -> str:
        caplog.clear()
        async with opened(path) as log:
            slots = await whole(log)
            assert [slot.offset for slot in slots] == list(range(1, len(slots) + 1))
            assert await append(log, entry(f"next{len(slots)}", ts=99)) == [(len(slots) + 1, False)]
        (record,) = caplog.records
        return record.message

    # Another file with the same content: numbers may be given twice from now on.
    assert "is a copy, or was restored" in await reason(tmp_path / "backup")
    # The old content under the name of the newer: below what was told.
    (home / "ledger.sqlite").write_bytes((tmp_path / "backup" / "ledger.sqlite").read_bytes())
    (home / "ledger.mark").unlink()
    assert "its mark is missing" in await reason(home)
    (home / "ledger.sqlite").unlink()
    assert "database is gone" in await reason(home)
    (home / "ledger.mark").write_bytes(b"garbage")
    assert "its mark is missing" in await reason(home)


async def test_one_damaged_place_of_the_mark_is_no_new_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as log:
        await append(log, entry("1"))
    for place in (0, 512):
        data = bytearray((tmp_path / "ledger.mark").read_bytes())
        data[place : place + 40] = bytes(40)
        with (tmp_path / "ledger.mark").open("r+b") as file:
            file.write(data)
        async with opened(tmp_path):
            assert not caplog.records


# --- retention


async def test_numbering_survives_a_retention_that_empties_the_log(tmp_path: Path) -> None:
    now = [1_000_000]
    options = {"max_age_ms": 1000, "now_ms": lambda: now[0]}
    async with opened(tmp_path, **options) as log:
        await append(log, *(entry(str(i)) for i in range(1, 601)))
        now[0] += 5000
        await until(lambda: log.floor == 600)
        assert await whole(log) == []
        assert log.statistics()["bytes"] == 0
    async with opened(tmp_path, **options) as log:
        one = entry("601")
        (old, new) = await results(log, entry("5"), one)
        assert old.refused is not None
        assert (new.offset, one.prev) == (601, 600)


async def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    sizes = []
    async with opened(tmp_path, max_bytes=200_000) as log:
        for i in range(8):
            await append(log, *(entry(str(1000 * i + j), pad=400) for j in range(1000)))
            sizes.append(log.directory.database.stat().st_size + log.statistics()["wal_bytes"])
        assert log.statistics()["bytes"] <= 200_000
    assert log.directory.database.stat().st_size < 2 << 20


# --- who may open it


async def test_a_second_hub_on_the_same_ledger_is_one_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        with pytest.raises(ConfigError, match=r"^hub\.state_dir: another hub has the ledger in .*own$"):
            await SqliteLog(tmp_path, key="hub.state_dir").open()
        assert await append(log, entry("1")) == [(1, False)]
    async with opened(tmp_path) as log:
        assert len(await whole(log)) == 1


async def test_the_ledger_is_for_the_user_only(tmp_path: Path) -> None:
    async with opened(tmp_path / "a" / "ledger") as log:
        await append(log, entry("1"))
        modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "a" / "ledger").iterdir()}
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "a" / "ledger").stat().st_mode & 0o777 == 0o700


async def test_a_directory_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"^hub\.ledger\.path: the ledger in .* cannot be used: "):
        await SqliteLog(tmp_path / "file" / "ledger").open()
    with pytest.raises(ConfigError, match="cannot be used"):
        await SqliteLog(tmp_path / "\ud800" / "ledger").open()


async def test_a_file_that_is_no_ledger_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"no database, and long enough to look at\n" * 500)
    async with opened(tmp_path) as log:
        assert await append(log, entry("1")) == [(1, False)]
    assert (tmp_path / "ledger.sqlite.damaged-1").read_bytes().startswith(b"no database")


async def test_appends_that_wait_share_a_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        done = await asyncio.gather(*(log.append([Append(entry(str(i)), None)]) for i in range(200)))
        assert sorted(result.offset for (result,) in done) == list(range(1, 201))
        figures = log.statistics()
        assert figures["appended"] == 200
        assert figures["commits"] <= 20
        assert figures["largest_group"] >= 50
        assert figures["queued_bytes"] == 0


async def test_damage_that_appears_while_it_is_open_is_salvaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0]
    path = tmp_path / "ledger"
    async with opened(path) as log:
        await append(log, *(entry(str(i), pad=200) for i in range(1, 101)))
    async with opened(path, monotonic_ms=lambda: now[0]) as log:
        told = (await log.read(Read(100, 1))).entries[0].epoch
        database_file = path / "ledger.sqlite"
        # The root of the index of ids is garbage now, and no cache has it.
        page = _page_of(database_file, b"sqlite_autoindex_records_1")
        with database_file.open("r+b") as file:
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
        _drop_cache(log)
        with pytest.raises(NotDurable, match="malformed"):
            await append(log, entry("101"))
        now[0] += 1000
        assert await append(log, entry("101"), entry("100", pad=200)) == [(101, False), (100, True)]
        slots = await whole(log)
        assert [slot.offset for slot in slots] == list(range(1, 102))
        assert not [slot for slot in slots if isinstance(slot, Damaged)]
        assert slots[0].epoch == told
    assert (path / "ledger.sqlite.damaged-1").exists()
    async with opened(path) as log:
        assert (await whole(log))[0].epoch == told
        assert len(await whole(log)) == 101


def _drop_cache(log: SqliteLog) -> None:
    writer, group = log._writer, log._group
    assert writer is not None
    assert group is not None
    group.call(lambda: writer._connection.execute("PRAGMA shrink_memory"))


def _page_of(path: Path, name: bytes) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?", (name.decode(),)
        ).fetchone()
    return int(root) - 1


async def test_a_full_disk_at_the_start_lets_a_hub_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "full").mkdir()
    ledger = await build(tmp_path / "made", 10, killed=True)
    ledger.put(tmp_path / "full")
    real = database.checkpoint

    def full(connection: sqlite3.Connection, *, truncate: bool) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    now = [0]
    with monkeypatch.context() as patch:
        patch.setattr(database, "checkpoint", full)
        async with opened(tmp_path / "full", monotonic_ms=lambda: now[0]) as log:
            assert len(await whole(log)) == 10
            with pytest.raises(NotDurable):
                await append(log, entry("11"))
            patch.setattr(database, "checkpoint", real)
            now[0] += 1000
            assert await append(log, entry("11")) == [(11, False)]


async def test_a_ledger_of_another_version_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await append(log, entry("1"))
    with contextlib.closing(sqlite3.connect(log.directory.database, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET magic = 'tradewire ledger 7'")
    before = log.directory.database.read_bytes()
    with pytest.raises(ConfigError, match="of another version"):
        await SqliteLog(tmp_path).open()
    assert log.directory.database.read_bytes() == before


async def test_a_file_that_is_moved_away_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as log:
        await append(log, entry("1"))
        shutil.copy(log.directory.database, tmp_path / "copy")
        (tmp_path / "copy").rename(log.directory.database)
        await until(lambda: log.statistics()["failing"])
        with pytest.raises(NotDurable, match="start the hub again"):
            await append(log, entry("2"))


async def test_a_wal_that_is_removed_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as log:
        await append(log, *(entry(str(i)) for i in range(1, 6)))
        log.directory.wal.unlink()
        await until(lambda: "was removed while it is open" in caplog.text)
        assert await append(log, entry("6"), entry("1")) == [(6, False), (1, True)]
        assert [slot.offset for slot in await whole(log) if not isinstance(slot, Damaged)] == [
            1,
            2,
            3,
            4,
            5,
            6,
        ]
        # As after a kill: what has a name has all of it.
        shutil.copytree(tmp_path, tmp_path / "left", ignore=shutil.ignore_patterns("left"))
        assert log.statistics()["failing"] == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "left" / "ledger.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (6,)
