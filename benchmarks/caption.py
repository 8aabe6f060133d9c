"""A JPEG of 1280 x 960 pixels becomes a caption, beam 3: one warm photograph, or a folder of a thousand.

Rivals: the tutorials' pipeline with the same weights, and two models of `transformers` built from their configurations
with random weights, greedy, as long as our captions. The rivals caption one image at a time, so their images per second
do not depend on how many there are, and they are given fewer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import has_matrix_units
from benchmarks.models import Prepared, add_model_options, engine_options, prepare
from benchmarks.photographs import HEIGHT, WIDTH, write_photographs
from benchmarks.rivals.names import TRANSFORMERS
from benchmarks.sides import Measurement, Side, Target, add_round_options, measure, note, print_line, ratios

RIVALS = ("tutorial", *TRANSFORMERS)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks caption", description=__doc__)
    add_model_options(parser)
    add_round_options(parser, rounds=7, warmups=2)
    parser.add_argument(
        "--folder", type=int, default=0, metavar="N", help="a folder of N photographs instead of one"
    )
    parser.add_argument(
        "--rivals", nargs="+", choices=RIVALS, default=["tutorial"], help="(default: tutorial)"
    )
    parser.add_argument("--repeats", type=int, default=8, help="of the one photograph in a round")
    parser.add_argument("--tutorial-images", type=int, default=50, help="of the folder, in its rounds")
    parser.add_argument("--transformers-images", type=int, default=2, help="of the folder, in their rounds")
    parser.add_argument("--beam", type=int, default=3)
    parser.add_argument("--width", type=int, default=WIDTH, help="of the photographs")
    parser.add_argument("--height", type=int, default=HEIGHT)
    parser.add_argument("--photographs", type=Path, help="keep the photographs here (default: temporary)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        model = prepare(arguments, Path(folder))
        note("writing photographs")
        paths = write_photographs(
            (arguments.photographs or Path(folder, "photographs")).resolve(),
            arguments.folder or 1,
            width=arguments.width,
            height=arguments.height,
        )
        found = measure(
            _sides(arguments, model, [str(path) for path in paths]),
            rounds=arguments.rounds,
            warmups=arguments.warmups,
            threads=arguments.threads,
        )
    _print(arguments, model, found)
    return 0


def _sides(arguments: argparse.Namespace, model: Prepared, paths: list[str]) -> dict[str, Side]:
    many = bool(arguments.folder)
    search = {"beam": arguments.beam, "steps": model.steps}
    photographs = paths if many else paths * arguments.repeats
    sides = {
        "showtell": Side(
            "benchmarks.ours:caption",
            {
                "model": str(model.ours),
                **engine_options(arguments),
                "photographs": photographs,
                **search,
                "together": many,
            },
        )
    }
    for rival in arguments.rivals:
        count = arguments.tutorial_images if rival == "tutorial" else arguments.transformers_images
        some = paths[:count] if many else paths * (arguments.repeats if rival == "tutorial" else 1)
        if rival == "tutorial":
            options = {"folder": str(model.plain), "photographs": some, **search}
            sides[rival] = Side("benchmarks.rivals.tutorial:caption", options)
        else:
            options = {"name": rival, "photographs": some, "steps": model.steps}
            sides[rival] = Side("benchmarks.rivals.huggingface:caption", options)
    return sides


def _print(arguments: argparse.Namespace, model: Prepared, found: dict[str, Measurement]) -> None:
    ours = found["showtell"]
    many = bool(arguments.folder)
    compared = {rival: ratios(ours, found[rival]) for rival in arguments.rivals}
    targets = []
    if not many:
        milliseconds = 1000 * ours.seconds_per_unit
        targets.append(
            Target("milliseconds for one photograph", milliseconds, at_most=15.0, applies=has_matrix_units())
        )
    facts: dict[str, Any] = {}
    for rival in arguments.rivals:
        if rival == "tutorial":
            targets.append(
                Target(
                    "times the images/s of the tutorials' pipeline",
                    compared[rival]["of_medians"],
                    at_least=12.0 if many else 6.0,
                )
            )
            facts["same_captions_as_tutorial"] = _agreement(ours, found[rival])
        if rival == "blip-base":
            memory = ours.peak_rss_mb / found[rival].peak_rss_mb
            targets += [
                Target("times the images/s of BLIP-base", compared[rival]["of_medians"], at_least=40.0),
                Target("of the memory of BLIP-base", memory, at_most=0.2),
            ]
    print_line(
        "caption-folder" if many else "caption",
        targets,
        threads=arguments.threads,
        photographs=f"{arguments.width}x{arguments.height} JPEG",
        images=arguments.folder or 1,
        model=str(arguments.model or f"{arguments.encoder} + attend-gru-additive, random weights"),
        search={"beam": arguments.beam, "steps": model.steps},
        engine={**engine_options(arguments), "precision": ours.results[-1]["precision"]},
        unit="images",
        sides={name: side.summary("images") for name, side in found.items()},
        ratio=compared,
        **facts,
    )


def _agreement(ours: Measurement, rival: Measurement) -> float:
    """Returns the share of images for which both sides gave the same caption."""
    pairs = list(zip(ours.results[-1]["captions"], rival.results[-1]["captions"]))
    return sum(1 for mine, theirs in pairs if mine == theirs) / len(pairs)


if __name__ == "__main__":
    raise SystemExit(main())
