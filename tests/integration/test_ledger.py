"""The ledger on disk behind a real hub: restarts, two hubs, damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.protocol.errors import ConfigError
from hub.server import Hub
from tests.log.killing import ROOT

from .conftest import CONFIG, fill

pytestmark = pytest.mark.anyio


def config(state: Path, **ledger: Any) -> dict[str, Any]:
    return {**CONFIG, "hub": {**CONFIG["hub"], "state_dir": str(state), "ledger": ledger}}


def test_a_restart_keeps_epoch_numbers_and_ids(tmp_path: Path) -> None:
    with Hub(config(tmp_path)) as hub:
        first = hub.publish("entry_fill", fill(1), mid="one").result(10)
    with Hub(config(tmp_path)) as hub:
        second = hub.publish("entry_fill", fill(2)).result(10)
        again = hub.publish("entry_fill", fill(1), mid="one").result(10)
    assert (first["epoch"], first["offset"]) == (second["epoch"], 1)
    assert second["offset"] == 2
    assert (again["offset"], again["duplicate"]) == (1, True)


def test_two_hubs_need_two_directories(tmp_path: Path) -> None:
    with Hub(config(tmp_path / "a")) as one, Hub(config(tmp_path / "b")) as other:
        assert one.publish("entry_fill", fill(1)).result(10)["offset"] == 1
        assert other.publish("entry_fill", fill(1)).result(10)["offset"] == 1
        with pytest.raises(ConfigError, match=r"hub\.state_dir: another hub has the ledger in "):
            Hub(config(tmp_path / "a")).start()
        with pytest.raises(ConfigError, match=r"hub\.ledger\.path: another hub has the ledger in "):
            Hub(config(tmp_path / "c", path=str(tmp_path / "a" / "ledger"))).start()
        document = tmp_path / "hub.json"
        document.write_text(json.dumps(config(tmp_path / "a")))
        command = [sys.executable, "-m", "hub", "serve", "--config", str(document)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT, env=env
        )
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: hub.state_dir: another hub has the ledger in ")
        assert done.returncode == 1


def test_a_ledger_in_memory_is_a_new_epoch(tmp_path: Path) -> None:
    epochs = set()
    for _ in range(2):
        with Hub(config(tmp_path, kind="memory")) as hub:
            ack = hub.publish("entry_fill", fill(1)).result(10)
            assert ack["offset"] == 1
            epochs.add(ack["epoch"])
    assert len(epochs) == 2
    assert not (tmp_path / "ledger").exists()
