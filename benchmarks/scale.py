"""How cost grows: feature extraction, one epoch of training and captioning, for 100, 1,000 and 7,000 images.

Captioning runs against the tutorials' pipeline, which does one image after the other, up to `--rival-limit` images.
Everything counts, from the start of the work; the start of the process and the opening of the model do not.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.machine import count_cores
from benchmarks.memory import measure_stage, summarise
from benchmarks.models import Prepared, add_model_options, engine_options, prepare
from benchmarks.photographs import HEIGHT, WIDTH, write_photographs
from benchmarks.sides import call, note, print_line

STAGES = ("features", "train", "caption")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 7000], help="numbers of images")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument(
        "--rival-limit", type=int, default=1000, help="images that the rival captions at most"
    )
    parser.add_argument("--threads", type=int, default=count_cores())
    parser.add_argument("--words", type=int, default=5000, help="in the vocabulary of training")
    parser.add_argument("--width", type=int, default=500, help="of the photographs for feature extraction")
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the recipe"
    )
    arguments = parser.parse_args(argv)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as name:
        folder = Path(name)
        for stage in arguments.stages:
            if stage != "caption":
                found[stage] = {
                    str(count): measure_stage(stage, count, arguments, folder) for count in arguments.counts
                }
        if "caption" in arguments.stages:
            found.update(_caption(arguments, prepare(arguments, folder / "model"), folder))
    print_line(
        "scale",
        threads=arguments.threads,
        encoder=arguments.encoder,
        engine=engine_options(arguments),
        photographs={
            "features": f"{arguments.width}x{arguments.height} JPEG",
            "caption": f"{WIDTH}x{HEIGHT} JPEG",
        },
        by_number_of_images=found,
    )
    return 0


def _caption(arguments: argparse.Namespace, model: Prepared, folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"caption": {}, "caption, tutorial": {}}
    for count in arguments.counts:
        paths = [str(path) for path in write_photographs(folder / "large", min(count, 1000))]
        photographs = [paths[number % len(paths)] for number in range(count)]
        note(f"caption, {count} images")
        said = call(
            workloads.CAPTION,
            threads=arguments.threads,
            model=str(model.ours),
            **engine_options(arguments),
            photographs=photographs,
            steps=model.steps,
        )
        found["caption"][str(count)] = summarise(said, count)
        if count <= arguments.rival_limit:
            said = call(
                "benchmarks.rivals.tutorial:caption",
                threads=arguments.threads,
                folder=str(model.plain),
                photographs=photographs,
                beam=3,
                steps=model.steps,
            )
            found["caption, tutorial"][str(count)] = summarise(said, count)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
