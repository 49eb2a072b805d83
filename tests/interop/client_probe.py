"""freqtrade's own REST client asking a server, one JSON object a call.

    python client_probe.py URL USERNAME PASSWORD METHOD...

Runs inside a freqtrade environment. Each METHOD is called without arguments; the line is `{"method", "answer"}`.
"""

from __future__ import annotations

import json
import sys

from freqtrade_client import FtRestClient


def main() -> None:
    url, username, password, *methods = sys.argv[1:]
    client = FtRestClient(url, username, password)
    for method in methods:
        print(json.dumps({"method": method, "answer": getattr(client, method)()}), flush=True)


if __name__ == "__main__":
    main()
