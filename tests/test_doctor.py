from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from showtell.data.doctor import check
from showtell.data.records import CaptionedImage, Dataset, Problem
from showtell.data.report import Report, Spread
from showtell.data.source import read_dataset
from showtell.errors import UsageError

Rows = Sequence[tuple[Path, str | None, tuple[str, ...]]]


def make_dataset(rows: Rows, problems: tuple[Problem, ...] = ()) -> Dataset:
    images = tuple(CaptionedImage(path.name, path, captions, split) for path, split, captions in rows)
    return Dataset("album", "table", images, problems)


def kinds(report: Report, severity: str | None = None) -> list[str]:
    return [problem.kind for problem in report.problems if severity in (None, problem.severity)]


def only(report: Report, kind: str) -> Problem:
    [problem] = [problem for problem in report.problems if problem.kind == kind]
    return problem


@pytest.fixture
def album(photographs: list[Path]) -> Dataset:
    """Six photographs in three splits, with nothing wrong."""
    splits = ("train", "train", "train", "train", "dev", "test")
    return make_dataset(
        [
            (path, split, (f"A dog runs over the {path.stem} .", "A cat sleeps ."))
            for path, split in zip(photographs, splits)
        ]
    )


def check_captions(path: Path, *captions: str) -> Report:
    return check(make_dataset([(path, "train", captions)]), near_duplicates=False)


# --------------------------------------------------------------------------------------------- numbers


def test_a_sound_data_set_has_no_problems_and_right_numbers(album: Dataset) -> None:
    report = check(album)
    assert report.problems == ()
    assert report.errors == 0
    found = report.to_dict()
    assert (found["name"], found["format"], found["images"], found["captions"]) == ("album", "table", 6, 12)
    assert list(found["splits"]) == ["train", "dev", "test"]
    assert found["splits"]["train"] == {
        "images": 4,
        "captions": 8,
        "captions_per_image": {"min": 2, "median": 2.0, "max": 2},
        "tokens_per_caption": {"min": 3, "median": 4.5, "max": 6},
    }
    assert found["captions_per_image"] == {"2": 6}
    assert found["caption_lengths"] == {"3": 6, "6": 6}
    assert found["image_sizes"]["width"] == {"min": 451, "median": 620.0, "max": 640}
    assert found["image_sizes"]["most_common"][0] == {"width": 640, "height": 427, "images": 3}
    assert found["duplicate_groups"] == 0
    assert found["decoded"] is True


def test_the_vocabulary_is_counted_on_train_alone(photographs: list[Path]) -> None:
    rows = [
        (photographs[0], "train", ("a dog runs", "a dog")),
        (photographs[1], "dev", ("a dog flies",)),
        (photographs[2], "test", ("zebras", "zebras", "zebras dog")),
    ]
    vocabulary = check(make_dataset(rows), thresholds=(2, 1, 3)).to_dict()["vocabulary"]
    assert (vocabulary["counted_on"], vocabulary["words"], vocabulary["tokens"]) == ("train", 3, 5)
    assert vocabulary["thresholds"] == [
        {"min_count": 1, "words": 3, "coverage": {"train": 1.0, "dev": 2 / 3, "test": 1 / 4}},
        {"min_count": 2, "words": 2, "coverage": {"train": 4 / 5, "dev": 2 / 3, "test": 1 / 4}},
        {"min_count": 3, "words": 0, "coverage": {"train": 0.0, "dev": 0.0, "test": 0.0}},
    ]


def test_without_a_train_split_all_captions_are_counted(photographs: list[Path]) -> None:
    rows = [(photographs[0], None, ("a dog",)), (photographs[1], "dev", ("a cat",))]
    vocabulary = check(make_dataset(rows), thresholds=(1,)).vocabulary
    assert (vocabulary.counted_on, vocabulary.words) == ("all captions", 3)
    assert dict(vocabulary.thresholds[0].coverage) == {"dev": 1.0, "no split": 1.0}


def test_a_threshold_below_one_is_refused(album: Dataset) -> None:
    with pytest.raises(UsageError, match="at least 1. Received: 0".replace(".", r"\.")):
        check(album, thresholds=(5, 0))


@given(st.lists(st.integers(0, 50), min_size=1))
def test_the_spread_equals_sorting(values: list[int]) -> None:
    values.sort()
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    histogram = {value: values.count(value) for value in values}
    assert Spread.of(histogram) == Spread(values[0], middle, values[-1])


# -------------------------------------------------------------------------------------------- captions


@pytest.mark.parametrize(
    ("caption", "kind", "severity", "part"),
    [
        ("", "empty-caption", "error", "is empty: ''"),
        (" \t ", "empty-caption", "error", "is empty"),
        (" ... !", "no-words", "warning", "has no words"),
        (
            "a dog\x07 barks",
            "control-characters",
            "warning",
            r"control character '\\x07': 'a dog\\x07 barks'",
        ),
        ("a dog\u202e barks", "control-characters", "warning", r"'\\u202e'"),
        ("a caf\ufffd", "bad-encoding", "warning", "could not be decoded"),
        (
            "a dog <start> barks",
            "special-token",
            "warning",
            "contains '<start>'; it is read as ordinary text",
        ),
        ("a <UNK> barks", "special-token", "warning", "contains '<UNK>'"),
        ("a dog </s>", "special-token", "warning", "contains '</s>'"),
        ("startseq dog [PAD]", "special-token", "warning", r"contains '\[PAD\]'"),
        ("dogs <|endoftext|>", "special-token", "warning", "endoftext"),
        ("dog " * 61, "long-caption", "warning", "has 61 tokens, more than 60: .*dog.*\\.\\.\\.'"),
    ],
)
def test_a_strange_caption_is_found(
    photographs: list[Path], caption: str, kind: str, severity: str, part: str
) -> None:
    report = check_captions(photographs[0], "a dog barks", caption)
    problem = only(report, kind)
    assert (problem.where, problem.severity) == (photographs[0].name, severity)
    assert re.search(part, problem.message), problem.message
    assert len(problem.message) < 200


@pytest.mark.parametrize(
    "caption",
    ["a dog " * 30, "a <b> tag", "собака бежит", "犬が走る", "2 < 3 and 4 > 3", "a café", "a 👨‍👩‍👧 family"],
)
def test_an_ordinary_caption_is_left_alone(photographs: list[Path], caption: str) -> None:
    assert check_captions(photographs[0], "a dog barks", caption).problems == ()


def test_a_caption_twice_is_found_and_one_of_another_image_is_not(photographs: list[Path]) -> None:
    rows = [
        (photographs[0], "train", ("a dog", "a cat", " a dog ", "a dog")),
        (photographs[1], "train", ("a dog", "a cat")),
    ]
    report = check(make_dataset(rows))
    assert kinds(report) == ["repeated-caption"]
    assert only(report, "repeated-caption").message == "The image has the same caption 3 times: 'a dog'."


def test_an_image_without_captions_and_an_id_twice_are_errors(photographs: list[Path]) -> None:
    rows = [
        (photographs[0], "train", ()),
        (photographs[1], "train", ("a dog",)),
        (photographs[1], "dev", ("a cat",)),
    ]
    report = check(make_dataset(rows), decode_images=False)
    assert kinds(report, "error") == ["repeated-id", "no-captions"]


# ---------------------------------------------------------------------------------------------- images


def test_missing_and_damaged_images_are_errors(
    album: Dataset, photographs: list[Path], tmp_path: Path
) -> None:
    whole = photographs[0].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "folder.jpg").mkdir()
    names = ("cut.jpg", "empty.png", "page.jpg", "folder.jpg", "gone.jpg")
    rows: Rows = [(tmp_path / name, "train", ("a dog",)) for name in names]
    calls = []
    report = check(make_dataset(rows), progress=lambda done, total: calls.append((done, total)))
    found = {problem.where: problem.kind for problem in report.problems}
    assert found == {
        "cut.jpg": "corrupt-image",
        "empty.png": "corrupt-image",
        "page.jpg": "corrupt-image",
        "folder.jpg": "missing-image",
        "gone.jpg": "missing-image",
    }
    assert report.errors == 5
    assert calls == [(number, 5) for number in range(1, 6)]
    quick = check(make_dataset(rows), decode_images=False)
    assert kinds(quick) == ["missing-image", "missing-image"]
    assert quick.to_dict()["decoded"] is False
    assert "images: not opened" in quick.table()


def test_tiny_and_blank_images_are_warnings(tmp_path: Path, photographs: list[Path]) -> None:
    Image.new("RGB", (200, 200), (222, 222, 222)).save(tmp_path / "grey.png")
    with Image.open(photographs[0]) as image:
        image.resize((40, 31)).save(tmp_path / "icon.png")
    report = check(
        make_dataset([(tmp_path / name, "train", ("a dog",)) for name in ("grey.png", "icon.png")])
    )
    assert [(problem.kind, problem.where, problem.severity) for problem in report.problems] == [
        ("blank-image", "grey.png", "warning"),
        ("tiny-image", "icon.png", "warning"),
    ]
    assert "40 x 31 pixels" in only(report, "tiny-image").message


def test_one_file_in_two_splits_is_an_error_and_twice_in_one_a_warning(
    album: Dataset, photographs: list[Path], tmp_path: Path
) -> None:
    shutil.copy(photographs[0], tmp_path / "again.jpg")
    shutil.copy(photographs[1], tmp_path / "also.jpg")
    rows: Rows = [
        (photographs[0], "train", ("a",)),
        (photographs[1], "train", ("b",)),
        (tmp_path / "again.jpg", "test", ("c",)),
        (tmp_path / "also.jpg", "train", ("d",)),
    ]
    report = check(make_dataset(rows))
    assert kinds(report) == ["copies-across-splits", "copies"]  # not once more as near-duplicates
    assert only(report, "copies-across-splits").severity == "error"
    assert only(report, "copies-across-splits").message == (
        f"The same file is in several splits: {photographs[0].name} (train), again.jpg (test)."
    )
    assert only(report, "copies").severity == "warning"
    assert report.duplicate_groups == 2


def test_near_duplicates_across_splits_are_warnings(photographs: list[Path], tmp_path: Path) -> None:
    with Image.open(photographs[0]) as image:
        image.save(tmp_path / "again.jpg", quality=40)
        image.resize((200, 200)).save(tmp_path / "small.png")
    rows: Rows = [
        (photographs[0], "train", ("a",)),
        (photographs[1], "train", ("b",)),
        (tmp_path / "again.jpg", "dev", ("c",)),
        (tmp_path / "small.png", None, ("d",)),
    ]
    report = check(make_dataset(rows))
    problem = only(report, "near-duplicates-across-splits")
    assert problem.severity == "warning"
    assert problem.message == (
        "Images in several splits are nearly the same: again.jpg (dev), "
        f"{photographs[0].name} (train), small.png (no split)."
    )
    within = check(make_dataset([(path, "train", captions) for path, _, captions in rows]))
    assert (kinds(within), within.duplicate_groups) == ([], 1)
    assert "near-duplicates: 1 group, within splits or across" in within.table()
    unsought = check(make_dataset(rows), near_duplicates=False)
    assert (kinds(unsought), unsought.duplicate_groups) == (["no-split"], None)
    assert "near-duplicates: not looked for" in unsought.table()


def test_without_imagehash_the_rest_is_checked(album: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    report = check(album)
    assert kinds(report) == ["near-duplicates-not-checked"]
    assert report.errors == 0
    assert 'pip install "showtell[train]"' in report.problems[0].message
    assert sum(report.image_sizes.values()) == 6


def test_images_without_a_split_are_one_warning_that_lists_the_choices(album: Dataset) -> None:
    loose = make_dataset([(image.path, None, image.captions) for image in album.images])
    problem = only(check(loose), "no-split")
    assert problem.severity == "warning"
    assert problem.message.startswith("6 of 6 images have no split")
    assert "--unsplit split, train, dev, test or drop" in problem.message


# ---------------------------------------------------------------------------------------------- report


def test_what_the_reader_noticed_is_part_of_the_report(album: Dataset) -> None:
    ghost = Problem("ghost-entry", "token.txt:7", "There is no such image.")
    dataset = Dataset(album.name, album.format, album.images, (ghost,))
    report = check(dataset, decode_images=False)
    assert (report.problems, report.errors, report.warnings) == ((ghost,), 1, 0)
    assert report.to_dict()["problems"] == [
        {
            "kind": "ghost-entry",
            "severity": "error",
            "where": "token.txt:7",
            "message": "There is no such image.",
        }
    ]


def test_the_dictionary_is_json_with_stable_keys(album: Dataset, photographs: list[Path]) -> None:
    strange = make_dataset([(photographs[0], None, ("\ud83d half", "a\x00b"))])
    keys = None
    for dataset in (album, strange, make_dataset([])):
        found = check(dataset).to_dict()
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        keys = keys or set(found)
        assert set(found) == keys


def test_the_table_is_aligned_and_has_a_histogram(album: Dataset) -> None:
    table = check(album).table()
    lines = table.splitlines()
    assert lines[0] == "album (table)"
    assert lines[2] == "split  images  captions  captions per image  tokens per caption"
    assert lines[3] == "train       4         8           2 / 2 / 2         3 / 4.5 / 6"
    assert "3  6  ########################################" in table
    assert "count  words  train covered  dev covered  test covered" in lines
    assert lines[-1] == "no problems"
    assert all(line == line.rstrip() for line in lines)


def test_many_problems_of_one_kind_are_summed_up_and_errors_come_first(tmp_path: Path) -> None:
    rows: Rows = [(tmp_path / f"gone {number:04d}.jpg", "train", ("a", "a")) for number in range(1200)]
    report = check(make_dataset(rows))
    text = report.table().split("\n\n")[-1].splitlines()
    assert text[0] == "1,200 errors, 1,200 warnings"
    assert text[1] == "error: missing-image (1,200)"
    assert text[2].startswith("    gone 0000.jpg: There is no file")
    assert text[7] == "    ... and 1,195 more"
    assert text[8] == "warning: repeated-caption (1,200)"
    assert len(text) == 15
    assert len(report.to_dict()["problems"]) == 2400


def test_one_giant_caption_does_not_flatten_the_histogram(photographs: list[Path]) -> None:
    captions = tuple("dog " * (number % 12 + 1) for number in range(2000))
    table = check_captions(photographs[0], *captions, "dog " * 500).table()
    histogram = table.split("tokens per caption\n")[-1].split("\n\n")[0].splitlines()
    assert len(histogram) == 13
    assert histogram[-1].split() == ["13-500", "1"]
    assert histogram[0].split()[:2] == ["1", "167"]


def test_an_empty_data_set_is_no_crash() -> None:
    report = check(make_dataset([]))
    assert report.errors == 0
    assert "no problems" in report.table()


@pytest.mark.shared
def test_the_ghost_entry_of_flickr8k_is_found(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "flickr8k")
    report = check(dataset, decode_images=False)
    assert kinds(report, "error") == ["ghost-entry"]
    assert "2258277193_586949ec62.jpg.1" in only(report, "ghost-entry").message
    assert {name: split.images for name, split in report.splits.items()} == {"train": 6000, "dev": 1000}


@pytest.mark.shared
def test_real_coco_has_no_errors(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "coco")
    few = Dataset(dataset.name, dataset.format, dataset.images[::8], dataset.problems)
    report = check(few)
    assert report.errors == 0
    assert sum(report.image_sizes.values()) == len(few.images) == 200
    assert min(min(size) for size in report.image_sizes) >= 224
