"""JPEG photographs to the encoder's pixels: ours against Pillow's plain path, on one thread, and how the pixels differ.

The plain path is what tutorials write: open, convert to RGB, resize with the same filter, make an array. The rounds do
not count the network or the disk: the files are in memory.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.photographs import write_photographs
from benchmarks.sides import Round, Side, add_round_options, measure, print_line, ratios, shorten
from showtell.images import Preprocessing

SIZES = ("1280x960", "2048x1536", "4000x3000")
Pixels = npt.NDArray[np.uint8]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks decode", description=__doc__)
    add_round_options(parser, rounds=9)
    parser.add_argument(
        "--sizes", nargs="+", default=SIZES, metavar="WIDTHxHEIGHT", help="of the photographs"
    )
    parser.add_argument("--target", type=int, default=224, help="the encoder's height and width")
    parser.add_argument("--count", type=int, default=6, help="photographs in each round")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        found = {size: _measure(arguments, size, Path(folder) / size) for size in arguments.sizes}
    print_line("decode", target=arguments.target, photographs=arguments.count, unit="images", sizes=found)
    return 0


def _measure(arguments: argparse.Namespace, size: str, folder: Path) -> dict[str, Any]:
    width, _, height = size.partition("x")
    paths = write_photographs(folder, arguments.count, width=int(width), height=int(height))
    options = {"folder": str(folder), "target": arguments.target}
    sides = {name: Side(f"benchmarks.decode:read_with_{name}", options) for name in ("showtell", "pillow")}
    found = measure(sides, rounds=arguments.rounds, warmups=arguments.warmups, threads=arguments.threads)
    compared = [_compare(path.read_bytes(), arguments.target) for path in paths]
    processor = [sum(found[name].processor_seconds) for name in ("pillow", "showtell")]
    return {
        "file_kb": round(sum(path.stat().st_size for path in paths) / len(paths) / 1000),
        "sides": {name: side.summary("images") for name, side in found.items()},
        "ratio": ratios(found["showtell"], found["pillow"]),
        "ratio_of_processor_seconds": shorten(processor[0] / processor[1]),
        "difference": {  # in levels of 255; of the worst photograph
            name: shorten(max(values[name] for values in compared)) for name in compared[0]
        },
    }


def read_with_showtell(folder: str, target: int) -> Round:
    """Gets our side ready."""
    return _reader(folder, _preprocessing(target).read)


def read_with_pillow(folder: str, target: int) -> Round:
    """Gets the plain side ready."""
    return _reader(folder, lambda content: _read_plainly(content, target))


def _reader(folder: str, read: Callable[[bytes], Pixels]) -> Round:
    contents = [path.read_bytes() for path in sorted(Path(folder).iterdir())]

    def do_round() -> dict[str, Any]:
        for content in contents:
            read(content)
        return {"units": len(contents)}

    return do_round


def _preprocessing(target: int) -> Preprocessing:
    return Preprocessing(height=target, width=target, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _read_plainly(content: bytes, target: int) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB").resize((target, target), Image.Resampling.BICUBIC))


def _compare(content: bytes, target: int) -> dict[str, float]:
    ours, plain = _preprocessing(target).read(content), _read_plainly(content, target)
    errors = np.abs(ours.astype(np.int64) - plain)
    return {
        "mean": float(errors.mean()),
        "percentile_99.9": float(np.percentile(errors, 99.9)),
        "largest": float(errors.max()),
    }


if __name__ == "__main__":
    raise SystemExit(main())
