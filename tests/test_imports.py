"""What importing loads: a bot that only consumes pays for no web framework, and the pure packages do no I/O."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = "import json, sys, {modules}; print(json.dumps(sorted(sys.modules)))"
WEB = {"starlette", "uvicorn", "fastapi", "pydantic", "pydantic_core", "nats"}


def loaded(*modules: str) -> set[str]:
    """The top-level names in sys.modules of a fresh interpreter that imported these."""
    code = CODE.format(modules=", ".join(modules))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(run.stdout))


def test_the_consumer_loads_no_web_framework_and_nothing_of_the_hub_but_its_wire() -> None:
    names = loaded("consumer")
    assert not {name.split(".")[0] for name in names} & WEB
    hub = {name for name in names if name.startswith("hub.")}
    assert {".".join(name.split(".")[:2]) for name in hub} <= {"hub.protocol", "hub.frames"}


@pytest.mark.parametrize(
    "modules",
    [
        ("hub.protocol.messages", "hub.protocol.codec", "hub.protocol.envelope", "hub.protocol.localbot"),
        ("hub.core.engine", "hub.core.requests", "hub.core.intake"),
    ],
)
def test_protocol_and_core_do_no_io(modules: tuple[str, ...]) -> None:
    names = {name.split(".")[0] for name in loaded(*modules)}
    assert not names & (WEB | {"asyncio", "anyio", "websockets", "sqlalchemy", "pandas"})


def test_frames_load_no_pandas_until_a_frame_is_built() -> None:
    assert "pandas" not in loaded("hub.frames.store", "hub.frames.v2", "hub.frames.freqtrade")


def test_the_hub_package_is_empty() -> None:
    assert {name for name in loaded("hub") if name.startswith("hub.")} == set()
