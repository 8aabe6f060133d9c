"""Flickr8k's and Flickr30k's own layout: a token file, and lists of image names per split.

`Flickr8k.token.txt` and `results_20130124.token` hold `name.jpg#0<TAB>caption`;
`Flickr_8k.trainImages.txt` and its like one image name a line (Hodosh, Young and Hockenmaier 2013; Young
et al. 2014).

Flickr8k's token file has an entry for `2258277193_586949ec62.jpg.1`, an image that was never there. Such
a ghost, in no split list and without a file, is reported and left out.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from showtell.data.readers.gathering import (
    Gathering,
    clean_name,
    find_image_folder,
    listing,
    read_lines,
    split_in_name,
)
from showtell.data.readers.options import ReadOptions
from showtell.data.records import Dataset
from showtell.errors import DataError, count
from showtell.images import IMAGE_SUFFIXES

TOKEN_LINE = re.compile(r"^(?P<name>[^\t]+)#(?P<number>\d+)\t(?P<caption>.*)$", re.DOTALL)
_IMAGE_FOLDERS = (
    "images",
    "Images",
    "Flicker8k_Dataset",  # the distributors' own spelling
    "Flickr8k_Dataset",
    "Flicker8k_Dataset/Flicker8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
    "flickr30k_images/flickr30k_images",
)


def find_files(folder: Path) -> list[Path]:
    """Returns the folder's raw token files; Flickr8k's lemmatised captions are not among them."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and file.suffix.lower() in (".txt", ".token", ".csv")
        and "lemma" not in file.name.lower()
        and is_token_file(file)
    ]


def is_token_file(file: Path) -> bool:
    """Returns whether the first line that is not blank reads `name#number<TAB>caption`."""
    try:
        with file.open("rb") as stream:
            head = stream.read(16384).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    except OSError:
        return False
    first = next((line for line in head.split("\n") if line.strip()), "")
    return TOKEN_LINE.match(first) is not None


def read(path: Path, options: ReadOptions) -> Dataset:
    """Reads a token file and the split lists beside it.

    Args:
        path: the token file, or a folder that holds exactly one.
        options: `images` is used.

    Returns:
        The images in the token file's order; the id is the file name. An image in no list has no split.

    Raises:
        DataError: no or several token files, an image in two lists, a name that leads out of the folder.
    """
    file = _find_file(path)
    gathering = Gathering(path)
    captions: dict[str, list[tuple[str, str]]] = {}  # image name -> (caption, where)
    for number, line in read_lines(file, file.name, gathering):
        where = f"{file.name}:{number}"
        match = TOKEN_LINE.match(line)
        if match is None:
            gathering.report("bad-line", where, "The line is not `name#number<TAB>caption`; it is left out.")
            continue
        name = clean_name(match["name"], f"{file}:{number}")
        captions.setdefault(name, []).append((match["caption"], where))

    splits = _read_split_lists(file, captions, gathering)
    names = list(dict.fromkeys([*captions, *splits]))
    places = [file.parent / place for place in _IMAGE_FOLDERS]
    folder = find_image_folder([*places, file.parent], names, options.images)
    for name in names:
        if name not in splits and name in captions and _is_ghost(name, folder, bool(splits)):
            gathering.report(
                "ghost-entry",
                captions[name][0][1],
                f"{count(len(captions[name]), 'caption')} for {name!r}, which is in no split list and has no "
                "image file; the entry is left out.",
            )
            continue
        gathering.add_image(name, folder / name)
        for split in splits.get(name, ()):
            gathering.add_image(name, folder / name, split)
        for caption, where in captions.get(name, ()):
            gathering.add_caption(name, caption, where)
    return gathering.dataset("flickr")


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = find_files(path)
    if len(files) != 1:
        found = listing([file.name for file in files]) or "none"
        raise DataError(
            f"{path}: exactly one token file (lines of `name.jpg#0<TAB>caption`) is expected. "
            f"Found: {found}. Name the file itself"
        )
    return files[0]


def _read_split_lists(
    token_file: Path, captions: dict[str, list[tuple[str, str]]], gathering: Gathering
) -> dict[str, list[str]]:
    """Returns image name -> splits, from every list of names beside the token file."""
    splits: dict[str, list[str]] = {}
    for file in sorted(token_file.parent.glob("*.txt")):
        split = split_in_name(file.name)
        if split is None or file == token_file or not file.is_file():
            continue
        lines = read_lines(file, file.name, gathering)
        if not any(_is_image_name(line.strip(), captions) for _, line in lines[:10]):
            continue  # a readme, captions, scores
        for number, line in lines:
            name = clean_name(line, f"{file}:{number}")
            if name not in captions and f"{name}.jpg" in captions:  # Flickr30k's lists go without the suffix
                name = f"{name}.jpg"
            splits.setdefault(name, []).append(split)
    return splits


def _is_image_name(line: str, captions: dict[str, list[tuple[str, str]]]) -> bool:
    if line in captions or f"{line}.jpg" in captions:
        return True
    return "\t" not in line and PurePosixPath(line).suffix.lower() in IMAGE_SUFFIXES


def _is_ghost(name: str, folder: Path, has_lists: bool) -> bool:
    """Returns whether an entry in no split list has no image either.

    Without any lists a missing file alone does not make a ghost (it may just not be there yet); a name
    that is no image's name does.
    """
    if (folder / name).is_file():
        return False
    return has_lists or PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES
