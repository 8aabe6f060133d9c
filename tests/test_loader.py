"""The loader gives what training learns from; the log of a run is read back."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from showtell.encoders import build_encoder
from showtell.errors import SplitError, TrainingError, UsageError
from showtell.images import open_image
from showtell.recipes import Recipe
from showtell.text import Vocabulary
from showtell.training import LoadedBatch, Loader, SilentWatcher, read_log, train
from showtell.training.trainer import CaptionModel
from tiny_runs import POOLING, shared_dataset, tiny_recipe, trained_run


def open_loader(recipe: Recipe, features: Path | None) -> Loader:
    dataset = shared_dataset()
    captions = [caption for image in dataset.split("train").images for caption in image.captions]
    encoder = build_encoder(recipe.encoder, seed=recipe.training.seed)
    return Loader(recipe, dataset, encoder, Vocabulary.from_captions(captions), features=features)


def sentences(batches: list[LoadedBatch], vocabulary: Vocabulary) -> Counter[tuple[str, str]]:
    """Each caption of the batches with the picture that it is said to be of."""
    return Counter(
        (batch.images[owner].id, vocabulary.decode(row))
        for batch in batches
        for owner, row in zip(batch.captions.owners.tolist(), batch.captions.targets.tolist(), strict=True)
    )


@pytest.mark.parametrize("batching", ["image", "length"])
def test_an_epoch_has_every_caption_of_train_once_with_its_picture(batching: str, features: Path) -> None:
    recipe = tiny_recipe(training={"batching": batching, "batch_size": 6})
    loader = open_loader(recipe, features)
    images = shared_dataset().split("train").images
    vocabulary = Vocabulary.from_captions([caption for image in images for caption in image.captions])
    expected = Counter(
        (image.id, vocabulary.decode(vocabulary.encode(caption)))
        for image in images
        for caption in image.captions
    )
    for epoch in (0, 1):
        assert sentences(list(loader.epoch(epoch)), vocabulary) == expected


def test_a_frozen_encoder_gives_the_features_of_the_pictures(features: Path) -> None:
    recipe = tiny_recipe(training={"batching": "image", "batch_size": 4})
    loader = open_loader(recipe, features)
    batch = next(loader.epoch(0))
    encoder = build_encoder(recipe.encoder, seed=recipe.training.seed)
    pixels = np.stack([encoder.preprocessing.read(image.path) for image in batch.images])
    assert batch.inputs.shape == (4, encoder.cells, encoder.channels)
    np.testing.assert_allclose(batch.inputs.numpy(), encoder.encode(pixels), atol=2e-3, rtol=2e-3)


def test_an_encoder_that_learns_gives_normalised_pixels() -> None:
    recipe = tiny_recipe(encoder={"trainable": True}, training={"batching": "image", "batch_size": 4})
    loader = open_loader(recipe, None)
    batch = next(loader.epoch(0))
    assert batch.inputs.shape == (4, 3, 64, 64)
    preprocessing = build_encoder(recipe.encoder).preprocessing
    first = preprocessing.normalise(preprocessing.resize(open_image(batch.images[0].path))[None])
    np.testing.assert_array_equal(batch.inputs[:1].numpy(), first)


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize("decoder", [None, POOLING], ids=["attending", "pooling"])
def test_training_gets_the_very_batches(
    decoder: dict[str, object] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the decoder is fed with in `train` is what the loader gives, batch for batch."""
    given = {} if decoder is None else {"decoder": decoder}
    recipe = tiny_recipe(training={"epochs": 2, "batch_size": 16}, **given)
    seen: list[torch.Tensor] = []
    encode = CaptionModel.encode

    def watched(self: CaptionModel, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs.clone())
        return encode(self, inputs)

    monkeypatch.setattr(CaptionModel, "encode", watched)
    folder = tmp_path / "features"
    train(recipe, shared_dataset(), tmp_path / "run", features=folder)
    loader = open_loader(recipe, folder)
    given_out = [batch.inputs for epoch in (0, 1) for batch in loader.epoch(epoch)]
    assert len(seen) == len(given_out) > 4
    assert all(torch.equal(one, other) for one, other in zip(seen, given_out, strict=True))


def test_an_epoch_that_is_not_finished_leaves_no_thread(features: Path) -> None:
    import threading

    batches = open_loader(tiny_recipe(training={"batch_size": 4}), features).epoch()
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would be stale"):
        open_loader(tiny_recipe(encoder={"trainable": True}), tmp_path / "features")
    dataset = shared_dataset()
    recipe = tiny_recipe()
    encoder, vocabulary = build_encoder(recipe.encoder), Vocabulary(["a"])
    with pytest.raises(SplitError, match="no images in split 'train'"):
        Loader(recipe, dataset.split("dev"), encoder, vocabulary)
    silent = replace(dataset, images=tuple(replace(image, captions=(" . ",)) for image in dataset.images))
    with pytest.raises(TrainingError, match="No caption of data set"):
        Loader(recipe, silent, encoder, vocabulary)


def test_the_log_of_a_run_is_read(tmp_path: Path) -> None:
    log = read_log(trained_run())
    lines = (trained_run() / "log.jsonl").read_text().splitlines()
    assert [entry.epoch for entry in log] == [1, 2, 3]
    assert [entry.loss for entry in log] == [json.loads(line)["loss"] for line in lines]
    assert all(entry.dev is not None and entry.dev["CIDEr"] >= 0 for entry in log)
    (tmp_path / "log.jsonl").write_text(lines[0] + "\n" + lines[1][:20])  # as a kill may leave it
    assert read_log(tmp_path) == log[:1]


@pytest.mark.parametrize("text", ['{"epoch": 1}\n', "[1]\n", b"\xff\xfe"], ids=["keys", "list", "bytes"])
def test_a_log_that_is_none(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"log\.jsonl: the log cannot be read: No such file"):
        read_log(tmp_path)
    (tmp_path / "log.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TrainingError, match=r"log\.jsonl: not the log of a run, or damaged"):
        read_log(tmp_path)


def test_silence_is_the_default(features: Path) -> None:
    class Told(SilentWatcher):
        def note(self, message: str) -> None:
            raise AssertionError(f"nothing had to be computed: {message}")

    recipe = tiny_recipe()
    encoder = build_encoder(recipe.encoder, seed=recipe.training.seed)
    Loader(recipe, shared_dataset(), encoder, Vocabulary(["a"]), features=features, watcher=Told())


@pytest.mark.usefixtures("without_plots")
def test_training_finds_what_the_loader_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's cache folder, where nobody names the cache."""
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    open_loader(tiny_recipe(training={"epochs": 1}), None)
    stages: list[str] = []

    class Stages(SilentWatcher):
        def stage(self, description: str, total: int, unit: str) -> None:
            stages.append(description)

    train(tiny_recipe(training={"epochs": 1}), shared_dataset(), tmp_path / "run", watcher=Stages())
    assert stages
    assert "features" not in stages
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1
