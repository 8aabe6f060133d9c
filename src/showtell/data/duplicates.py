"""Near-duplicate images: the same photograph saved again, resized, brightened, cropped by a hair or in grey.

The fingerprint is `imagehash`'s perceptual hash (a DCT of the grey picture, low frequencies against their
median) at 16 x 16 = 256 bits, and two images are near-duplicates when at most 40 bits differ. Both were
chosen by measurement on the 7,000 train and dev photographs of Flickr8k (24.5 million pairs):

- Copies of 400 of them lie this far away, median / 99th percentile: JPEG quality 20: 4 / 10; half size and
  JPEG 75: 2 / 6; stretched to 500 x 333: 0 / 4; 20 % brighter: 6 / 20; 30 % more contrast: 6 / 14; grey: 0 /
  0; 2 % cropped from each side: 28 / 42; a white label over 2 % of the area: 32 / 74; 5 % cropped from each
  side: 72 / 96.
- Exactly one pair of different files is nearer than 74 (at 0: one photograph uploaded twice); the next pairs,
  from 74 on, were looked at and show different things. So the threshold finds all but the crops beyond 2 %
  and the larger labels, and has no false pair there, with a wide margin for data sets a hundred times as
  large.
- Shorter hashes have no such gap: with 64 bits different photographs begin at distance 8 while brightened
  copies reach 8; with 144 bits they begin at 32 and 2 % crops reach 22. The 256-bit difference hash confuses
  plain backgrounds (different photographs from 45 on, brightened copies up to 56).

Other shots of the same scene a second later, mirrored copies and larger crops are not found: they need
features, not a hash. Colour is not seen, so one drawing in two colours counts as a near-duplicate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from showtell.data.records import Dataset
from showtell.errors import ImageError, MissingExtraError, UsageError
from showtell.images import open_image

HASH_SIZE = 16  # the hash has HASH_SIZE * HASH_SIZE bits
HASH_BITS = HASH_SIZE * HASH_SIZE
MAX_DISTANCE = 40  # bits; see the module docstring
BLANK_DEVIATION = 2.0  # grey levels; below it a hash would be made of rounding noise
_BLOCK = 1024  # rows compared at once: 1024 x 100,000 float32 products are 400 MB at the largest

BitArray = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]  # called with (done, total)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def hash_image(image: Image.Image) -> BitArray | None:
    """Returns the perceptual hash of an image, shape (256,), or None for a blank image, which has none.

    Raises:
        MissingExtraError: the package imagehash is not installed.
    """
    try:
        import imagehash
    except ImportError as error:
        raise MissingExtraError("imagehash", "train", "Finding near-duplicate images") from error
    grey = image.convert("L").resize((4 * HASH_SIZE, 4 * HASH_SIZE), Image.Resampling.LANCZOS)
    if float(np.asarray(grey, dtype=np.float32).std()) < BLANK_DEVIATION:
        return None
    bits: BitArray = imagehash.phash(grey, hash_size=HASH_SIZE).hash.ravel()
    return bits


def hash_images(dataset: Dataset, *, progress: Progress | None = None) -> dict[str, BitArray]:
    """Decodes and hashes every image of a data set, several at a time.

    Missing, unreadable and blank images are left out: the doctor reports them.

    Args:
        dataset: its images are read from disk.
        progress: called with (images done, images in all) after each image.

    Returns:
        Image id -> hash, shape (256,).

    Raises:
        MissingExtraError: the package imagehash is not installed.
    """

    def hash_file(index: int) -> BitArray | None:
        try:
            return hash_image(open_image(dataset.images[index].path))
        except ImageError:
            return None

    hashes = {}
    for index, bits in enumerate(map_in_threads(hash_file, range(len(dataset.images)))):
        if bits is not None:
            hashes[dataset.images[index].id] = bits
        if progress is not None:
            progress(index + 1, len(dataset.images))
    return hashes


def find_duplicates(
    dataset: Dataset, *, max_distance: int = MAX_DISTANCE, progress: Progress | None = None
) -> list[tuple[str, ...]]:
    """Finds the groups of near-duplicate images of a data set, for `assign_splits(groups=...)`.

    Args:
        dataset: its images are read from disk; what cannot be read is left out.
        max_distance: two images are near-duplicates when at most this many of the 256 bits differ.
        progress: called with (images done, images in all) while hashing.

    Returns:
        Groups of two or more image ids, each sorted, in the order of their first ids.

    Raises:
        MissingExtraError: the package imagehash is not installed.
        UsageError: `max_distance` is not between 0 and 127.
    """
    return group_hashes(hash_images(dataset, progress=progress), max_distance=max_distance)


def group_hashes(
    hashes: Mapping[str, BitArray], *, max_distance: int = MAX_DISTANCE
) -> list[tuple[str, ...]]:
    """Groups ids whose hashes are near.

    A group is a transitive closure: whoever is near one member belongs to it. Where such a chain leads to
    members more than twice `max_distance` apart, the group is formed again with half the distance, so that a
    row of pictures that resemble their neighbours does not become one giant group; exact copies always stay
    together.

    Args:
        hashes: image id -> hash, all of one length, as `hash_images` gives them.
        max_distance: two images are near when at most this many bits differ.

    Returns:
        Groups of two or more ids, each sorted, in the order of their first ids; independent of the order of
        `hashes`.

    Raises:
        UsageError: `max_distance` is not between 0 and 127 (half of the bits differ between unrelated
            images).
    """
    if not 0 <= max_distance < HASH_BITS // 2:
        raise UsageError(
            f"max_distance must be between 0 and {HASH_BITS // 2 - 1} of {HASH_BITS} bits (unrelated images "
            f"differ in about {HASH_BITS // 2}). Received: {max_distance}"
        )
    ids = sorted(hashes)
    if not ids:
        return []
    signs = np.stack([hashes[id] for id in ids]).astype(np.float32) * 2 - 1  # (images, bits)
    groups = _close(signs, np.arange(len(ids)), max_distance)
    return sorted(tuple(ids[index] for index in group) for group in groups)


def _close(
    signs: npt.NDArray[np.float32], members: npt.NDArray[np.intp], max_distance: int
) -> list[list[int]]:
    """Returns the groups among `members` (row numbers); wide ones are closed again with half the distance."""
    labels = np.arange(len(members))  # every member starts as its own group
    for neighbours in _neighbourhoods(signs[members], max_distance):
        touched = np.unique(labels[neighbours])
        if len(touched) > 1:
            labels[np.isin(labels, touched)] = touched[0]
    result = []
    for label in np.flatnonzero(np.bincount(labels, minlength=len(labels)) > 1):
        group = members[labels == label]
        if len(group) > 2 and max_distance > 0 and _is_wide(signs[group], 2 * max_distance):
            result += _close(signs, group, max_distance // 2)
        else:
            result.append(group.tolist())
    return result


def _neighbourhoods(signs: npt.NDArray[np.float32], max_distance: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yields, for every row that has near rows after it, itself and those.

    The product of two rows of signs is `bits - 2 * distance`, so one matrix product compares a whole block at
    the speed of the processor's linear algebra. An index over bands of bits would not help at 40 of 256 bits.
    """
    limit = signs.shape[1] - 2 * max_distance
    for start in range(0, len(signs), _BLOCK):
        near = signs[start : start + _BLOCK] @ signs[start:].T >= limit  # (rows, rest)
        for row in np.flatnonzero(near.sum(axis=1) > 1):
            later = np.flatnonzero(near[row, row:])  # starts with the row itself
            yield start + row + later


def _is_wide(signs: npt.NDArray[np.float32], limit: int) -> bool:
    """Says whether two rows are more than `limit` bits apart."""
    return any(
        float((signs[start : start + _BLOCK] @ signs.T).min()) < signs.shape[1] - 2 * limit
        for start in range(0, len(signs), _BLOCK)
    )


def map_in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """Applies a function to every item in a pool of threads and yields the results in order.

    Pillow's decoders and filters release the interpreter's lock, so threads are enough. An error, or a
    Ctrl-C, cancels what has not been started.
    """
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            yield from pool.map(function, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
