"""The entry point of `make run`: light enough that Ctrl-C is answered from the first moment."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command; 130 in silence when Ctrl-C comes before there is anything to show."""
    try:
        # What the command imports takes a second, and says a lot when it is interrupted.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        from examples.run.command import command

        signal.signal(signal.SIGINT, before)
        return command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
