"""One training step of each classic decoder: float32 against bf16 and torch.compile, in turn in one process.

Processor seconds are counted, not wall-clock seconds, so that other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.machine import describe_machine


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line per decoder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks step", description=__doc__)
    parser.add_argument("--images", type=int, default=24, help="per batch, with five captions each")
    parser.add_argument("--vocab", type=int, default=5004)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decoders", nargs="+", default=[], help="(default: all)")
    parser.add_argument(
        "--compile", action="store_true", help="also through torch.compile; needs a C++ compiler"
    )
    arguments = parser.parse_args(argv)

    import torch
    from torch.nn.functional import cross_entropy

    from showtell.decoders import CaptionBatch, create_decoder
    from showtell.decoders.registry import DECODERS

    torch.manual_seed(0)
    captions = 5 * arguments.images
    # Lengths as in Flickr8k: twelve steps in the mean, between five and twenty-two.
    lengths = (
        torch.normal(12.0, 3.0, (captions,)).round().clamp(5, 22).int().sort(descending=True).values.tolist()
    )
    shape = (captions, max(lengths))
    batch = CaptionBatch(
        torch.randint(4, arguments.vocab, shape),
        torch.randint(4, arguments.vocab, shape),
        lengths,
        torch.arange(captions) % arguments.images,
    )
    for kind, (_, decoder_type) in DECODERS.items():
        if arguments.decoders and kind not in arguments.decoders:
            continue
        needs = decoder_type.needs
        decoder = create_decoder(kind, {}, features=needs, channels=1280, vocab_size=arguments.vocab)
        size = (arguments.images, 49, 1280) if needs == "grid" else (arguments.images, 1280)
        features = torch.randn(size)
        forms: dict[str, Any] = {"float32": decoder, "bf16": decoder}
        if arguments.compile:
            forms["compiled"] = torch.compile(decoder)
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(arguments.rounds + 1):
            for form, network in forms.items():
                decoder.zero_grad()
                started = time.process_time()
                with torch.autocast("cpu", torch.bfloat16, enabled=form == "bf16"):
                    logits = network(features, batch)
                cross_entropy(logits.float(), batch.pack(batch.targets), label_smoothing=0.1).backward()  # type: ignore[no-untyped-call]
                seconds[form].append(time.process_time() - started)
        medians = {form: statistics.median(measured[1:]) for form, measured in seconds.items()}
        row = {
            "benchmark": "step",
            "decoder": kind,
            "captions": captions,
            "processor_seconds": {name: round(value, 3) for name, value in medians.items()},
            **{
                f"{form}_over_float32": round(medians[form] / medians["float32"], 2)
                for form in list(forms)[1:]
            },
            **({"compiling_seconds": round(seconds["compiled"][0], 1)} if arguments.compile else {}),
            "threads": torch.get_num_threads(),
            "torch": version("torch"),
            "machine": describe_machine(),
        }
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
