"""Batches of features: pictures read on threads and put through a frozen encoder, on this machine or on another.

Threads decode pictures while the network runs; two batches of them at most are in memory.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from showtell.encoders.backbone import Encoder
from showtell.encoders.cache import HalfArray
from showtell.encoders.cache_contents import Entry
from showtell.errors import EncoderError, ImageError
from showtell.images import Preprocessing, View, read_batches, read_view, why_too_large

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image whose features are to be computed."""

    image_id: str
    path: Path
    view: View


@dataclass(frozen=True)
class Batch:
    """What came of some images."""

    entries: Sequence[tuple[str, Entry]]  # image id and what the cache lists of it; its row is not known yet
    features: HalfArray  # (images, cells, channels) or (images, channels), in the order of `entries`
    bad: Mapping[str, str]  # image id to reason, of those that cannot be read

    def __len__(self) -> int:
        return len(self.entries) + len(self.bad)


class BatchSource(Protocol):
    """Computes features: `compute_batches` does it here, `showtell.bulk.features.RayBatches` on other processes."""

    def __call__(
        self, encoder: Encoder, wanted: Sequence[Wanted], *, size: int, workers: int
    ) -> Generator[Batch, None, None]:
        """Yields batches of at most `size` images, each image once, in any order.

        Args:
            encoder: frozen, of a single backbone.
            wanted: what to compute.
            size: images in a batch.
            workers: threads that decode images, of each process that computes.
        """


@dataclass(frozen=True)
class _Picture:
    """One image as it comes from the threads that read."""

    image_id: str
    pixels: npt.NDArray[np.uint8]  # (height, width, 3)
    entry: Entry


def compute_batches(
    encoder: Encoder, wanted: Sequence[Wanted], *, size: int, workers: int
) -> Generator[Batch, None, None]:
    """Computes features in this process, in the order of `wanted`; a `BatchSource`.

    Raises:
        EncoderError: features that float16 cannot hold, or that are not finite.
    """
    read = functools.partial(read_picture, preprocessing=encoder.preprocessing)
    done = 0
    with contextlib.closing(read_batches(wanted, read, size=size, workers=workers)) as batches:
        for items in batches:
            names = [one.image_id for one in wanted[done : done + len(items)]]
            done += len(items)
            bad = {name: str(item) for name, item in zip(names, items) if isinstance(item, ImageError)}
            pictures = [item for item in items if isinstance(item, _Picture)]
            entries = [(picture.image_id, picture.entry) for picture in pictures]
            yield Batch(entries, _encode(encoder, pictures, size=size), bad)


def read_picture(wanted: Wanted, preprocessing: Preprocessing) -> _Picture:
    """Returns an image as the encoder sees it, and what the cache lists of its file.

    Raises:
        ImageError: it cannot be read.
    """
    path = wanted.path
    try:
        # The digest and the pixels must be of the same bytes, so they are read once; the status is taken
        # before, so that a change in between makes the entry stale rather than wrong.
        status = path.stat()
        if not path.is_file():
            raise ImageError(f"{path} is not a file")
        if reason := why_too_large(status.st_size):
            raise ImageError(f"{path}: {reason}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{path}: {reason}") from error
    try:
        pixels = read_view(preprocessing, data, wanted.view)
    except ImageError as error:  # it speaks of bytes; here the file's name is known
        reason = str(error).partition(": ")[2] or str(error)
        raise ImageError(f"{path}: {reason}") from error
    digest = hashlib.sha256(data).hexdigest()
    return _Picture(wanted.image_id, pixels, Entry(-1, digest, len(data), status.st_mtime_ns))


def _encode(encoder: Encoder, pictures: Sequence[_Picture], *, size: int) -> HalfArray:
    """Returns the features of at most `size` pictures.

    A smaller batch, the last one, is filled up with black pictures: torch plans its convolutions anew, and takes
    memory, for every number of pictures that it has not met.
    """
    if not pictures:
        return np.empty((0, *encoder.shape), dtype=np.float16)
    pixels = np.zeros((size, *pictures[0].pixels.shape), dtype=np.uint8)
    for place, picture in enumerate(pictures):
        pixels[place] = picture.pixels
    features = encoder.encode(pixels)[: len(pictures)]
    largest = float(np.abs(features).max())
    if largest > _LARGEST:
        reason = "Its weights are damaged or need another preprocessing."
        if encoder.source.kind == "random":
            reason = (
                "Its weights are random: its batch norms have seen no pictures yet, so nothing keeps the features "
                "small. Use trained weights, or train it (encoder.trainable = true)."
            )
        raise EncoderError(
            f"The backbone {encoder.config.name} gives features as large as {largest:.3g}; float16, which "
            f"the cache holds, ends at {_LARGEST:.0f}. {reason}"
        )
    return features.astype("<f2")
