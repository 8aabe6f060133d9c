"""Lets `python -m showtell` do what the command `showtell` does."""

from __future__ import annotations

import signal
import sys


def start() -> int:
    """Runs the command line in a process of its own, which Ctrl-C ends without a traceback at any time."""
    try:
        from showtell.cli.main import main

        code = main()
    except KeyboardInterrupt:  # while it was still being loaded, or a second one
        print("showtell: interrupted", file=sys.stderr)  # noqa: T201
        code = 130  # 128 + SIGINT, what shells report
    # All is done and said: what ends now is Python itself, which would make the signal its exit code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(start())
