"""Guessing the format, refusing what does not fit, and joining data sets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from showtell.data import (
    READERS,
    CaptionedImage,
    Dataset,
    Problem,
    guess_format,
    join_datasets,
    read_dataset,
)
from showtell.errors import DataError, UsageError

COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"image_id": 1, "id": 1, "caption": "A"}],
}
KARPATHY = {"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A"}]}], "dataset": "x"}
TOKENS = "a.jpg#0\tA\n"
TABLE = "image,caption\na.jpg,A\n"
CONTENTS = {
    "coco": json.dumps(COCO),
    "karpathy": json.dumps(KARPATHY, indent=1),
    "flickr": TOKENS,
    "table": TABLE,
}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path, *words: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(path, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- guessing


@pytest.mark.parametrize("form", CONTENTS)
@pytest.mark.parametrize("mark", ["", "\ufeff", "\n\n"])
def test_content_of_a_file_without_a_telling_name_decides(tmp_path: Path, form: str, mark: str) -> None:
    file = write(tmp_path / "data.txt", mark + CONTENTS[form])
    assert guess_format(file) == form
    dataset = read_dataset(str(file))
    assert (dataset.format, dataset.name) == (form, "data")
    assert [image.captions for image in dataset.images] == [("A",)]


@pytest.mark.parametrize("form", CONTENTS)
@pytest.mark.parametrize("other", CONTENTS)
def test_asking_for_another_format_than_the_content_has(tmp_path: Path, form: str, other: str) -> None:
    file = write(tmp_path / "data.txt", CONTENTS[form])
    if form == other:
        assert read_dataset(file, format=form).format == form
    else:
        refused(file, f"looks like {form}", f"{other} was asked for", f"--format {form}", format=other)


@pytest.mark.parametrize(
    ("name", "promised"),
    [
        ("captions_train2017.json", "coco"),
        ("dataset_coco.json", "karpathy"),
        ("Flickr8k.token.txt", "flickr"),
        ("results_20130124.token", "flickr"),
        ("captions.csv", "table"),
        ("data.jsonl", "table"),
    ],
)
@pytest.mark.parametrize("form", CONTENTS)
def test_file_under_another_formats_name(tmp_path: Path, name: str, promised: str, form: str) -> None:
    file = write(tmp_path / name, CONTENTS[form])
    if form != promised:
        refused(file, f"looks like {form}", f"its name is that of a {promised} file", f"--format {form}")
    assert read_dataset(file, format=form).format == form  # an explicit choice wins over the name


def test_folder_with_a_file_under_another_formats_name(tmp_path: Path) -> None:
    write(tmp_path / "captions_train.json", CONTENTS["karpathy"])
    refused(
        tmp_path,
        "captions_train.json looks like karpathy",
        "name is that of a coco file",
        "--format karpathy",
    )


def test_folder_of_another_format_than_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "captions.txt", TABLE)
    refused(tmp_path, "looks like table", "flickr was asked for", format="flickr")


def test_folder_with_several_formats_asks_which(tmp_path: Path) -> None:
    write(tmp_path / "Flickr8k.token.txt", TOKENS)
    write(tmp_path / "captions.csv", TABLE)
    write(tmp_path / "dataset_flickr8k.json", CONTENTS["karpathy"])
    message = refused(tmp_path, "in 3 formats", "karpathy: dataset_flickr8k.json", "table: captions.csv")
    assert "--format karpathy or --format flickr or --format table" in message
    for form in ("flickr", "table", "karpathy"):
        assert read_dataset(tmp_path, format=form).format == form


def test_captions_cannot_disguise_one_json_as_another(tmp_path: Path) -> None:
    odd = {
        "images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": '"annotations": ["x"]'}]}]
    }
    assert guess_format(write(tmp_path / "x.json", json.dumps(odd))) == "karpathy"


def test_text_files_beside_images_do_not_hide_a_real_format(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", b"")
    write(tmp_path / "a.txt", "A")
    assert guess_format(tmp_path) == "folder"
    write(tmp_path / "metadata.csv", TABLE)
    assert guess_format(tmp_path) == "table"
    assert read_dataset(tmp_path, format="folder").format == "folder"


def test_table_whose_columns_only_the_caller_knows(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.txt", "picture,words\na.jpg,A\n")
    refused(file, "'picture,words'", "--format", "columns")
    dataset = read_dataset(file, columns={"image": "picture", "caption": "words"})
    assert dataset.images[0].captions == ("A",)


# ---------------------------------------------------------------------------------------------- refusals


def test_path_that_does_not_exist_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "flickr8k").mkdir()
    refused(tmp_path / "flikr8k", "flikr8k does not exist", "Did you mean 'flickr8k'?")
    refused(tmp_path / "no" / "way", "does not exist", "Nor does its parent folder")
    refused(write(tmp_path / "file", "x") / "below", "does not exist")
    refused(Path("a\x00b"), "cannot be read")


def test_empty_folder_and_empty_file(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "is empty")
    refused(write(tmp_path / "captions.csv", ""), "captions.csv is empty (0 bytes)")
    refused(write(tmp_path / "blank.json", "  \n"), "blank.json", format="coco")
    refused(write(tmp_path / "blank.csv", "  \n"), "blank.csv is empty", format="table")


def test_folder_without_captions(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "a.jpg", b"")
    refused(tmp_path / "photos", "1 image, but no captions", "coco (", "folder (")
    write(tmp_path / "notes" / "a.md", "x")
    refused(tmp_path / "notes", "neither captions nor images")


def test_folder_above_the_data_names_what_is_below(tmp_path: Path) -> None:
    write(tmp_path / "one" / "captions.csv", TABLE)
    write(tmp_path / "two" / "x.token", TOKENS)
    write(tmp_path / "three" / "photo.jpg", b"")
    refused(tmp_path, "folders that do: one (table), two (flickr). Name one")


def test_unknown_format_and_image_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "data.txt", TABLE)
    with pytest.raises(
        UsageError, match=r"Unknown format 'cocoo'\. Did you mean 'coco'\? The formats are: coco, "
    ):
        read_dataset(file, format="cocoo")
    (tmp_path / "images").mkdir()
    refused(file, "image folder", "does not exist", "Did you mean 'images'?", images=tmp_path / "imges")


@pytest.mark.parametrize("form", ["coco", "karpathy", None])
def test_broken_json_is_located(tmp_path: Path, form: str | None) -> None:
    text = json.dumps(COCO if form == "coco" else KARPATHY, indent=1)
    file = write(tmp_path / "x.json", text[:-10])
    refused(file, "x.json is not valid JSON: line", "column", "cut short", format=form)
    folder = tmp_path / "folder"
    write(folder / "captions_train.json", '{"images": [\n 1,,')
    refused(folder, "captions_train.json is not valid JSON: line 2, column 4")


def test_json_of_no_known_kind(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.json", '{"questions": [], "data_type": 1}'), "questions, data_type")
    refused(write(tmp_path / "b.json", "[1, 2]"), "valid JSON, but neither", "it is a list")
    refused(write(tmp_path / "c.json", "[" * 100_000), "c.json")
    refused(write(tmp_path / "d.json", '{"a": ' + "9" * 5000 + "}"), "d.json is not JSON that can be read")


def test_binary_files_are_no_data_sets(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "a.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"), "a.jpg is an image, not a data set"
    )
    refused(write(tmp_path / "a.bin", bytes(range(256))), "a.bin is a binary file")
    refused(write(tmp_path / "a.csv", b"\x80image,caption\x00"), "a.csv is a binary file", format="table")
    refused(write(tmp_path / "u.csv", b"\xff\xfei"), "begins as UTF-16", format="table")


def test_unreadable_file_and_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(pipe, "neither a file nor a folder")
    file = write(tmp_path / "captions.csv", TABLE)
    file.chmod(0)
    if os.access(file, os.R_OK):  # root reads everything

        def deny(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", deny)
    refused(file, "captions.csv cannot be read: Permission denied", format="table")


def test_every_registered_reader_is_described() -> None:
    assert list(READERS) == ["coco", "karpathy", "flickr", "table", "folder"]
    assert all(len(reader.summary) > 20 for reader in READERS.values())


# ---------------------------------------------------------------------------------------------- joining


def dataset(name: str, *rows: tuple[str, str | None], root: str = "/somewhere") -> Dataset:
    images = tuple(CaptionedImage(id, Path(root, name, id), (f"of {id}",), split) for id, split in rows)
    return Dataset(name, "table", images, (Problem("bad-row", f"{name}.csv:3", "x"),))


def test_joining_keeps_splits_and_makes_ids_unique() -> None:
    joined = join_datasets([dataset("coco", ("1", "train"), ("2", "dev")), dataset("flickr8k", ("1", None))])
    assert [(image.id, image.split) for image in joined.images] == [
        ("coco/1", "train"),
        ("coco/2", "dev"),
        ("flickr8k/1", None),
    ]
    assert joined.name == "coco+flickr8k"
    assert joined.format == "joined"
    assert [problem.where for problem in joined.problems] == ["coco/coco.csv:3", "flickr8k/flickr8k.csv:3"]
    assert joined.images[2].captions == ("of 1",)


def test_joining_one_set_changes_nothing() -> None:
    only = dataset("coco", ("1", "train"))
    assert join_datasets([only]) is only


def test_joining_sets_of_one_name() -> None:
    sets = [
        dataset(name, ("1", "train"), root=f"/{index}")
        for index, name in enumerate(["a", "a-2", "a", "a", "x/y"])
    ]
    joined = join_datasets(sets)
    assert [image.id for image in joined.images] == ["a/1", "a-2/1", "a-3/1", "a-4/1", "x_y/1"]
    assert len({image.id for image in joined.images}) == 5


def test_joining_refuses_nothing_and_leaks() -> None:
    with pytest.raises(UsageError, match="No data set was given"):
        join_datasets([])
    same = [dataset("a", ("1", "train")), dataset("a", ("1", "dev"))]
    with pytest.raises(DataError, match=r"1 image file in different splits .*1 \(train in a, dev in a-2\)"):
        join_datasets(same)
    joined = join_datasets([dataset("a", ("1", "train")), dataset("a", ("1", "train"))])
    assert len(joined.images) == 2


@pytest.mark.shared
def test_joining_the_real_sets(shared: Path) -> None:
    joined = join_datasets([read_dataset(shared / "data" / name) for name in ("flickr8k", "coco")])
    assert joined.counts() == {"train": 7400, "dev": 1200}
    assert len({image.id for image in joined.images}) == 8600
