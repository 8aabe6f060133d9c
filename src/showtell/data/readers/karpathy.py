"""Karpathy's data set JSON: `dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`.

The splits that most papers report on (Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments", 2015).
COCO's has a fourth split, `restval`: the validation images that are neither dev nor test. Most papers
train on them, some do not, and the scores differ; so it is the caller's explicit choice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from showtell.data.readers.gathering import (
    Gathering,
    clean_name,
    find_image_folder,
    read_json,
    read_split,
)
from showtell.data.readers.options import ReadOptions
from showtell.data.records import Dataset
from showtell.errors import DataError, SplitError, UsageError, did_you_mean

RESTVAL = ("train", "drop")


def read(path: Path, options: ReadOptions) -> Dataset:
    """Reads one of Karpathy's data set files.

    Args:
        path: the JSON file, or a folder that holds exactly one.
        options: `images` and `restval` are used.

    Returns:
        The images in the file's order; the id is `cocoid` as text, or else the file name.

    Raises:
        SplitError: there are images in `restval` and no choice was made.
        UsageError: `restval` is neither "train" nor "drop".
        DataError: a malformed entry, or an id given twice.
    """
    if options.restval is not None and options.restval not in RESTVAL:
        raise UsageError(
            f"restval must be 'train' or 'drop'. Received: {options.restval!r}."
            f"{did_you_mean(options.restval, RESTVAL)}"
        )
    file = _find_file(path)
    gathering = Gathering(path)
    content = read_json(file, gathering)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{file}: a Karpathy file is an object with a list 'images', which is missing")

    names = [_read_name(entry, f"{file}: images[{index}]") for index, entry in enumerate(entries)]
    _check_restval(file, entries, options.restval)
    paths = _find_paths(file, names, options.images)
    for index, (entry, image_path) in enumerate(zip(entries, paths)):
        where = f"{file.name}: images[{index}]"
        split = entry.get("split")
        if split == "restval":
            if options.restval == "drop":
                continue
            split = "train"
        id = str(entry["cocoid"]) if entry.get("cocoid") is not None else names[index][1]
        if id in gathering:
            raise DataError(
                f"{file}: images[{index}]: id {id} is given to a second image, {image_path.name!r}"
            )
        gathering.add_image(id, image_path, read_split(split, f"{file}: images[{index}]"))
        for caption in _read_captions(entry, f"{file}: images[{index}]"):
            gathering.add_caption(id, caption, where)
    return gathering.dataset("karpathy")


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("dataset*.json")) or sorted(path.glob("*.json"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise DataError(f"{path}: exactly one dataset_*.json is expected (read as karpathy). Found: {found}")
    return files[0]


def _read_name(entry: Any, where: str) -> tuple[str, str]:
    """Returns (sub-folder or "", file name)."""
    if not isinstance(entry, dict):
        raise DataError(f"{where} must be an object. Received: {entry!r}")
    name = clean_name(entry.get("filename"), where)
    return clean_name(entry["filepath"], where) if entry.get("filepath") else "", name


def _check_restval(file: Path, entries: list[Any], restval: str | None) -> None:
    number = sum(entry.get("split") == "restval" for entry in entries)
    if number and restval is None:
        raise SplitError(
            f"{file}: {number} of {len(entries)} images are in the split 'restval'; choose what "
            "becomes of them: restval='train' trains on them, as most papers do; "
            "restval='drop' leaves them out (on the command line: --restval train or --restval drop)"
        )


def _find_paths(file: Path, names: list[tuple[str, str]], images: Path | None) -> list[Path]:
    """Returns the image files, in the sub-folders that the JSON names or, where those are absent, without."""
    candidates = [
        root / place for root in (file.parent, file.parent.parent) for place in ("images", "Images", "")
    ]
    nested = [f"{subfolder}/{name}" if subfolder else name for subfolder, name in names]
    flat = [name for _, name in names]
    paths = []
    for layout in (nested, flat):
        folder = find_image_folder(candidates, layout, images)
        paths.append([folder / name for name in layout])
    probes = range(0, len(names), max(1, len(names) // 40))
    hits = [sum(layout[probe].is_file() for probe in probes) for layout in paths]
    return paths[1] if hits[1] > hits[0] else paths[0]


def _read_captions(entry: dict[str, Any], where: str) -> list[str]:
    sentences = entry.get("sentences")
    if not isinstance(sentences, list):
        raise DataError(f"{where} has no list 'sentences'")
    captions = []
    for sentence in sentences:
        raw = sentence.get("raw") if isinstance(sentence, dict) else None
        if raw is None and isinstance(sentence, dict) and isinstance(sentence.get("tokens"), list):
            raw = " ".join(map(str, sentence["tokens"]))
        if not isinstance(raw, str):
            raise DataError(f"{where}: a sentence has no text 'raw'. Received: {sentence!r}")
        captions.append(raw)
    return captions
