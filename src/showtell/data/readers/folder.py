"""A folder of images, each with a text file of the same name beside it, one caption a line.

Sub-folders named train, dev (or val, valid, validation) and test give the split.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from showtell.data.readers.gathering import Gathering, find_image_folder, read_lines, split_of_folder
from showtell.data.readers.options import ReadOptions
from showtell.data.records import Dataset
from showtell.errors import DataError, count
from showtell.images import IMAGE_SUFFIXES

_TEXT_SUFFIX = ".txt"


def has_sidecars(folder: Path) -> bool:
    """Returns whether any image in the folder or below has captions beside it."""
    for place, names in _walk(folder):
        present = set(names)
        if any(_sidecar(name, present) is not None for name in names if _is_image(place / name)):
            return True
    return False


def count_images(folder: Path) -> int:
    """Returns the number of image files in the folder and below, by their suffix."""
    return sum(_is_image(place / name) for place, names in _walk(folder) for name in names)


def read(path: Path, options: ReadOptions) -> Dataset:
    """Reads a folder of images with sidecar text files.

    Args:
        path: the folder.
        options: `images`: the images lie there, and `path` holds the text files in the same sub-folders.

    Returns:
        The images sorted by name; the id is the path relative to the folder, with forward slashes.

    Raises:
        DataError: no folder, or no image in it has captions.
    """
    if not path.is_dir():
        raise DataError(f"{path} is a file; a folder of images with text files beside them is expected")
    gathering = Gathering(path)
    root = find_image_folder([path], [], options.images)
    used: set[Path] = set()
    texts = {place.relative_to(path): set(names) for place, names in _walk(path)}
    for place, names in _walk(root):
        relative = place.relative_to(root)
        split = split_of_folder(relative.parts[0]) if relative.parts else None
        for name in names:
            if not _is_image(place / name):
                continue
            id = (relative / name).as_posix()
            gathering.add_image(id, place / name, split)
            sidecar = _sidecar(name, texts.get(relative, set()))
            if sidecar is None:
                continue
            used.add(relative / sidecar)
            where = (relative / sidecar).as_posix()
            for number, line in read_lines(path / relative / sidecar, where, gathering):
                gathering.add_caption(id, line, f"{where}:{number}")
    _report_orphans(texts, used, gathering)
    if not gathering.ids():
        raise DataError(f"{root}: no image files in this folder (read as folder)")
    if not used:
        raise DataError(
            f"{path}: {count(len(gathering.ids()), 'image')}, but no captions: a text file of the same "
            "name is expected beside each image, as dog.txt for dog.jpg, with one caption a line"
        )
    return gathering.dataset("folder")


def _report_orphans(texts: dict[Path, set[str]], used: set[Path], gathering: Gathering) -> None:
    for place, names in texts.items():
        for name in sorted(names):
            if name.lower().endswith(_TEXT_SUFFIX) and place / name not in used and not _is_note(name):
                where = (place / name).as_posix()
                message = f"{where} has no image beside it; it is left out."
                gathering.report("orphan-captions", where, message, "warning")


def _is_note(name: str) -> bool:
    return name.lower().split(".")[0] in ("readme", "license", "licence", "notes", "changelog")


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields (folder, sorted file names), without what is hidden or left behind by macOS."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield Path(place), sorted(name for name in names if not name.startswith("."))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES


def _sidecar(name: str, present: set[str]) -> str | None:
    """Returns the text file for an image: `dog.txt` or `dog.jpg.txt` for `dog.jpg`."""
    for candidate in (Path(name).with_suffix(_TEXT_SUFFIX).name, name + _TEXT_SUFFIX):
        if candidate in present:
            return candidate
    return None
