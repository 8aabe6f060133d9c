"""What a user downloads for `pip install showtell`: our wheel, and the wheels that it brings.

pip resolves and fetches them into an empty folder, as it would for this machine's Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sides import Target, note, print_line, shorten

ENGINE = "onnxruntime"
ROOT = Path(__file__).resolve().parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks install", description=__doc__)
    parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        note("building and fetching wheels")
        words = [
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--disable-pip-version-check",
            "--wheel-dir",
            folder,
            str(ROOT),
        ]
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(Path(folder).glob("*.whl"))}
    own = sum(size for name, size in sizes.items() if name.startswith("showtell-"))
    engine = sum(size for name, size in sizes.items() if name.startswith(f"{ENGINE}-"))
    print_line(
        "install",
        [
            Target("MB of Showtell's own wheel", own, at_most=25.0),
            Target(
                f"MB of all wheels of the base install besides {ENGINE}",
                sum(sizes.values()) - engine,
                at_most=120.0,
            ),
        ],
        wheels_mb={name: shorten(size) for name, size in sizes.items()},
        total_mb=shorten(sum(sizes.values())),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
