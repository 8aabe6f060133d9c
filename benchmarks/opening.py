"""`showtell report` of a thousand images: how large its page is, and how long a browser takes to open it.

Each round opens the file in a new profile of chromium, and waits until the page has drawn itself after its script: all
images can be seen, filtered and searched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sides import Target, note, print_line, shorten, spread

_DRAWN = """
() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done({
  painted: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN,
  ready: performance.now(),
  cards: document.querySelectorAll(".card").length,
}))))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks opening", description=__doc__)
    parser.add_argument("--data", required=True, help="as for `showtell report`")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--model", action="append", default=[], help="several are compared (compact)")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args(argv)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        parser.error("chromium was not found: apt-get install chromium, or CHROMIUM=/path/to/it")
    models = arguments.model or ["compact"]
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as name:
        began = time.perf_counter()
        command = [sys.executable, "-m", "showtell", "report", *models, "--output", f"{name}/report"]
        command += ["--data", arguments.data, "--split", arguments.split]
        command += ["--max-images", str(arguments.images)]
        note(f"showtell report {' '.join(models)}")
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise SystemExit("benchmarks: showtell report failed")
        seconds = time.perf_counter() - began
        page = Path(name) / "report/report.html"
        size = page.stat().st_size
        painted, ready, cards = open_page(page, chromium, arguments.rounds)
    if cards != arguments.images:
        raise SystemExit(f"benchmarks: the page shows {cards} images, {arguments.images} were asked for")
    print_line(
        "opening",
        [
            Target("MB of the page", size / 1e6, at_most=25),
            Target("seconds until it is open, median", statistics.median(ready), at_most=2),
        ],
        images=cards,
        models=models,
        seconds_to_make=shorten(seconds),
        seconds_to_first_paint=spread(painted),
        seconds_to_open=spread(ready),
    )
    return 0


def open_page(page: Path, chromium: str, rounds: int) -> tuple[list[float], list[float], int]:
    """Opens a file again and again; returns the seconds to its first paint and until it is open, and its images."""
    from playwright.sync_api import sync_playwright

    painted, ready, cards = [], [], 0
    with sync_playwright() as playwright:
        for _ in range(rounds):
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            opened = browser.new_page()
            opened.goto(page.as_uri())
            found = opened.evaluate(_DRAWN)
            painted.append(found["painted"] / 1000)
            ready.append(found["ready"] / 1000)
            cards = found["cards"]
            browser.close()
    return painted, ready, cards


if __name__ == "__main__":
    raise SystemExit(main())
