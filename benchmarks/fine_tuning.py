"""Peak memory and speed of training an encoder together with its decoder: it must fit into 8 GB.

Each way to do it is a fresh process with the real trainer: a few steps on photographs of Flickr's size, and two
captions at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence

from benchmarks import workloads
from benchmarks.machine import count_cores
from benchmarks.sides import Target, call, note, print_line, shorten

PARTS = 4  # batches per step, of the third way


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fine_tuning", description=__doc__)
    parser.add_argument("--encoder", default="mobilenet_edgetpu_100")
    parser.add_argument("--weights", default="random", help="a file; random weights cost the same")
    parser.add_argument("--images", type=int, default=32, help="per step")
    parser.add_argument("--size", type=int, default=224, help="of the images in pixels")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--words", type=int, default=5000, help="in the vocabulary")
    parser.add_argument("--threads", type=int, default=count_cores())
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the recipe"
    )
    arguments = parser.parse_args(argv)
    common = [
        f"encoder.name={arguments.encoder}",
        f"encoder.weights={json.dumps(arguments.weights)}",
        f"encoder.image_size={arguments.size}",
        "encoder.trainable=true",
        "text.min_count=1",
        "training.batching=image",
        f"training.batch_size={arguments.images}",
        "training.epochs=1",
        *arguments.set,
    ]
    ways = {
        "kept": [],
        "recomputed": ["fine_tuning.recompute=true"],
        "in_parts": [
            f"training.batch_size={max(1, arguments.images // PARTS)}",
            f"training.accumulate={PARTS}",
        ],
    }
    found = {}
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        for way, overrides in ways.items():
            note(way)
            said = call(
                workloads.FINE_TUNE,
                threads=arguments.threads,
                folder=folder,
                overrides=[*common, *overrides],
                images=arguments.images * arguments.steps,
                words=arguments.words,
            )
            found[way] = {key: shorten(said[key]) for key in ("images_per_second", "peak_rss_mb")}
    print_line(
        "fine_tuning",
        [
            Target(f"MB at the peak, {way}", facts["peak_rss_mb"], at_most=8000)
            for way, facts in found.items()
        ],
        threads=arguments.threads,
        encoder=arguments.encoder,
        size=arguments.size,
        images_per_step=arguments.images,
        overrides=arguments.set,
        ways=found,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
