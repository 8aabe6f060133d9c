"""Scenes one after the other, and a folder of them that the readers understand."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from showtell.data.drawn.pictures import draw_layout
from showtell.data.drawn.scenes import DrawnObject, arrange_layouts
from showtell.data.drawn.wording import describe_layout
from showtell.errors import DataError, UsageError

SMALLEST = 32  # pixels; below this the shapes cannot be told apart
CAPTIONS_FILE = "captions.jsonl"
SCENES_FILE = "scenes.json"


@dataclass(frozen=True)
class Scene:
    """A drawn scene with its ground truth."""

    image: Image.Image  # RGB, square
    objects: tuple[DrawnObject, ...]  # one or two
    relation: str | None  # of the first object to the second: one of RELATIONS; None for a single object
    captions: tuple[str, ...]  # five different true sentences


def draw_scenes(count: int, *, seed: int, size: int = 96) -> Iterator[Scene]:
    """Draws scenes, no two of them alike.

    The first scenes of a seed are the same whatever the count. What is drawn, where, and the captions do not
    depend on the size.

    Args:
        count: how many scenes.
        seed: another seed gives other scenes.
        size: width and height in pixels, at least 32.

    Raises:
        UsageError: a negative count, or a size below 32.
    """
    if count < 0:
        raise UsageError(f"The number of scenes must not be negative. Received: {count}")
    if size < SMALLEST:
        raise UsageError(
            f"A drawn scene must be at least {SMALLEST} pixels wide, or its shapes cannot be told apart. "
            f"Received: {size}"
        )
    return _draw(count, seed, size)


def _draw(count: int, seed: int, size: int) -> Iterator[Scene]:
    layouts = arrange_layouts(random.Random(f"layouts {seed}"))
    rng = random.Random(f"scenes {seed}")
    for _, layout in zip(range(count), layouts):
        captions = describe_layout(layout, rng=rng)
        yield Scene(draw_layout(layout, size=size, rng=rng), layout.objects, layout.relation, captions)


def write_drawn_dataset(
    folder: Path, *, train: int = 3000, dev: int = 200, test: int = 200, seed: int = 0, size: int = 96
) -> None:
    """Draws a data set into a new folder: `images/`, `captions.jsonl` and the ground truth, `scenes.json`.

    Everything is drawn beside the folder first and moved there when it is complete.

    Args:
        folder: it must not exist yet, or be empty.
        train: scenes in the split train.
        dev: scenes in the split dev.
        test: scenes in the split test; no scene of one split is alike to one of another.
        seed: another seed gives other scenes.
        size: width and height of the images in pixels.

    Raises:
        DataError: the folder is a file, or holds something.
        UsageError: a negative count, no scene at all, or a size below 32.
    """
    splits = ["train"] * train + ["dev"] * dev + ["test"] * test
    if min(train, dev, test) < 0 or not splits:
        raise UsageError(
            "A drawn data set needs at least one scene, and no negative number of them. "
            f"Received: train={train}, dev={dev}, test={test}"
        )
    scenes = draw_scenes(len(splits), seed=seed, size=size)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not an empty folder. Name another one, or remove it first.")

    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        (partial / "images").mkdir(parents=True)
        captions, truths = [], []
        for index, (split, scene) in enumerate(zip(splits, scenes)):
            name = f"images/{split}_{index:05d}.png"
            scene.image.save(partial / name, compress_level=1)
            captions.append(json.dumps({"image": name, "captions": scene.captions, "split": split}))
            objects = [asdict(thing) for thing in scene.objects]
            truths.append({"image": name, "split": split, "relation": scene.relation, "objects": objects})
        (partial / CAPTIONS_FILE).write_text("\n".join(captions) + "\n", encoding="utf-8")
        truth = ",\n".join(json.dumps(truth) for truth in truths)
        (partial / SCENES_FILE).write_text(f"[\n{truth}\n]\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_scenes(folder: Path) -> dict[str, tuple[DrawnObject, ...]]:
    """Reads the ground truth of a drawn data set.

    Returns:
        File name of the image, as "test_03200.png" -> its objects.

    Raises:
        DataError: there is no `scenes.json`, or it is damaged.
    """
    path = Path(folder) / SCENES_FILE
    try:
        truths: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {
            Path(truth["image"]).name: tuple(
                DrawnObject(**{**thing, "box": tuple(thing["box"])}) for thing in truth["objects"]
            )
            for truth in truths
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not the ground truth of a drawn data set: {error!r}") from error
