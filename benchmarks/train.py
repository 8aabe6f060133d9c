"""Training steps of `attend-gru-additive` on cached features: captions per second.

Rival: the tutorials' loop, with as many captions in a batch as ours. Both read the same features from disk; features
and captions are synthetic, with the sizes of Flickr8k and 5,000 words.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sides import Side, Target, add_round_options, call, measure, note, print_line, ratios
from benchmarks.synthetic import CAPTIONS


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks train", description=__doc__)
    add_round_options(parser, rounds=7, warmups=1)
    parser.add_argument("--encoder", default="mobilenet_edgetpu_100", help="whose feature size is taken")
    parser.add_argument("--captions", type=int, default=64, help="per batch, of both sides")
    parser.add_argument("--steps", type=int, default=8, help="of ours in a round")
    parser.add_argument("--rival-steps", type=int, default=2, help="of the rival in a round")
    parser.add_argument("--words", type=int, default=5000, help="in the vocabulary")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change our recipe"
    )
    arguments = parser.parse_args(argv)
    overrides = ["training.batching=length", f"training.batch_size={arguments.captions}", *arguments.set]
    # One epoch holds all rounds, so that no round meets an evaluation; the first step comes before the rounds.
    steps = (arguments.rounds + arguments.warmups) * arguments.steps + 2
    with tempfile.TemporaryDirectory(prefix="showtell-benchmark-") as folder:
        data = str(Path(folder, "data"))
        note("writing features")
        call(
            "benchmarks.synthetic:write_training_data",
            threads=arguments.threads,
            folder=data,
            images=-(-steps * arguments.captions // CAPTIONS),
            dev=2,
            encoder=arguments.encoder,
            overrides=overrides,
            words=arguments.words,
        )
        batch = arguments.captions
        ours = {"encoder": arguments.encoder, "overrides": overrides, "steps": arguments.steps}
        sides = {
            "showtell": Side("benchmarks.paused_training:train", {"folder": data, **ours}),
            "tutorial": Side(
                "benchmarks.rivals.tutorial_training:train",
                {"folder": data, "batch": batch, "steps": arguments.rival_steps},
            ),
        }
        found = measure(sides, rounds=arguments.rounds, warmups=arguments.warmups, threads=arguments.threads)
    compared = ratios(found["showtell"], found["tutorial"])
    print_line(
        "train",
        [Target("times the captions/s of the tutorials' loop", compared["of_medians"], at_least=4.0)],
        threads=arguments.threads,
        features=f"of {arguments.encoder}",
        captions_per_batch=batch,
        words=arguments.words,
        overrides=overrides,
        unit="captions",
        sides={name: side.summary("captions") for name, side in found.items()},
        ratio=compared,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
