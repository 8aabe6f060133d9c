"""`showtell bulk` against `showtell caption` on one folder, as processes: images a second, and memory for few and many.

The folder has as many names as asked for, of a few hundred photographs. Everything counts, the start of Ray and of the
captioners too. Its line is also what `python -m benchmarks fleet --measured` reads.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import count_cores
from benchmarks.photographs import write_photographs
from benchmarks.sides import Target, note, print_line, shorten
from showtell.bulk.inputs import Inputs
from showtell.bulk.places import open_store
from showtell.bulk.plan import Shard, cut_shards
from showtell.bulk.results import Results, commit_shard

_LEADING_ROUNDS = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bulk", description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--few", type=int, default=2_000, help="images that memory is compared for")
    parser.add_argument("--photographs", type=int, default=256, help="different ones")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--model", action="append", default=[], help="default: the one that comes along")
    arguments = parser.parse_args(argv)
    model = [word for one in arguments.model for word in ("--model", one)]
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as name:
        folder = Path(name)
        paths = write_photographs(
            folder / "photographs", arguments.photographs, width=arguments.width, height=arguments.height
        )
        many, few = (
            _repeat(paths, folder / f"{count}", count) for count in (arguments.images, arguments.few)
        )
        plain = _measure(
            "caption", str(many), *model, "--format", "jsonl", "--output", str(folder / "plain.jsonl")
        )
        found = {
            count: _measure("bulk", str(images), *model, "--output", str(folder / f"out-{count}"))
            for images, count in ((few, arguments.few), (many, arguments.images))
        }
        bulk = found[arguments.images]
        fleet = _measure_leading(folder, many, arguments.images)
        largest = max(path.stat().st_size for path in paths)
    rate = arguments.images / bulk["seconds"]
    print_line(
        "bulk",
        [
            Target(
                "of the plain folder captioner's images a second",
                plain["seconds"] / bulk["seconds"],
                at_least=0.85,
            ),
            Target(
                f"of the peak memory for {arguments.few} images, for {arguments.images}",
                bulk["peak_rss_mb"] / found[arguments.few]["peak_rss_mb"],
                at_most=1.1,
            ),
        ],
        images=arguments.images,
        photographs=f"{arguments.width}x{arguments.height} JPEG",
        model=arguments.model or "compact",
        images_per_second={
            "bulk": shorten(rate),
            "caption": shorten(arguments.images / plain["seconds"]),
        },
        peak_rss_mb={
            "caption": plain["peak_rss_mb"],
            **{f"bulk, {count}": one["peak_rss_mb"] for count, one in found.items()},
        },
        fleet={**fleet, "rate": rate / count_cores(), "bytes_per_image": largest},
    )
    return 0


def _repeat(paths: Sequence[Path], folder: Path, count: int) -> Path:
    """Makes a folder with `count` names for a few files."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:07d}.jpg").hardlink_to(paths[number % len(paths)])
    return folder


def _measure(*words: str) -> dict[str, Any]:
    """Runs a command; returns its seconds, and the most memory that it and its children had together."""
    note(f"showtell {words[0]} {words[1]}")
    began = time.perf_counter()
    process = psutil.Popen([sys.executable, "-m", "showtell", *words], stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory_of(process))
        time.sleep(0.5)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"benchmarks: showtell {' '.join(words)} failed")
    return {"seconds": seconds, "peak_rss_mb": round(peak / 1e6)}


def _memory_of(process: psutil.Process) -> int:
    """Returns the bytes that a process and its children have for themselves: shared pages would count often."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            memory = one.memory_info()
        except psutil.Error:
            continue
        total += memory.rss - memory.shared
    return total


def _measure_leading(folder: Path, images: Path, count: int) -> dict[str, float]:
    """Returns what the leading process takes for its part: to plan an image, and to look after a shard."""
    store = open_store(str(folder / "leading"))
    with store.hold():
        results = Results(store)
        began = time.perf_counter()
        results.begin({}, cut_shards(Inputs([str(images)]).pieces(), 1024), tuple)
        planned = count / (time.perf_counter() - began)
        line = next(results.missing()).to_line()
        finished = commit_shard(store, 0, [], "parquet")
        began = time.perf_counter()
        for _ in range(_LEADING_ROUNDS):
            Shard.from_line(line)
            results.add(finished.entry)
        leading = (time.perf_counter() - began) / _LEADING_ROUNDS
    return {"planned_per_second": planned, "leading_seconds": leading}


if __name__ == "__main__":
    raise SystemExit(main())
