"""The tutorial, from drawing to the picture: trained once, by the same path as `make tutorial`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import showtell.tutorial
from showtell.captioner import CaptionedPicture, Captioner
from showtell.captioning import Caption
from showtell.cli.main import main
from showtell.data.drawn import SHAPES, DrawnObject, draw_scenes, read_scenes
from showtell.data.source import read_dataset
from showtell.errors import TrainingInterrupted, UsageError
from showtell.explain import draw_attention_row
from showtell.images import Preprocessing
from showtell.tutorial import find_kind, grade_captions, run_tutorial

PREPROCESSING = Preprocessing(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Recorder:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, description: str, total: int, unit: str) -> None:
        self.stages.append(description)

    def advance(self, amount: int, **values: float) -> None:
        pass

    def note(self, message: str) -> None:
        self.notes.append(message)


class Impatient(Recorder):
    """A watcher that presses Ctrl-C as soon as something has moved."""

    def advance(self, amount: int, **values: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="session")
def unseen(finished: Path) -> tuple[list[tuple[DrawnObject, ...]], list[CaptionedPicture]]:
    """The ground truth of the unseen scenes, and what the trained captioner says about them."""
    images = read_dataset(finished / "scenes").split("test").images
    truths = read_scenes(finished / "scenes")
    pictures = list(Captioner.load(finished / "run").caption(image.path for image in images))
    return [truths[image.path.name] for image in images], pictures


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The output folder of a tutorial that takes seconds: a few scenes, two short epochs."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text('base = "drawn-shapes"\n[training]\nepochs = 2\nbatch_size = 8\n')
    monkeypatch.setattr(showtell.tutorial, "RECIPE", str(recipe))
    monkeypatch.setattr(showtell.tutorial, "SCENES", {"train": 24, "dev": 4, "test": 30})
    return tmp_path / "output"


def accuracy(truths: list[tuple[DrawnObject, ...]], pictures: list[CaptionedPicture]) -> float:
    grades = grade_captions(truths, pictures)
    return sum(grade.right for grade in grades) / sum(grade.total for grade in grades)


def test_the_trained_model_names_colours_and_shapes_of_unseen_scenes(unseen) -> None:  # type: ignore[no-untyped-def]
    truths, pictures = unseen
    assert len(pictures) == 200
    assert accuracy(truths, pictures) >= 0.9


def test_captions_of_shuffled_images_fail(unseen) -> None:  # type: ignore[no-untyped-def]
    truths, pictures = unseen
    assert accuracy(truths, pictures[1:] + pictures[:1]) < 0.5


def test_attention_lies_on_the_object_that_is_named(unseen) -> None:  # type: ignore[no-untyped-def]
    """Over all unseen pairs, the attention at the word for an object's shape lies on its box far above chance."""
    on_box, by_chance = [], []
    for objects, picture in zip(*unseen, strict=True):
        if find_kind(objects) != "pair" or objects[0].shape == objects[1].shape:
            continue
        caption, (rows, columns) = picture.captions[0], picture.grid
        assert caption.attention is not None
        for word, weights in zip(caption.words, caption.attention, strict=True):
            for thing in objects:
                if word == thing.shape:
                    inside = cells_inside(thing, rows, columns)
                    on_box.append(weights[inside].sum())
                    by_chance.append(inside.mean())
    assert len(on_box) > 100
    assert np.mean(on_box) > 2 * np.mean(by_chance)


def cells_inside(thing: DrawnObject, rows: int, columns: int) -> np.ndarray:
    left, upper, right, lower = thing.box
    y, x = (np.arange(rows)[:, None] + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    return ((y >= upper) & (y <= lower) & (x >= left) & (x <= right)).ravel()


def test_the_picture_is_small_and_readable(finished: Path) -> None:
    path = finished / "tutorial.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 1200 <= picture.width <= 1800
        assert 500 <= picture.height <= 1000
    assert path.stat().st_size < 400_000


def test_a_finished_tutorial_only_redraws_its_picture(finished: Path) -> None:
    before = (finished / "tutorial.png").read_bytes()
    stamps = {
        path: path.stat().st_mtime_ns
        for path in finished.rglob("*")
        if path.suffix in (".png", ".safetensors")
    }
    (finished / "tutorial.png").unlink()
    watcher = Recorder()
    assert run_tutorial(finished, watcher=watcher) == finished / "tutorial.png"
    assert (finished / "tutorial.png").read_bytes() == before
    assert watcher.stages == []  # no epoch, no evaluation
    assert any(
        re.search(r"200 unseen scenes: [\d.]+% of the colours and shapes are right", note)
        for note in watcher.notes
    )
    del stamps[finished / "tutorial.png"]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_an_interrupted_tutorial_goes_on(tiny: Path) -> None:
    with pytest.raises(TrainingInterrupted, match=r"stopped and saved\. Go on with the same command\.$"):
        run_tutorial(tiny, watcher=Impatient())
    assert not (tiny / "tutorial.png").exists()
    scenes = (tiny / "scenes" / "captions.jsonl").stat().st_mtime_ns
    watcher = Recorder()
    assert run_tutorial(tiny, watcher=watcher).is_file()
    assert "resumed after epoch 0, batch 1" in watcher.notes
    assert (tiny / "scenes" / "captions.jsonl").stat().st_mtime_ns == scenes


def test_a_folder_with_another_seed_is_refused(tiny: Path) -> None:
    run_tutorial(tiny, seed=1)
    with pytest.raises(
        UsageError, match=r'holds another tutorial .*"seed": 1.*asked for: .*"seed": 2.*--output'
    ):
        run_tutorial(tiny, seed=2)
    (tiny / "tutorial.json").write_text("{")
    with pytest.raises(UsageError, match="holds another tutorial"):
        run_tutorial(tiny, seed=1)


def test_the_command_prints_the_path_of_the_picture_last(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tutorial", "--output", str(tiny)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tiny / 'tutorial.png'}\n"
    assert "30 unseen scenes: " in printed.err


def test_importing_the_tutorial_needs_no_torch(clean_environment: dict[str, str]) -> None:
    code = "import sys, showtell.tutorial; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment)


def test_kinds_of_scenes() -> None:
    kinds = set()
    for scene in draw_scenes(60, seed=3, size=32):
        kind = find_kind(scene.objects)
        kinds.add(kind)
        assert (kind == "single") == (scene.relation is None)
        assert (kind == "inside") == (scene.relation == "inside")
    assert kinds == {"single", "twins", "inside", "pair"}


@pytest.mark.parametrize("text", ["a red star", "a red star above a blue star over a red circle", "nothing"])
def test_rows_are_equally_wide(text: str) -> None:
    attention = np.full((len(text.split()), 4), 0.25, dtype=np.float32)
    caption = Caption(text, 0.0, 0.0, (), attention)
    row = draw_attention_row(
        Image.new("RGB", (64, 64)), caption, (2, 2), PREPROCESSING, words={"red", *SHAPES}, tiles=4, width=50
    )
    assert row.width == 10 + 4 * (50 + 10)


def test_a_row_shows_the_chosen_words_alone() -> None:
    looks = np.zeros((3, 4), dtype=np.float32)
    looks[1, 0] = looks[2, 3] = 1.0  # "red": upper left; "star": lower right
    caption = Caption("a red star", 0.0, 0.0, (), looks)
    white = Image.new("RGB", (64, 64), "white")
    row = np.asarray(
        draw_attention_row(white, caption, (2, 2), PREPROCESSING, words={"red", "star"}, tiles=3, width=60),
        dtype=float,
    )
    warmth = row[..., 0] - row[..., 2]
    red, star = (warmth[-70:-10, 10 + place * 70 : 70 + place * 70] for place in (1, 2))
    assert red[:20, :20].mean() > 50 > 1 > red[40:, 40:].mean()
    assert star[40:, 40:].mean() > 50 > 1 > star[:20, :20].mean()
