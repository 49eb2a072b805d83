"""Ask a hub whether it is alive and ready; for a container's health check. Exit status 0: it is, 1: it is not.

No token is needed, and nothing but the standard library.
"""

import os
import sys
import urllib.error
import urllib.request

URL = (sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TRADEWIRE_URL", "http://127.0.0.1:8080")).rstrip(
    "/"
)


def probe(path: str) -> bool:
    try:
        with urllib.request.urlopen(URL + path, timeout=5) as answer:
            print(f"{path}: {answer.status} {answer.read(200).decode()}")
            return True
    except urllib.error.HTTPError as error:
        # 503: alive, but draining or not able to store.
        print(f"{path}: {error.code} {error.read(200).decode()}")
    except OSError as error:
        print(f"{path}: {getattr(error, 'reason', error)}")
    return False


alive, ready = probe("/livez"), probe("/readyz")
sys.exit(0 if alive and ready else 1)
