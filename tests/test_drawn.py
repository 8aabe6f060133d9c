from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from showtell.data.drawn import (
    COLOURS,
    RELATIONS,
    SHAPES,
    DrawnObject,
    Scene,
    draw_scenes,
    grade_caption,
    read_scenes,
    write_drawn_dataset,
)
from showtell.data.source import read_dataset
from showtell.errors import DataError, UsageError


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return list(draw_scenes(800, seed=5, size=64))


def equal(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None


def test_a_seed_reproduces_its_scenes(scenes: list[Scene]) -> None:
    again = list(draw_scenes(20, seed=5, size=64))
    others = list(draw_scenes(20, seed=6, size=64))
    for one, same, other in zip(scenes, again, others):
        assert equal(one.image, same.image)
        assert (one.objects, one.relation, one.captions) == (same.objects, same.relation, same.captions)
        assert one.objects != other.objects


def test_the_size_changes_the_picture_alone() -> None:
    for small, large in zip(draw_scenes(5, seed=1, size=48), draw_scenes(5, seed=1, size=128)):
        assert small.image.size == (48, 48)
        assert large.image.size == (128, 128)
        assert small.image.mode == "RGB"
        assert (small.objects, small.captions) == (large.objects, large.captions)


def test_everything_occurs(scenes: list[Scene]) -> None:
    objects = [thing for scene in scenes for thing in scene.objects]
    assert {thing.shape for thing in objects} == set(SHAPES)
    assert {thing.colour for thing in objects} == set(COLOURS)
    assert {thing.size for thing in objects} == {"small", "large"}
    assert {scene.relation for scene in scenes} == {*RELATIONS, None}
    for colour in COLOURS:  # none is rare, or it could not be learnt
        assert sum(thing.colour == colour for thing in objects) > len(objects) / 30


def test_objects_are_large_and_inside_the_canvas(scenes: list[Scene]) -> None:
    for scene in scenes:
        for thing in scene.objects:
            left, upper, right, lower = thing.box
            assert min(left, upper) >= 0
            assert max(right, lower) <= 1
            assert right - left >= 0.25
            assert (right - left >= 0.35) == (thing.size == "large")


def test_the_relation_is_true(scenes: list[Scene]) -> None:
    for scene in scenes:
        if scene.relation is None:
            assert len(scene.objects) == 1
            continue
        first, second = (thing.box for thing in scene.objects)
        holds = {
            "left": first[2] < second[0],
            "right": first[0] > second[2],
            "above": first[3] < second[1],
            "below": first[1] > second[3],
            "inside": first[0] > second[0]
            and first[1] > second[1]
            and first[2] < second[2]
            and first[3] < second[3],
        }
        assert [relation for relation, true in holds.items() if true] == [scene.relation]


def test_what_is_drawn_has_the_colour_and_stands_out(scenes: list[Scene]) -> None:
    """The middle of every shape shows its colour; the corners of the canvas show another."""
    for scene in scenes:
        front = scene.objects[0]  # nothing lies over the first object
        x, y = ((front.box[side] + front.box[side + 2]) / 2 * 64 for side in (0, 1))
        pixel = scene.image.getpixel((x, y))
        nearest = min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], pixel)))
        assert nearest == front.colour
        corners = [scene.image.getpixel(place) for place in itertools.product((0, 63), (0, 63))]
        for corner in corners:
            assert sum((a - b) ** 2 for a, b in zip(corner, COLOURS[scene.objects[-1].colour])) > 70**2


def test_no_two_scenes_are_alike() -> None:
    places = [
        frozenset(
            (thing.shape, thing.colour, *(round(side * 12) for side in thing.box)) for thing in scene.objects
        )
        for scene in draw_scenes(2000, seed=0, size=32)
    ]
    assert len(set(places)) == len(places)


# -------------------------------------------------------------------------------------------- captions


def test_five_different_captions_name_every_object_and_no_other(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert len(set(scene.captions)) == 5
        for caption in scene.captions:
            assert re.fullmatch(r"[a-z ,]+", caption)
            grade = grade_caption(scene.objects, caption)
            assert (grade.accuracy, grade.missing, grade.extra) == (1.0, (), ()), caption


def test_captions_vary_in_order_and_wording(scenes: list[Scene]) -> None:
    mixed = 0
    pairs = [scene for scene in scenes if len({(thing.colour, thing.shape) for thing in scene.objects}) == 2]
    for scene in pairs:
        first, second = (f"{thing.colour} {thing.shape}" for thing in scene.objects)
        mixed += len({caption.index(first) < caption.index(second) for caption in scene.captions}) == 2
    assert mixed > 0.9 * len(pairs)
    words = {word for scene in scenes for caption in scene.captions for word in caption.split()}
    assert len(SHAPES) + len(COLOURS) + 25 < len(words) < 80


SAYS = {
    "left": r"(to the left of|left of|on the left side of)",
    "right": r"(to the right of|right of|on the right side of)",
    "above": r"(above|over)",
    "below": r"(below|under)",
    "inside": r"(inside|in|within)",
    "around": r"around",
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above", "inside": "around"}
SIDE = {"left": "on the left", "right": "on the right", "above": "at the top", "below": "at the bottom"}


def test_every_caption_tells_the_relation_truly(scenes: list[Scene]) -> None:
    """Written down a second time, from the other side: what must follow which name, in every caption."""
    for scene in scenes:
        names = [f"{thing.colour} {thing.shape}" for thing in scene.objects]
        if len(set(names)) < 2 or scene.relation is None:
            continue
        first, second = names
        here, there = scene.relation, OPPOSITE[scene.relation]
        for caption in scene.captions:
            bare = re.sub(
                r"\b(a|an|the|small|large|is|there) (?=(?:(?:small|large) )?\w+)", _keep_sides, caption
            )
            plain = re.sub(r"\b(small|large) ", "", bare)
            true = (
                rf"{first} {SAYS[here]} {second}",
                rf"{second} {SAYS[there]} {first}",
                rf"{second} with {first} {SAYS[here]} it",
                rf"{first} {SIDE.get(here)} and {second} {SIDE.get(there)}",
                rf"{second} {SIDE.get(there)} , {first} {SIDE.get(here)}",
            )
            assert any(re.fullmatch(form, plain) for form in true), (caption, plain, scene.relation)


def _keep_sides(match: re.Match[str]) -> str:
    """Removes articles, but not the one in "on the left" or "at the top"."""
    rest = match.string[match.end() :]
    sides = ("left", "right", "top", "bottom")
    return match.group() if match.group(1) == "the" and rest.startswith(sides) else ""


def test_sizes_are_said_truly(scenes: list[Scene]) -> None:
    said = 0
    for scene in scenes:
        sizes = {(f"{thing.colour} {thing.shape}", thing.size) for thing in scene.objects}
        for caption in scene.captions:
            for size, colour, shape in re.findall(rf"(small|large) (\w+) ({'|'.join(SHAPES)})", caption):
                assert (f"{colour} {shape}", size) in sizes
                said += 1
    assert said > len(scenes)


RED_CIRCLE = DrawnObject("circle", "red", "small", (0.1, 0.1, 0.4, 0.4))
BLUE_SQUARE = DrawnObject("square", "blue", "large", (0.5, 0.5, 0.9, 0.9))


@pytest.mark.parametrize(
    ("caption", "right", "total"),
    [
        ("a red circle and a blue square", 4, 4),
        ("The BLUE square, with a red circle.", 4, 4),
        ("a blue circle and a red square", 2, 4),  # swapped: half of each is right
        ("a red circle and a green square", 3, 4),
        ("a red circle", 2, 4),
        ("a red circle and a red circle and a blue square", 4, 4),  # a repetition is not a third object
        ("a red circle , a blue square and a black star", 4, 6),
        ("a dog on the beach", 0, 4),
        ("a red and a blue thing , a circle and a square", 0, 4),  # no colour is given to a shape
        ("two red circles and two blue squares", 4, 4),
        ("a reddish circle and a blue squareness", 0, 4),
        ("", 0, 4),
    ],
)
def test_grades(caption: str, right: int, total: int) -> None:
    grade = grade_caption((RED_CIRCLE, BLUE_SQUARE), caption)
    assert (grade.right, grade.total) == (right, total)
    assert grade.accuracy == right / total


def test_a_grade_names_what_is_missing_and_what_is_too_much() -> None:
    grade = grade_caption((RED_CIRCLE, BLUE_SQUARE), "a red circle over a white cross")
    assert grade.missing == (("blue", "square"),)
    assert grade.extra == (("white", "cross"),)
    twins = grade_caption((RED_CIRCLE, RED_CIRCLE), "two red circles")
    assert (twins.right, twins.total) == (2, 2)


def test_captions_of_other_scenes_get_low_grades(scenes: list[Scene]) -> None:
    grades = [grade_caption(one.objects, other.captions[0]) for one, other in itertools.pairwise(scenes)]
    assert sum(grade.accuracy for grade in grades) / len(grades) < 0.35


def test_grading_a_caption_that_names_everything_is_quick() -> None:
    everything = " and ".join(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
    grade = grade_caption((RED_CIRCLE, BLUE_SQUARE), everything)
    assert (grade.right, grade.total) == (4, 2 * len(COLOURS) * len(SHAPES))


# ----------------------------------------------------------------------------------------------- files


def test_the_folder_is_read_like_any_other_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    write_drawn_dataset(folder, train=12, dev=3, test=4, seed=2, size=48)
    dataset = read_dataset(folder)
    assert dataset.counts() == {"train": 12, "dev": 3, "test": 4}
    assert dataset.problems == ()
    truth = read_scenes(folder)
    for image, scene in zip(dataset.images, draw_scenes(19, seed=2, size=48)):
        assert image.captions == scene.captions
        assert truth[image.path.name] == scene.objects
        with Image.open(image.path) as picture:
            assert equal(picture.convert("RGB"), scene.image)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_thousand_scenes_are_written_in_seconds(tmp_path: Path) -> None:
    started = time.process_time()
    write_drawn_dataset(tmp_path / "drawn", train=1000, dev=0, test=0)
    assert time.process_time() - started < 6  # about 1.7 s; the processor's time, whatever else is running


def test_what_lies_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(DataError, match="exists and is not an empty folder"):
        write_drawn_dataset(tmp_path, train=1, dev=0, test=0)
    with pytest.raises(DataError, match="exists and is not an empty folder"):
        write_drawn_dataset(tmp_path / "kept.txt", train=1, dev=0, test=0)
    (tmp_path / "empty").mkdir()
    write_drawn_dataset(tmp_path / "empty", train=1, dev=0, test=0)
    assert (tmp_path / "kept.txt").read_text() == "mine"
    assert {file.name for file in (tmp_path / "empty").iterdir()} == {
        "images",
        "captions.jsonl",
        "scenes.json",
    }


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        write_drawn_dataset(tmp_path / "drawn", train=5, dev=0, test=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 5, 5)])
def test_counts_that_make_no_sense_are_refused(tmp_path: Path, counts: tuple[int, int, int]) -> None:
    train, dev, test = counts
    with pytest.raises(
        UsageError, match=f"at least one scene.*Received: train={train}, dev={dev}, test={test}"
    ):
        write_drawn_dataset(tmp_path / "drawn", train=train, dev=dev, test=test)


def test_scenes_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"at least 32 pixels.*Received: 31"):
        draw_scenes(1, seed=0, size=31)
    with pytest.raises(UsageError, match=r"must not be negative\. Received: -1"):
        draw_scenes(-1, seed=0)
    with pytest.raises(UsageError, match="at least 32 pixels"):
        write_drawn_dataset(tmp_path / "drawn", train=1, dev=0, test=0, size=8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["{", "[{}]", '[{"image": "a.png", "objects": [{"shape": 1}]}]', "3", "[4]"]
)
def test_a_damaged_ground_truth_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "scenes.json").write_text(content)
    with pytest.raises(DataError, match="is not the ground truth of a drawn data set"):
        read_scenes(tmp_path)


def test_the_ground_truth_is_plain_json(tmp_path: Path) -> None:
    write_drawn_dataset(tmp_path / "drawn", train=1, dev=1, test=0, size=32)
    truths = json.loads((tmp_path / "drawn" / "scenes.json").read_text())
    assert [truth["split"] for truth in truths] == ["train", "dev"]
    assert set(truths[0]["objects"][0]) == {"shape", "colour", "size", "box"}
