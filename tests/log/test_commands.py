"""tradewire-hub ledger verify, stats, export."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hub.__main__ import app
from hub.log.audit import MAX_FINDINGS, audit
from tests.log.damage import STREAMS, Ledger, build, flip
from tests.log.killing import ROOT
from tests.log.messages import append, entry, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "ledger").mkdir()
    return asyncio.run(build(tmp_path / "ledger", 40, killed=False, room=12_000))


@pytest.fixture
def path(tmp_path: Path, ledger: Ledger) -> Path:
    return tmp_path / "ledger"


def run(*words: object, status: int = 0) -> list[str]:
    """The lines of a command."""
    result = CliRunner().invoke(app, ["ledger", *map(str, words)])
    assert result.exit_code == status, result.output
    return result.output.splitlines()


def spoil(path: Path, number: int) -> None:
    """One record is no longer what was stored."""
    data = path.joinpath("ledger.sqlite").read_bytes()
    with path.joinpath("ledger.sqlite").open("r+b") as file:
        file.seek(data.index(b'"number":"%d"' % number))
        file.write(b"x")


def test_verify_of_a_good_ledger(path: Path, ledger: Ledger) -> None:
    (line,) = run("verify", "--path", path)
    good = 40 - ledger.floor
    assert line == (
        f"{path}: epoch {ledger.epoch}, offsets {ledger.floor + 1} to 40, {good} records read, 0 damaged: all is well"
    )


def test_verify_names_what_is_damaged_and_ends_with_status_1(path: Path) -> None:
    spoil(path, 38)
    spoil(path, 39)
    lines = run("verify", "--path", path, status=1)
    assert lines[0] == "records 38 to 39: damaged"
    assert lines[-1].endswith("2 damaged: 1 findings")


def test_verify_knows_a_mark_that_does_not_fit(path: Path, tmp_path: Path) -> None:
    (path / "ledger.mark").unlink()
    assert run("verify", "--path", path, status=1)[0].startswith("mark: missing")


async def test_verify_knows_a_wal_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "cut").mkdir()
    ledger = await build(tmp_path / "made", 40, killed=True)
    ledger.put(tmp_path / "cut")
    wal = tmp_path / "cut" / "ledger.sqlite-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size // 2)
    found = audit(tmp_path / "cut").findings
    assert [f for f in found if f.startswith("mark: 40 was told, the ledger ends at ")]


def test_no_damage_ends_in_a_traceback(path: Path, ledger: Ledger, tmp_path: Path) -> None:
    at = tmp_path / "damaged"
    at.mkdir()
    bits = random.Random(7)
    database = at / "ledger.sqlite"
    for _ in range(25):
        ledger.put(at)
        for _ in range(bits.choice([1, 1, 50])):
            flip(database, bits.randrange(8 * min(len(ledger.database), bits.choice([200, 1 << 20]))))
        findings = audit(at)
        assert len(findings.findings) <= MAX_FINDINGS


def test_stats(path: Path, ledger: Ledger) -> None:
    lines = run("stats", "--path", path)
    assert lines[1] == f"epoch    {ledger.epoch}"
    assert lines[2] == f"offsets  floor {ledger.floor}, head 40: {40 - ledger.floor} messages"
    assert len([line for line in lines if line.startswith("stream ")]) == len(STREAMS)
    assert [line for line in lines if line.startswith("file     ledger.sqlite: ")]


def exported(path: Path, *words: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("export", "--path", path, *words)]


def test_export_by_bot_topic_time_and_offset(path: Path, ledger: Ledger) -> None:
    everything = exported(path)
    assert [line["offset"] for line in everything] == list(range(ledger.floor + 1, 41))
    last = everything[-1]
    assert list(last) == ["epoch", "offset", "prev", "bot", "topic", "ts", "publisher", "mid", "data"]
    assert json.loads(ledger.stored[40][7]) == last["data"]
    some = exported(path, "--bot", "alpha", "--topic", "exit_fill", "--topic", "none")
    assert some == [e for e in everything if (e["bot"], e["topic"]) == ("alpha", "exit_fill")]
    assert some
    assert [e["offset"] for e in exported(path, "--after", 38)] == [39, 40]
    assert [e["offset"] for e in exported(path, "--since", "38", "--until", "1970-01-01T00:00:00.040")] == [
        38,
        39,
    ]


def test_export_has_a_line_for_each_damaged_slot(path: Path, ledger: Ledger) -> None:
    spoil(path, 38)
    (line,) = [e for e in exported(path) if "damaged" in e]
    assert line == {"epoch": ledger.epoch, "offset": 38, "damaged": True}


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    path = tmp_path / "large"
    asyncio.run(build(path, 400, killed=False))
    command = f"{sys.executable} -m hub ledger export --path '{path}' | head -1"
    done = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    # Far more than a pipe holds.
    assert sum(len(line) for line in run("export", "--path", path)) > 300_000
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


@pytest.mark.parametrize("command", ["verify", "stats", "export"])
def test_without_a_ledger_it_is_one_line(command: str, tmp_path: Path) -> None:
    config = tmp_path / "hub.json"
    config.write_text(json.dumps({"hub": {"ledger": {"path": str(tmp_path / "none")}}}))
    (line,) = run(command, "--config", config, status=1)
    assert line == f"error: {tmp_path / 'none'}: there is no ledger"
    config.write_text(json.dumps({"hub": {"ledger": {"kind": "memory"}}}))
    (line,) = run(command, "--config", config, status=1)
    assert line == 'error: hub.ledger.kind: expected "sqlite" to look at, got "memory"'


async def test_the_commands_run_beside_a_hub(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await append(log, entry("1"), entry("2"))
        assert run("verify", "--path", tmp_path)[0].endswith("all is well")
        assert len(exported(tmp_path)) == 2
        assert await append(log, entry("3")) == [(3, False)]
        assert len(exported(tmp_path)) == 3


def test_a_copy_of_the_files_alone_can_be_read(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "copy")
    assert run("verify", "--path", tmp_path / "copy")[0].endswith("all is well")
