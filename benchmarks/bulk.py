"""`showtell bulk` against `showtell caption` on one folder, as processes: images a second, and memory for few and many.

The folder has as many names as asked for, of a few hundred photographs. Everything counts, the start of Ray and of the
captioners too. Its line is also what `python -m benchmarks fleet --measured` reads: its rate is that of a job on a Ray
that runs already, as on a cluster, and of the shards behind the first ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import nodes
from benchmarks.machine import count_cores
from benchmarks.photographs import write_photographs
from benchmarks.sides import Target, note, print_line, shorten
from showtell.bulk.engine import import_ray_safely
from showtell.bulk.inputs import Inputs
from showtell.bulk.places import open_store
from showtell.bulk.plan import Picture, Shard, cut_shards
from showtell.bulk.results import Finished, Results, commit_shard


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bulk", description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument(
        "--few",
        type=int,
        default=4_000,
        help="images that memory is compared for: two shards for each worker",
    )
    parser.add_argument("--photographs", type=int, default=256, help="different ones")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--model", action="append", default=[], help="default: the one that comes along")
    parser.add_argument("--shard-size", type=int, default=1024)
    parser.add_argument(
        "--leading-shards", type=int, default=2_000, help="that the leading process is measured with"
    )
    parser.add_argument("--leading-workers", type=int, default=8, help="and workers, which do nothing")
    arguments = parser.parse_args(argv)
    workers = count_cores()
    if arguments.images < 3 * workers * arguments.shard_size:
        parser.error(
            f"--images must be three shards for each of {workers} workers, or more, to measure their rate"
        )
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
            count: _measure(
                *("bulk", str(images), *model, "--output", str(folder / f"out-{count}")),
                *("--shard-size", str(arguments.shard_size), "--workers", str(workers)),
            )
            for images, count in ((few, arguments.few), (many, arguments.images))
        }
        fleets = _repeat(paths, folder / "fleet", 3 * workers * arguments.shard_size)
        with nodes.head(workers) as (address, _):
            nodes.wait_for_processors(address, workers)
            _measure(
                *("bulk", str(fleets), *model, "--output", str(folder / "out-fleet")),
                *("--ray-address", address),
                *("--shard-size", str(arguments.shard_size), "--workers", str(workers)),
            )
        bulk = found[arguments.images]
        fleet = {
            "rate": measure_rate(folder / "out-fleet", workers) / workers,
            "bytes_per_image": statistics.fmean(path.stat().st_size for path in paths),
            "shard_size": arguments.shard_size,
            **measure_planning(folder / "planning", many, arguments.images, arguments.shard_size),
            **measure_leading(folder / "leading", arguments.leading_shards, arguments.leading_workers),
        }
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
            "bulk": shorten(arguments.images / bulk["seconds"]),
            "caption": shorten(arguments.images / plain["seconds"]),
        },
        peak_rss_mb={
            "caption": plain["peak_rss_mb"],
            **{f"bulk, {count}": one["peak_rss_mb"] for count, one in found.items()},
        },
        fleet=fleet,
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
    command = [sys.executable, "-m", "showtell", *words]
    process = psutil.Popen(command, env=nodes.UNPROTECTED, stderr=subprocess.DEVNULL)
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


def measure_rate(output: Path, workers: int) -> float:
    """Returns images a second between the time that each worker had finished a shard, and the end.

    So neither the start of Ray and of the captioners nor the planning counts, nor what workers had begun before.
    """
    entries = json.loads((output / "manifest.json").read_text())["finished"]
    ended = sorted(((output / one["file"]).stat().st_mtime, one["rows"]) for one in entries)
    rows = sum(rows for _, rows in ended[workers:])
    return float(rows / (ended[-1][0] - ended[workers - 1][0]))


def measure_planning(output: Path, images: Path, count: int, size: int) -> dict[str, float]:
    """Returns how many images a second the leading process plans."""
    store = open_store(str(output))
    with store.hold():
        began = time.perf_counter()
        Results(store).begin({}, cut_shards(Inputs([str(images)]).pieces(), size), tuple)
        return {"planned_per_second": count / (time.perf_counter() - began)}


class _Idle:
    """A worker that has finished whatever it is given.

    Args:
        finished: what it says of each shard.
    """

    def __init__(self, finished: Finished) -> None:
        self._finished = finished

    def ready(self) -> str:
        return ""

    def run(self, shard: Shard) -> Iterator[Finished]:
        yield replace(self._finished, entry=replace(self._finished.entry, shard=shard.number))


def measure_leading(output: Path, shards: int, workers: int, *, size: int = 1024) -> dict[str, float]:
    """Returns the processor time of the leading process for each shard: sent by Ray, waited for, looked at, noted.

    It goes through the pool of `showtell bulk`, whose workers do nothing here, so that they never make it wait.

    Args:
        output: a new folder.
        shards: that are led.
        workers: processes; the time grows with their number, since all are waited for.
        size: images of each shard.
    """
    store = open_store(str(output))
    pictures = tuple(
        Picture(name, name) for name in (f"s3://bucket/photographs/{n:012d}.jpg" for n in range(size))
    )
    line = Shard(0, 0, pictures).to_line()
    import_ray_safely(None)
    from showtell.bulk.cluster import Pool, started

    with store.hold(), started(None, cpus=workers):
        results = Results(store)
        finished = commit_shard(store, 0, [], "parquet")
        pool: Pool[Shard] = Pool(_Idle, (finished,), count=workers, threads=1)
        # The first ones wait for workers to start.
        plan = (replace(Shard.from_line(line), number=number) for number in range(workers + shards))
        began = 0.0
        for done, (_, result, _) in enumerate(pool.run(plan), start=1):
            results.add(result.entry)
            if done == workers:
                began = time.process_time()
        seconds = time.process_time() - began
    return {"leading_seconds": seconds / shards}


if __name__ == "__main__":
    raise SystemExit(main())
