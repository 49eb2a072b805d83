"""What `import consumer` loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

WEB = ("starlette", "uvicorn", "fastapi", "pydantic", "httpx", "jwt")


@pytest.mark.parametrize(
    ("statement", "none_of"),
    [
        ("import consumer", (*WEB, "pandas", "numpy", "websockets", "sqlalchemy")),
        (
            "from consumer import Client, Consumer, Publisher, ProducerData, load",
            (*WEB, "pandas", "sqlalchemy"),
        ),
        ("import consumer.__main__", (*WEB, "pandas", "sqlalchemy")),
    ],
)
def test_no_web_framework_is_loaded(statement: str, none_of: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys\nprint([m for m in {none_of!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    import consumer

    for name in consumer.__all__:
        assert getattr(consumer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = consumer.nothing
