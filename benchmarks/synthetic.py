"""Captions and cached features without pictures, for what is measured after the encoder: training.

Words are drawn by Zipf's law and captions are as long as people's of Flickr8k (eleven words, give or take three).
Features are half-precision noise above zero, as after a ReLU. One blank file stands for all pictures: nobody opens it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.models import spell
from benchmarks.sides import Round

if TYPE_CHECKING:
    from showtell.data.records import Dataset
    from showtell.recipes import Recipe

CAPTIONS = 5  # per image


def load_training_recipe(encoder: str, overrides: list[str]) -> Recipe:
    """Returns `attend-gru-additive` on an encoder with random weights, which only the cache's fingerprint needs."""
    from showtell.recipes import load_recipe

    options = [f"encoder.name={encoder}", "encoder.image_size=0", "encoder.weights=random"]
    return load_recipe("attend-gru-additive", [*options, *overrides])


def write_training_data(
    folder: str, *, images: int, dev: int, encoder: str, overrides: list[str], words: int = 5000
) -> Round:
    """Writes a data set and the feature cache of its images; rivals find the same as ids and a .npy file."""

    def write() -> dict[str, Any]:
        from showtell.encoders import build_encoder

        target = Path(folder)
        target.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(target / "blank.jpg")
        generator = np.random.default_rng(0)
        captions = draw_captions(generator, CAPTIONS * (images + dev), words)
        groups = [captions[start : start + CAPTIONS] for start in range(0, len(captions), CAPTIONS)]
        (target / "captions.json").write_text(json.dumps({"train": images, "captions": groups}))
        network = build_encoder(load_training_recipe(encoder, overrides).encoder)
        _write_cache(target, network, images + dev, generator)
        facts = {
            "decoder": "attend-gru-additive",
            "decoder_options": dict(load_training_recipe(encoder, overrides).decoder_options),
            "channels": network.channels,
            "words": [spell(number) for number in range(words)],
        }
        (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        return {"units": images + dev}

    return write


def read_training_data(folder: Path) -> Dataset:
    """Returns the data set that `write_training_data` wrote."""
    from showtell.data.records import CaptionedImage, Dataset

    written = json.loads((folder / "captions.json").read_text())
    images = tuple(
        CaptionedImage(
            str(number),
            folder / "blank.jpg",
            tuple(" ".join(map(spell, caption)) for caption in captions),
            "train" if number < written["train"] else "dev",
        )
        for number, captions in enumerate(written["captions"])
    )
    return Dataset("synthetic", "folder", images)


def draw_captions(generator: np.random.Generator, count: int, words: int) -> list[list[int]]:
    """Returns captions of word numbers, with lengths and frequencies like those of Flickr8k."""
    lengths = np.clip(np.rint(generator.normal(10.8, 3.0, count)), 4, 30).astype(int)
    chances = 1.0 / (np.arange(words) + 2.7)
    drawn = generator.choice(words, int(lengths.sum()), p=chances / chances.sum())
    # Every word occurs, so that the vocabulary has the size that was asked for, as far as there is room.
    drawn[: min(words, len(drawn))] = np.arange(words)[: len(drawn)]
    generator.shuffle(drawn)
    return [part.tolist() for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def _write_cache(folder: Path, encoder: Any, images: int, generator: np.random.Generator) -> None:
    from showtell.encoders.cache_contents import Contents, Entry
    from showtell.encoders.cache_writer import CacheWriter

    blank = folder / "blank.jpg"
    status = blank.stat()
    digest = hashlib.sha256(blank.read_bytes()).hexdigest()
    description = {
        "fingerprint": encoder.fingerprint,
        "name": encoder.source.name,
        "output": encoder.output,
        "grid": list(encoder.grid),
        "weights": encoder.source.to_dict(),
        "preprocessing": encoder.preprocessing.to_dict(),
        "precision": encoder.precision,
    }
    cache = folder / "features"
    cache.mkdir()
    with CacheWriter(cache, Contents(description, encoder.shape, {}, {}, finished=False)) as writer:
        for start in range(0, images, 256):
            numbers = range(start, min(start + 256, images))
            noise = generator.standard_normal((len(numbers), *encoder.shape), dtype=np.float32)
            entry = Entry(-1, digest, status.st_size, status.st_mtime_ns)
            items = [(str(number), entry) for number in numbers]
            writer.append(items, np.maximum(noise, 0.0).astype("<f2"))
        writer.finish({})
