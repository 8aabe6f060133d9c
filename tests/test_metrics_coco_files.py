"""COCO's annotation and result JSON, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from showtell.errors import MetricError
from showtell.metrics import read_hypotheses, read_references, score


def write(folder: Path, data: object) -> Path:
    path = folder / "file.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_references_are_read_in_order_with_ids_as_text(tmp_path: Path) -> None:
    annotations = [
        {"image_id": 2, "id": 1, "caption": "A dog."},
        {"image_id": 1, "id": 2, "caption": "Ein Hünd"},
        {"image_id": 2, "id": 3, "caption": "A cat."},
    ]
    images = [{"id": 1}, {"id": 2}, {"id": 3}]
    path = write(tmp_path, {"images": images, "annotations": annotations})
    assert read_references(path) == {"1": ["Ein Hünd"], "2": ["A dog.", "A cat."], "3": []}
    path = write(tmp_path, {"annotations": annotations})
    assert read_references(str(path)) == {"2": ["A dog.", "A cat."], "1": ["Ein Hünd"]}


def test_hypotheses_are_read_with_ids_as_text(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image_id": 2, "caption": "A dog."}, {"image_id": "x.jpg", "caption": ""}])
    assert read_hypotheses(path) == {"2": "A dog.", "x.jpg": ""}


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"\xef\xbb\xbf[]")
    assert read_hypotheses(path) == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"image_id": 1, "caption": "a"}] * 2, r"two captions for image '1', at \[0\] and \[1\]"),
        (
            [{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "b"}],
            r"two captions for image '1', at \[0\] and \[1\]",
        ),
        ([{"image_id": 1, "caption": None}], r"\[0\]\.caption must be text. Received: null"),
        ([{"image_id": 1, "caption": ["a"]}], r"\[0\]\.caption must be text. Received: \[\"a\"\]"),
        (
            [{"caption": "a"}],
            r"\[0\] must be an object with \"image_id\" and \"caption\"\. Received: \{\"caption\": \"a\"\}",
        ),
        ([1], r"\[0\] must be an object"),
        (
            [{"image_id": 1.5, "caption": "a"}],
            r"\[0\]\.image_id must be a whole number or text. Received: 1\.5",
        ),
        ([{"image_id": True, "caption": "a"}], "image_id must be a whole number or text. Received: true"),
        ({"annotations": []}, "no COCO result file.*are the two files swapped"),
        ("[1,", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("", "is not valid JSON"),
        ('"text"', "no COCO result file"),
    ],
)
def test_wrong_hypotheses_are_refused(tmp_path: Path, data: object, message: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(MetricError, match=message) as caught:
        read_hypotheses(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no COCO annotation file.*are the two files swapped"),
        ({}, 'must be an object with a list "annotations"'),
        ({"annotations": {}}, 'must be an object with a list "annotations"'),
        ({"annotations": [{"image_id": 1}]}, r"annotations\[0\] must be an object"),
        (
            {"annotations": [{"image_id": 1, "caption": 7}]},
            r"annotations\[0\]\.caption must be text. Received: 7",
        ),
        ({"images": 3, "annotations": []}, '"images" must be a list. Received: 3'),
        ({"images": [{"id": 1}, {"id": "1"}], "annotations": []}, r"lists image '1' twice.*at \[1\]"),
        ({"images": [{"file": "x"}], "annotations": []}, r"images\[0\] must be an object with \"id\""),
        ({"images": [{"id": None}], "annotations": []}, r"images\[0\]\.id must be a whole number or text"),
        ("{", "is not valid JSON"),
    ],
)
def test_wrong_references_are_refused(tmp_path: Path, data: object, message: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(MetricError, match=message) as caught:
        read_references(path)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    with pytest.raises(MetricError, match="cannot be read: No such file or directory"):
        read_hypotheses(path)
    path.write_bytes(b"[\xff\xfe\xff]")
    with pytest.raises(MetricError, match="is not valid JSON"):
        read_hypotheses(path)
    with pytest.raises(MetricError, match="cannot be read: Is a directory"):
        read_references(tmp_path)


def test_a_long_wrong_value_is_cut_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(MetricError) as caught:
        read_hypotheses(write(tmp_path, [{"caption": "a" * 1000}]))
    assert len(str(caught.value)) < 300


@pytest.mark.shared
def test_the_real_coco_file_is_read_and_scores_itself(shared: Path, tmp_path: Path) -> None:
    references = read_references(shared / "data/coco/captions_dev.json")
    assert len(references) == 200
    assert all(5 <= len(captions) <= 7 for captions in references.values())
    results = [{"image_id": int(key), "caption": captions[0]} for key, captions in references.items()]
    scores = score(references, read_hypotheses(write(tmp_path, results)))
    assert scores.corpus["Bleu_4"] == pytest.approx(1, abs=1e-6)
    assert scores.corpus["CIDEr"] > 2
