"""Lets `python -m showtell` do what the command `showtell` does."""

from __future__ import annotations

import sys

from showtell.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
