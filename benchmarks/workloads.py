"""Whole pieces of work over so many images, each done once in a process of its own: for `memory` and `scale`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.models import spell
from benchmarks.sides import Round
from benchmarks.synthetic import load_training_recipe, read_training_data

EXTRACT = "benchmarks.workloads:extract_features"
TRAIN = "benchmarks.workloads:train_epoch"
CAPTION = "benchmarks.workloads:caption_folder"
FINE_TUNE = "benchmarks.workloads:fine_tune"


def extract_features(model: str, photographs: list[str], count: int, precision: str = "auto") -> Round:
    """Extracts features with a bundle's encoder; the files are taken several times where there are fewer."""
    from showtell.bundle import find_bundle, load_bundle
    from showtell.data.records import CaptionedImage, Dataset
    from showtell.encoders import extract_features
    from showtell.training.model import open_backend

    images = tuple(
        CaptionedImage(str(number), Path(photographs[number % len(photographs)]), ())
        for number in range(count)
    )
    folder = find_bundle(Path(model))
    bundle = load_bundle(folder)
    config = replace(bundle.recipe.encoder, precision=precision)
    encoder = open_backend(replace(bundle, recipe=replace(bundle.recipe, encoder=config)), folder).encoder
    if encoder is None:
        raise SystemExit(f"benchmarks: {model} has no encoder")

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="showtell-benchmark-features-") as folder:
            report = extract_features(Dataset("benchmark", "folder", images), encoder, folder)
        return {"units": count, "bytes": report.bytes, "precision": encoder.precision}

    return work


def train_epoch(folder: str, encoder: str, overrides: list[str]) -> Round:
    """Trains one epoch, with its evaluation, on synthetic features."""
    from showtell.training import train

    recipe = load_training_recipe(encoder, [*overrides, "training.epochs=1"])
    dataset = read_training_data(Path(folder))

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="showtell-benchmark-run-") as output:
            result = train(recipe, dataset, Path(output, "run"), features=Path(folder, "features"))
        return {"units": len(dataset.images), "captions_per_second": result.captions_per_second}

    return work


def caption_folder(model: str, engine: str, precision: str, photographs: list[str], steps: int) -> Round:
    """Captions a folder with beam 3."""
    return ours.caption(model, engine, precision, photographs, beam=3, steps=steps)


def fine_tune(folder: str, overrides: list[str], images: int, words: int) -> Round:
    """Trains decoder and encoder on photographs for one epoch, which ends with captions of two of them."""
    import numpy as np

    from benchmarks.photographs import write_photographs
    from benchmarks.synthetic import CAPTIONS, draw_captions
    from showtell.data.records import CaptionedImage, Dataset
    from showtell.recipes import load_recipe
    from showtell.training import train

    recipe = load_recipe("attend-gru-additive", overrides)
    paths = write_photographs(Path(folder, "photographs"), images + 2, width=500, height=375)
    drawn = draw_captions(np.random.default_rng(0), CAPTIONS * len(paths), words)
    captions = [" ".join(map(spell, caption)) for caption in drawn]
    dataset = Dataset(
        "photographs",
        "folder",
        tuple(
            CaptionedImage(
                path.name,
                path,
                tuple(captions[CAPTIONS * number : CAPTIONS * (number + 1)]),
                "train" if number < images else "dev",
            )
            for number, path in enumerate(paths)
        ),
    )

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="showtell-benchmark-run-") as output:
            result = train(recipe, dataset, Path(output, "run"))
        return {"units": images, "images_per_second": result.captions_per_second / CAPTIONS}

    return work
