from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.data.records import CaptionedImage, Dataset
from showtell.data.splits import (
    UNSPLIT_CHOICES,
    apply_splits,
    assign_splits,
    check_fractions,
    load_splits,
    resolve_splits,
    save_splits,
)
from showtell.errors import SplitError

TENTHS = {"dev": 0.1, "test": 0.1}


def make_dataset(splits: Mapping[str, str | None]) -> Dataset:
    images = (
        CaptionedImage(id, Path("images") / id, (f"{id} one", f"{id} two"), split)
        for id, split in splits.items()
    )
    return Dataset("pictures", "folder", tuple(images))


def make_loose(count: int) -> Dataset:
    return make_dataset({f"{number:04d}.jpg": None for number in range(count)})


def where(dataset: Dataset) -> dict[str, str | None]:
    return {image.id: image.split for image in dataset.images}


# ------------------------------------------------------------------------------------------- assigning


def test_counts_are_met_exactly_and_captions_stay_with_their_image() -> None:
    dataset = make_loose(1000)
    result = assign_splits(dataset, fractions={"dev": 0.1, "test": 0.25}, seed=3)
    assert result.counts() == {"train": 650, "dev": 100, "test": 250}
    assert [image.captions for image in result.images] == [image.captions for image in dataset.images]
    assert [image.id for image in result.images] == [image.id for image in dataset.images]


def test_the_split_depends_on_seed_and_ids_alone() -> None:
    dataset = make_loose(300)
    shuffled = list(dataset.images)
    random.Random(0).shuffle(shuffled)
    once = where(assign_splits(dataset, fractions=TENTHS, seed=7))
    assert where(assign_splits(Dataset("other", "coco", tuple(shuffled)), fractions=TENTHS, seed=7)) == once
    assert where(assign_splits(dataset, fractions=dict(reversed(TENTHS.items())), seed=7)) == once
    assert where(assign_splits(dataset, fractions=TENTHS, seed=8)) != once


def test_the_split_is_the_same_on_every_machine() -> None:
    result = where(assign_splits(make_loose(10), fractions={"dev": 0.2, "test": 0.2}, seed=0))
    small = {id: split for id, split in result.items() if split != "train"}
    assert small == {"0003.jpg": "dev", "0004.jpg": "test", "0005.jpg": "test", "0008.jpg": "dev"}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_groups_never_straddle(data: st.DataObject, seed: int) -> None:
    dataset = make_loose(60)
    ids = [image.id for image in dataset.images]
    groups = data.draw(
        st.lists(st.lists(st.sampled_from(ids), min_size=2, max_size=5, unique=True), max_size=6)
    )
    result = where(assign_splits(dataset, fractions=TENTHS, seed=seed, groups=groups))
    for group in groups:
        assert len({result[id] for id in group}) == 1
    counts = make_dataset(result).counts()
    assert counts["dev"] == counts["test"] == 6  # 30 or more single images fill whatever the groups leave


def test_groups_that_share_an_image_are_joined() -> None:
    dataset = make_loose(40)
    groups = [("0000.jpg", "0001.jpg"), {"0001.jpg", "0002.jpg"}, ["0003.jpg", "0002.jpg"]]
    for seed in range(30):
        result = where(assign_splits(dataset, fractions={"dev": 0.4}, seed=seed, groups=groups))
        assert len({result[f"000{number}.jpg"] for number in range(4)}) == 1


def test_images_with_a_split_keep_it_and_copies_follow_them() -> None:
    splits: dict[str, str | None] = {"a": "test", "b": "train", "c": "dev", "d": "test"}
    splits |= {f"loose {number:02d}": None for number in range(40)}
    groups = [("a", "loose 00"), ("loose 01", "b", "loose 02"), ("c", "d", "loose 03")]
    for seed in range(10):
        result = where(assign_splits(make_dataset(splits), fractions=TENTHS, seed=seed, groups=groups))
        assert {id: result[id] for id in "abcd"} == {"a": "test", "b": "train", "c": "dev", "d": "test"}
        # The last is in dev and test already: another copy in dev leaks nothing new.
        copies = [result[f"loose 0{number}"] for number in range(4)]
        assert copies == ["test", "train", "train", "dev"]
        assert None not in result.values()


def test_a_group_with_an_unknown_id_is_refused() -> None:
    with pytest.raises(SplitError, match=r"names 'nobody\.jpg', which data set 'pictures' does not have"):
        assign_splits(make_loose(20), fractions=TENTHS, seed=0, groups=[("0001.jpg", "nobody.jpg")])


def test_two_images_with_one_id_are_refused() -> None:
    image = CaptionedImage("a", Path("a"), ("a",))
    with pytest.raises(SplitError, match="two images with the same id"):
        assign_splits(Dataset("pictures", "folder", (image, image)), fractions=TENTHS, seed=0)


def test_a_split_that_would_be_empty_is_refused() -> None:
    with pytest.raises(
        SplitError, match=r"Dividing 4 images .* leaves no image for dev and test\. Use larger"
    ):
        assign_splits(make_loose(4), fractions=TENTHS, seed=0)
    one_group = [image.id for image in make_loose(20).images]
    with pytest.raises(SplitError, match="leaves no image for dev and test"):
        assign_splits(make_loose(20), fractions=TENTHS, seed=0, groups=[one_group])


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({}, "name no split"),
        ({"train": 0.8, "dev": 0.2}, "must not name 'train'"),
        ({"val": 0.1}, "There is no split 'val'. Did you mean 'dev'?"),
        ({"tset": 0.1}, "There is no split 'tset'. Did you mean 'test'? The parts are: dev, test."),
        ({"dev": 0.0}, "between 0 and 1. Received: dev=0.0"),
        ({"dev": 1.0}, "between 0 and 1. Received: dev=1.0"),
        ({"dev": -0.1}, "Received: dev=-0.1"),
        ({"dev": float("nan")}, "Received: dev=nan"),
        ({"dev": 0.5, "test": 0.5}, "sum must be below 1. Received: .*together 1"),
    ],
)
def test_fractions_that_make_no_sense_are_refused(fractions: dict[str, float], message: str) -> None:
    with pytest.raises(SplitError, match=message.replace("?", r"\?")):
        check_fractions(fractions)


# ------------------------------------------------------------------------------------------- resolving

MIXED: dict[str, str | None] = {"a": "train", "b": "dev"} | {f"loose {number}": None for number in range(8)}


def test_without_a_choice_the_error_lists_all_of_them() -> None:
    with pytest.raises(SplitError) as caught:
        resolve_splits(make_dataset(MIXED))
    message = str(caught.value)
    assert message.startswith("8 of 10 images of data set 'pictures' have no split (for example 'loose 0').")
    for choice in UNSPLIT_CHOICES[1:]:
        assert f"--unsplit {choice}" in message


@pytest.mark.parametrize("choice", ["train", "dev", "test"])
def test_all_images_without_a_split_go_where_they_are_sent(choice: str) -> None:
    result = where(resolve_splits(make_dataset(MIXED), unsplit=choice))
    assert result == {id: split or choice for id, split in MIXED.items()}


def test_images_without_a_split_can_be_dropped() -> None:
    assert where(resolve_splits(make_dataset(MIXED), unsplit="drop")) == {"a": "train", "b": "dev"}
    with pytest.raises(SplitError, match=r"leaves nothing\. Use --unsplit split"):
        resolve_splits(make_loose(3), unsplit="drop")


def test_images_without_a_split_can_be_divided() -> None:
    result = resolve_splits(make_dataset(MIXED), unsplit="split", fractions={"test": 0.25}, seed=1)
    assert result.counts() == {"train": 7, "dev": 1, "test": 2}
    again = assign_splits(make_dataset(MIXED), fractions={"test": 0.25}, seed=1)
    assert where(result) == where(again)


def test_a_complete_data_set_is_returned_as_it_is() -> None:
    dataset = make_dataset({"a": "train", "b": "dev"})
    for choice in UNSPLIT_CHOICES:
        assert resolve_splits(dataset, unsplit=choice) == dataset


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(SplitError, match=r"Received: 'dorp'\. Did you mean 'drop'\?"):
        resolve_splits(make_loose(2), unsplit="dorp")


# --------------------------------------------------------------------------------------------- storing


def test_stored_splits_are_applied_again_in_any_order(tmp_path: Path) -> None:
    dataset = make_loose(50)
    split = assign_splits(dataset, fractions=TENTHS, seed=4)
    save_splits(split, tmp_path / "splits.json", seed=4)
    saved = load_splits(tmp_path / "splits.json")
    assert saved.seed == 4
    assert saved.fingerprint == split.fingerprint()
    again = apply_splits(Dataset("pictures", "folder", tuple(reversed(dataset.images))), saved.splits)
    assert where(again) == where(split)
    assert again.fingerprint() == saved.fingerprint
    assert list(tmp_path.iterdir()) == [tmp_path / "splits.json"]


def test_ids_of_any_script_and_broken_names_survive(tmp_path: Path) -> None:
    ids = {"собака.jpg": "train", "犬 1.jpg": "dev", "caf\udce9.jpg": "test"}
    save_splits(make_dataset(ids), tmp_path / "splits.json")
    saved = load_splits(tmp_path / "splits.json")
    assert saved.splits == {split: (id,) for id, split in ids.items()}
    assert saved.seed is None


def test_an_incomplete_split_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(
        SplitError, match="8 images of data set 'pictures' have no split, for example 'loose 0'"
    ):
        save_splits(make_dataset(MIXED), tmp_path / "splits.json")
    assert list(tmp_path.iterdir()) == []


def test_applying_to_other_images_is_refused() -> None:
    dataset = make_dataset({"a": None, "b": None, "new": None})
    with pytest.raises(SplitError, match=r"1 image of data set 'pictures' in none of the splits.*'new'"):
        apply_splits(dataset, {"train": ["a"], "dev": ["b"]})
    with pytest.raises(SplitError, match=r"name 1 image that data set 'pictures' does not have.*'gone'"):
        apply_splits(dataset, {"train": ["a", "gone"], "dev": ["b"]}, unlisted="drop")
    with pytest.raises(SplitError, match="image 'a' is in both 'train' and 'dev'"):
        apply_splits(dataset, {"train": ["a", "b"], "dev": ["a"]}, unlisted="drop")
    with pytest.raises(SplitError, match=r"there is no split 'trian'\. Did you mean 'train'"):
        apply_splits(dataset, {"trian": ["a"]}, unlisted="drop")
    with pytest.raises(SplitError, match=r"unlisted must be 'error' or 'drop'\. Received: 'keep'"):
        apply_splits(dataset, {"train": ["a"]}, unlisted="keep")
    assert where(apply_splits(dataset, {"train": ["a"], "dev": ["b"]}, unlisted="drop")) == {
        "a": "train",
        "b": "dev",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1]", "is not a splits file"),
        ('{"format_version": 1}', "is not a splits file"),
        ('{"format_version": 2, "splits": {}}', "format version 2; this Showtell reads version 1"),
        ('{"format_version": 1, "splits": {"train": [3]}, "fingerprint": "f", "seed": 0}', "is damaged"),
        ('{"format_version": 1, "splits": {"train": "abc"}, "fingerprint": "f", "seed": 0}', "is damaged"),
        ('{"format_version": 1, "splits": {"train": []}, "seed": 0}', "is damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(SplitError, match=message) as caught:
        load_splits(tmp_path / "splits.json")
    assert str(tmp_path / "splits.json") in str(caught.value)


def test_a_missing_file_and_an_image_in_two_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="cannot be read"):
        load_splits(tmp_path / "splits.json")
    save_splits(make_dataset({"a": "train", "b": "dev"}), tmp_path / "splits.json")
    content = json.loads((tmp_path / "splits.json").read_text())
    content["splits"]["dev"].append("a")
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(SplitError, match="image 'a' is in both 'train' and 'dev'"):
        load_splits(tmp_path / "splits.json")
