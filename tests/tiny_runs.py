"""Data sets and recipes so small that training takes seconds, for tests of what surrounds the numbers."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from showtell.data.drawn import write_drawn_dataset
from showtell.data.records import Dataset
from showtell.data.source import read_dataset
from showtell.decoders.registry import DECODERS
from showtell.recipes import Recipe

ATTENDING = {
    "kind": "attend-gru-additive",
    "feature_size": 16,
    "attention_size": 16,
    "embedding_size": 16,
    "hidden_size": 24,
    "dropout": 0.3,
}
POOLING = {"kind": "show-tell", "embedding_size": 16, "hidden_size": 24, "dropout": 0.3}

Settings = Mapping[str, Any]


def tiny_recipe(
    *,
    encoder: Settings | None = None,
    decoder: Settings = ATTENDING,
    training: Settings | None = None,
    decoding: Settings | None = None,
    text: Settings | None = None,
    fine_tuning: Settings | None = None,
    self_critical: Settings | None = None,
) -> Recipe:
    """A recipe over timm's own network for tests, with dropout, so that the random generator matters."""
    return Recipe.from_dict(
        {
            "name": "tiny",
            "encoder": {
                "name": "test_resnet",
                "weights": "random",
                "image_size": 64,
                "output": DECODERS[decoder["kind"]][1].needs,
                "precision": "float32",
                **(encoder or {}),
            },
            "text": {"min_count": 1, **(text or {})},
            "decoder": dict(decoder),
            "training": {
                "epochs": 2,
                "batch_size": 16,
                "device": "cpu",
                "precision": "float32",
                **(training or {}),
            },
            "fine_tuning": dict(fine_tuning or {}),
            "self_critical": dict(self_critical or {}),
            "decoding": {"method": "beam", "beam": 2, "max_steps": 12, **(decoding or {})},
        }
    )


def draw_dataset(folder: Path, *, train: int = 16, dev: int = 5, test: int = 5, size: int = 64) -> Dataset:
    """Draws a small data set into a new folder and reads it."""
    write_drawn_dataset(folder, train=train, dev=dev, test=test, size=size)
    return read_dataset(folder)


@functools.cache
def scratch_folder() -> Path:
    """One folder for what several test modules share; removed at the end of the process."""
    _kept.append(tempfile.TemporaryDirectory(prefix="showtell-tests-"))
    return Path(_kept[-1].name)


@functools.cache
def shared_dataset() -> Dataset:
    """The drawn data set that several test modules share."""
    return draw_dataset(scratch_folder() / "data")


@functools.cache
def trained_run(*, include_encoder: bool = False) -> Path:
    """A finished run of an attending recipe; tests read it and never change it."""
    from showtell.training import train

    run = scratch_folder() / f"run-{include_encoder}"
    train(
        tiny_recipe(training={"epochs": 3, "learning_rate": 0.01}),
        shared_dataset(),
        run,
        features=scratch_folder() / "features",
        include_encoder=include_encoder,
    )
    return run


_kept: list[tempfile.TemporaryDirectory[str]] = []
