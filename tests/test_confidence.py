"""How sure a captioner may be: fitted, measured on images that were not seen, stored, and given with each caption."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from showtell.bundle import find_bundle, load_bundle, save_bundle, store_confidence, store_decoding
from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.confidence import Calibration, Confidence, Said, fit_confidence, measure_reliability
from showtell.data.drawn import write_drawn_dataset
from showtell.errors import BundleError, UsageError
from showtell.packing import compress
from tiny_runs import export_quickly, shared_dataset, trained_run

WORDS = ("a", "red", "dog", "with", "ball", "tree", "house", "boat")
FITTED = Confidence((0.5, 1.0, 0.1, -0.5, 0.2), (0.1, 1.0, 0.2, -0.1))
Capture = pytest.CaptureFixture[str]


def invent(
    images: int, *, sharpness: float = 2.0, seed: int = 0
) -> tuple[list[Said], list[list[str]], list[float]]:
    """Captions whose words are supported with a known chance, which the log-probabilities give away distorted."""
    random = np.random.default_rng(seed)
    captions, references, chances = [], [], []
    for _ in range(images):
        words = random.choice(WORDS[1:3] + WORDS[4:], size=4, replace=False).tolist()
        odds = random.normal(0.5, 1.5, size=4)
        chance = 1 / (1 + np.exp(-odds))
        probabilities = 1 / (1 + np.exp(-(odds * sharpness - 1)))
        used = [word for word, share in zip(words, chance) if random.random() < share]
        captions.append(Said(words, np.log(probabilities).tolist()))
        references.append([" ".join(used) or "nothing"])
        chances.extend(chance.tolist())
    return captions, references, chances


# The fit


def test_known_chances_are_found_again() -> None:
    captions, references, chances = invent(2000)
    calibration = fit_confidence(captions, references)
    found = [value for said in captions for value in calibration.confidence.rate(said).words]
    assert np.abs(np.subtract(found, chances)).mean() < 0.03
    assert calibration.words.expected_error < 0.03 < calibration.raw_words.expected_error
    assert calibration.captions.expected_error < 0.03
    assert calibration.word_ranking > 0.75
    assert calibration.caption_ranking > 0.3
    assert sum(calibration.words.counts) == 8000


def test_words_without_information_get_the_base_rate() -> None:
    random = np.random.default_rng(3)
    captions = [Said(["dog", "ball"], random.uniform(-3, -0.1, 2).tolist()) for _ in range(3000)]
    references = [
        ["dog" if random.random() < 0.7 else "cat", "ball" if random.random() < 0.7 else "x"]
        for _ in captions
    ]
    calibration = fit_confidence(captions, references)
    assert all(0.63 < value < 0.77 for value in calibration.words.predicted)
    assert calibration.word_ranking == pytest.approx(0.5, abs=0.03)


def test_the_measure_is_of_images_that_the_fit_had_not_seen() -> None:
    """Pure noise: a fit that saw what it is measured on would rank it better than chance."""
    random = np.random.default_rng(1)
    captions = [Said(list(WORDS[1:3]), random.uniform(-3, -0.1, 2).tolist()) for _ in range(60)]
    references = [[str(random.choice(["red", "dog", "red dog", "x"]))] for _ in captions]
    rankings = [fit_confidence(captions, references, seed=seed).word_ranking for seed in range(20)]
    assert np.mean(rankings) < 0.55


def test_a_caption_is_rated_by_its_content_words() -> None:
    sure, unsure = math.log(0.95), math.log(0.05)
    rate = FITTED.rate
    low_article = rate(Said(["a", "dog"], [unsure, sure]))
    low_noun = rate(Said(["a", "dog"], [sure, unsure]))
    assert low_article.caption > low_noun.caption
    assert low_noun.words[0] > low_noun.words[1]
    assert rate(Said([], [])).caption == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WORDS), st.floats(-1e6, 0.0)), min_size=1, max_size=20))
def test_ratings_are_always_probabilities(said: list[tuple[str, float]]) -> None:
    rating = FITTED.rate(Said([word for word, _ in said], [value for _, value in said]))
    assert 0 <= rating.caption <= 1
    assert len(rating.words) == len(said)
    assert all(0 <= value <= 1 for value in rating.words)


def test_reliability_is_measured_in_bins_of_equally_many() -> None:
    found = measure_reliability(np.linspace(0, 1, 100), np.linspace(0, 1, 100) ** 2)
    assert found.counts == (10,) * 10
    assert found.expected_error == pytest.approx(1 / 6, abs=0.01)
    perfect = measure_reliability(np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    assert perfect.expected_error == 0


def test_equal_predictions_are_no_worse_in_one_order_than_in_another() -> None:
    half = np.array([0.0] * 50 + [1.0] * 50)
    assert measure_reliability(np.full(100, 0.5), half).expected_error == pytest.approx(0)


def test_too_little_to_learn_from_is_refused() -> None:
    captions, references, _ = invent(49)
    with pytest.raises(UsageError, match="49 images with captions are too few"):
        fit_confidence(captions, references)
    captions, _, _ = invent(60)
    with pytest.raises(UsageError, match="nothing to learn"):
        fit_confidence(captions, [["nothing"]] * 60)


def test_captions_without_words_and_without_differences_are_no_trouble() -> None:
    captions, references, _ = invent(80)
    captions[:5] = [Said([], [])] * 5
    assert fit_confidence(captions, references).images == 75
    same = [Said(["dog", "ball"], [-0.5, -1.0])] * 60
    calibration = fit_confidence(same, [["dog"]] * 60)
    assert calibration.caption_ranking == 0
    json.dumps(calibration.to_dict(), allow_nan=False)


def test_another_search_or_other_weights_need_another_calibration(bundle: Path, tmp_path: Path) -> None:
    for change in ("tune", "pack"):
        copy = tmp_path / change
        shutil.copytree(bundle, copy)
        store_confidence(copy, "bundle.json", FITTED)
    store_decoding(tmp_path / "tune", load_bundle(bundle).recipe.decoding, {"trials": 1})
    assert load_bundle(tmp_path / "tune").confidence is None
    assert compress(load_bundle(tmp_path / "pack"), 16).confidence is None


def test_what_is_not_the_users_is_not_written_to(capsys: Capture) -> None:
    data = next(iter(shared_dataset().images)).path.parent.parent
    assert main(["calibrate", "hub:somebody/captioner", "--data", str(data), "--write"]) == 2
    assert "is not yours to change. Copy its folder" in capsys.readouterr().err


def test_damaged_values_are_refused() -> None:
    assert Confidence.from_dict(json.loads(json.dumps(FITTED.to_dict()))) == FITTED
    for values in ({}, {"word": [1], "caption": [1, 2, 3, 4]}, {"word": None, "caption": None}):
        with pytest.raises(BundleError, match="confidence"):
            Confidence.from_dict(values)
    with pytest.raises(BundleError, match=r"confidence\.caption must be 4 finite numbers"):
        Confidence(FITTED.word, (1.0, math.nan, 1.0, 1.0))


# In models


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    shutil.copytree(find_bundle(trained_run(include_encoder=True)), copy)
    return copy


def test_a_bundle_says_how_sure_it_is_once_it_knows(bundle: Path, tmp_path: Path) -> None:
    paths = [image.path for image in shared_dataset().split("dev").images]
    before = [picture.captions[0] for picture in Captioner.load(bundle).caption(paths)]
    assert {caption.confidence for caption in before} == {None}
    digest = store_confidence(bundle, "bundle.json", FITTED)
    assert load_bundle(bundle).digest == digest
    after = [picture.captions[0] for picture in Captioner.load(bundle).caption(paths)]
    for old, new in zip(before, after, strict=True):
        rating = FITTED.rate(Said(old.words, old.word_log_probs))
        assert new.text == old.text
        assert new.confidence == pytest.approx(rating.caption, abs=1e-4)
        assert new.word_confidences == pytest.approx(rating.words, abs=1e-4)
    save_bundle(load_bundle(bundle), tmp_path / "copy")
    assert load_bundle(tmp_path / "copy").confidence == FITTED


@pytest.mark.parametrize("wrong", [-0.1, 1.5, 3, float("nan")])
def test_a_least_confidence_is_from_0_to_1(exported_model: str, wrong: float) -> None:
    with pytest.raises(UsageError, match="min_confidence must be from 0 to 1"):
        Captioner.load(exported_model).caption("a.jpg", min_confidence=wrong)


def test_an_export_in_float32_keeps_it_and_one_in_8_bits_does_not(bundle: Path, tmp_path: Path) -> None:
    from showtell.portable import load_portable

    store_confidence(bundle, "bundle.json", FITTED)
    export_quickly(bundle, tmp_path / "float32")
    assert load_portable(tmp_path / "float32").confidence == FITTED
    picture = Image.new("RGB", (64, 64), (200, 30, 30))
    [result] = Captioner.load(tmp_path / "float32", engine="onnxruntime").caption([picture])
    assert result.captions[0].confidence is not None
    paths = [image.path for image in shared_dataset().images]
    export_quickly(bundle, tmp_path / "int8", calibrate=paths)
    assert load_portable(tmp_path / "int8").confidence is None


def test_captions_that_are_not_sure_enough_are_left_out(bundle: Path) -> None:
    store_confidence(bundle, "bundle.json", FITTED)
    captioner = Captioner.load(bundle)
    paths = [image.path for image in shared_dataset().images]
    sure = [picture.captions[0].confidence or 0.0 for picture in captioner.caption(paths)]
    limit = float(np.median(sure))
    kept = list(captioner.caption(paths, min_confidence=limit))
    assert [not picture.abstained for picture in kept] == [value >= limit for value in sure]
    assert {len(picture.captions) for picture in kept} == {0, 1}
    assert next(picture.text for picture in kept if picture.abstained) == ""


def test_a_limit_needs_a_captioner_that_was_calibrated() -> None:
    with pytest.raises(UsageError, match=r"does not know how sure it is.*showtell calibrate"):
        Captioner.load(trained_run()).caption([Image.new("RGB", (64, 64))], min_confidence=0.5)


# The command


def test_the_command_measures_draws_and_writes(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    write_drawn_dataset(tmp_path / "data", train=2, dev=60, test=2, size=64)
    said = tmp_path / "data" / "captions.jsonl"
    said.write_text(said.read_text().replace(" a ", " one "))  # a word that nobody says any more
    words = ["calibrate", str(bundle), "--data", str(tmp_path / "data"), "--write"]
    words += ["--output", str(tmp_path / "report.json"), "--plot", str(tmp_path / "plot.png")]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == 60
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["words"]["expected_error"] == printed["word_expected_error"]
    assert report["settings"]["method"] == "beam"
    assert load_bundle(bundle).confidence == Confidence.from_dict(report["confidence"])
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 800


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "train"], "--split train: a captioner is too sure"),
        (["--max-images", "5"], "5 images with captions are too few"),
    ],
)
def test_the_command_refuses_what_would_mislead(
    more: list[str], message: str, bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = next(iter(shared_dataset().images)).path.parent.parent
    words = ["calibrate", str(bundle), "--data", str(data)]
    assert main([*words, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_calibration_can_be_written_as_json() -> None:
    captions, references, _ = invent(100)
    calibration = fit_confidence(captions, references)
    assert isinstance(calibration, Calibration)
    values = json.loads(json.dumps(calibration.to_dict(), allow_nan=False))
    assert values["images"] == 100
    assert replace(calibration, images=1) != calibration
