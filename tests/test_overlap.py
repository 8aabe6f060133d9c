"""Images of a split that training has, too: found, listed, remembered, and their effect on the scores."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from showtell.captioning import Caption
from showtell.cli.main import main
from showtell.data import overlap
from showtell.data.overlap import find_training_copies
from showtell.data.records import CaptionedImage, Dataset
from showtell.data.source import read_dataset
from showtell.decoding import DecodingSettings
from showtell.evaluation import EvaluationReport, evaluate_captions
from showtell.files import cache_folder
from showtell.metrics import score
from showtell.text import Vocabulary
from tiny_runs import trained_run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def leaking(photographs: list[Path], tmp_path: Path) -> Path:
    """Three photographs to train on; on dev smaller copies of two of them, and two others."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["image,caption,split"]
    for place, path in enumerate(photographs):
        split = "train" if place < 3 else "dev" if place < 5 else "test"
        (folder / path.name).write_bytes(path.read_bytes())
        rows.append(f"{path.name},A picture of one {path.stem}.,{split}")
        if place in (1, 2):
            with Image.open(path) as image:
                image.resize((image.width // 2, image.height // 2)).save(folder / f"copy-{path.name}")
            rows.append(f"copy-{path.name},The same {path.stem} again.,dev")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder / "captions.csv"


def test_copies_of_training_images_are_found(leaking: Path) -> None:
    dataset = read_dataset(leaking)
    found = find_training_copies(dataset, "dev")
    assert found == {"copy-cat.jpg": ("cat.jpg",), "copy-china.jpg": ("china.jpg",)}
    assert list(found) == [image.id for image in dataset.images if image.id in found]
    assert find_training_copies(dataset, "test") == {}
    assert find_training_copies(dataset, "train") == {}
    assert find_training_copies(dataset.split("dev"), "dev") == {}


def test_pictures_are_hashed_once(leaking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_dataset(leaking)
    found = find_training_copies(dataset, "dev")
    hashed: list[int] = []
    original = overlap.hash_images

    def count(dataset: Dataset, **options: object) -> object:
        hashed.append(len(dataset.images))
        return original(dataset, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(overlap, "hash_images", count)
    assert find_training_copies(dataset, "dev") == found
    assert hashed == []
    # Another picture under the same name is noticed, and so is a damaged cache.
    other = leaking.parent / "copy-cat.jpg"
    other.write_bytes((leaking.parent / "flower.jpg").read_bytes())
    assert list(find_training_copies(dataset, "dev")) == ["copy-china.jpg"]
    for damage in (b"", b"PK\x03\x04 nonsense", b"nonsense"):
        for file in (cache_folder() / "hashes").iterdir():
            file.write_bytes(damage)
        assert list(find_training_copies(dataset, "dev")) == ["copy-china.jpg"]
    assert hashed == [7] * 4


def test_what_cannot_be_read_or_kept_is_no_obstacle(leaking: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the cache should be")
    (leaking.parent / "copy-cat.jpg").write_bytes(b"no picture")
    (leaking.parent / "flower.jpg").unlink()
    assert list(find_training_copies(read_dataset(leaking), "dev")) == ["copy-china.jpg"]


REFERENCES = {"a": ("A dog runs.",), "b": ("Two men talk.",), "c": ("A red ball lies there.",)}
WRITTEN = {"a": "a dog runs", "b": "two dogs talk", "c": "a ball lies there"}


def evaluate(copies: dict[str, Sequence[str]] | None, resamples: int = 0) -> EvaluationReport:
    images = [CaptionedImage(key, Path(f"{key}.png"), texts, "dev") for key, texts in REFERENCES.items()]
    return evaluate_captions(
        Dataset("made", "table", tuple(images)),
        ([Caption(text, -1.0, -1.0, (-1.0,))] for text in WRITTEN.values()),
        vocabulary=Vocabulary(["a"]),
        settings=DecodingSettings(),
        bundle_digest="",
        split="dev",
        copies=copies,
        resamples=resamples,
    )


def test_the_report_has_the_scores_with_and_without_copies() -> None:
    report = evaluate({"a": ("x", "y"), "elsewhere": ("z",)})
    assert report.scores == score(REFERENCES, WRITTEN).corpus
    written = json.loads(json.dumps(report.to_dict()))["overlap"]
    assert written["copies"] == {"a": ["x", "y"]}
    assert written["images_without"] == 2
    rest = {key: REFERENCES[key] for key in "bc"}
    right = score(rest, {key: WRITTEN[key] for key in rest}).corpus
    assert written["scores_without"] == right != report.scores


def test_without_copies_the_scores_are_the_same_and_with_copies_alone_there_are_none() -> None:
    report = evaluate({})
    assert report.overlap is not None
    assert (report.overlap.copies, report.overlap.scores, report.overlap.images) == ({}, report.scores, 3)
    alone = evaluate(dict.fromkeys(REFERENCES, ("x",))).overlap
    assert alone is not None
    assert (alone.scores, alone.images) == ({}, 0)
    assert evaluate(None).to_dict()["overlap"] is None


def test_the_report_has_intervals() -> None:
    written = json.loads(json.dumps(evaluate(None, resamples=60).to_dict()))
    assert list(written["intervals"]) == list(written["scores"])
    for key, (low, high) in written["intervals"].items():
        assert low <= written["scores"][key] <= high
    assert written["resamples"] == 60
    assert evaluate(None).to_dict()["intervals"] == {}


# The command line


def test_evaluate_lists_copies_and_says_what_they_do(leaking: Path, tmp_path: Path, capsys: Capture) -> None:
    report = tmp_path / "report.json"
    words = ["evaluate", str(trained_run()), "--data", str(leaking), "--split", "dev"]
    assert main([*words, "--output", str(report), "--metrics", "Bleu,ROUGE_L"]) == 0
    output = capsys.readouterr()
    scores = json.loads(output.out)
    written = json.loads(report.read_text())
    assert written["scores"] == scores
    assert list(written["overlap"]["copies"]) == ["copy-cat.jpg", "copy-china.jpg"]
    lines = output.err.splitlines()
    assert (
        "showtell: 2 images show what training images show: copy-cat.jpg (cat.jpg); copy-china.jpg (china.jpg)"
        in lines
    )
    (low, high), without = written["intervals"]["ROUGE_L"], written["overlap"]["scores_without"]["ROUGE_L"]
    assert (
        f"showtell: ROUGE_L {100 * scores['ROUGE_L']:.1f} [{100 * low:.1f}, {100 * high:.1f}], without copies of "
        f"training images {100 * without:.1f}" in lines
    )
    assert main([*words, "--output", str(report), "--no-overlap", "--resamples", "0"]) == 0
    output = capsys.readouterr()
    assert "training images" not in output.err
    assert "[" not in output.err
    assert json.loads(report.read_text())["overlap"] is None


def test_evaluate_without_a_way_to_compare_pictures_says_so(
    leaking: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    assert main(["evaluate", str(trained_run()), "--data", str(leaking), "--split", "dev"]) == 0
    output = capsys.readouterr()
    assert "needs the package 'imagehash'" in output.err
    assert "nobody looks for images that training has, too" in output.err
    assert "CIDEr" in json.loads(output.out)
