"""Captions of 64 images with beam 3, from features: in one batch, against one image at a time. Both sides are ours."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.models import add_model_options, engine_options, prepare
from benchmarks.sides import Side, Target, add_round_options, measure, print_line, ratios


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks batch", description=__doc__)
    add_model_options(parser)
    add_round_options(parser, rounds=9, warmups=2)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--beam", type=int, default=3)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        model = prepare(arguments, Path(folder))
        options = {
            "model": str(model.ours),
            **engine_options(arguments),
            "images": arguments.images,
            "beam": arguments.beam,
            "steps": model.steps,
        }
        sides = {
            "together": Side("benchmarks.ours:decode_features", {**options, "at_once": arguments.images}),
            "one by one": Side("benchmarks.ours:decode_features", {**options, "at_once": 1}),
        }
        found = measure(sides, rounds=arguments.rounds, warmups=arguments.warmups, threads=arguments.threads)
    compared = ratios(found["together"], found["one by one"])
    pairs = list(
        zip(
            found["together"].results[-1]["captions"],
            found["one by one"].results[-1]["captions"],
            strict=True,
        )
    )
    print_line(
        "batch",
        [Target("times the speed of one image at a time", compared["of_medians"], at_least=4.0)],
        threads=arguments.threads,
        images=arguments.images,
        model=str(arguments.model or f"{arguments.encoder} + attend-gru-additive, random weights"),
        search={"beam": arguments.beam, "steps": model.steps},
        engine=engine_options(arguments),
        unit="images",
        sides={name: side.summary("images") for name, side in found.items()},
        ratio=compared,
        same_captions=sum(1 for one, other in pairs if one == other) / len(pairs),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
