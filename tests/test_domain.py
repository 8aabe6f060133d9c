"""Fine-tuning a captioner for a domain: its words stay, new ones come behind them, and forgetting is measured."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from showtell.bundle import Bundle, find_bundle, load_bundle
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.data.records import Dataset
from showtell.data.splits import apply_splits, load_splits
from showtell.decoders.registry import DECODERS
from showtell.errors import ConfigError, DataError, TrainingError
from showtell.forgetting import measure_forgetting
from showtell.recipes import load_recipe
from showtell.text import FIRST_WORD, Vocabulary, tokenize
from showtell.training import train
from showtell.training.batches import EncodedCaption
from showtell.training.checkpoint import read_checkpoint
from showtell.training.schedule import Schedule
from showtell.training.start import add_rehearsed
from showtell.training.watcher import SilentWatcher
from tiny_runs import ATTENDING, Settings, draw_dataset, shared_dataset, tiny_recipe, trained_run

NEW = "zebra"  # a word that the drawn scenes do not have


@pytest.fixture(autouse=True)
def quick(without_plots: None) -> None:
    """No plots."""


def with_zebras(dataset: Dataset) -> Dataset:
    """The same pictures, each with a caption that has a new word."""
    images = [
        replace(image, captions=(*image.captions, f"a {NEW} on {tokenize(image.captions[0])[-1]}"))
        for image in dataset.images
    ]
    return replace(dataset, images=tuple(images))


def with_only_zebras(dataset: Dataset) -> Dataset:
    images = [replace(image, captions=(f"one {NEW}", f"the {NEW}")) for image in dataset.images]
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
    zebras = with_only_zebras(dataset)
    recipe = tiny_recipe(training={"epochs": 12, "learning_rate": 0.02, "evaluate_every": 12})
    run = train(recipe, zebras, tmp_path / "run", start=trained_run())
    [picture] = Captioner.load(run.bundle).caption(zebras.images[0].path)
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
    """A captioner that knows little, and one that knows more, in both orders."""
    dataset = shared_dataset()
    recipe = tiny_recipe(training={"epochs": 12, "learning_rate": 0.02, "evaluate_every": 12})
    start, good = trained_run(), train(recipe, dataset, tmp_path / "good").bundle
    told: list[tuple[int, int]] = []
    found = measure_forgetting(start, good, dataset, progress=lambda *progress: told.append(progress))
    assert told == [(done, 2 * found.images) for done in range(1, 2 * found.images + 1)]
    assert found.images == 5
    expected = Captioner.load(start).evaluate(dataset, split="dev", resamples=0).scored.corpus
    assert {name: found.before[name] for name in expected} == expected
    assert found.before["Bleu_1"] < found.after["Bleu_1"]
    gained = found.after["Bleu_1"] - found.before["Bleu_1"]
    assert found.differences["Bleu_1"].value == pytest.approx(gained)
    back = measure_forgetting(good, start, dataset)
    assert (back.before, back.after) == (found.after, found.before)


def command(run: Path, recipe: str = "fine-tune", *more: str) -> list[str]:
    data = shared_dataset().images[0].path.parent.parent
    start = trained_run(include_encoder=True)
    words = ["train", recipe, "--data", str(data), "--output", str(run), "--from", str(start)]
    return [*words, "--set", "training.epochs=1", *more]


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = command(run)
    data = words[3]
    assert main([*words[:6], "--old-data", data]) == 2
    assert "--from" in capsys.readouterr().err
    assert main([*words, "--old-data", data]) == 0
    said = capsys.readouterr().err
    assert "words, and 0 new ones" in said
    assert "CIDEr of the old data" in said
    kept = json.loads((run / "forgetting.json").read_text())
    assert kept["images"] == 5
    assert kept["differences"]["CIDEr"]["difference"] == pytest.approx(
        kept["after"]["CIDEr"] - kept["before"]["CIDEr"]
    )


def test_old_data_that_cannot_be_captioned_do_not_spoil_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = draw_dataset(tmp_path / "old")
    splits = tmp_path / "run-before"
    shutil.copytree(trained_run(include_encoder=True), splits)
    [first, *_] = old.split("dev").images
    first.path.write_bytes(b"no picture")
    words = command(tmp_path / "run")
    words[words.index("--from") + 1] = str(splits)
    assert main([*words, "--old-data", str(first.path.parent.parent)]) == 1
    said = capsys.readouterr()
    assert "what was forgotten could not be measured" in said.err
    assert first.path.name in said.err
    assert "CIDEr" in json.loads(said.out)
    assert Captioner.load(tmp_path / "run") is not None


@pytest.mark.parametrize("command", ["evaluate", "report", "calibrate"])
def test_a_model_is_not_judged_in_silence_on_what_it_has_seen(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that learnt two of the five test pictures, and was chosen by a third."""
    run = tmp_path / "seen"
    shutil.copytree(trained_run(include_encoder=True), run)
    data = str(shared_dataset().images[0].path.parent.parent)
    words = [command, str(run), "--data", data, "--split", "test"]
    if command != "calibrate":
        words += ["--output", str(tmp_path / "out")]
    told = (
        "seen: the names of 3 of 5 images stand in splits.json of its run (train 2, dev 1): it has seen them"
    )
    main(words)
    assert "seen: the" not in capsys.readouterr().err
    written = json.loads((run / "splits.json").read_text())
    one, two, three, *written["splits"]["test"] = written["splits"]["test"]
    written["splits"]["train"] += [one, two]
    written["splits"]["dev"] += [three]
    (run / "splits.json").write_text(json.dumps(written))
    main(words)
    assert told in capsys.readouterr().err
    if command == "report":
        assert html.escape(told) in (tmp_path / "out" / "report.html").read_text()
    if command == "evaluate":
        assert json.loads((tmp_path / "out").read_text())["notes"][-1].startswith(told)
        main([*words, "--max-images", "3"])
        assert "3 of 3 images stand in" in capsys.readouterr().err
        (run / "splits.json").write_text("{")
        assert main(words) == 0
        assert (
            "seen: what it was trained on is not known: The splits file seen/splits.json"
            in capsys.readouterr().err
        )


def test_old_data_without_splits_are_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    [image, *_] = shared_dataset().images
    shutil.copyfile(image.path, old / "a.png")
    (old / "captions.csv").write_text("image,caption\na.png,a red circle\n")
    words = command(tmp_path / "run")
    words[words.index("--from") + 1] = str(find_bundle(trained_run(include_encoder=True)))
    assert main([*words, "--old-data", str(old)]) == 2
    said = capsys.readouterr().err
    assert f"--old-data {old}: " in said
    assert "as in a column `split`" in said


def test_a_name_is_nothing_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(tmp_path / "run")
    words[words.index("--from") + 1] = "compact"
    assert main(words) == 2
    assert "argument --from: 'compact' names an exported captioner" in capsys.readouterr().err


# Rehearsal


def test_old_pictures_take_turns() -> None:
    captions = [EncodedCaption(image, (1, 4), (4, 2)) for image in range(14) for _ in range(2)]
    recipe = tiny_recipe(training={"epochs": 3, "batch_size": 4, "batching": "image", "rehearsal": 2.0})
    schedule = Schedule(recipe, captions, new=2)
    seen = []
    for epoch in range(3):
        images = [captions[index].image for batch in schedule.plan(epoch) for index in batch]
        assert all(images.count(image) == 2 for image in set(images))  # all of its captions
        assert {0, 1} < set(images)
        seen.append(set(images) - {0, 1})
    assert [len(images) for images in seen] == [4, 4, 4]
    assert set().union(*seen) == set(range(2, 14))  # none comes twice before each has come
    assert schedule.plan(3) != schedule.plan(0)
    assert set(range(2, 6)) == {captions[i].image for batch in schedule.plan(3) for i in batch} - {0, 1}
    assert schedule.taught_steps == 3 * 2
    few = Schedule(tiny_recipe(training={"rehearsal": 100.0}), captions, new=2)
    assert sorted(index for batch in few.plan(5) for index in batch) == list(range(len(captions)))


def test_old_pictures_are_learnt_again(tmp_path: Path) -> None:
    """A captioner that learns zebras says them for everything, unless it goes on with what it knew."""
    new, old = with_only_zebras(draw_dataset(tmp_path / "new", train=6, seed=1)), shared_dataset()
    recipe = {"epochs": 12, "learning_rate": 0.02, "evaluate_every": 12, "batching": "image", "batch_size": 4}
    says = {}
    for name, more in (("alone", {}), ("rehearsed", {"rehearsal": 3.0})):
        run = train(
            tiny_recipe(training={**recipe, **more}, text={"min_count": 2}),
            new,
            tmp_path / name,
            start=trained_run(),
            old_data=old if more else None,
        )
        found = open_bundle(run.bundle).vocabulary
        # What only the old data have at this count brings no words: theirs are known.
        assert set(found.words) - set(open_bundle(trained_run()).vocabulary.words) == {NEW}
        captions = Captioner.load(run.bundle).caption([image.path for image in old.split("dev").images])
        says[name] = sum(NEW in picture.text.split() for picture in captions)
    assert says["alone"] == 5
    assert says["rehearsed"] < 3


def test_epochs_are_added_to_a_run_that_rehearses(tmp_path: Path) -> None:
    new, old = draw_dataset(tmp_path / "new", train=4, dev=2, seed=1), shared_dataset()

    class Listener(SilentWatcher):
        def note(self, message: str) -> None:
            said.append(message)

    said: list[str] = []

    def learn(epochs: int, data: Dataset = old, **more: bool) -> int:
        recipe = tiny_recipe(training={"epochs": epochs, "batching": "image", "rehearsal": 1.0})
        said.clear()
        train(recipe, new, tmp_path / "run", start=trained_run(), old_data=data, watcher=Listener(), **more)
        [images] = re.findall(r"captions of (\d+) images,", " ".join(said))
        return int(images)

    assert learn(1) == 4 + 4
    assert learn(2, resume=True) == 4 + 8  # others than in the first epoch
    splits = load_splits(tmp_path / "run" / "splits.json")  # of the new data alone, to be used with them
    assert {split: len(ids) for split, ids in splits.splits.items()} == {"train": 4, "dev": 2, "test": 5}
    assert apply_splits(new, splits.splits).fingerprint() == new.fingerprint() == splits.fingerprint
    assert open_bundle(tmp_path / "run").split_fingerprint == new.fingerprint()
    left = old.split("train").images[0]
    fewer = replace(old, images=tuple(image for image in old.images if image != left))
    with pytest.raises(TrainingError, match=r"Different: the old data \(fingerprint"):
        learn(3, fewer, resume=True)


@pytest.mark.parametrize("rehearsal", [0.0, 1.0])
def test_what_judges_the_old_data_is_not_learnt_with_the_new(rehearsal: float) -> None:
    old = shared_dataset()
    dev, *others = old.split("dev").images
    new = replace(old, images=(replace(dev, split="train"), *old.split("test").images))
    config = tiny_recipe(training={"rehearsal": rehearsal}).training
    with pytest.raises(DataError, match=f"{dev.path.name} .train in the new, dev in the old.*must not judge"):
        add_rehearsed(new, old, config)
    other = replace(new, images=(replace(old.split("train").images[0], split="test"), *others))
    with pytest.raises(DataError, match=r"1 image file in other .* .test in the new, train in the old."):
        add_rehearsed(other, old, config)
    both_judge = replace(old, images=(replace(dev, split="test"), *others, *old.split("train").images))
    assert add_rehearsed(both_judge, old, replace(config, rehearsal=0.0)).given is both_judge
    loose = replace(old, images=(replace(dev, split=None), *others, *old.split("train").images))
    assert add_rehearsed(new, loose, config).given is new  # it judges nothing


def test_what_rehearsal_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path / "run", "rehearse")) == 2
    said = capsys.readouterr().err
    assert "training.rehearsal = 6" in said
    assert "--old-data DATA" in said
    assert not (tmp_path / "run").exists()


def test_old_data_are_split_as_the_run_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(tmp_path / "run", "rehearse")
    data = words[3]
    other = draw_dataset(tmp_path / "other", train=3, seed=1).images[0].path.parent.parent
    assert main([*words, "--old-data", str(other)]) == 2
    assert f"--old-data {other} is not what the splits of" in capsys.readouterr().err
    # A run that kept three of its 16 training pictures for the test.
    run = tmp_path / "run-before"
    shutil.copytree(trained_run(include_encoder=True), run)
    written = json.loads((run / "splits.json").read_text())
    kept, written["splits"]["train"] = written["splits"]["train"][:3], written["splits"]["train"][3:]
    written["splits"]["test"] = sorted([*written["splits"]["test"], *kept])
    (run / "splits.json").write_text(json.dumps(written))
    words[words.index("--from") + 1] = str(run)
    assert main([*words, "--old-data", data]) == 2  # --data would learn what is to judge
    assert "--old-data: 3 image files in other splits than in the new data: " in capsys.readouterr().err
    words[3] = str(other)
    assert main([*words, "--old-data", data]) == 0
    assert f" captions of {3 + 13} images," in capsys.readouterr().err


def test_nothing_of_how_the_captioner_was_trained_is_taken() -> None:
    settings = {"accumulate": 4, "batching": "image", "patience": 2, "word_dropout": 0.5, "device": "cuda"}
    start = tiny_recipe(training=settings, text={"max_words": 7})
    recipe = load_recipe("fine-tune", start=start)
    assert (recipe.training.accumulate, recipe.training.patience, recipe.training.device) == (1, 0, "auto")
    assert recipe.training.word_dropout == 0
    assert recipe.text.max_words == 0
    assert recipe.encoder.name == start.encoder.name


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
