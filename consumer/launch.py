"""Starts `tradewire-hub` once it is sure that the package `hub` is tradewire's: another package of PyPI installs a `hub` too.

It lives here because the check cannot live in the package that may not be ours; it imports nothing of the hub by itself.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

__all__ = ["hub"]

_NEEDED = ("starlette", "uvicorn", "fastapi", "jwt")


def hub() -> None:
    """The entry point of `tradewire-hub`. Ends with one line when the hub's package or its extra is missing."""
    if find_spec("hub") is None or find_spec("hub.protocol") is None:
        sys.exit("tradewire-hub: the package `hub` here is not tradewire's; uninstall the other `hub`")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(
            f"tradewire-hub: needs {', '.join(missing)}; install them with: pip install 'tradewire[hub]'"
        )
    import_module("hub.__main__").main()
