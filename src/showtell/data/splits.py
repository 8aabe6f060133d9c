"""Splits by image: made once, seeded, stored, and applied again.

All captions of an image go where the image goes, and near-duplicate images go together. Which images land
where depends on their ids and the seed alone, never on the order of the file they came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from showtell.data.records import SPLITS, CaptionedImage, Dataset
from showtell.errors import SplitError, count, did_you_mean
from showtell.files import write_json

UNSPLIT_CHOICES = ("error", "split", "train", "dev", "test", "drop")
DEFAULT_FRACTIONS: Mapping[str, float] = {"dev": 0.1, "test": 0.1}
FORMAT_VERSION = 1
SPLITS_FILE = "splits.json"  # what it is called in the folder of a run


@dataclass(frozen=True)
class SavedSplits:
    """What a splits file holds."""

    splits: Mapping[str, tuple[str, ...]]  # split -> sorted image ids
    fingerprint: str  # of the data set that was split: `Dataset.fingerprint()`
    seed: int | None  # that the split was made with; None where the data set came with its own


def resolve_splits(
    dataset: Dataset,
    *,
    unsplit: str = "error",
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    groups: Sequence[Collection[str]] = (),
) -> Dataset:
    """Returns the data set with every image in a split, after the given choice for those that have none.

    Args:
        dataset: images that have a split keep it.
        unsplit: what happens to the others: "error" refuses; "split" divides them by `fractions`; "train",
            "dev" and "test" put them all there; "drop" leaves them out.
        fractions: for "split": the parts that are not train, as `{"dev": 0.1, "test": 0.1}`.
        seed: for "split".
        groups: for "split": sets of image ids that stay together, as `find_duplicates` gives them.

    Raises:
        SplitError: images without a split and `unsplit="error"`, an unknown choice, or fractions that cannot
            be met.
    """
    if unsplit not in UNSPLIT_CHOICES:
        raise SplitError(
            f"Images without a split can be treated in these ways: {', '.join(UNSPLIT_CHOICES)}. "
            f"Received: {unsplit!r}.{did_you_mean(unsplit, UNSPLIT_CHOICES)}"
        )
    loose = [image.id for image in dataset.images if image.split is None]
    if not loose:
        return dataset
    if unsplit == "split":
        return assign_splits(dataset, fractions=fractions, seed=seed, groups=groups)
    if unsplit == "drop":
        kept = tuple(image for image in dataset.images if image.split is not None)
        if not kept:
            raise SplitError(
                f"No image of data set {dataset.name!r} has a split, so dropping those without one leaves "
                "nothing. Use --unsplit split to divide them, or --unsplit train to train on all of them."
            )
        return replace(dataset, images=kept)
    if unsplit != "error":
        return _place(dataset, dict.fromkeys(loose, unsplit))
    example = f"for example {loose[0]!r}" if len(loose) > 1 else repr(loose[0])
    raise SplitError(
        f"{len(loose):,} of {len(dataset.images):,} images of data set {dataset.name!r} have no split "
        f"({example}). Say what should happen to them: --unsplit split (divided by image into train, dev "
        "and test), --unsplit train, --unsplit dev or --unsplit test (all of them there), or "
        "--unsplit drop (left out)."
    )


def assign_splits(
    dataset: Dataset,
    *,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int,
    groups: Sequence[Collection[str]] = (),
) -> Dataset:
    """Divides the images that have no split yet; the others keep theirs.

    Units (a group, or a single image) are taken in an order that a hash of seed and id gives, and each goes
    to the first of test and dev that has room for all of it, otherwise to train; so counts are met exactly as
    long as single images are left. A unit that has a member with a split follows it; where it has members in
    several splits already, it follows the one nearest to train, since another copy there leaks nothing new.

    Args:
        dataset: captioned images.
        fractions: the parts of the divided images that are not train, as `{"dev": 0.1, "test": 0.1}`.
        seed: another seed gives another split.
        groups: sets of image ids that must not be separated, as `find_duplicates` gives them; sets that share
            an id are joined.

    Raises:
        SplitError: a fraction outside 0..1, an unknown split, fractions that leave nothing for train, a group
            with an unknown id, or a split that would be empty.
    """
    check_fractions(fractions)
    placed = {image.id: image.split for image in dataset.images}
    if len(placed) != len(dataset.images):
        raise SplitError(f"Data set {dataset.name!r} has two images with the same id; ids must be unique.")
    loose_count = sum(split is None for split in placed.values())
    room = {split: round(fractions[split] * loose_count) for split in reversed(SPLITS) if split in fractions}

    units = _join_groups(placed, groups, dataset.name)
    assigned: dict[str, str] = {}
    for unit in sorted(units, key=lambda unit: _rank(seed, unit[0])):
        loose = [id for id in unit if placed[id] is None]
        present = [split for split in SPLITS if any(placed[id] == split for id in unit)]
        if present:
            choice = present[0]
        else:
            choice = next((split for split, left in room.items() if left >= len(loose)), "train")
            if choice != "train":
                room[choice] -= len(loose)
        assigned.update(dict.fromkeys(loose, choice))

    result = _place(dataset, assigned)
    counts = result.counts()
    empty = [split for split in SPLITS if (split == "train" or split in fractions) and not counts.get(split)]
    if loose_count and empty:
        raise SplitError(
            f"Dividing {loose_count:,} images of data set {dataset.name!r} by {dict(fractions)} leaves no "
            f"image for {' and '.join(empty)}. Use larger fractions, fewer parts, or more images."
        )
    return result


def draw_images(dataset: Dataset, count: int, *, seed: int) -> Dataset:
    """Returns `count` images, or all where there are not so many, chosen and ordered by a hash of seed and id."""
    ordered = sorted(dataset.images, key=lambda image: _rank(seed, image.id))
    return replace(dataset, images=tuple(ordered[:count]))


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Checks the parts of a split.

    Raises:
        SplitError: no part, an unknown one, "train" itself, a fraction outside 0..1, or a sum of 1 or more.
    """
    parts = SPLITS[1:]
    if not fractions:
        raise SplitError(
            "The fractions name no split. Give at least one, as {'dev': 0.1}; the rest is train."
        )
    for split, fraction in fractions.items():
        if split == "train":
            raise SplitError("The fractions must not name 'train': it gets what the other splits leave.")
        if split not in parts:
            alias = (
                " Did you mean 'dev'?"
                if split in ("val", "valid", "validation")
                else did_you_mean(split, parts)
            )
            raise SplitError(f"There is no split {split!r}.{alias} The parts are: {', '.join(parts)}.")
        if not 0 < fraction < 1:  # NaN fails too
            raise SplitError(f"The fraction of a split must be between 0 and 1. Received: {split}={fraction}")
    if sum(fractions.values()) >= 1:
        raise SplitError(
            "The fractions must leave something for train: their sum must be below 1. Received: "
            f"{dict(fractions)}, together {sum(fractions.values()):g}"
        )


def apply_splits(
    dataset: Dataset, splits: Mapping[str, Collection[str]], *, unlisted: str = "error"
) -> Dataset:
    """Puts every image into the split that a stored mapping gives it; splits it had before are forgotten.

    Args:
        dataset: captioned images.
        splits: split -> image ids, as `load_splits(path).splits`.
        unlisted: for images that the mapping does not name: "error" or "drop".

    Raises:
        SplitError: an unknown split or id, an id in two splits, or an image that no split names.
    """
    if unlisted not in ("error", "drop"):
        raise SplitError(f"unlisted must be 'error' or 'drop'. Received: {unlisted!r}")
    placed = _invert(splits, f"The splits for data set {dataset.name!r}")
    known = {image.id for image in dataset.images}
    foreign = sorted(placed.keys() - known)
    if foreign:
        raise SplitError(
            f"The splits name {count(len(foreign), 'image')} that data set {dataset.name!r} does not have, "
            f"for example {foreign[0]!r}. They belong to another data set, or images were removed: make the "
            "split again."
        )
    missing = sorted(known - placed.keys())
    if missing and unlisted == "error":
        raise SplitError(
            f"{count(len(missing), 'image')} of data set {dataset.name!r} in none of the splits, for example "
            f"{missing[0]!r}. Images were added or left out when the split was made: make it again, or leave them "
            "out with unlisted='drop' (on the command line: --unsplit drop)."
        )
    kept = tuple(image for image in dataset.images if image.id in placed)
    return _place(replace(dataset, images=kept), placed)


def save_splits(dataset: Dataset, path: Path, *, seed: int | None = None) -> None:
    """Writes which image is in which split, as JSON; an earlier file is replaced whole or not at all.

    Args:
        dataset: every image has a split.
        path: the file, as `run/splits.json`; its folder must exist.
        seed: that the split was made with; None for a split that came with the data.

    Raises:
        SplitError: an image without a split.
        OSError: the disk is full or the folder is not writable; an earlier file is untouched.
    """
    loose = [image.id for image in dataset.images if image.split is None]
    if loose:
        raise SplitError(
            f"{len(loose):,} images of data set {dataset.name!r} have no split, for example {loose[0]!r}; "
            "only complete splits can be saved. Call resolve_splits first."
        )
    splits = {
        split: sorted(image.id for image in dataset.images if image.split == split)
        for split in SPLITS
        if dataset.counts().get(split)
    }
    content = {
        "format_version": FORMAT_VERSION,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint(),
        "seed": seed,
        "splits": splits,
    }
    write_json(path, content)


def load_splits(path: Path) -> SavedSplits:
    """Reads what `save_splits` wrote.

    Raises:
        SplitError: the file cannot be read, is not a splits file, is of a newer version, or names an id
            twice.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SplitError(f"The splits file {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("splits"), dict):
        raise SplitError(f"{path} is not a splits file: it has no object 'splits'.")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise SplitError(
            f"{path} has format version {version!r}; this Showtell reads version {FORMAT_VERSION}. "
            "Use the Showtell that wrote it, or make the split again."
        )
    fingerprint, seed, splits = content.get("fingerprint"), content.get("seed"), content["splits"]
    lists = all(isinstance(ids, list) and all(isinstance(id, str) for id in ids) for ids in splits.values())
    if not lists or not isinstance(fingerprint, str) or not (seed is None or isinstance(seed, int)):
        raise SplitError(
            f"{path} is damaged: 'splits' must hold lists of ids, beside 'fingerprint' and 'seed'."
        )
    _invert(splits, str(path))
    return SavedSplits({split: tuple(ids) for split, ids in splits.items()}, fingerprint, seed)


def describe_learnt(saved: SavedSplits, images: Collection[str], split: str) -> str:
    """Returns why a model may not be judged on images as on such that it has not seen; "" where nothing is known.

    Args:
        saved: of the run that the model comes from.
        images: ids of the images; those of other data may be the same by chance.
        split: that they are from; of "train" nobody expects that the model has not seen it.
    """
    if split == "train":
        return ""
    learnt = len(set(images).intersection(saved.splits.get("train", ())))
    chose = len(set(images).intersection(saved.splits.get("dev", ()))) if split == "test" else 0
    parts = [f"train {learnt:,}" if learnt else "", f"dev {chose:,}" if chose else ""]
    told = ", ".join(part for part in parts if part)
    if not told:
        return ""
    return (
        f"the names of {learnt + chose:,} of {count(len(images), 'image')} stand in splits.json of its run ({told}): "
        "it has seen them, if they are the same pictures, and seems better than it is. --splits with that file judges "
        "it on others"
    )


def _rank(seed: int, id: str) -> bytes:
    """Returns a key that orders ids at random but always alike."""
    return hashlib.sha256(f"{seed}\0{id}".encode("utf-8", "surrogatepass")).digest()


def _place(dataset: Dataset, splits: Mapping[str, str]) -> Dataset:
    def place(image: CaptionedImage) -> CaptionedImage:
        return replace(image, split=splits[image.id]) if image.id in splits else image

    return replace(dataset, images=tuple(place(image) for image in dataset.images))


def _join_groups(
    placed: Mapping[str, str | None], groups: Sequence[Collection[str]], name: str
) -> list[tuple[str, ...]]:
    """Returns the units that stay together, each sorted: the joined groups, and every other image alone."""
    parents = {id: id for id in placed}

    def find(id: str) -> str:
        while parents[id] != id:
            parents[id] = parents[parents[id]]
            id = parents[id]
        return id

    for group in groups:
        for id in group:
            if id not in parents:
                raise SplitError(
                    f"A group of near-duplicates names {id!r}, which data set {name!r} does not have."
                )
        roots = {find(id) for id in group}
        for root in roots:
            parents[root] = min(roots)
    units: dict[str, list[str]] = {}
    for id in placed:
        units.setdefault(find(id), []).append(id)
    return [tuple(sorted(unit)) for unit in units.values()]


def _invert(splits: Mapping[str, Collection[str]], where: str) -> dict[str, str]:
    """Returns image id -> split."""
    placed: dict[str, str] = {}
    for split, ids in splits.items():
        if split not in SPLITS:
            raise SplitError(
                f"{where}: there is no split {split!r}.{did_you_mean(split, SPLITS)} "
                f"Splits are: {', '.join(SPLITS)}."
            )
        for id in ids:
            if placed.setdefault(id, split) != split:
                raise SplitError(f"{where}: image {id!r} is in both {placed[id]!r} and {split!r}.")
    return placed
