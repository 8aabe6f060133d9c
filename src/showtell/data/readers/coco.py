"""MS-COCO's caption annotations: `captions_train2017.json` and its like (cocodataset.org, "Data format").

One file, or a folder that holds several, in itself or in `annotations/`. The file's name gives the split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from showtell.data.readers.gathering import (
    Gathering,
    clean_name,
    find_image_folder,
    read_json,
    split_in_name,
)
from showtell.data.readers.options import ReadOptions
from showtell.data.records import Dataset
from showtell.errors import DataError

_YEARS = ("train2017", "val2017", "test2017", "train2014", "val2014", "test2014", "test2015")


def find_files(folder: Path) -> list[Path]:
    """Returns the caption annotations of a folder, sorted by name."""
    for place in (folder, folder / "annotations"):
        files = sorted(file for file in place.glob("captions_*.json") if file.is_file())
        if files:
            return files
    return []


def read(path: Path, options: ReadOptions) -> Dataset:
    """Reads COCO caption annotations.

    Args:
        path: an annotation file or a folder with some.
        options: `images` is used.

    Returns:
        The images in the files' order; the id is COCO's number as text.

    Raises:
        DataError: no such file in the folder, no captions, a malformed entry, an id or a split given twice.
    """
    files = find_files(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no captions_*.json in this folder or its annotations/ (read as coco)")
    gathering = Gathering(path)
    for file in files:
        _read_file(file, options, gathering)
    return gathering.dataset("coco")


def _read_file(file: Path, options: ReadOptions, gathering: Gathering) -> None:
    content = read_json(file, gathering)
    entries, annotations = _lists(file, content)
    names: dict[str, str] = {}
    for index, entry in enumerate(entries):
        where = f"{file}: images[{index}]"
        id = _read_id(entry, "id", where)
        name = clean_name(entry.get("file_name"), where)
        if names.setdefault(id, name) != name:
            raise DataError(f"{where}: id {id} belongs to {names[id]!r} already, and now to {name!r}")
    folder = find_image_folder(_candidates(file), list(names.values()), options.images)
    split = split_in_name(file.stem)
    for id, name in names.items():
        image_path = folder / name
        if id in gathering and gathering.path(id).name != image_path.name:
            raise DataError(
                f"{file}: id {id} is {name!r} here, but {gathering.path(id).name!r} "
                f"in another file of {gathering.source}"
            )
        gathering.add_image(id, image_path, split)
    for index, annotation in enumerate(annotations):
        where = f"{file.name}: annotations[{index}]"
        id = _read_id(annotation, "image_id", f"{file}: annotations[{index}]")
        caption = annotation.get("caption")
        if not isinstance(caption, str):
            raise DataError(
                f"{file}: annotations[{index}] has no caption. Object and keypoint annotations cannot be "
                "used; COCO's captions are in captions_*.json"
            )
        if id not in names:
            message = f"A caption is for image {id}, which the file does not list; it is left out."
            gathering.report("unknown-image", where, message)
            continue
        gathering.add_caption(id, caption, where)


def _lists(file: Path, content: Any) -> tuple[list[Any], list[Any]]:
    if isinstance(content, list) and content and isinstance(content[0], dict) and "image_id" in content[0]:
        raise DataError(
            f"{file} holds COCO results (a list of image_id and caption), not annotations: "
            "captions that a model wrote are for scoring, not for training"
        )
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: a COCO file is an object with images and annotations. Received: {content!r:.60}"
        )
    lists = []
    for key in ("images", "annotations"):
        value = content.get(key)
        if not isinstance(value, list):
            raise DataError(
                f"{file}: COCO's list {key!r} is missing or no list. "
                f"Its keys are: {', '.join(content) or 'none'}"
            )
        lists.append(value)
    return lists[0], lists[1]


def _read_id(entry: Any, key: str, where: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"{where}: {key!r} must be a number or text. Received: {value!r}")
    return str(value)


def _candidates(file: Path) -> list[Path]:
    """Returns where COCO's images usually lie; the split and year in the annotation's name come first."""
    years = sorted(_YEARS, key=lambda year: year not in file.stem)
    folders = []
    for root in (file.parent, file.parent.parent):
        folders.append(root / "images")
        folders += [place / year for place in (root, root / "images") for year in years]
        folders.append(root)
    return folders
