"""Fine-tuning a captioner for a domain: its words stay, new ones come behind them, and forgetting is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from showtell.bundle import Bundle, find_bundle, load_bundle
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.data.records import Dataset
from showtell.decoders.registry import DECODERS
from showtell.errors import ConfigError, TrainingError
from showtell.forgetting import measure_forgetting
from showtell.recipes import load_recipe
from showtell.text import FIRST_WORD, Vocabulary, tokenize
from showtell.training import train
from showtell.training.checkpoint import read_checkpoint
from tiny_runs import ATTENDING, Settings, draw_dataset, shared_dataset, tiny_recipe, trained_run

NEW = "zebra"  # a word that the drawn scenes do not have


def with_zebras(dataset: Dataset) -> Dataset:
    """The same pictures, each with a caption that has a new word."""
    images = [
        replace(image, captions=(*image.captions, f"a {NEW} on {tokenize(image.captions[0])[-1]}"))
        for image in dataset.images
    ]
    return replace(dataset, images=tuple(images))


def open_bundle(path: Path) -> Bundle:
    return load_bundle(find_bundle(path))


@pytest.mark.parametrize(
    "decoder",
    [
        ATTENDING,
        *(
            {"kind": kind, "embedding_size": 24, "tied": tied}
            for kind in ("adaptive-lstm", "top-down-lstm")
            for tied in (False, True)
        ),
    ],
    ids=lambda decoder: f"{decoder['kind']}-{decoder.get('tied', False)}",
)
def test_old_words_keep_their_rows_and_new_ones_begin_as_their_mean(
    decoder: Settings, tmp_path: Path
) -> None:
    dataset = draw_dataset(tmp_path / "data")
    old = train(tiny_recipe(decoder=decoder, training={"epochs": 1}), dataset, tmp_path / "old")
    still = tiny_recipe(decoder=decoder, training={"epochs": 1, "learning_rate": 1e-9})
    train(still, with_zebras(dataset), tmp_path / "new", start=old.bundle)
    before, after = open_bundle(tmp_path / "old"), open_bundle(tmp_path / "new")
    words = len(before.vocabulary)
    assert after.vocabulary.words[: words - FIRST_WORD] == before.vocabulary.words
    assert NEW not in before.vocabulary
    assert after.vocabulary.encode(NEW) == [words]
    extended = 0
    for name, weights in before.decoder_weights.items():
        found = after.decoder_weights[name]
        np.testing.assert_allclose(found[: len(weights)], weights, atol=1e-6)
        if found.shape != weights.shape:
            assert (len(weights), len(found)) == (words, len(after.vocabulary))
            expected = np.broadcast_to(weights[FIRST_WORD:].mean(0), found[words:].shape)
            np.testing.assert_allclose(found[words:], expected, atol=1e-6)
            extended += 1
    assert extended >= 2  # the embeddings or what they share, and the biases


def test_a_new_word_is_learnt(tmp_path: Path) -> None:
    dataset = shared_dataset()
    zebras = tuple(replace(image, captions=(f"one {NEW}", f"the {NEW}")) for image in dataset.images)
    recipe = tiny_recipe(training={"epochs": 12, "learning_rate": 0.02, "evaluate_every": 12})
    run = train(recipe, replace(dataset, images=zebras), tmp_path / "run", start=trained_run())
    [picture] = Captioner.load(run.bundle).caption(zebras[0].path)
    assert NEW in picture.text.split()


def test_a_blend_keeps_what_is_evaluated_nearer_to_the_start(tmp_path: Path) -> None:
    settings = {"epochs": 1, "learning_rate": 0.02}

    def distance(name: str, **more: object) -> float:
        run = train(
            tiny_recipe(training={**settings, **more}), shared_dataset(), tmp_path / name, start=trained_run()
        )
        found, start = open_bundle(run.bundle).decoder_weights, open_bundle(trained_run()).decoder_weights
        return float(np.sqrt(sum(((found[key] - start[key]) ** 2).sum() for key in start)))

    whole, part = distance("whole"), distance("part", blend=0.25)
    assert part == pytest.approx(0.25 * whole, rel=0.02)
    tensors, _ = read_checkpoint(tmp_path / "part" / "checkpoint.safetensors")
    assert any(name.startswith("anchor.") for name in tensors)  # so that a resumed run has it, too
    with pytest.raises(ConfigError, match=r"training\.blend = 0\.25 is for runs that start from a captioner"):
        train(tiny_recipe(training={"blend": 0.25}), shared_dataset(), tmp_path / "none")


def test_the_recipe_takes_encoder_and_decoder_of_the_captioner(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fine-tune: goes on from a captioner.* --from MODEL"):
        load_recipe("fine-tune")
    with_encoder = open_bundle(trained_run(include_encoder=True))
    recipe = load_recipe("fine-tune", ["training.epochs=1"], start=with_encoder.starting_recipe())
    assert recipe.name == "fine-tune"
    assert recipe.encoder.name == "test_resnet"
    assert recipe.encoder.weights == "from"
    assert (recipe.decoder, recipe.decoder_options["hidden_size"]) == (ATTENDING["kind"], 24)
    assert recipe.decoding.beam == with_encoder.recipe.decoding.beam
    assert recipe.training.epochs == 1
    run = train(recipe, shared_dataset(), tmp_path / "run", start=trained_run(include_encoder=True))
    tuned = open_bundle(run.bundle)
    assert tuned.encoder_weights is not None  # there is no other place that has them
    assert tuned.encoder.fingerprint == with_encoder.encoder.fingerprint
    with pytest.raises(TrainingError, match="refers to its encoder and does not include it"):
        train(recipe, shared_dataset(), tmp_path / "other", start=trained_run())
    with pytest.raises(ConfigError, match=r"encoder\.weights = 'from' is for runs that start"):
        train(recipe, shared_dataset(), tmp_path / "other")


def test_a_trained_encoder_is_taken_over_frozen_or_learning(tmp_path: Path) -> None:
    dataset = shared_dataset()
    both = tiny_recipe(encoder={"trainable": True}, training={"epochs": 1, "encoder_learning_rate": 1e-3})
    first = train(both, dataset, tmp_path / "first")
    start = open_bundle(first.bundle)
    for name, overrides in (("frozen", []), ("learning", ["encoder.trainable=true"])):
        recipe = load_recipe("fine-tune", ["training.epochs=1", *overrides], start=start.starting_recipe())
        found = open_bundle(train(recipe, dataset, tmp_path / name, start=first.bundle).bundle)
        assert (found.encoder.fingerprint == start.encoder.fingerprint) == (name == "frozen")
        Captioner.load(
            tmp_path / name
        )  # the encoder that is included is the one that the decoder was trained with


def test_what_was_forgotten_is_measured_on_the_same_pictures(tmp_path: Path) -> None:
    found = measure_forgetting(trained_run(), trained_run(), shared_dataset())
    assert found.images == 5
    assert found.before == found.after
    assert all(one.value == 0 for one in found.differences.values())


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = shared_dataset().images[0].path.parent.parent
    start, run = trained_run(include_encoder=True), tmp_path / "run"
    words = ["train", "fine-tune", "--data", str(data), "--output", str(run)]
    assert main([*words, "--old-data", str(data)]) == 2
    assert "--from MODEL" in capsys.readouterr().err
    tuned = ["--from", str(start), "--old-data", str(data), "--set", "training.epochs=1"]
    assert main([*words, *tuned]) == 0
    said = capsys.readouterr().err
    assert "words, and 0 new ones" in said
    assert "CIDEr of the old data" in said
    kept = json.loads((run / "forgetting.json").read_text())
    assert kept["images"] == 5
    assert kept["differences"]["CIDEr"]["difference"] == pytest.approx(
        kept["after"]["CIDEr"] - kept["before"]["CIDEr"]
    )


def test_words_are_extended_in_order() -> None:
    old, new = Vocabulary(["a", "b"]), Vocabulary(["c", "a", "d"], {"min_count": 2})
    assert old.extended(new).words == ("a", "b", "c", "d")
    assert old.extended(new).rule == {"min_count": 2, "extended": 2}
    assert old.extended(Vocabulary(["b"])) is old


def test_every_decoder_is_covered_by_what_extends_words() -> None:
    """All weights with a row for each word have it in their first dimension, so that one rule extends them."""
    from showtell.decoders import create_decoder

    for kind, (_, options) in DECODERS.items():
        sizes = [
            {
                name: tuple(tensor.shape)
                for name, tensor in create_decoder(
                    kind, {}, features=options.needs, channels=32, vocab_size=count
                )
                .state_dict()
                .items()
            }
            for count in (11, 13)
        ]
        for name, shape in sizes[0].items():
            assert sizes[1][name] in (shape, (13, *shape[1:])), (kind, name)
