"""A run that begins with the weights of another one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from showtell.bundle import find_bundle, fingerprint_parts, load_bundle, store_decoding
from showtell.cli.main import main
from showtell.data.records import Dataset
from showtell.errors import BundleError, ConfigError, TrainingError, TrainingInterrupted, VocabularyError
from showtell.recipes import Recipe
from showtell.training import train
from showtell.training.checkpoint import read_checkpoint
from tiny_runs import (
    ATTENDING,
    Stopper,
    assert_equal_checkpoints,
    draw_dataset,
    scratch_folder,
    shared_dataset,
    tiny_recipe,
    trained_run,
)


def features() -> Path:
    return scratch_folder() / "features"


def rewarded(**training: object) -> Recipe:
    """Self-critical epochs alone."""
    return tiny_recipe(
        training={"epochs": 0, "learning_rate": 0.01, **training},
        self_critical={"epochs": 1, "batch_size": 4, "samples": 2},
    )


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_first_step_has_the_weights_of_the_bundle(ema: float, tmp_path: Path) -> None:
    tiny = tiny_recipe(training={"epochs": 1, "learning_rate": 1e-9, "ema": ema})
    train(tiny, shared_dataset(), tmp_path / "run", features=features(), start=trained_run())
    tensors, _ = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    expected = load_bundle(trained_run()).decoder_weights
    for part in ("model", "average") if ema else ("model",):
        for name, weights in expected.items():
            np.testing.assert_allclose(tensors[f"{part}.decoder.{name}"].numpy(), weights, atol=1e-6)


def test_self_critical_epochs_alone_start_from_a_run_and_resume_without_it(tmp_path: Path) -> None:
    recipe, dataset = rewarded(checkpoint_seconds=0.0), shared_dataset()
    whole = train(recipe, dataset, tmp_path / "whole", features=features(), start=trained_run())
    assert whole.epochs == 1
    with pytest.raises(TrainingInterrupted):
        train(
            recipe,
            dataset,
            tmp_path / "cut",
            features=features(),
            start=trained_run(),
            watcher=Stopper(3),
        )
    train(recipe, dataset, tmp_path / "cut", features=features(), resume=True)
    assert_equal_checkpoints(tmp_path / "whole", tmp_path / "cut")
    record = json.loads((tmp_path / "cut" / "recipe.json").read_text())
    assert record["fingerprints"]["start"] == fingerprint_parts(find_bundle(trained_run()))
    # To say it again is no harm; to say another is one.
    train(recipe, dataset, tmp_path / "cut", features=features(), resume=True, start=trained_run())
    with pytest.raises(TrainingError, match=r"the start \(fingerprint"):
        train(recipe, dataset, tmp_path / "cut", features=features(), resume=True, start=whole.bundle)


def with_a_new_word(dataset: Dataset) -> Dataset:
    images = (replace(image, captions=(*image.captions, "a zebra")) for image in dataset.images)
    return replace(dataset, images=tuple(images))


def test_a_run_goes_on_after_its_start_was_tuned(tmp_path: Path) -> None:
    """Tuning changes how MODEL searches, and nothing that the run took from it."""
    model, recipe = tmp_path / "model", tiny_recipe(training={"epochs": 1, "checkpoint_seconds": 0.0})
    shutil.copytree(find_bundle(trained_run()), model)
    dataset = with_a_new_word(shared_dataset())
    with pytest.raises(TrainingInterrupted):
        train(recipe, dataset, tmp_path / "run", features=features(), start=model, watcher=Stopper(3))
    digest = load_bundle(model).digest
    store_decoding(model, replace(load_bundle(model).recipe.decoding, beam=7), {"trials": 1})
    assert load_bundle(model).digest != digest
    resume = partial(train, recipe, dataset, tmp_path / "run", features=features(), resume=True)
    with pytest.raises(TrainingError, match=r"vocabulary \(fingerprint .*\. Give --from MODEL again"):
        resume()
    assert resume(start=model).epochs == 1


def test_a_captioner_goes_on_without_new_words(tmp_path: Path) -> None:
    """Where no word occurs often enough to be learnt, its own words are enough."""
    recipe = tiny_recipe(text={"min_count": 1000}, training={"epochs": 1})
    run = tmp_path / "run"
    with pytest.raises(VocabularyError, match="No word occurs at least 1000 times"):
        train(recipe, shared_dataset(), run, features=features())
    train(recipe, shared_dataset(), run, features=features(), start=trained_run())
    assert load_bundle(run).vocabulary == load_bundle(trained_run()).vocabulary


def test_self_critical_epochs_need_something_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Give it with --from MODEL, or set training\.epochs"):
        train(rewarded(), shared_dataset(), tmp_path / "run", features=features())
    with pytest.raises(ConfigError, match="both 0, so there is nothing to train"):
        tiny_recipe(training={"epochs": 0})


def test_another_decoder_or_encoder_is_refused(tmp_path: Path) -> None:
    wider = tiny_recipe(decoder={**ATTENDING, "hidden_size": 25})
    with pytest.raises(TrainingError, match=r"Different: decoder\.hidden_size \(24, here 25\)"):
        train(wider, shared_dataset(), tmp_path / "wider", features=features(), start=trained_run())
    larger = tiny_recipe(encoder={"image_size": 96})
    with pytest.raises(TrainingError, match=r"features of another encoder, 'test_resnet'"):
        train(larger, shared_dataset(), tmp_path / "larger", start=trained_run())
    with pytest.raises(BundleError, match="no such model"):
        train(tiny_recipe(), shared_dataset(), tmp_path / "run", start=tmp_path / "nothing")


def test_a_run_that_ended_before_its_first_checkpoint_needs_its_start_again(tmp_path: Path) -> None:
    recipe, dataset = rewarded(), shared_dataset()
    with pytest.raises(TrainingInterrupted):
        train(recipe, dataset, tmp_path / "run", features=features(), start=trained_run(), watcher=Stopper(1))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    with pytest.raises((TrainingError, ConfigError), match="--from MODEL"):
        train(recipe, dataset, tmp_path / "run", features=features(), resume=True)
    taught = tiny_recipe(training={"epochs": 1})
    with pytest.raises(TrainingInterrupted):
        train(
            taught, dataset, tmp_path / "other", features=features(), start=trained_run(), watcher=Stopper(1)
        )
    with pytest.raises(TrainingError, match=r"ended before its first checkpoint\. Give --from MODEL again"):
        train(taught, dataset, tmp_path / "other", features=features(), resume=True)
    train(taught, dataset, tmp_path / "other", features=features(), resume=True, start=trained_run())


def test_another_dropout_and_a_written_default_are_no_other_decoder(tmp_path: Path) -> None:
    same = tiny_recipe(decoder={**ATTENDING, "dropout": 0.0, "gate": False}, training={"epochs": 1})
    assert (
        train(same, shared_dataset(), tmp_path / "run", features=features(), start=trained_run()).epochs == 1
    )


def test_a_trained_encoder_goes_on_from_a_frozen_one_and_from_a_trained_one(tmp_path: Path) -> None:
    """As is usual: first the decoder alone, then both together."""
    settings = {"epochs": 1, "learning_rate": 1e-9, "encoder_learning_rate": 1e-9}
    both = tiny_recipe(encoder={"trainable": True}, training=settings)
    dataset = draw_dataset(tmp_path / "data")
    plain = train(tiny_recipe(training={"learning_rate": 0.01}), dataset, tmp_path / "plain")
    first = train(both, dataset, tmp_path / "first", start=plain.bundle)
    second = train(both, dataset, tmp_path / "second", start=first.bundle)
    frozen, trained, again = (load_bundle(find_bundle(tmp_path / n)) for n in ("plain", "first", "second"))
    for name, weights in frozen.decoder_weights.items():
        np.testing.assert_allclose(trained.decoder_weights[name], weights, atol=1e-6)
    assert trained.encoder_weights is not None
    assert again.encoder_weights is not None
    names = [name for name in trained.encoder_weights if "running_mean" in name]
    assert names
    for name, weights in trained.encoder_weights.items():
        if "running" not in name and "num_batches" not in name:
            np.testing.assert_allclose(again.encoder_weights[name], weights, atol=1e-6)
    # The statistics moved in the first run and went on moving from there in the second.
    assert again.encoder_weights["backbone.bn1.num_batches_tracked"] == (
        2 * trained.encoder_weights["backbone.bn1.num_batches_tracked"]
    )
    assert second.epochs == 1
    with pytest.raises(TrainingError, match=r"its encoder was trained, too.* Set encoder\.trainable = true"):
        train(tiny_recipe(), dataset, tmp_path / "frozen", start=first.bundle)
    for encoder, message in (
        ({"name": "test_convnext"}, r"encoder\.name \('test_resnet', here 'test_convnext'\)"),
        ({"image_size": 96}, "the preprocessing"),
    ):
        other = tiny_recipe(encoder={"trainable": True, **encoder}, training=settings)
        with pytest.raises(TrainingError, match=message):
            train(other, dataset, tmp_path / "other", start=first.bundle)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = shared_dataset().images[0].path.parent.parent
    nothing = str(tmp_path / "nothing")
    code = main(
        ["train", "show-tell-lstm", "--data", str(data), "--output", str(tmp_path / "r"), "--from", nothing]
    )
    assert code == 2
    assert nothing in capsys.readouterr().err
