"""ResNet-50 at 224 pixels in batches of 16: images per second, and how much of the machine's own speed that is.

Rival: the same network in PyTorch eager, float32, on pixels that are normalised already. Beside both, in turn with
them, runs the machine's own matrix product (2048 x 2048 x 2048, PyTorch's best for each precision). An image's work is
counted in floating-point operations, a multiplication and an addition each being one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import add_model_options, engine_options, prepare
from benchmarks.sides import (
    Side,
    Target,
    add_round_options,
    call,
    measure,
    print_line,
    ratios,
    shorten,
    spread,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks encode", description=__doc__)
    add_model_options(parser, encoder="resnet50")
    add_round_options(parser, rounds=9, warmups=2)
    parser.add_argument("--batch", type=int, default=16, help="images at once")
    parser.add_argument("--size", type=int, default=2048, help="of the matrices")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        model = prepare(arguments, Path(folder))
        engine = engine_options(arguments)
        sides = {
            "showtell": Side(
                "benchmarks.ours:encode", {"model": str(model.ours), **engine, "batch": arguments.batch}
            ),
            "pytorch": Side(
                "benchmarks.rivals.tutorial:encode", {"folder": str(model.plain), "batch": arguments.batch}
            ),
            "matrix product": Side("benchmarks.matrix:multiply", {"size": arguments.size}),
        }
        threads = arguments.threads
        operations = call("benchmarks.matrix:count_operations", threads=threads, folder=str(model.plain))
        found = measure(sides, rounds=arguments.rounds, warmups=arguments.warmups, threads=threads)

    ours, rival = found["showtell"], found["pytorch"]
    giga = operations["operations"] / 1e9
    products = {
        name: spread([result["rates"][name] for result in found["matrix product"].results])
        for name in found["matrix product"].results[0]["rates"]
    }
    precision = ours.results[-1]["precision"]
    compared = ratios(ours, rival)
    share = ours.rate * giga / products[precision]["median"]
    print_line(
        "encode",
        [
            Target("times the images/s of PyTorch eager float32", compared["of_medians"], at_least=8.0),
            Target(f"of the machine's {precision} matrix product", share, at_least=0.75),
        ],
        threads=threads,
        encoder=arguments.encoder,
        batch=arguments.batch,
        engine={**engine, "precision": precision},
        gigaflop_per_image=shorten(giga),
        unit="images",
        sides={name: side.summary("images") for name, side in found.items() if name != "matrix product"},
        ratio=compared,
        gigaflops={
            "showtell": shorten(ours.rate * giga),
            "pytorch": shorten(rival.rate * giga),
            **{f"matrix product {name}": values for name, values in products.items()},
        },
        largest_difference=_difference(ours.results[-1], rival.results[-1]),
    )
    return 0


def _difference(ours: dict[str, Any], rival: dict[str, Any]) -> float:
    """Returns the largest difference of the features, as a share of the rival's largest feature."""
    mine, theirs = np.array(ours["features"]), np.array(rival["features"])
    return shorten(float(np.abs(mine - theirs).max() / np.abs(theirs).max()))


if __name__ == "__main__":
    raise SystemExit(main())
