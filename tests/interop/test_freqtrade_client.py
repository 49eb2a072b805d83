"""freqtrade-client against the hub's REST mount gets what it gets from a bot."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from bots import HERE, PASSWORD, USERNAME, ApiServerProbe, HubProcess, interop_python, wait_for

TOKEN = "interop-client-token-0123456789abcdef"
PAIRS = ["BTC/USDT", "ETH/USDT:USDT"]


def ask(port: int, *methods: str, password: str = PASSWORD) -> dict[str, Any]:
    command = [
        interop_python(),
        str(HERE / "client_probe.py"),
        f"http://127.0.0.1:{port}",
        USERNAME,
        password,
        *methods,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return {line["method"]: line["answer"] for line in map(json.loads, done.stdout.splitlines())}


def test_the_clients_first_calls_work_against_the_hub(directory: Path) -> None:
    with (
        ApiServerProbe(directory / "server", token=TOKEN) as server,
        HubProcess(
            directory / "hub",
            api_server={"ws_token": TOKEN},
            hub={
                "upstreams": [{"name": "maker", "host": "127.0.0.1", "port": server.port, "ws_token": TOKEN}]
            },
        ) as hub,
    ):
        server.do("whitelist", pairs=PAIRS)
        server.do("status", text="running")
        answers = wait_for(
            "the whitelist at the hub",
            lambda: (
                (got := ask(hub.port, "whitelist")).get("whitelist", {}).get("whitelist") == PAIRS and got
            ),
            30,
            of=hub,
        )
        answers |= ask(hub.port, "ping", "version", "show_config", "health")
        refused = ask(hub.port, "version", password="wrong")

    assert answers["ping"] == {"status": "pong"}
    assert list(answers["version"]) == ["version"]
    assert answers["whitelist"]["length"] == len(PAIRS)
    assert answers["show_config"]["api_version"] >= 2
    assert set(answers["health"]) >= {"last_process", "last_process_ts"}
    assert refused["version"] == {"detail": "Unauthorized"}
