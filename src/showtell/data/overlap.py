"""Images of one split that show what training images show: a model may know them by heart.

Every image of both splits has to be decoded once for its perceptual hash (showtell.data.duplicates), so hashes are
kept in the cache folder, by the files' paths, sizes and times.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from showtell.data.duplicates import BitArray, Progress, group_hashes, hash_images
from showtell.data.records import CaptionedImage, Dataset
from showtell.files import cache_folder, write_atomically


def find_training_copies(
    dataset: Dataset, split: str, *, progress: Progress | None = None
) -> dict[str, tuple[str, ...]]:
    """Finds the images of a split that have near-duplicates in training.

    Args:
        dataset: with all its splits; images are read from disk where their hashes are not in the cache.
        split: its name. Training itself overlaps with nothing.
        progress: called with (images done, images in all) while hashing.

    Returns:
        Image id of the split -> ids of the training images, both in the order of the data set. Empty if the data set
        has no training images.

    Raises:
        MissingExtraError: the package imagehash is not installed.
    """
    splits = {image.id: image.split for image in dataset.images if image.split in (split, "train")}
    if split == "train" or "train" not in splits.values():
        return {}
    both = replace(dataset, images=tuple(image for image in dataset.images if image.id in splits))
    order = {identifier: place for place, identifier in enumerate(splits)}
    copies: dict[str, tuple[str, ...]] = {}
    for group in group_hashes(_load_hashes(both, progress)):
        trained = sorted((one for one in group if splits[one] == "train"), key=order.__getitem__)
        if trained:
            copies.update((one, tuple(trained)) for one in group if splits[one] != "train")
    return dict(sorted(copies.items(), key=lambda item: order[item[0]]))


def _load_hashes(dataset: Dataset, progress: Progress | None) -> Mapping[str, BitArray]:
    """Returns the hashes of all images that have one, from the cache if the files are the same."""
    key = hashlib.sha256("\n".join(map(_describe_file, dataset.images)).encode("utf-8", "surrogatepass"))
    path = cache_folder() / "hashes" / f"{key.hexdigest()[:24]}.npz"
    ids = [image.id for image in dataset.images]
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            bits, rows = np.unpackbits(stored["bits"], axis=1).astype(np.bool_), stored["rows"]
        return {ids[row]: hashed for row, hashed in zip(rows.tolist(), bits, strict=True)}
    hashes = hash_images(dataset, progress=progress)
    if hashes:
        content = io.BytesIO()
        known = [row for row, identifier in enumerate(ids) if identifier in hashes]
        np.savez(
            content,
            rows=np.array(known),
            bits=np.packbits(np.stack([hashes[ids[row]] for row in known]), axis=1),
        )
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, and nothing else
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content.getvalue())
    return hashes


def _describe_file(image: CaptionedImage) -> str:
    try:
        facts = image.path.stat()
    except (OSError, ValueError):
        return f"{image.id}\t-"
    return f"{image.id}\t{Path(image.path).absolute()}\t{facts.st_size}\t{facts.st_mtime_ns}"
