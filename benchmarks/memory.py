"""Resident memory of feature extraction and of training, for 1,000 and for 7,000 images: it must not grow."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.machine import count_cores
from benchmarks.models import write_random_bundle
from benchmarks.photographs import write_photographs
from benchmarks.sides import Target, call, note, print_line, shorten

STAGES = ("features", "train")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 7000], help="numbers of images")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--encoder", default="mobilenet_edgetpu_100")
    parser.add_argument("--threads", type=int, default=count_cores())
    parser.add_argument("--words", type=int, default=5000, help="in the vocabulary of training")
    parser.add_argument("--width", type=int, default=500, help="of the photographs; as Flickr's")
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the recipe"
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        found = {
            stage: {
                str(count): measure_stage(stage, count, arguments, Path(folder)) for count in arguments.counts
            }
            for stage in arguments.stages
        }
    few, many = str(min(arguments.counts)), str(max(arguments.counts))
    print_line(
        "memory",
        [
            Target(
                f"of the peak memory for {few} images, {stage} for {many}",
                by_count[many]["peak_rss_mb"] / by_count[few]["peak_rss_mb"],
                at_most=1.1,
            )
            for stage, by_count in found.items()
        ],
        threads=arguments.threads,
        encoder=arguments.encoder,
        by_number_of_images=found,
    )
    return 0


def measure_stage(stage: str, count: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Does one piece of work in a fresh process; returns its seconds and its peak memory."""
    note(f"{stage}, {count} images")
    if stage == "features":
        paths = write_photographs(
            folder / "photographs", min(count, 256), width=arguments.width, height=arguments.height
        )
        bundle = folder / "bundle"
        if not bundle.exists():
            write_random_bundle(bundle, arguments.encoder, threads=arguments.threads)
        said = call(
            workloads.EXTRACT,
            threads=arguments.threads,
            model=str(bundle),
            photographs=[str(path) for path in paths],
            count=count,
        )
    else:
        data = folder / f"training-{count}"
        if not data.exists():
            call(
                "benchmarks.synthetic:write_training_data",
                threads=arguments.threads,
                folder=str(data),
                images=count,
                dev=64,
                encoder=arguments.encoder,
                overrides=arguments.set,
                words=arguments.words,
            )
        said = call(
            workloads.TRAIN,
            threads=arguments.threads,
            folder=str(data),
            encoder=arguments.encoder,
            overrides=arguments.set,
        )
    return summarise(said, count)


def summarise(said: dict[str, Any], count: int) -> dict[str, Any]:
    """Returns seconds, in all and per image, and the peak memory of a piece of work."""
    return {
        "seconds": shorten(said["seconds"]),
        "milliseconds_per_image": shorten(1000 * said["seconds"] / count),
        "peak_rss_mb": said["peak_rss_mb"],
    }


if __name__ == "__main__":
    raise SystemExit(main())
