"""Data sets and recipes so small that training takes seconds, for tests of what surrounds the numbers."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showtell.data.drawn import write_drawn_dataset
from showtell.data.records import Dataset
from showtell.data.source import read_dataset
from showtell.decoders.registry import DECODERS
from showtell.errors import TrainingInterrupted
from showtell.recipes import Recipe

if TYPE_CHECKING:
    from showtell.decoders import Decoder
    from showtell.encoders import Encoder
    from showtell.portable import PortableModel
    from showtell.text import Vocabulary

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
    augmentation: Settings | None = None,
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
            "augmentation": dict(augmentation or {}),
            "fine_tuning": dict(fine_tuning or {}),
            "self_critical": dict(self_critical or {}),
            "decoding": {"method": "beam", "beam": 2, "max_steps": 12, **(decoding or {})},
        }
    )


def draw_dataset(
    folder: Path, *, train: int = 16, dev: int = 5, test: int = 5, size: int = 64, seed: int = 0
) -> Dataset:
    """Draws a small data set into a new folder and reads it."""
    write_drawn_dataset(folder, train=train, dev=dev, test=test, size=size, seed=seed)
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


@functools.cache
def exported_run() -> Path:
    """The shared run, exported; tests that change it copy it first."""
    folder = scratch_folder() / "exported-run"
    export_quickly(trained_run(include_encoder=True), folder)
    return folder


def export_quickly(model: Path, folder: Path, *, calibrate: Sequence[Path] = ()) -> PortableModel:
    """Exports a captioner, for tests of something else than the graph of its encoder."""
    from showtell.exporter import export_model

    with encoders_written_once():
        return export_model(model, folder, calibrate=calibrate)


@contextlib.contextmanager
def encoders_written_once() -> Iterator[None]:
    """In it, an export copies the graph of an encoder that was exported before: tracing one takes seconds."""
    import pytest

    from showtell.exporter import graphs

    write_encoder = graphs.write_encoder

    def write_once(encoder: Encoder, path: Path) -> bool:
        kept = scratch_folder() / f"encoder-{encoder.compute_fingerprint()}.onnx"
        if kept in _written:
            shutil.copy(kept, path)
        else:
            _written[kept] = write_encoder(encoder, path)
            shutil.copy(path, kept)
        return _written[kept]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(graphs, "write_encoder", write_once)
        yield


def pooled_features() -> Path:
    """The cache of the shared data set's pooled features."""
    return scratch_folder() / "pooled-features"


def write_bundle(
    folder: Path,
    recipe: Recipe,
    encoder: Encoder,
    decoder: Decoder,
    vocabulary: Vocabulary,
    *,
    include_encoder: bool = True,
) -> Path:
    """Writes a captioner of these parts as a bundle without scores; returns the folder."""
    from showtell.bundle import save_bundle
    from showtell.training.model import CaptionModel, make_bundle

    bundle = make_bundle(
        recipe,
        CaptionModel(decoder),
        encoder,
        vocabulary,
        split_fingerprint="",
        scores={},
        include_encoder=include_encoder,
    )
    save_bundle(bundle, folder)
    return folder


class Stopper:
    """A watcher that stops the training in so many batches, as if it had been interrupted."""

    def __init__(self, after: int) -> None:
        self.left = after

    def stage(self, description: str, total: int, unit: str) -> None:
        pass

    def advance(self, amount: int, **values: float) -> None:
        if "loss" in values:
            self.left -= 1
            if not self.left:
                raise TrainingInterrupted("stopped by the test")

    def note(self, message: str) -> None:
        pass


def assert_equal_checkpoints(first: Path, second: Path) -> dict[str, Any]:
    """Compares what two runs would go on from, bit for bit; returns the tensors of one of them."""
    import torch

    from showtell.training.checkpoint import read_checkpoint

    tensors, others = (read_checkpoint(run / "checkpoint.safetensors")[0] for run in (first, second))
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name
    return tensors


_kept: list[tempfile.TemporaryDirectory[str]] = []
_written: dict[Path, bool] = {}  # graphs of encoders -> whether they take pictures of other sizes
