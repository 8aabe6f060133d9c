"""What people said of similar training pictures: found, weighed, stored, exported, and never asked about themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from showtell.bundle import CONSENSUS, load_bundle, save_bundle, store_decoding
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.consensus import Consensus, build_consensus, open_consensus
from showtell.data.records import Dataset
from showtell.decoding import DecodingSettings
from showtell.errors import BundleError, ConfigError, UsageError
from showtell.metrics import CorpusIdf, score
from showtell.text import Vocabulary
from showtell.training import train
from tiny_runs import POOLING, export_quickly, scratch_folder, shared_dataset, tiny_recipe

SAID = [
    ["a dog runs", "the dog runs fast"],
    ["a cat sleeps", "a black cat sleeps"],
    ["a dog jumps", "one dog jumps over a zebra"],
    ["two children play", "children play"],
]
WORDS = Vocabulary.from_captions([caption for own in SAID for caption in own if "zebra" not in caption])
# Two kinds of pictures: the first and the third are alike, and the second and the fourth.
SEEN = np.array([[9, 1, 0, 1], [0, 1, 9, 4], [9, 2, 0, 0], [1, 0, 9, 9]], dtype=np.float32)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _quick(without_plots: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))


def remember(features: np.ndarray[Any, Any] = SEEN, said: list[list[str]] = SAID) -> Consensus:
    return Consensus(build_consensus([features[:3], features[3:]], said, WORDS), WORDS)


# Neighbours and agreement


def test_similar_pictures_are_found() -> None:
    assert remember().find_neighbours(SEEN, 2)[:, 0].tolist() == [0, 1, 2, 3]  # itself
    assert remember().find_neighbours(SEEN, 2)[:, 1].tolist() == [2, 3, 0, 1]
    assert remember().find_neighbours(SEEN, 99).shape == (4, 4)
    cells = np.stack([SEEN * 1.5, SEEN * 0.5], axis=1)  # a grid is compared by its mean
    assert (remember(cells).find_neighbours(cells, 4) == remember().find_neighbours(SEEN, 4)).all()


def test_neighbours_are_those_of_the_cosine() -> None:
    random = np.random.default_rng(1)
    features = random.standard_normal((300, 40)).astype(np.float32)
    consensus = Consensus(build_consensus([features], [["a dog runs"]] * 300, WORDS), WORDS)
    roots = np.sign(features) * np.sqrt(np.abs(features))
    described = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    centred = described - described.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    order = np.argsort(-centred @ centred.T, axis=1)[:, :20]
    found = consensus.find_neighbours(features, 20)
    shared = [
        len(set(ours) & set(theirs)) for ours, theirs in zip(found.tolist(), order.tolist(), strict=True)
    ]
    assert np.mean(shared) > 19  # all but what 8 bits confuse


def test_agreement_is_the_mean_cider_over_the_captions_of_the_neighbours() -> None:
    candidates = [["a dog runs", "a cat sleeps", "children play"]]
    [found] = remember().agree(SEEN[:1], [[text.split() for text in candidates[0]]], 2)
    corpus = CorpusIdf.from_references({str(n): own for n, own in enumerate(SAID)})
    for text, value in zip(candidates[0], found, strict=True):
        expected = [
            score({"x": own}, {"x": text}, metrics=["CIDEr"], corpus_idf=corpus).corpus["CIDEr"]
            for own in (
                SAID[0],
                [SAID[2][0], "unk dog jumps unk a unk"],
            )  # what only the zebra's caption has is no word of the captioner
        ]
        assert value == pytest.approx(np.mean(expected), abs=1e-9)
    assert found[0] > found[1]
    assert found[0] > found[2]


def test_pictures_may_have_different_numbers_of_candidates() -> None:
    words = [[["a", "dog", "runs"]], [], [["a", "cat"], []]]
    found = remember().agree(SEEN[:3], words, 1)
    assert [len(part) for part in found] == [1, 0, 2]
    assert found[2].tolist() == pytest.approx([remember().agree(SEEN[2:3], words[2:], 1)[0][0], 0.0])
    assert [len(part) for part in remember().agree(SEEN[:1], [[]], 1)] == [0]


def test_it_is_built_in_the_same_way_each_time() -> None:
    first, again = remember().arrays, remember().arrays
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert first["vectors"].dtype == np.int8


def test_pictures_without_captions_are_left_out() -> None:
    arrays = build_consensus([SEEN], [SAID[0], [], SAID[2], []], WORDS)
    assert len(arrays["vectors"]) == 2
    assert len(arrays["ends"]) == 4
    with pytest.raises(UsageError, match="needs training pictures with captions"):
        build_consensus([SEEN], [[]] * 4, WORDS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays: arrays.pop("vectors"),
        lambda arrays: arrays.update(vectors=arrays["vectors"][:-1]),
        lambda arrays: arrays.update(directions=arrays["directions"][:, :-1]),
        lambda arrays: arrays.update(mean=arrays["mean"] * np.float16(np.nan)),
        lambda arrays: arrays.update(tokens=arrays["tokens"] + 100),
        lambda arrays: arrays.update(ends=arrays["ends"][::-1]),
        lambda arrays: arrays.update(owned=arrays["owned"] + 1),
        lambda arrays: arrays.update(owned=arrays["owned"][:, None]),
    ],
)
def test_damaged_arrays_are_refused(damage: Any) -> None:
    arrays = dict(remember().arrays)
    damage(arrays)
    with pytest.raises(BundleError, match="captions of the training pictures are damaged"):
        Consensus(arrays, WORDS)


def test_arrays_of_another_captioner_are_refused() -> None:
    assert open_consensus(None, WORDS, 4, Path("model/c")) is None
    assert open_consensus(remember().arrays, WORDS, 4, Path("model/c")) is not None
    with pytest.raises(BundleError, match=r"model/c: is for features of 4 channels.* gives 8"):
        open_consensus(remember().arrays, WORDS, 8, Path("model/c"))


@pytest.mark.parametrize(
    "wrong", [{"consensus": -1}, {"consensus": 1e9}, {"consensus": "2"}, {"neighbours": 0}]
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DecodingSettings(**wrong)


# Captioners


def recipe(**sections: Any) -> Any:
    decoding = {"beam": 4, "consensus": 3.0, "neighbours": 5, **sections.pop("decoding", {})}
    return tiny_recipe(decoding=decoding, **sections)


@pytest.fixture(scope="module")
def trained() -> Iterator[Path]:
    run = scratch_folder() / "consensus-run"
    train(recipe(), shared_dataset(), run, features=scratch_folder() / "consensus-features")
    yield run
    shutil.rmtree(run)


def dev(dataset: Dataset) -> list[Path]:
    return [image.path for image in dataset.split("dev").images]


def test_a_trained_captioner_ranks_its_beam_by_both(trained: Path) -> None:
    captioner = Captioner.load(trained)
    assert captioner.settings.consensus == 3.0
    pictures = dev(shared_dataset())
    settings = replace(captioner.settings, consensus=50.0, beam=12, no_repeat_ngram=1)
    plain = replace(settings, consensus=0.0, count=12)
    [features] = captioner.encode(pictures)
    candidates = [picture.captions for picture in captioner.caption(pictures, plain)]
    consensus = captioner.backend.consensus
    assert consensus is not None
    agreed = consensus.agree(features, [[caption.words for caption in own] for own in candidates], 5)
    changed = 0
    for picture, own, values in zip(captioner.caption(pictures, settings), candidates, agreed, strict=True):
        totals = [caption.score + 50.0 * value for caption, value in zip(own, values, strict=True)]
        best = int(np.argmax(totals))
        assert len(picture.captions) == 1
        assert picture.text == own[best].text
        assert picture.captions[0].score == pytest.approx(totals[best], abs=1e-4)
        assert picture.captions[0].log_prob == pytest.approx(own[best].log_prob, abs=1e-5)
        changed += best != 0
    assert changed
    several = next(captioner.caption(pictures, replace(captioner.settings, count=3))).captions
    assert len(several) == 3
    assert [caption.score for caption in several] == sorted((c.score for c in several), reverse=True)


def test_samples_are_ranked_too(trained: Path) -> None:
    captioner = Captioner.load(trained)
    settings = replace(captioner.settings, method="sample", count=5)
    ranked = next(captioner.caption(dev(shared_dataset()), settings)).captions
    plain = next(captioner.caption(dev(shared_dataset()), replace(settings, consensus=0.0))).captions
    assert sorted(caption.text for caption in ranked) == sorted(caption.text for caption in plain)
    assert [caption.score for caption in ranked] == sorted((c.score for c in ranked), reverse=True)


def test_a_run_that_goes_on_adds_it_to_its_new_best_bundle(tmp_path: Path) -> None:
    plain = recipe(decoding={"consensus": 0.0}, training={"epochs": 1})
    first = train(plain, shared_dataset(), tmp_path / "run")
    assert load_bundle(first.bundle).consensus is None
    again = recipe(training={"epochs": 1})
    result = train(again, shared_dataset(), tmp_path / "run", resume=True)  # finished, but without it
    bundle = load_bundle(result.bundle)
    assert bundle.consensus is not None
    assert bundle.recipe.decoding.consensus == 3.0
    digest = bundle.digest
    assert load_bundle(train(again, shared_dataset(), tmp_path / "run", resume=True).bundle).digest == digest
    fresh = train(again, shared_dataset(), tmp_path / "fresh")
    ours, theirs = bundle.consensus, load_bundle(fresh.bundle).consensus
    assert theirs is not None
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_an_encoder_that_learns_describes_pictures_as_it_has_learnt(tmp_path: Path) -> None:
    tuned = recipe(encoder={"trainable": True}, decoder=POOLING, training={"epochs": 1})
    result = train(tuned, shared_dataset(), tmp_path / "run")
    captioner = Captioner.load(result.bundle)
    training_set = shared_dataset().split("train")
    features = np.concatenate(list(captioner.encode(image.path for image in training_set.images)))
    consensus = captioner.backend.consensus
    assert isinstance(consensus, Consensus)
    assert (consensus.find_neighbours(features, 1)[:, 0] == np.arange(len(features))).mean() > 0.9


def test_scores_on_the_training_pictures_are_refused(trained: Path, capsys: Capture) -> None:
    captioner = Captioner.load(trained)
    with pytest.raises(UsageError, match=r"consensus = 3 .* the training pictures.* --consensus 0"):
        captioner.evaluate(shared_dataset(), split="train")
    plain = replace(captioner.settings, consensus=0.0)
    assert captioner.evaluate(shared_dataset(), split="train", settings=plain, max_images=2).scores
    assert captioner.evaluate(shared_dataset(), split="dev").scores


def test_a_captioner_that_knows_nobody_says_so(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    bundle = load_bundle(trained)
    save_bundle(replace(bundle, consensus=None), tmp_path / "bundle")
    picture = str(dev(shared_dataset())[0])
    assert main(["caption", picture, "--model", str(tmp_path / "bundle")]) == 2
    error = capsys.readouterr().err
    assert "does not know the captions of its training pictures" in error
    assert "showtell remember MODEL" in error
    assert main(["caption", picture, "--model", str(tmp_path / "bundle"), "--consensus", "0"]) == 0


def test_an_ensemble_asks_the_first_that_knows(trained: Path, tmp_path: Path) -> None:
    bundle = load_bundle(trained)
    save_bundle(replace(bundle, consensus=None), tmp_path / "silent")
    pictures = dev(shared_dataset())
    alone = [picture.text for picture in Captioner.load(trained).caption(pictures)]
    together = Captioner.load([tmp_path / "silent", trained])
    assert [picture.text for picture in together.caption(pictures)] == alone  # twice the same networks


def test_a_damaged_file_is_named(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(load_bundle_folder(trained), folder)
    (folder / CONSENSUS).write_bytes((folder / CONSENSUS).read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"consensus\.safetensors: its content"):
        load_bundle(folder)


def load_bundle_folder(run: Path) -> Path:
    return run / json.loads((run / "best.json").read_text())["bundle"]


def test_an_exported_captioner_asks_the_same_people(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    export_quickly(trained, tmp_path / "exported")
    pictures = dev(shared_dataset())
    ours = [picture.text for picture in Captioner.load(trained).caption(pictures)]
    portable = Captioner.load(tmp_path / "exported", precision="float32")
    assert portable.settings.consensus == 3.0
    assert [picture.text for picture in portable.caption(pictures)] == ours


# The command


def test_the_command_adds_it_to_a_captioner(tmp_path: Path, capsys: Capture) -> None:
    plain = recipe(decoding={"consensus": 0.0}, training={"epochs": 1})
    run = train(plain, shared_dataset(), tmp_path / "run").bundle
    data = str(shared_dataset().split("train").images[0].path.parents[1])
    output = tmp_path / "with"
    assert main(["remember", str(run), "--data", data, "--output", str(output), "--weight", "1.5"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["images"] == 16
    assert printed["bytes"] == sum(path.stat().st_size for path in output.iterdir())
    settings = load_bundle(output).recipe.decoding
    assert (settings.consensus, settings.neighbours) == (1.5, 5)
    assert load_bundle(run).consensus is None
    assert main(["remember", str(run), "--data", data, "--output", str(output)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_what_is_given_away_may_forget(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["pack", str(trained), "--output", str(tmp_path / "kept")]) == 0
    assert load_bundle(tmp_path / "kept").consensus is not None
    assert main(["pack", str(trained), "--output", str(tmp_path / "given"), "--forget"]) == 0
    bundle = load_bundle(tmp_path / "given")
    assert bundle.consensus is None
    assert bundle.recipe.decoding == replace(load_bundle(trained).recipe.decoding, consensus=0.0)
    assert not (tmp_path / "given" / CONSENSUS).exists()
    assert Captioner.load(tmp_path / "given").settings.consensus == 0.0


def test_a_tuned_search_stays(tmp_path: Path) -> None:
    plain = recipe(decoding={"consensus": 0.0}, training={"epochs": 1})
    folder = train(plain, shared_dataset(), tmp_path / "run").bundle
    tuned = replace(load_bundle(folder).recipe.decoding, length_penalty=0.3, beam=3)
    store_decoding(folder, tuned, {"trials": 5})
    train(recipe(training={"epochs": 1}), shared_dataset(), tmp_path / "run", resume=True)
    assert load_bundle(folder).recipe.decoding == replace(tuned, consensus=3.0, neighbours=5)


def test_the_folder_is_looked_at_before_the_work(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    words = ["remember", str(trained), "--data", str(tmp_path), "--output", str(tmp_path / "full")]
    assert main(words) == 2
    assert "not empty" in capsys.readouterr().err


def test_one_candidate_is_nothing_to_rank(trained: Path) -> None:
    captioner = Captioner.load(trained)
    greedy = replace(captioner.settings, method="greedy")
    asked, silent = (
        [picture.captions[0] for picture in captioner.caption(dev(shared_dataset()), settings)]
        for settings in (greedy, replace(greedy, consensus=0.0))
    )
    assert [(caption.text, caption.score) for caption in asked] == [(c.text, c.score) for c in silent]
