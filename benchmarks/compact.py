"""The captioner that comes with Showtell, as people use it: a folder of photographs, one of them, a cold process.

JPEG files of 640 x 480 pixels, the captioner's own search, both engines in turn. A cold process is `showtell caption
PHOTO` from the shell's point of view; files are in the system's cache, as after a first use.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cold_start import run
from benchmarks.machine import has_matrix_units
from benchmarks.photographs import write_photographs
from benchmarks.sides import (
    Side,
    Target,
    add_round_options,
    measure,
    note,
    print_line,
    shorten,
    spread,
    worker_environment,
)

ENGINES = ("onnxruntime", "openvino")  # that of the base install first
WIDTH, HEIGHT = 640, 480


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compact", description=__doc__)
    parser.add_argument("--model", default="compact", help="an exported captioner (compact)")
    parser.add_argument("--images", type=int, default=200, help="photographs in the folder")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    add_round_options(parser, rounds=7, warmups=1)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        note("writing photographs")
        paths = write_photographs(Path(folder), arguments.images, width=WIDTH, height=HEIGHT)
        photographs = [str(path) for path in paths]
        common = {"model": arguments.model, "precision": "auto"}
        sides = {
            f"{engine}, {kind}": Side("benchmarks.ours:caption", {**common, "engine": engine, **options})
            for engine in arguments.engines
            for kind, options in (
                ("folder", {"photographs": photographs, "together": True}),
                ("one", {"photographs": photographs[:20], "together": False}),
            )
        }
        found = measure(sides, rounds=arguments.rounds, warmups=arguments.warmups, threads=arguments.threads)
        cold = _start_cold(arguments, photographs[0])
    targets = []
    for engine in arguments.engines:
        folder_ms, one_ms = (1000 * found[f"{engine}, {kind}"].seconds_per_unit for kind in ("folder", "one"))
        here = has_matrix_units()
        targets += [
            Target(f"{engine}: milliseconds for each of a folder", folder_ms, at_most=8.0, applies=here),
            Target(f"{engine}: milliseconds for one, warm", one_ms, at_most=25.0, applies=here),
            Target(
                f"{engine}: seconds from the command to the caption",
                statistics.median(cold[engine]),
                at_most=1.2,
            ),
        ]
    facts: dict[str, Any] = {engine: spread(seconds) for engine, seconds in cold.items()}
    print_line(
        "compact",
        targets,
        threads=arguments.threads,
        photographs=f"{WIDTH}x{HEIGHT} JPEG",
        images=arguments.images,
        model=arguments.model,
        unit="images",
        sides={name: side.summary("images") for name, side in found.items()},
        cold_seconds=facts,
        same_captions=shorten(_agreement([found[f"{engine}, folder"] for engine in arguments.engines])),
    )
    return 0


def _start_cold(arguments: argparse.Namespace, photograph: str) -> dict[str, list[float]]:
    environment = worker_environment(arguments.threads)
    seconds: dict[str, list[float]] = {engine: [] for engine in arguments.engines}
    for number in range(arguments.warmups + arguments.rounds):
        for engine in arguments.engines:
            words = ["-m", "showtell", "caption", photograph, "--model", arguments.model, "--engine", engine]
            start = run([sys.executable, *words], environment)
            if number >= arguments.warmups:
                seconds[engine].append(start.seconds)
    return seconds


def _agreement(found: Sequence[Any]) -> float:
    """Returns the share of photographs that all engines give the same caption."""
    captions = list(zip(*(side.results[-1]["captions"] for side in found), strict=True))
    return sum(len(set(texts)) == 1 for texts in captions) / len(captions)


if __name__ == "__main__":
    raise SystemExit(main())
