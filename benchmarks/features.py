"""Feature extraction: images per second from JPEG files to a cache on disk, and bytes on disk.

Rival: the tutorials' way, PyTorch eager in float32, one image at a time, one .npy file for each. Photographs have the
size of Flickr8k's unless `--images` names a folder.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import workloads
from benchmarks.models import add_model_options, prepare
from benchmarks.photographs import write_photographs
from benchmarks.sides import Side, add_round_options, measure, print_line, ratios


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks features", description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files (default: photographs, 500x375)")
    add_model_options(parser)
    parser.set_defaults(engine="torch")  # extraction is a matter of training
    add_round_options(parser, rounds=5)
    parser.add_argument("--count", type=int, default=256, help="images in each round of ours")
    parser.add_argument("--rival-count", type=int, default=64, help="images in each round of the rival")
    parser.add_argument("--width", type=int, default=500, help="of the photographs")
    parser.add_argument("--height", type=int, default=375)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as name:
        folder = Path(name)
        model = prepare(arguments, folder)
        if arguments.images is None:
            paths = write_photographs(
                folder / "photographs", arguments.count, width=arguments.width, height=arguments.height
            )
        else:
            suffixes = (".jpg", ".jpeg")
            paths = sorted(path for path in arguments.images.resolve().iterdir() if path.suffix in suffixes)
        if not paths:
            parser.error(f"--images {arguments.images}: no JPEG files")
        photographs = [str(path) for path in paths]
        sides = {
            "showtell": Side(
                workloads.EXTRACT,
                {
                    "model": str(model.bundle),
                    "photographs": photographs,
                    "count": arguments.count,
                    "precision": arguments.precision,
                },
            ),
            "tutorial": Side(
                "benchmarks.rivals.tutorial:extract_features",
                {"folder": str(model.plain), "photographs": photographs[: arguments.rival_count]},
            ),
        }
        found = measure(sides, rounds=arguments.rounds, warmups=arguments.warmups, threads=arguments.threads)
    print_line(
        "features",
        threads=arguments.threads,
        encoder=arguments.encoder,
        precision=found["showtell"].results[-1]["precision"],
        photographs=str(arguments.images or f"{arguments.width}x{arguments.height} JPEG"),
        images=arguments.count,
        unit="images",
        sides={side: measured.summary("images") for side, measured in found.items()},
        ratio=ratios(found["showtell"], found["tutorial"]),
        bytes_per_image={
            side: round(measured.results[-1]["bytes"] / measured.units[-1])
            for side, measured in found.items()
        },
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
