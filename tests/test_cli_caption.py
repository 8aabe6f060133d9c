"""`showtell caption` and `showtell evaluate` with a real bundle, whose weights are random: what it says means
nothing, but how it is said must hold."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from showtell.bundle import find_bundle, store_confidence
from showtell.cli.main import main
from showtell.confidence import Confidence

Capture = pytest.CaptureFixture[str]


def test_one_caption_per_image_on_standard_output(
    model: str, photographs: list[Path], capsys: Capture
) -> None:
    assert main(["caption", str(photographs[0].parent), "--model", model]) == 0
    output = capsys.readouterr()
    rows = [line.split("\t") for line in output.out.splitlines()]
    assert [row[0] for row in rows] == [str(path) for path in photographs]
    assert all(len(row) == 2 and row[1] for row in rows)
    assert output.err == ""


def test_one_bad_file_does_not_stop_the_others(
    model: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(photographs[0].read_bytes()[:3000])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    paths = [torn, photographs[1], text, tmp_path / "gone.jpg", photographs[2]]
    assert main(["caption", *map(str, paths), "--model", model, "--format", "jsonl"]) == 1
    output = capsys.readouterr()
    records = [json.loads(line) for line in output.out.splitlines()]
    assert [record["image"] for record in records] == [str(path) for path in paths]  # in the order given
    assert [list(record)[1] for record in records] == ["error", "captions", "error", "error", "captions"]
    assert records[3]["error"] == "no such file or folder"
    errors = output.err.splitlines()
    assert errors[0] == "showtell: error: 3 of 5 images failed:"
    for path, error in zip([torn, text, tmp_path / "gone.jpg"], errors[1:], strict=True):
        assert error.startswith(f"showtell:   {path}: ")
        assert error.count(str(path)) == 1


def test_names_that_begin_with_a_dash(
    model: str, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-x.jpg", "--greedy"):
        shutil.copyfile(photographs[0], name)
    assert main(["caption", "--model", model, "--", "-x.jpg", "--greedy"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["-x.jpg", "--greedy"]
    assert (
        main(["caption", "./-x.jpg", "--model", model, "--length-penalty", "-1"]) == 2
    )  # a number is no option
    assert "argument --length-penalty: must be a number" in capsys.readouterr().err


def test_several_captions_come_best_first_in_every_format(
    model: str, photographs: list[Path], capsys: Capture
) -> None:
    words = [
        "caption",
        str(photographs[0]),
        str(photographs[1]),
        "--model",
        model,
        "--beam",
        "4",
        "--count",
        "3",
    ]
    assert main([*words, "--format", "json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["image"] for record in records] == [str(photographs[0]), str(photographs[1])]
    for record in records:
        scores = [one["score"] for one in record["captions"]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
    assert main([*words, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = [(record["image"], one["caption"]) for record in records for one in record["captions"]]
    assert [(row["image"], row["caption"]) for row in rows] == expected
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2


def test_a_seed_repeats_samples(model: str, photographs: list[Path], capsys: Capture) -> None:
    words = ["caption", str(photographs[0]), "--model", model, "--sample", "--count", "4"]
    outputs = []
    for seed in ("1", "1", "2"):
        assert main([*words, "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_captions_go_into_a_file_that_is_whole(
    model: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "captions.json"
    words = ["caption", str(photographs[0]), "--model", model, "--format", "json", "--output", str(target)]
    assert main(words) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(target.read_text(encoding="utf-8"))[0]["image"] == str(photographs[0])
    assert list(tmp_path.iterdir()) == [target]


def test_explain_draws_one_picture_for_each_image(
    model: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    twin = other / photographs[0].name
    twin.write_bytes(photographs[1].read_bytes())
    folder = tmp_path / "where"
    assert main(["caption", str(photographs[0]), str(twin), "--model", model, "--explain", str(folder)]) == 0
    names = ["astronaut-2.json", "astronaut-2.png", "astronaut.json", "astronaut.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    explained = json.loads((folder / "astronaut.json").read_text())
    assert explained["method"] == "attention"
    assert explained["size"] == [512, 512]
    assert f"is in {folder / 'astronaut.png'}" in capsys.readouterr().err
    with Image.open(folder / "astronaut.png") as drawn:
        assert drawn.width > 200


def test_figures_keep_their_names_and_leave_what_is_not_theirs(
    model: str, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, source in (("a", photographs[0]), ("b", photographs[1])):
        Path(folder).mkdir()
        shutil.copyfile(source, Path(folder, "cat.jpg"))
    Path("why").mkdir()
    Path("why/cat.png").write_bytes(photographs[2].read_bytes())  # somebody's picture, and no explanation
    words = [".", "--model", model, "--explain", "why", "--format", "jsonl"]

    def run(*words: str) -> list[str]:
        assert main(["caption", *words]) == 0
        return [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()]

    assert run(*words) == ["a/cat.jpg", "b/cat.jpg", "why/cat.png"]
    owners = {"cat-2": "a/cat.jpg", "cat-3": "b/cat.jpg", "cat-4": "why/cat.png"}

    def explained() -> dict[str, str]:
        return {path.stem: json.loads(path.read_text())["image"] for path in Path("why").glob("*.json")}

    assert explained() == owners
    before = {path.name: path.read_bytes() for path in Path("why").iterdir()}
    # The other way round, with figures among the pictures: nothing is doubled, and each keeps its name.
    assert main(["caption", "b", ".", *words[1:]]) == 0
    assert "figures of earlier runs that were replaced: 3" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path("why").iterdir()} == before
    assert main(["caption", *words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == ["a/cat.jpg", "b/cat.jpg", "why/cat.png"]


def test_explain_by_hiding_parts(model: str, photographs: list[Path], tmp_path: Path) -> None:
    words = ["caption", str(photographs[0]), "--model", model, "--explain", str(tmp_path / "why")]
    assert main([*words, "--explain-with", "occlusion"]) == 0
    assert json.loads((tmp_path / "why" / "astronaut.json").read_text())["method"] == "occlusion"


def test_alt_text_and_confidence(
    model: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    words = [
        "caption",
        str(photographs[0]),
        str(photographs[1]),
        "--format",
        "jsonl",
        "--alt-text",
        "--model",
    ]
    assert main([*words, model]) == 0
    for line in capsys.readouterr().out.splitlines():
        [caption] = json.loads(line)["captions"]
        assert caption["alt"][0].isupper()
        assert caption["needs_review"] is True  # nobody knows how sure it is
        assert "confidence" not in caption
    assert main([*words, model, "--min-confidence", "0.5"]) == 2
    assert "does not know how sure it is" in capsys.readouterr().err
    calibrated = tmp_path / "calibrated"
    shutil.copytree(find_bundle(Path(model)), calibrated)
    store_confidence(calibrated, "bundle.json", Confidence((0.0,) * 5, (1.0, 0.0, 0.0, 0.0)))
    assert main([*words, str(calibrated), "--min-confidence", "0.5"]) == 0
    [caption] = json.loads(capsys.readouterr().out.splitlines()[0])["captions"]
    assert caption["confidence"] == pytest.approx(0.731, abs=0.001)
    assert caption["needs_review"] is False
    assert main([*words, str(calibrated), "--min-confidence", "0.9"]) == 0
    assert [json.loads(line)["captions"] for line in capsys.readouterr().out.splitlines()] == [[], []]


def test_a_model_that_is_none_is_named(photographs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    assert main(["caption", str(photographs[0]), "--model", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert str(tmp_path) in output.err


@pytest.fixture
def table(tmp_path: Path, photographs: list[Path]) -> str:
    """A data set of six photographs, four of them in dev."""
    rows = [
        f"{path.name},A {path.stem}.,{split}" for path, split in zip(photographs, ["train"] * 2 + ["dev"] * 4)
    ]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption,split", *rows]) + "\n")
    return str(tmp_path / "captions.csv")


def test_evaluate_prints_scores_last_and_writes_a_report(
    model: str, table: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "report.json"
    words = ["evaluate", model, "--data", table, "--images", str(photographs[0].parent), "--split", "val"]
    assert main([*words, "--beam", "2", "--output", str(target)]) == 0
    output = capsys.readouterr()
    scores = json.loads(output.out.splitlines()[-1])
    assert list(scores) == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    report = json.loads(target.read_text())
    assert report["scores"] == scores
    assert (report["split"], report["images"]) == ("dev", 4)
    assert (report["settings"]["method"], report["settings"]["beam"]) == ("beam", 2)
    assert len(report["captions"]) == 4
    assert main([*words, "--max-images", "1", "--metrics", "Bleu", "--output", str(target)]) == 0
    assert json.loads(target.read_text())["images"] == 1


def test_evaluate_refuses_a_split_that_is_not_there(
    model: str, table: str, photographs: list[Path], capsys: Capture
) -> None:
    words = ["evaluate", model, "--data", table, "--images", str(photographs[0].parent), "--split", "test"]
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "has no images in split 'test'. It has: dev, train." in output.err


def test_features_are_computed_once_and_reported(
    table: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    cache = tmp_path / "cache"
    words = ["features", table, "--images", str(photographs[0].parent), "--output", str(cache)]
    words += ["--encoder", "test_resnet", "--weights", "random", "--image-size", "64"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["reused"], report["skipped"]) == (6, 0, 0)
    assert report["images_per_second"] > 0
    assert report["bytes"] > 0
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["reused"]) == (0, 6)


def test_features_name_the_images_that_cannot_be_read(
    table: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in photographs[1:]:
        (images / path.name).write_bytes(path.read_bytes())
    (images / photographs[0].name).write_text("no picture")
    words = ["features", table, "--images", str(images), "--output", str(tmp_path / "cache")]
    words += ["--encoder", "test_resnet", "--weights", "random", "--image-size", "64"]
    assert main(words) == 2
    assert "astronaut.jpg" in capsys.readouterr().err
    assert main([*words, "--skip-bad"]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["skipped"] == 1
    assert "showtell: skipped astronaut.jpg: " in output.err


def test_a_mistyped_backbone_gets_a_suggestion(
    table: str, photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    words = ["features", table, "--images", str(photographs[0].parent), "--output", str(tmp_path / "cache")]
    assert main([*words, "--encoder", "resnet5O", "--weights", "random"]) == 2
    assert "Did you mean 'resnet50'?" in capsys.readouterr().err


def test_a_photograph_is_not_written_over_with_captions(
    photographs: list[Path], exported_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = tmp_path / "a.jpg"
    photograph.write_bytes(photographs[0].read_bytes())
    words = ["caption", str(photographs[1]), "--model", exported_model, "--output", str(photograph)]
    assert main(words) == 2
    assert "is an image, which would be replaced by captions" in capsys.readouterr().err
    assert photograph.read_bytes() == photographs[0].read_bytes()
