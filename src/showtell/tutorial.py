"""The training tutorial: draws scenes, trains a small captioner on them, and shows it at work on scenes it never saw.

The recipe `drawn-shapes` is made for two slow cores: a tiny ResNet of timm's from random weights (3x3 convolutions
train quickly on a CPU, depthwise ones do not), 96 pixels and an output stride of 16, which give attention 6x6 cells
to choose from, and a decoder of 128 units. What else was tried stands in docs/experiments.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from showtell.captioner import CaptionedPicture, Captioner
from showtell.data.drawn import (
    COLOURS,
    SHAPES,
    DrawnObject,
    Grade,
    grade_caption,
    read_scenes,
    write_drawn_dataset,
)
from showtell.data.records import CaptionedImage, Dataset
from showtell.data.source import read_dataset
from showtell.errors import TrainingInterrupted, UsageError, require_framework
from showtell.explain import draw_attention_row, draw_sheet
from showtell.files import write_atomically, write_json
from showtell.images import open_image
from showtell.recipes import load_recipe

if TYPE_CHECKING:
    from showtell.training import Watcher

RECIPE = "drawn-shapes"
SCENES = {"train": 3000, "dev": 100, "test": 200}
SCENE_SIZE = 96  # pixels, as the encoder sees them: nothing is resampled
SHOWN = {"pair": 5, "inside": 1, "twins": 1, "single": 1}  # how many scenes of each kind are in the picture
PLACES = {"left", "right", "above", "over", "top", "below", "under", "bottom", "inside", "within", "around"}
CONTENT_WORDS = {*COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES), "crosses", "two", *PLACES}
TILES, TILE_WIDTH, COLUMNS = 6, 112, 2  # a scene and five words in a row; rows beside each other


def run_tutorial(output: Path, *, seed: int = 0, watcher: Watcher | None = None) -> Path:
    """Draws scenes, trains on them, and draws the picture; what an earlier call finished is not done again.

    Args:
        output: a folder for scenes, run and picture; one that an earlier call with the same seed left goes on.
        seed: of scenes and training.
        watcher: is told how it goes.

    Returns:
        The path of the picture.

    Raises:
        UsageError: the folder holds a tutorial with another seed.
        TrainingInterrupted: Ctrl-C; the run was saved.
    """
    dataset = prepare_scenes(output, seed=seed)
    captioner = train_captioner(dataset, output / "run", seed=seed, watcher=watcher)
    test = dataset.split("test").images
    pictures = list(captioner.caption(image.path for image in test))
    truths = read_scenes(output / "scenes")
    grades = grade_captions([truths[image.path.name] for image in test], pictures)
    share = sum(grade.right for grade in grades) / sum(grade.total for grade in grades)
    whole = sum(grade.right == grade.total for grade in grades)
    verdict = f"{share:.1%} of the colours and shapes are right"
    if watcher is not None:
        watcher.note(f"{len(test)} unseen scenes: {verdict}, {whole} captions without any mistake")
    path = output / "tutorial.png"
    title = (
        f"A captioner that learnt from {SCENES['train']:,} drawn scenes, on scenes it never saw: {verdict}."
    )
    buffer = io.BytesIO()
    draw_tutorial(captioner, test, pictures, truths, title).save(buffer, format="png", optimize=True)
    write_atomically(path, buffer.getvalue())
    return path


def prepare_scenes(output: Path, *, seed: int) -> Dataset:
    """Draws the scenes into `output/scenes`, or reads those that are there.

    Raises:
        UsageError: they were drawn with another seed or by another version.
    """
    output.mkdir(parents=True, exist_ok=True)
    record = {"seed": seed, "scenes": SCENES, "size": SCENE_SIZE}
    path, folder = output / "tutorial.json", output / "scenes"
    if path.is_file():
        try:
            drawn = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            drawn = None
        if drawn != record:
            raise UsageError(
                f"{path}: this folder holds another tutorial ({json.dumps(drawn)}; asked for: "
                f"{json.dumps(record)}). Remove it, or choose another --output."
            )
    if not path.is_file() or not folder.exists():
        write_json(path, record)
        write_drawn_dataset(folder, **SCENES, seed=seed, size=SCENE_SIZE)
    return read_dataset(folder)


def train_captioner(dataset: Dataset, run: Path, *, seed: int, watcher: Watcher | None = None) -> Captioner:
    """Trains the recipe, or goes on where an earlier call was interrupted, and opens the best captioner."""
    require_framework("Training")
    from showtell.training import train  # torch takes seconds to import

    try:
        train(load_recipe(RECIPE, [f"training.seed={seed}"]), dataset, run, resume=True, watcher=watcher)
    except TrainingInterrupted:
        raise TrainingInterrupted("stopped and saved. Go on with the same command.") from None
    return Captioner.load(run)


def grade_captions(
    truths: Sequence[Sequence[DrawnObject]], pictures: Sequence[CaptionedPicture]
) -> list[Grade]:
    """Grades each picture's caption against the objects of the scene at the same place."""
    return [grade_caption(objects, picture.text) for objects, picture in zip(truths, pictures, strict=True)]


def draw_tutorial(
    captioner: Captioner,
    images: Sequence[CaptionedImage],
    pictures: Sequence[CaptionedPicture],
    truths: dict[str, tuple[DrawnObject, ...]],
    title: str,
) -> Image.Image:
    """Draws the first scenes of each kind, chosen by what they show and not by how well they were captioned."""
    left = dict(SHOWN)
    rows = []
    for image, picture in zip(images, pictures, strict=True):
        kind = find_kind(truths[image.path.name])
        if left[kind] == 0:
            continue
        left[kind] -= 1
        row = draw_attention_row(
            open_image(image.path),
            picture.captions[0],
            picture.grid,
            captioner.backend.preprocessing,
            words=CONTENT_WORDS,
            tiles=TILES,
            width=TILE_WIDTH,
        )
        rows.append(row)
    return draw_sheet(rows, title, columns=COLUMNS)


def find_kind(objects: Sequence[DrawnObject]) -> str:
    """Returns "single", "twins" (two alike), "inside" or "pair"."""
    if len(objects) == 1:
        return "single"
    first, second = objects
    if (first.shape, first.colour) == (second.shape, second.colour):
        return "twins"
    contained = all(inner >= outer for inner, outer in zip(first.box[:2], second.box[:2])) and all(
        inner <= outer for inner, outer in zip(first.box[2:], second.box[2:])
    )
    return "inside" if contained else "pair"
