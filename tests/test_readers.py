"""The readers, format by format: what they give, what they report, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from showtell.data import Dataset, read_dataset
from showtell.errors import DataError, SplitError, UsageError


def write(path: Path, content: str | bytes | Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8", newline=""
        )
    return path


def captions(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {image.id: image.captions for image in dataset.images}


def splits(dataset: Dataset) -> dict[str, str | None]:
    return {image.id: image.split for image in dataset.images}


def kinds(dataset: Dataset) -> list[tuple[str, str]]:
    return [(problem.kind, problem.where) for problem in dataset.problems]


def coco(*rows: tuple[int, str, list[str]]) -> dict[str, Any]:
    images = [{"id": id, "file_name": name} for id, name, _ in rows]
    annotations = [
        {"image_id": id, "id": 100 * id + number, "caption": text}
        for id, _, texts in rows
        for number, text in enumerate(texts)
    ]
    return {"info": {}, "images": images, "licenses": [], "annotations": annotations}


# ---------------------------------------------------------------------------------------------- COCO


def test_coco_folder_with_splits_in_the_file_names(tmp_path: Path) -> None:
    write(tmp_path / "annotations" / "captions_train2017.json", coco((9, "9.jpg", ["a dog", " a cat\n"])))
    write(tmp_path / "annotations" / "captions_val2017.json", coco((7, "7.jpg", ["a bird"])))
    write(tmp_path / "train2017" / "9.jpg", b"")
    write(tmp_path / "val2017" / "7.jpg", b"")
    dataset = read_dataset(tmp_path)
    assert (dataset.format, dataset.name) == ("coco", tmp_path.name)
    assert captions(dataset) == {"9": ("a dog", "a cat"), "7": ("a bird",)}
    assert splits(dataset) == {"9": "train", "7": "dev"}
    assert [image.path for image in dataset.images] == [
        tmp_path / "train2017" / "9.jpg",
        tmp_path / "val2017" / "7.jpg",
    ]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_train.json", "train"),
        ("captions_dev.json", "dev"),
        ("captions_val2014.json", "dev"),
        ("captions_validation.json", "dev"),
        ("captions_test.json", "test"),
        ("captions_trainval.json", None),
        ("captions_train_val.json", None),
        ("captions_latest.json", None),
        ("mine.json", None),
    ],
)
def test_coco_split_is_in_the_file_name_or_nowhere(tmp_path: Path, name: str, split: str | None) -> None:
    file = write(tmp_path / name, coco((1, "a.jpg", ["x"])))
    assert splits(read_dataset(file)) == {"1": split}


@pytest.mark.parametrize(
    "place", ["images", "train2014", "images/train2014", ".", "../images", "../train2014", "elsewhere"]
)
def test_coco_images_are_found_in_the_usual_places_or_where_told(tmp_path: Path, place: str) -> None:
    file = write(tmp_path / "a" / "captions_train2014.json", coco((1, "COCO_1.jpg", ["x"])))
    (tmp_path / "a" / "val2014").mkdir()
    expected = write(tmp_path / "a" / place / "COCO_1.jpg", b"")
    images = tmp_path / "a" / place if place == "elsewhere" else None
    dataset = read_dataset(file, images=images)
    assert dataset.images[0].path.samefile(expected)


def test_coco_missing_image_files_are_no_error(tmp_path: Path) -> None:
    file = write(tmp_path / "captions_train.json", coco((1, "a.jpg", ["x"])))
    assert not read_dataset(file).images[0].path.exists()


def test_coco_problems_are_reported_and_passed_over(tmp_path: Path) -> None:
    content = coco((1, "a.jpg", ["x", "x", "  "]), (2, "b.jpg", []))
    content["annotations"].append({"image_id": 77, "id": 1, "caption": "of nothing"})
    dataset = read_dataset(write(tmp_path / "captions_train.json", content))
    assert captions(dataset) == {"1": ("x", "x")}  # duplicates are kept
    assert kinds(dataset) == [
        ("empty-caption", "captions_train.json: annotations[2]"),
        ("unknown-image", "captions_train.json: annotations[3]"),
        ("no-captions", "2"),
    ]


def test_coco_half_characters_are_replaced_and_reported(tmp_path: Path) -> None:
    raw = json.dumps(coco((1, "a.jpg", ["a \ud83d dog"])))
    dataset = read_dataset(write(tmp_path / "captions_train.json", raw))
    assert captions(dataset) == {"1": ("a ? dog",)}
    assert [problem.kind for problem in dataset.problems] == ["bad-encoding"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (coco((1, "a.jpg", ["x"]), (1, "b.jpg", ["y"])), ["images[1]", "id 1", "'a.jpg'", "'b.jpg'"]),
        ({"images": [{"id": 1}], "annotations": []}, ["images[0]", "Received: None"]),
        ({"images": [{"file_name": "a.jpg"}], "annotations": []}, ["images[0]", "'id' must be a number"]),
        ({"images": [3], "annotations": []}, ["images[0]", "'id'"]),
        ({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": [0]}]},
         ["annotations[0] has no caption", "captions_*.json"]),
        ({"images": []}, ["'annotations' is missing", "keys are: images"]),
        (coco((1, "a.jpg", [])), ["no image with a caption", "1 image without"]),
        (coco((1, "../a.jpg", ["x"])), ["'../a.jpg' leads out"]),
        (coco((1, "/etc/a.jpg", ["x"])), ["'/etc/a.jpg' leads out"]),
        ([{"image_id": 1, "caption": "x"}], ["COCO results"]),
        ("[]", ["object with images and annotations"]),
    ],
)  # fmt: skip
def test_coco_refusals(tmp_path: Path, content: Any, words: list[str]) -> None:
    file = write(tmp_path / "captions_train.json", content)
    with pytest.raises(DataError) as caught:
        read_dataset(file, format="coco")
    for word in ["captions_train.json", *words]:
        assert word in str(caught.value)


def test_coco_image_in_two_split_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "captions_train2017.json", coco((5, "5.jpg", ["x"])))
    write(tmp_path / "captions_val2014.json", coco((5, "5.jpg", ["x"])))
    with pytest.raises(DataError, match=r"1 image in more than one split: 5 \(dev, train\)"):
        read_dataset(tmp_path)


def test_coco_id_of_two_images_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "captions_a.json", coco((5, "5.jpg", ["x"])))
    write(tmp_path / "captions_b.json", coco((5, "6.jpg", ["x"])))
    with pytest.raises(DataError, match=r"id 5 is '6\.jpg' here, but '5\.jpg' in another file"):
        read_dataset(tmp_path)


@pytest.mark.shared
def test_real_coco(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "coco")
    assert dataset.format == "coco"
    assert dataset.counts() == {"dev": 200, "train": 1400}
    assert sum(len(image.captions) for image in dataset.images) == 8004
    assert all(image.path.is_file() for image in dataset.images)
    assert dataset.problems == ()


# ---------------------------------------------------------------------------------------------- Karpathy


def karpathy(*rows: tuple[str, str], **extra: Any) -> dict[str, Any]:
    images = [
        {
            "filename": name,
            "split": split,
            "imgid": index,
            "sentences": [{"raw": f"of {name}", "tokens": []}],
            **extra,
        }
        for index, (name, split) in enumerate(rows)
    ]
    return {"images": images, "dataset": "flickr8k"}


def test_karpathy_with_file_names_as_ids(tmp_path: Path) -> None:
    write(
        tmp_path / "dataset_flickr8k.json", karpathy(("a.jpg", "train"), ("b.jpg", "val"), ("c.jpg", "test"))
    )
    dataset = read_dataset(tmp_path)
    assert dataset.format == "karpathy"
    assert splits(dataset) == {"a.jpg": "train", "b.jpg": "dev", "c.jpg": "test"}
    assert captions(dataset)["b.jpg"] == ("of b.jpg",)


@pytest.mark.parametrize("place", ["images/val2014", "val2014", "images", "."])
def test_karpathy_coco_ids_and_places(tmp_path: Path, place: str) -> None:
    content = karpathy(("COCO_val2014_7.jpg", "test"), cocoid=7, filepath="val2014")
    file = write(tmp_path / "dataset_coco.json", content)
    expected = write(tmp_path / place / "COCO_val2014_7.jpg", b"")
    dataset = read_dataset(file)
    assert splits(dataset) == {"7": "test"}
    assert dataset.images[0].path.samefile(expected)


def test_karpathy_restval_must_be_chosen(tmp_path: Path) -> None:
    file = write(tmp_path / "dataset_coco.json", karpathy(("a.jpg", "restval"), ("b.jpg", "val")))
    with pytest.raises(SplitError) as caught:
        read_dataset(file)
    for words in ("1 of 2 images", "restval='train'", "restval='drop'", "--restval"):
        assert words in str(caught.value)
    assert splits(read_dataset(file, restval="train")) == {"a.jpg": "train", "b.jpg": "dev"}
    assert splits(read_dataset(file, restval="drop")) == {"b.jpg": "dev"}
    with pytest.raises(UsageError, match=r"Received: 'trian'\. Did you mean 'train'\?"):
        read_dataset(file, restval="trian")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (karpathy(("a.jpg", "train"), ("a.jpg", "train")), "images[1]: id a.jpg is given to a second image"),
        (
            karpathy(("a.jpg", "train"), ("b.jpg", "val"), cocoid=3),
            "id 3 is given to a second image, 'b.jpg'",
        ),
        (karpathy(("a.jpg", "trane")), "unknown split 'trane'. Did you mean 'train'?"),
        (karpathy(("a.jpg", "train"), sentences=None), "images[0] has no list 'sentences'"),
        (karpathy(("a.jpg", "train"), sentences=[{"words": []}]), "a sentence has no text 'raw'"),
        (karpathy(("../../a.jpg", "train")), "leads out of the image folder"),
        (karpathy(("a.jpg", "train"), filepath=".."), "leads out of the image folder"),
        (karpathy(("", "train")), "must be a text that is not empty"),
        ({"images": ["a"]}, "images[0] must be an object"),
        ({"dataset": "x"}, "a list 'images', which is missing"),
    ],
)
def test_karpathy_refusals(tmp_path: Path, content: Any, message: str) -> None:
    file = write(tmp_path / "dataset.json", content)
    with pytest.raises(DataError) as caught:
        read_dataset(file, format="karpathy")
    assert message in str(caught.value)


def test_karpathy_tokens_stand_in_for_raw_text(tmp_path: Path) -> None:
    content = karpathy(("a.jpg", "train"), sentences=[{"tokens": ["a", "dog"]}])
    assert captions(read_dataset(write(tmp_path / "dataset.json", content))) == {"a.jpg": ("a dog",)}


# ---------------------------------------------------------------------------------------------- Flickr

GHOST = "2258277193_586949ec62.jpg.1"


def flickr8k(folder: Path, tokens: str | bytes) -> Path:
    write(folder / "Flickr8k.token.txt", tokens)
    write(folder / "Flickr8k.lemma.token.txt", tokens)
    write(folder / "Flickr_8k.trainImages.txt", "a.jpg\nb.jpg\n")
    write(folder / "Flickr_8k.devImages.txt", "c.jpg\r\n")
    write(folder / "readme.txt", "This is about training and nothing else.\n")
    write(folder / "CrowdFlowerAnnotations.txt", "a.jpg\tb.jpg#2\t0.5\t1\t2\n")
    for name in "abc":
        write(folder / "Flicker8k_Dataset" / f"{name}.jpg", b"")
    return folder


def test_flickr_layout_with_its_ghost(tmp_path: Path) -> None:
    tokens = (
        f"a.jpg#0\tA dog .\na.jpg#1\tA dog .\nb.jpg#0\t B \r\n{GHOST}#0\tpeople\n{GHOST}#1\tx\n\nc.jpg#0\tC"
    )
    dataset = read_dataset(flickr8k(tmp_path, tokens))
    assert dataset.format == "flickr"
    assert captions(dataset) == {"a.jpg": ("A dog .", "A dog ."), "b.jpg": ("B",), "c.jpg": ("C",)}
    assert splits(dataset) == {"a.jpg": "train", "b.jpg": "train", "c.jpg": "dev"}
    assert kinds(dataset) == [("ghost-entry", "Flickr8k.token.txt:4")]
    assert "2 captions" in dataset.problems[0].message
    assert all(image.path == tmp_path / "Flicker8k_Dataset" / image.id for image in dataset.images)


def test_flickr_image_in_no_list_has_no_split_but_stays(tmp_path: Path) -> None:
    flickr8k(tmp_path, "a.jpg#0\tA\nz.jpg#0\tZ\n")
    write(tmp_path / "Flicker8k_Dataset" / "z.jpg", b"")
    dataset = read_dataset(tmp_path)
    assert splits(dataset) == {"a.jpg": "train", "z.jpg": None}
    assert kinds(dataset) == [("no-captions", "c.jpg"), ("no-captions", "b.jpg")]


def test_flickr_without_lists_a_missing_file_is_not_yet_a_ghost(tmp_path: Path) -> None:
    write(tmp_path / "results_20130124.token", f"a.jpg#0\tA\n{GHOST}#0\tG\n")
    dataset = read_dataset(tmp_path)
    assert splits(dataset) == {"a.jpg": None}
    assert kinds(dataset) == [("ghost-entry", "results_20130124.token:2")]


def test_only_a_folder_named_after_a_split_is_one(tmp_path: Path) -> None:
    for folder in ("train", "Val2017", "test drive", "trains"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").touch()
        (tmp_path / folder / "a.txt").write_text("A dog.")
    expected = {
        "train/a.jpg": "train",
        "Val2017/a.jpg": "dev",
        "test drive/a.jpg": None,
        "trains/a.jpg": None,
    }
    assert splits(read_dataset(tmp_path)) == expected


def test_flickr30k_lists_without_suffix(tmp_path: Path) -> None:
    write(tmp_path / "results_20130124.token", "1.jpg#0\tA\n2.jpg#0\tB\n3.jpg#0\tC\n")
    write(tmp_path / "train.txt", "1\n")
    write(tmp_path / "val.txt", "2\n")
    write(tmp_path / "flickr30k_test.txt", "3.jpg\n")
    assert splits(read_dataset(tmp_path)) == {"1.jpg": "train", "2.jpg": "dev", "3.jpg": "test"}


def test_names_keep_their_letters(tmp_path: Path) -> None:
    # `.strip(".jpg")` eats letters at both ends: "jpg_gap.jpg" would become "_ga".
    write(tmp_path / "x.token", "jpg_gap.jpg#0\tA\npg#1.jpg#0\tB\n")
    write(tmp_path / "train.txt", "jpg_gap.jpg\n")
    write(tmp_path / "images" / "pg#1.jpg", b"")
    assert splits(read_dataset(tmp_path)) == {"jpg_gap.jpg": "train", "pg#1.jpg": None}


def test_flickr_bad_bytes_empty_captions_and_bad_lines(tmp_path: Path) -> None:
    tokens = b"\xef\xbb\xbfa.jpg#0\tcaf\xe9\nb.jpg#0\t \nb.jpg#1\tB\nno tab here\n"
    tokens += b"c.jpg#0\tform\x0cfeed\xe2\x80\xa8line\n"
    dataset = read_dataset(flickr8k(tmp_path, tokens))
    assert captions(dataset) == {"a.jpg": ("caf�",), "b.jpg": ("B",), "c.jpg": ("form\x0cfeed\u2028line",)}
    assert sorted(kinds(dataset)) == [
        ("bad-encoding", "Flickr8k.token.txt:1"),
        ("bad-line", "Flickr8k.token.txt:4"),
        ("empty-caption", "Flickr8k.token.txt:2"),
    ]
    assert "0xe9" in dataset.problems[0].message


def test_flickr_image_in_two_lists_is_refused(tmp_path: Path) -> None:
    flickr8k(tmp_path, "a.jpg#0\tA\n")
    write(tmp_path / "Flickr_8k.testImages.txt", "a.jpg\nc.jpg\n")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    for words in ("2 images in more than one split", "a.jpg (test, train)", "c.jpg (dev, test)", "judged on"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/a.jpg", "x/../../a.jpg", "..\\a.jpg", "C:\\a.jpg", "..", "a\x00.jpg"]
)
def test_flickr_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "x.token", f"ok.jpg#0\tA\n{name}#0\tB\n")
    with pytest.raises(DataError, match=r"x\.token:2: image name .* leads out of the image folder"):
        read_dataset(file)


def test_flickr_folder_with_two_token_files_asks_which(tmp_path: Path) -> None:
    for name in ("a.token", "b.token"):
        write(tmp_path / name, "a.jpg#0\tA\n")
    with pytest.raises(DataError, match=r"Found: a\.token, b\.token\. Name the file itself"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path / "b.token").images) == 1


@pytest.mark.shared
def test_real_flickr8k(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "flickr8k")
    assert dataset.counts() == {"train": 6000, "dev": 1000}
    assert {len(image.captions) for image in dataset.images} == {5}
    assert kinds(dataset) == [("ghost-entry", "Flickr8k.token.txt:5791")]
    assert GHOST in dataset.problems[0].message
    assert all(image.path.is_file() for image in dataset.images)


# ---------------------------------------------------------------------------------------------- tables


def test_flickr8k_csv(tmp_path: Path) -> None:
    text = (
        '\ufeffimage,caption\na.jpg,A dog runs .\na.jpg,"A dog , brown , says ""wuff"""\nb.jpg,"two\nlines"\n'
    )
    write(tmp_path / "captions.txt", text)
    write(tmp_path / "Images" / "a.jpg", b"")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "table"
    assert captions(dataset) == {
        "a.jpg": ("A dog runs .", 'A dog , brown , says "wuff"'),
        "b.jpg": ("two\nlines",),
    }
    assert dataset.images[0].path == tmp_path / "Images" / "a.jpg"
    assert splits(dataset) == {"a.jpg": None, "b.jpg": None}
    assert dataset.problems == ()


def test_flickr30k_pipes(tmp_path: Path) -> None:
    text = 'image_name| comment_number| comment\n1.jpg| 0| Two men , "outside\n'
    text += "1.jpg| 1| A | B\n2.jpg| 4   A dog runs .\n"
    write(tmp_path / "results.csv", text)
    dataset = read_dataset(tmp_path)
    assert captions(dataset) == {"1.jpg": ('Two men , "outside', "A | B")}
    assert kinds(dataset) == [("unquoted-delimiter", "results.csv:3"), ("bad-row", "results.csv:4")]
    assert [problem.severity for problem in dataset.problems] == ["warning", "error"]


def test_unquoted_commas_belong_to_the_caption(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path / "a.csv", "image,caption\na.jpg,A dog, a cat, a hat\n"))
    assert captions(dataset) == {"a.jpg": ("A dog, a cat, a hat",)}
    assert kinds(dataset) == [("unquoted-delimiter", "a.csv:2")]


def test_broken_quotes_cost_their_row_and_no_other(tmp_path: Path) -> None:
    text = 'image,caption\na.jpg,A\nb.jpg,"quoted" then not\nc.jpg,C\n'
    dataset = read_dataset(write(tmp_path / "a.csv", text))
    assert captions(dataset) == {"a.jpg": ("A",), "c.jpg": ("C",)}
    assert kinds(dataset) == [("bad-row", "a.csv:3")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", "split\tfilename\tcaptions\nval\ta.jpg\t\"A\"\ntrain\tb.jpg\tB\n"),
        ("t.csv", "split;filename;Caption\nvalidation;a.jpg;A\nTRAIN;b.jpg;B\n"),
        ("t.csv", "id,split,file_name,text,other\n1,dev,a.jpg,A,x\n2,training,b.jpg,B,x\n"),
        ("t.jsonl", '{"file_name": "a.jpg", "text": "A", "split": "val"}\n\n'
         '{"image": "b.jpg", "caption": ["B"], "split": "train"}\n'),
        ("t.json", '[{"image": "a.jpg", "captions": ["A"], "split": "dev"},'
         ' {"image": "./b.jpg", "caption": "B", "split": "train"}]'),
        ("t.csv", "image,caption_1,caption_2,split\na.jpg,A,,dev\nb.jpg,,B,train\n"),
    ],
)  # fmt: skip
def test_tables_with_usual_column_names(tmp_path: Path, name: str, text: str) -> None:
    dataset = read_dataset(write(tmp_path / name, text))
    assert dataset.format == "table"
    assert captions(dataset) == {"a.jpg": ("A",), "b.jpg": ("B",)}
    assert splits(dataset) == {"a.jpg": "dev", "b.jpg": "train"}
    assert dataset.problems == ()


def test_utf16_table_from_a_spreadsheet(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "image\tcaption\r\na.jpg\tEin Hund im Café\r\n".encode("utf-16"))
    assert captions(read_dataset(tmp_path)) == {"a.jpg": ("Ein Hund im Café",)}


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_columns_can_be_named(tmp_path: Path, name: str) -> None:
    text = "caption,picture,words,part\nno,a.jpg,A,val\n"
    if name == "t.jsonl":
        text = '{"caption": "no", "picture": "a.jpg", "words": ["A"], "part": "val"}\n'
        text += '{"picture": "b.jpg", "words": "B"}\n'
    file = write(tmp_path / name, text)
    dataset = read_dataset(file, columns={"image": "picture", "caption": "words", "split": "part"})
    assert captions(dataset)["a.jpg"] == ("A",)
    assert splits(dataset)["a.jpg"] == "dev"
    with pytest.raises(
        DataError, match=r"no column 'pictures' \(asked for as image\)\. Did you mean 'picture'\?"
    ):
        read_dataset(file, columns={"image": "pictures", "caption": "words"})
    with pytest.raises(UsageError, match=r"columns: unknown key 'img'"):
        read_dataset(file, columns={"img": "picture"})


def test_table_paths_with_folders_and_backslashes(tmp_path: Path) -> None:
    text = "image,caption\nsub\\a.jpg,A\nsub/a.jpg,B\n./sub/b.jpg,C\n"
    dataset = read_dataset(write(tmp_path / "t.csv", text))
    assert captions(dataset) == {"sub/a.jpg": ("A", "B"), "sub/b.jpg": ("C",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,caption,split\na.jpg,A,trane\n", "t.csv:2: unknown split 'trane'. Did you mean 'train'?"),
        ("image,caption,split\na.jpg,A,train\na.jpg,B,test\n", "more than one split: a.jpg (test, train)"),
        ("image,caption\n../a.jpg,A\n", "t.csv:2: image name '../a.jpg' leads out"),
        ("image,caption\nhttps://x.org/a.jpg,A\n", "t.csv:2: image 'https://x.org/a.jpg' is a URL"),
        ("image,caption\n,A\n", "t.csv:2: the image name must be a text that is not empty"),
        ("image,caption\n", "no image with a caption"),
        ("photo,words\na.jpg,A\n", "Its columns are: 'photo', 'words'"),
        ('{"image": "a.jpg", "caption": "A"}\n{"image": \n', "not valid JSON lines: line 2, column"),
        ('{"image": "a.jpg", "caption": 3}\n', "'caption' must be a text or texts. Received: 3"),
        ('{"image": "a.jpg", "caption": "A"}\n[1]\n', "t.csv:2: an object"),
    ],
)
def test_table_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(write(tmp_path / "t.csv", text), format="table")
    assert message in str(caught.value)


# ---------------------------------------------------------------------------------------------- folders


def test_folder_with_sidecars(tmp_path: Path) -> None:
    for name in (
        "train/a.jpg",
        "train/deep/b.PNG",
        "validation/c.jpeg",
        "d.webp",
        "train/none.jpg",
        ".hidden/e.jpg",
    ):
        write(tmp_path / name, b"")
    write(tmp_path / "train/a.txt", "A dog .\n\n  A cat .  \n")
    write(tmp_path / "train/deep/b.PNG.txt", "B\n")
    write(tmp_path / "validation/c.txt", b"\xef\xbb\xbfC\r\n")
    write(tmp_path / "d.txt", "D")
    write(tmp_path / "orphan.txt", "O")
    write(tmp_path / "README.txt", "not a caption")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "folder"
    assert captions(dataset) == {
        "d.webp": ("D",),
        "train/a.jpg": ("A dog .", "A cat ."),
        "train/deep/b.PNG": ("B",),
        "validation/c.jpeg": ("C",),
    }
    assert splits(dataset) == {
        "d.webp": None, "train/a.jpg": "train", "train/deep/b.PNG": "train", "validation/c.jpeg": "dev",
    }  # fmt: skip
    assert kinds(dataset) == [("orphan-captions", "orphan.txt"), ("no-captions", "train/none.jpg")]
    assert all(image.path == tmp_path / image.id for image in dataset.images)


def test_folder_with_images_elsewhere(tmp_path: Path) -> None:
    image = write(tmp_path / "pictures" / "train" / "a.jpg", b"")
    write(tmp_path / "texts" / "train" / "a.txt", "A")
    dataset = read_dataset(tmp_path / "texts", format="folder", images=tmp_path / "pictures")
    assert splits(dataset) == {"train/a.jpg": "train"}
    assert dataset.images[0].path == image


def test_folder_empty_sidecar_and_bad_bytes(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        write(tmp_path / name, b"")
    write(tmp_path / "a.txt", b"ok\nbad \xff\n")
    write(tmp_path / "b.txt", b"\n")
    dataset = read_dataset(tmp_path)
    assert captions(dataset) == {"a.jpg": ("ok", "bad �")}
    assert kinds(dataset) == [("bad-encoding", "a.txt:2"), ("no-captions", "b.jpg")]


def test_folder_refusals(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "a.jpg", b"")
    with pytest.raises(DataError, match=r"1 image, but no captions: .* dog\.txt for dog\.jpg"):
        read_dataset(tmp_path / "photos", format="folder")
    write(tmp_path / "texts" / "a.md", "x")
    with pytest.raises(DataError, match="no image files in this folder"):
        read_dataset(tmp_path / "texts", format="folder")
    file = write(tmp_path / "a.xyz", "hello")
    with pytest.raises(DataError, match="is a file; a folder of images"):
        read_dataset(file, format="folder")


# ---------------------------------------------------------------------------------------------- all formats

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r\x00"), max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=5))
def test_any_text_comes_back_as_written_from_every_format(tmp_path: Path, texts: list[list[str]]) -> None:
    names = [f"{index}.jpg" for index in range(len(texts))]
    expected = {
        name: kept
        for name, written in zip(names, texts)
        if (kept := tuple(t.strip() for t in written if t.strip()))
    }
    by_id = dict(zip(map(str, range(len(texts))), names))
    pairs = [(name, text) for name, written in zip(names, texts) for text in written]
    files = {
        "coco": write(tmp_path / "captions_train.json", coco(*zip(range(len(names)), names, texts))),
        "karpathy": write(tmp_path / "dataset_x.json", {"images": [
            {"filename": n, "split": "train", "sentences": [{"raw": text} for text in w]}
            for n, w in zip(names, texts)
        ]}),
        "flickr": write(tmp_path / "x.token", "".join(f"{n}#0\t{text}\n" for n, text in pairs)),
        "table": write(tmp_path / "x.csv", "image,caption\n" + "".join(
            f'{n},"{text.replace(chr(34), chr(34) * 2)}"\n' for n, text in pairs
        )),
    }  # fmt: skip
    for form, file in files.items():
        if not expected:
            with pytest.raises(DataError, match="no image with a caption"):
                read_dataset(file, format=form)
            continue
        found = captions(read_dataset(file))
        assert {by_id.get(id, id): texts for id, texts in found.items()} == expected


def test_captions_are_not_interpreted(tmp_path: Path) -> None:
    odd = [
        "<start> <end> <unk>",
        "bell \x07 and escape \x1b[31m",
        "קרא ﷽ 漢字 👩‍👩‍👧",
        "word " * 500,
        "=1+1",
        "null",
    ]
    file = write(tmp_path / "captions_train.json", coco((1, "a.jpg", odd)))
    assert captions(read_dataset(file)) == {"1": tuple(text.strip() for text in odd)}
