"""The hub as an ASGI application, for a server of your choice: `hypercorn --workers 0 examples.asgi_app:app`.

HUB_CONFIG names its configuration file; without one it has the defaults, with secrets made on the first run. Where to listen is
the server's business. One process: the ledger belongs to one hub.
"""

import os
from pathlib import Path

from hub.config import load
from hub.server import Hub

CONFIG = os.environ.get("HUB_CONFIG")

app = Hub(load(Path(CONFIG) if CONFIG else None, os.environ)).asgi()
