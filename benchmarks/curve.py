"""How good a compact captioner becomes, by its size, and by how many pictures its decoder learns from.

The encoder is a distilled student, frozen (`showtell distill`). Every decoder is the recipe's, trained by teacher
forcing for the same number of steps; the search is the recipe's, on dev. Sizes are those of the 8-bit export. One JSON
line for each row; a row that is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.recipes import run_command
from benchmarks.sides import print_line, shorten
from showtell.data.records import Dataset
from showtell.data.source import read_dataset
from showtell.data.splits import save_splits

RECIPE = "compact"
METRICS = ("Bleu_4", "ROUGE_L", "CIDEr")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and scores; prints one JSON line for each row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks curve", description=__doc__)
    parser.add_argument("--flickr8k", type=Path, required=True, help="the data set, train and dev")
    parser.add_argument("--student", type=Path, required=True, help="student.safetensors of a distillation")
    parser.add_argument("--pictures", type=Path, required=True, help="pictures to calibrate 8 bits with")
    parser.add_argument("--images", type=int, nargs="*", default=[375, 750, 1500, 3000, 6000])
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[128, 256, 512], help="of the decoder's state"
    )
    parser.add_argument("--epochs", type=int, default=6, help="with all pictures; more with fewer (6)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--work", type=Path, default=Path("build/curve"), help="where runs go")
    arguments = parser.parse_args(argv)
    dataset = read_dataset(arguments.flickr8k)
    whole = len(dataset.split("train").images)
    largest = max(arguments.sizes)
    rows = [(whole, size) for size in arguments.sizes]
    rows += [(images, largest) for images in arguments.images if images < whole]
    for images, size in rows:
        print_line("curve", **_run(arguments, dataset, images, size))
    return 0


def _run(arguments: argparse.Namespace, dataset: Dataset, images: int, size: int) -> dict[str, Any]:
    train, dev = (dataset.split(name).images for name in ("train", "dev"))
    folder = arguments.work.resolve() / f"{images}-{size}"
    run, model, report = folder / "run", folder / "model", folder / "report.json"
    folder.mkdir(parents=True, exist_ok=True)
    data = ["--data", str(arguments.flickr8k.resolve())]
    settings = {
        "encoder.trainable": "false",
        "augmentation.crop": "1.0",
        "augmentation.flip": "0.0",
        "augmentation.color": "0.0",
        "decoder.size": size,
        "decoder.embedding_size": size // 2,
        "training.epochs": round(arguments.epochs * len(train) / images),
        "training.evaluate_every": 1000,
        "training.precision": arguments.precision,
        "self_critical.epochs": 0,
    }
    if not (run / "best.json").is_file():
        splits = folder / "splits.json"
        save_splits(replace(dataset, images=(*train[:images], *dev)), splits, seed=None)
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        weights = ["--weights", str(arguments.student.resolve()), "--include-encoder"]
        chosen = [*data, "--splits", str(splits), "--unsplit", "drop", *weights, *words]
        run_command(["train", RECIPE, *chosen, "--output", str(run), "--resume"])
    if not (model / "portable.json").is_file():
        run_command(["export", str(run), "--int8", str(arguments.pictures), "--output", str(model)])
    if not report.is_file():
        run_command(
            ["evaluate", str(model), *data, "--split", "dev", "--no-overlap", "--output", str(report)]
        )
    scores = json.loads(report.read_text(encoding="utf-8"))["scores"]
    return {
        "images": images,
        "decoder_size": size,
        "megabytes": shorten(sum(file.stat().st_size for file in model.iterdir()) / 1e6),
        **{name: shorten(100 * scores[name]) for name in METRICS},
    }


if __name__ == "__main__":
    raise SystemExit(main())
