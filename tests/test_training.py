"""Training: what a run leaves, what stays frozen, which checkpoint is best, and what stops a run."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from showtell.bundle import find_bundle, load_bundle
from showtell.captioner import Captioner
from showtell.data.records import Dataset
from showtell.decoding import DecodingSettings
from showtell.encoders import FeatureCache, build_encoder
from showtell.encoders.weights import digest_tensors
from showtell.errors import (
    ImageError,
    MissingExtraError,
    SplitError,
    TrainingError,
    UsageError,
    VocabularyError,
)
from showtell.files import lock_folder
from showtell.metrics import score
from showtell.text import Vocabulary
from showtell.training import SilentWatcher, teacher_forcing, train, trainer, validation
from showtell.training.checkpoint import read_checkpoint
from showtell.training.history import History
from showtell.training.run_folder import LOCK, RunFolder
from showtell.training.sources import prefetch
from tiny_runs import (
    ATTENDING,
    POOLING,
    draw_dataset,
    shared_dataset,
    tiny_recipe,
    trained_run,
)


class Recorder(SilentWatcher):
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, str]] = []
        self.done: list[int] = []
        self.losses: list[float] = []
        self.notes: list[str] = []

    def stage(self, description: str, total: int, unit: str) -> None:
        self.stages.append((description, total, unit))
        self.done.append(0)

    def advance(self, amount: int, **values: float) -> None:
        self.done[-1] += amount
        self.losses += values.values()

    def note(self, message: str) -> None:
        self.notes.append(message)


# What a run leaves


def test_a_run_folder_holds_everything_and_nothing_pickled(tmp_path: Path, features: Path) -> None:
    run = tmp_path / "run"  # not the shared one, which may have been trained without plots
    train(
        tiny_recipe(training={"epochs": 3, "learning_rate": 0.01}), shared_dataset(), run, features=features
    )
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    bundle = json.loads((run / "best.json").read_text())["bundle"]
    parts = {f"{bundle}/{name}" for name in ("bundle.json", "vocabulary.json", "decoder.safetensors")}
    records = {
        "recipe.json",
        "splits.json",
        "log.jsonl",
        "plot.png",
        "checkpoint.safetensors",
        "best.json",
        LOCK,
    }
    assert names == records | parts
    splits = json.loads((run / "splits.json").read_text())
    assert all(image.id in json.dumps(splits) for image in shared_dataset().images)
    with Image.open(run / "plot.png") as plot:
        assert plot.size == (960, 540)
        assert len(plot.convert("RGB").getcolors(1 << 20)) > 20


def test_the_log_has_a_line_per_epoch() -> None:
    lines = [json.loads(line) for line in (trained_run() / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    captions = sum(len(image.captions) for image in shared_dataset().split("train").images)
    assert [line["step"] for line in lines] == [lines[0]["step"] * number for number in (1, 2, 3)]
    assert lines[0]["step"] == pytest.approx(captions / 16, abs=1)
    assert lines[2]["loss"] < lines[0]["loss"]
    assert all(line["dev"].keys() >= {"CIDEr", "Bleu_4", "ROUGE_L"} for line in lines)
    assert all(line["captions_per_second"] > 0 for line in lines)
    assert all(line["learning_rate"] == 0.01 for line in lines)


def test_the_watcher_is_told_of_all_that_happens(tmp_path: Path, features: Path, without_plots: None) -> None:
    watcher = Recorder()
    result = train(tiny_recipe(), shared_dataset(), tmp_path / "run", features=features, watcher=watcher)
    epoch = ("epoch 1/2", 80, "captions")
    dev = ("dev captions", 5, "images")
    assert watcher.stages == [epoch, dev, ("epoch 2/2", 80, "captions"), dev]
    assert watcher.done == [total for _, total, _ in watcher.stages]
    assert watcher.losses[0] == pytest.approx(math.log(len(load_bundle(result.bundle).vocabulary)), abs=0.5)
    assert "80 captions of 16 images" in watcher.notes[0]
    assert watcher.notes[1].startswith("epoch 1: loss ")
    assert result.scores["CIDEr"] == load_bundle(result.bundle).scores["dev"]["CIDEr"]
    assert result.captions_per_second > 0


def test_features_are_computed_once_for_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    stages = []
    for name, dev_images in (("one", 2), ("two", 0), ("three", 1)):
        watcher = Recorder()
        recipe = tiny_recipe(training={"epochs": 1, "dev_images": dev_images})
        train(recipe, shared_dataset(), tmp_path / name, watcher=watcher)
        stages.append([stage for stage in watcher.stages if stage[0] == "features"])
    assert stages == [[("features", 21, "images")], [], []]
    [cache] = (tmp_path / "cache/features").iterdir()
    used = [image for image in shared_dataset().images if image.split != "test"]
    assert FeatureCache.open(cache).features([image.id for image in used]).shape == (21, 4, 96)


def test_tensorboard_is_written_on_request(tmp_path: Path, features: Path, without_plots: None) -> None:
    recipe = tiny_recipe(training={"epochs": 1})
    try:
        train(recipe, shared_dataset(), tmp_path / "run", features=features, tensorboard=True)
    except MissingExtraError as error:
        assert 'pip install "showtell[tensorboard]"' in str(error)  # noqa: PT017
    else:
        assert list((tmp_path / "run/tensorboard").glob("events.*"))


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(
    tmp_path: Path, features: Path, without_plots: None
) -> None:
    found = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        torch.manual_seed(len(found))  # what happened in the process before does not matter
        recipe = tiny_recipe(
            encoder={"trainable": True, "image_size": 32}, training={"seed": seed, "epochs": 1}
        )
        train(recipe, shared_dataset(), tmp_path / name)
        found.append(read_checkpoint(tmp_path / name / "checkpoint.safetensors")[0])
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
    assert not torch.equal(
        found[0]["model.decoder.embedding.weight"], found[2]["model.decoder.embedding.weight"]
    )


# Frozen and trained encoders


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The encoders that runs build."""
    encoders: list[torch.nn.Module] = []

    def build(*arguments: Any, **options: Any) -> torch.nn.Module:
        encoders.append(build_encoder(*arguments, **options))
        return encoders[-1]

    monkeypatch.setattr(trainer, "build_encoder", build)
    return encoders


def test_a_frozen_encoder_is_bit_identical_after_training(
    tmp_path: Path, built: list[torch.nn.Module], without_plots: None
) -> None:
    recipe = tiny_recipe(training={"epochs": 1})
    train(recipe, shared_dataset(), tmp_path / "run", features=tmp_path / "features")
    [encoder] = built
    right = build_encoder(recipe.encoder, seed=recipe.training.seed)
    assert any(name.endswith("running_mean") for name in right.state_dict())
    assert digest_tensors(encoder.state_dict()) == digest_tensors(right.state_dict())
    assert not encoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    names = read_checkpoint(tmp_path / "run/checkpoint.safetensors")[0]
    assert not any("encoder" in name for name in names)


def test_a_trained_encoder_learns_and_its_batch_norms_move(
    tmp_path: Path, built: list[torch.nn.Module], without_plots: None
) -> None:
    recipe = tiny_recipe(encoder={"trainable": True, "image_size": 32}, training={"epochs": 1})
    result = train(recipe, shared_dataset(), tmp_path / "run")
    [encoder] = built
    before = build_encoder(recipe.encoder, seed=recipe.training.seed).state_dict()
    after = encoder.state_dict()
    same = [name for name, tensor in after.items() if torch.equal(tensor, before[name])]
    assert same == []
    bundle = load_bundle(result.bundle)
    assert bundle.encoder_weights is not None
    for name, tensor in after.items():
        np.testing.assert_array_equal(bundle.encoder_weights[name], tensor.numpy())


def test_bf16_trains_a_trainable_encoder(tmp_path: Path, without_plots: None) -> None:
    recipe = tiny_recipe(
        encoder={"trainable": True, "image_size": 32, "precision": "bf16"},
        decoder=ATTENDING,
        training={"epochs": 1, "precision": "bf16"},
    )
    watcher = Recorder()
    train(recipe, shared_dataset(), tmp_path / "run", watcher=watcher)
    assert watcher.losses[-1] < watcher.losses[0]
    tensors = read_checkpoint(tmp_path / "run/checkpoint.safetensors")[0]
    assert {tensor.dtype for name, tensor in tensors.items() if "weight" in name} == {torch.float32}


# The data


def test_words_of_dev_and_test_are_not_in_the_vocabulary(
    tmp_path: Path, features: Path, without_plots: None
) -> None:
    images = tuple(
        image
        if image.split == "train"
        else replace(image, captions=(*image.captions, f"xylophone {image.split}"))
        for image in shared_dataset().images
    )
    dataset = replace(shared_dataset(), images=images)
    result = train(tiny_recipe(training={"epochs": 1}), dataset, tmp_path / "run", features=features)
    assert not {"xylophone", "dev", "test"} & set(load_bundle(result.bundle).vocabulary)


def test_odd_captions_are_trained_on(tmp_path: Path, features: Path, without_plots: None) -> None:
    odd = (
        "<start> a dog <end> <unk> <pad>",
        "control \x00\x07\x1b[31m characters",
        " ".join(["word"] * 500),
        "一只狗在草地上 собака бежит",
        "",
    )
    images = list(shared_dataset().images)
    images[0] = replace(images[0], captions=odd)
    dataset = replace(shared_dataset(), images=tuple(images))
    recipe = tiny_recipe(training={"epochs": 1}, text={"max_length": 20})
    watcher = Recorder()
    result = train(recipe, dataset, tmp_path / "run", features=features, watcher=watcher)
    assert watcher.notes[0].startswith("79 captions")
    vocabulary = load_bundle(result.bundle).vocabulary
    assert {"<start>", "<end>", "<unk>", "<pad>", "собака"} <= set(vocabulary)
    written = [picture.text for picture in Captioner.load(result.bundle).caption([images[0].path])]
    assert all(word in vocabulary for word in " ".join(written).split(" "))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda image: replace(image, split="test"), SplitError, "has no images in split 'train'"),
        (lambda image: replace(image, captions=("...",)), VocabularyError, "The vocabulary has no words"),
        (lambda image: replace(image, path=image.path.with_name("gone.png")), Exception, r"gone\.png"),
    ],
    ids=["no-training-split", "no-words", "missing-image"],
)
def test_data_that_cannot_be_trained_on(
    change: Callable[[Any], Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    dataset = shared_dataset()
    images = tuple(change(image) if image.split == "train" else image for image in dataset.images)
    with pytest.raises(error, match=message):
        train(
            tiny_recipe(), replace(dataset, images=images), tmp_path / "run", features=tmp_path / "features"
        )


# The best checkpoint


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Makes the evaluations on dev give these CIDErs."""
    left = iter(values)

    def give(references: object, hypotheses: object) -> Any:
        real = score(references, hypotheses)  # type: ignore[arg-type]
        return replace(real, corpus={**real.corpus, "CIDEr": next(left)})

    monkeypatch.setattr(validation, "score", give)


def test_the_best_checkpoint_is_kept_and_patience_ends_the_run(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    scripted(monkeypatch, [0.1, 0.5, 0.3, 0.5, 0.9])
    recipe = tiny_recipe(training={"epochs": 9, "patience": 2})
    run = tmp_path / "run"
    kept: list[str] = []

    class Watcher(SilentWatcher):
        def note(self, message: str) -> None:
            if message.startswith("epoch"):
                best = json.loads((run / "best.json").read_text())
                kept.append(load_bundle(run / best["bundle"]).scores["dev"]["epoch"])

    result = train(recipe, shared_dataset(), run, features=features, watcher=Watcher())
    assert kept == [1, 2, 2, 2]
    assert (result.epochs, result.best_epoch, result.scores["CIDEr"]) == (4, 2, 0.5)
    assert result.bundle == run / "bundles/epoch-002"
    assert [path.name for path in (run / "bundles").iterdir()] == ["epoch-002"]


def test_the_best_bundles_captions_really_have_its_score(tmp_path: Path, features: Path) -> None:
    run = trained_run()
    bundle = load_bundle(run)
    settings = replace(bundle.recipe.decoding, method="greedy", count=1)
    report = Captioner.load(run).evaluate(shared_dataset(), split="dev", settings=settings)
    assert report.scores["CIDEr"] == pytest.approx(bundle.scores["dev"]["CIDEr"], abs=1e-6)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["dev"]["CIDEr"])
    assert best["epoch"] == bundle.scores["dev"]["epoch"]
    assert best["dev"]["CIDEr"] == bundle.scores["dev"]["CIDEr"]


def test_evaluations_can_be_rare_and_short(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    watcher = Recorder()
    recipe = tiny_recipe(training={"epochs": 3, "evaluate_every": 2, "dev_images": 2})
    result = train(recipe, shared_dataset(), tmp_path / "run", features=None, watcher=watcher)
    assert [stage for stage in watcher.stages if stage[0] == "dev captions"] == [
        ("dev captions", 2, "images")
    ] * 2
    assert load_bundle(result.bundle).scores["dev"]["images"] == 2
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["dev"] is None for line in lines] == [True, False, False]


def test_a_disk_that_is_full_while_the_best_is_written_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    bundle = load_bundle(trained_run())
    first = folder.save_best(bundle, 1)

    def fail(path: Path, data: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("showtell.bundle.write_json", fail)
    with pytest.raises(OSError, match="No space left"):
        folder.save_best(bundle, 2)
    monkeypatch.undo()
    monkeypatch.setattr("showtell.training.run_folder.write_json", fail)
    with pytest.raises(OSError, match="No space left"):
        folder.save_best(bundle, 2)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["epoch-001"]
    assert load_bundle(tmp_path).digest == load_bundle(first).digest
    assert folder.save_best(bundle, 1).name == "epoch-001-2"
    assert load_bundle(tmp_path).digest == load_bundle(trained_run()).digest


def test_a_run_that_ended_before_its_first_step_is_begun_anew(tmp_path: Path) -> None:
    def begin(data: str) -> bool:
        folder = RunFolder(tmp_path)
        try:
            return folder.open(tiny_recipe(), shared_dataset(), {"data": data}, resume=False)
        finally:
            folder.close()

    for data in "ab":  # other data, as images that could not be read were left out
        assert not begin(data)
        (tmp_path / "log.jsonl").touch()
    assert json.loads((tmp_path / "recipe.json").read_text())["fingerprints"] == {"data": "b"}
    (tmp_path / "log.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="holds a run already"):
        begin("a")
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="holds a run already"):
        begin("a")


# What stops a run


@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
def test_a_loss_that_is_not_finite(
    clip_norm: float, tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    load = trainer.CachedImages.load
    calls = iter(range(99))

    def spoil(self: Any, indices: Any, when: Any) -> torch.Tensor:
        return load(self, indices, when) * (math.nan if next(calls) == 3 else 1)

    monkeypatch.setattr(trainer.CachedImages, "load", spoil)
    recipe = tiny_recipe(training={"checkpoint_seconds": 0, "clip_norm": clip_norm})
    message = r"The loss is nan at step 3 of epoch 1 \(learning rate 0\.001\)\. Nothing of this step was kept: .* Lower"
    with pytest.raises(TrainingError, match=message):
        train(recipe, shared_dataset(), tmp_path / "run", features=features)
    tensors, values = read_checkpoint(tmp_path / "run/checkpoint.safetensors")
    assert values["step"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
def test_gradients_that_are_not_finite_though_the_loss_is(
    clip_norm: float, tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    calls = iter(range(99))

    def overflow(logits: torch.Tensor, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(logits, targets, **options)
        if next(calls) == 2:
            loss.register_hook(lambda gradient: gradient * math.inf)
        return loss

    monkeypatch.setattr(teacher_forcing, "cross_entropy", overflow)
    recipe = tiny_recipe(training={"checkpoint_seconds": 0, "clip_norm": clip_norm})
    with pytest.raises(TrainingError, match=r"The norm of the gradients is (nan|inf) at step 2 of epoch 1"):
        train(recipe, shared_dataset(), tmp_path / "run", features=features)
    tensors, values = read_checkpoint(tmp_path / "run/checkpoint.safetensors")
    assert values["step"] == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())


# Reading ahead


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_results_come_in_order_and_few_wait() -> None:
    started = []

    def task(number: int) -> Callable[[], int]:
        def work() -> int:
            started.append(number)
            return number

        return work

    results = prefetch([task(number) for number in range(20)], depth=2)
    assert started == []
    assert next(results) == 0
    time.sleep(0.2)
    assert len(started) <= 1 + 2 + 1
    assert list(results) == list(range(1, 20))
    assert list(prefetch([])) == []
    assert prefetch_threads() == []


def test_an_error_on_the_thread_is_raised_as_itself_and_ends_it() -> None:
    def fail() -> int:
        raise ImageError("picture 7 is broken")

    results = prefetch([lambda: 1, fail, lambda: 3])
    assert next(results) == 1
    with pytest.raises(ImageError, match="picture 7 is broken"):
        next(results)
    assert prefetch_threads() == []


def test_a_consumer_that_stops_ends_the_thread() -> None:
    results: Iterator[int] = prefetch([lambda: 1] * 50)
    next(results)
    assert len(prefetch_threads()) == 1
    results.close()  # type: ignore[attr-defined]
    assert prefetch_threads() == []


def test_an_image_that_breaks_in_training_is_named_and_ends_the_thread(
    tmp_path: Path, without_plots: None
) -> None:
    dataset = draw_dataset(tmp_path / "data", train=8, dev=2, test=1)
    broken = dataset.split("train").images[5].path
    broken.write_bytes(broken.read_bytes()[:100])
    recipe = tiny_recipe(encoder={"trainable": True, "image_size": 32}, training={"epochs": 1})
    with pytest.raises(ImageError, match=broken.name):
        train(recipe, dataset, tmp_path / "run")
    assert prefetch_threads() == []


# Learning


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A run that learned one caption of each of 20 pictures by heart, and these pictures as its dev split."""
    folder = tmp_path_factory.mktemp("overfit")
    drawn = draw_dataset(folder / "data", train=20, dev=1, test=1).split("train")
    train_images = tuple(replace(image, captions=image.captions[:1]) for image in drawn.images)
    dev_images = tuple(replace(image, id=f"dev-{image.id}", split="dev") for image in train_images)
    dataset = replace(drawn, images=train_images + dev_images)
    recipe = tiny_recipe(
        encoder={"trainable": True},
        decoder={"kind": "attend-gru-dot", "size": 64},
        decoding={"method": "greedy", "max_steps": 20},
        training={
            "epochs": 60,  # of one step each
            "evaluate_every": 60,
            "batching": "image",
            "batch_size": 20,
            "learning_rate": 5e-3,
            "encoder_learning_rate": 2e-3,
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "plot", lambda self, path: None)
        train(recipe, dataset, folder / "run")
    return folder / "run", dataset


def test_training_captions_are_learned_by_heart(overfitted: tuple[Path, Dataset]) -> None:
    run, dataset = overfitted
    report = Captioner.load(run).evaluate(dataset, split="dev")
    assert report.scores["CIDEr"] > 7
    assert report.scores["Bleu_4"] > 0.8


def test_shuffled_images_make_the_score_collapse(overfitted: tuple[Path, Dataset]) -> None:
    run, dataset = overfitted
    images = dataset.split("dev").images
    shuffled = tuple(replace(image, path=other.path) for image, other in zip(images, images[1:] + images[:1]))
    right = Captioner.load(run).evaluate(dataset, split="dev").scores["CIDEr"]
    wrong = Captioner.load(run).evaluate(replace(dataset, images=shuffled), split="dev").scores["CIDEr"]
    assert wrong < right / 3


def test_pooled_features_are_trained_in_both_kinds_of_batches(tmp_path: Path, without_plots: None) -> None:
    for batching in ("length", "image"):
        watcher = Recorder()
        recipe = tiny_recipe(
            decoder=POOLING,
            training={"batching": batching, "batch_size": 4, "learning_rate": 0.01, "epochs": 1},
        )
        train(recipe, shared_dataset(), tmp_path / batching, features=tmp_path / "features", watcher=watcher)
        assert watcher.losses[-1] < watcher.losses[0]
    assert isinstance(load_bundle(tmp_path / "image").vocabulary, Vocabulary)


def test_one_trainer_at_a_time_in_a_folder(tmp_path: Path, features: Path, without_plots: None) -> None:
    recipe = tiny_recipe(training={"epochs": 1})
    (tmp_path / "run").mkdir()
    with (
        lock_folder(tmp_path / "run", TrainingError, "somebody is here", name=LOCK),
        pytest.raises(TrainingError, match="another process is training in this folder"),
    ):
        train(recipe, shared_dataset(), tmp_path / "run", features=features)
    train(recipe, shared_dataset(), tmp_path / "run", features=features)  # a lock alone is an empty folder
    assert train(recipe, shared_dataset(), tmp_path / "run", features=features, resume=True).epochs == 1


@pytest.mark.parametrize("beam", [1, 3])
def test_dev_is_captioned_with_the_beam_of_the_recipe(
    beam: int, tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    seen = []
    caption = validation.caption_feature_batches

    def watch(backend: Any, batches: Any, settings: DecodingSettings) -> Any:
        seen.append((settings.method, settings.beam, settings.count))
        return caption(backend, batches, settings)

    monkeypatch.setattr(validation, "caption_feature_batches", watch)
    recipe = tiny_recipe(training={"epochs": 1, "dev_beam": beam}, decoding={"method": "sample", "count": 4})
    train(recipe, shared_dataset(), tmp_path / "run", features=features)
    assert seen == [("beam", beam, 1)]
    assert load_bundle(find_bundle(tmp_path / "run")).scores["dev"]["beam"] == beam
