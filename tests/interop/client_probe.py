"""freqtrade's own REST client asking a server: a JSON line in, a JSON line out.

    python client_probe.py URL USERNAME PASSWORD

Runs inside a freqtrade environment. First it says `{"methods": [...]}`, every public method of the client. Each line of stdin is
`[method, [arguments], {keywords}]`, answered with what the method returned, `{"answer": ...}`. It ends with stdin.
"""

from __future__ import annotations

import inspect
import json
import sys

from freqtrade_client import FtRestClient


def main() -> None:
    client = FtRestClient(*sys.argv[1:])
    methods = [name for name, _ in inspect.getmembers(FtRestClient, inspect.isfunction) if name[0] != "_"]
    print(json.dumps({"methods": methods}), flush=True)
    for line in sys.stdin:
        method, arguments, keywords = json.loads(line)
        print(json.dumps({"answer": getattr(client, method)(*arguments, **keywords)}), flush=True)


if __name__ == "__main__":
    main()
