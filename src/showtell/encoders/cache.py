"""A folder of features on disk: what one encoder saw in each image of a data set.

::

    CACHE/
        features.npy     float16 (rows, cells, channels) or (rows, channels), an ordinary .npy file
        manifest.json    which encoder, and for each image: row, digest and size of the file
        journal.jsonl    only while features are extracted: what is finished so far
        .lock            one writer at a time

The features of an image are written before the line of the journal that says so, and the manifest comes last,
in one rename. Whatever happens in between, what is listed is there.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from showtell.data.records import CaptionedImage, Dataset
from showtell.encoders.cache_contents import (
    DATA,
    HEADER_BYTES,
    MANIFEST,
    Contents,
    check_fingerprint,
    read_contents,
)
from showtell.errors import CacheError

HalfArray = npt.NDArray[np.float16]


class FeatureCache:
    """The features of a data set's images, read from disk row by row.

    Reading goes through `pread`, not through a memory map, so that resident memory stays the same however
    many images there are; `array` gives the memory map. Threads and forked processes may read at the same
    time.
    """

    def __init__(self, folder: Path, contents: Contents, descriptor: int) -> None:
        self.folder = folder
        self.fingerprint: str = contents.encoder["fingerprint"]
        self.encoder = contents.encoder
        self.shape = contents.shape  # of one image's features: (cells, channels) or (channels,)
        self.grid: tuple[int, int] = tuple(contents.encoder["grid"])  # rows and columns of cells
        self.unreadable = contents.unreadable
        self._contents = contents
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        encoder_fingerprint: str | None = None,
        dataset: Dataset | None = None,
        allow_unreadable: bool = False,
        verify: bool = False,
    ) -> FeatureCache:
        """Opens a finished cache and checks that it fits.

        Args:
            folder: of the cache.
            encoder_fingerprint: of the encoder whose features are wanted.
            dataset: its images must all be in the cache, unchanged.
            allow_unreadable: accept that images are missing that could not be read when the features were
                extracted (`skip_bad`); leave these out with `without_unreadable`.
            verify: compare the digest of every image file, even where size and time of change are the same.

        Raises:
            CacheError: there is no cache, or it is damaged, incomplete, stale (an image has changed since),
                or foreign (of another encoder); the message says what differs and what to do.
        """
        folder = Path(folder)
        contents = read_contents(folder)
        if contents is None:
            raise CacheError(
                f"{folder}: no feature cache here (no {MANIFEST}). Make one with: showtell features DATA "
                f"--encoder NAME --output {folder}"
            )
        if not contents.finished:
            raise CacheError(
                f"{folder}: the feature cache is incomplete: extraction was interrupted after "
                f"{len(contents.images)} images. Run `showtell features` again with the same arguments; it "
                "goes on where it stopped."
            )
        check_fingerprint(folder, contents, encoder_fingerprint)
        cache = cls(folder, contents, _open_data(folder, contents))
        try:
            if dataset is not None:
                cache.check(dataset, allow_unreadable=allow_unreadable, verify=verify)
        except BaseException:
            cache.close()
            raise
        return cache

    def check(self, dataset: Dataset, *, allow_unreadable: bool = False, verify: bool = False) -> None:
        """Checks that all images of a data set are here, as they are now on disk.

        Raises:
            CacheError: some are missing, or have changed.
        """
        missing = [image.id for image in dataset.images if image.id not in self._contents.images]
        if allow_unreadable:
            missing = [image_id for image_id in missing if image_id not in self.unreadable]
        if missing:
            left_out = [image_id for image_id in missing if image_id in self.unreadable]
            note = (
                f" {len(left_out)} of them could not be read then, as {left_out[0]}: "
                f"{self.unreadable[left_out[0]]}."
                if left_out
                else ""
            )
            raise CacheError(
                f"{self.folder}: incomplete for data set {dataset.name!r}: {len(missing)} of "
                f"{len(dataset.images)} images are not in the cache: {_listed(missing)}.{note} Run `showtell "
                "features` with this data set and the same encoder; it adds what is missing."
            )
        changed = [
            image
            for image in dataset.images
            if image.id in self._contents.images
            and not self._contents.images[image.id].is_current(image.path, verify=verify)
        ]
        if changed:
            raise CacheError(
                f"{self.folder}: stale for data set {dataset.name!r}: {len(changed)} image files are gone or "
                "not the ones that the features were computed from: "
                f"{_listed([_describe_change(image) for image in changed])}. Run `showtell features` again "
                "with the same arguments; it computes the changed ones anew."
            )

    def without_unreadable(self, dataset: Dataset) -> Dataset:
        """Returns the data set without the images that could not be read when the features were extracted."""
        return replace(dataset, images=tuple(i for i in dataset.images if i.id not in self.unreadable))

    def features(self, ids: Sequence[str]) -> HalfArray:
        """Returns the features of images.

        Args:
            ids: of images, in any order; one may come several times.

        Returns:
            float16 (images, cells, channels), or (images, channels) for pooled features, a copy.

        Raises:
            CacheError: an id is not in the cache, or the file has become shorter.
        """
        result = np.empty((len(ids), *self.shape), dtype=np.float16)
        for position, image_id in enumerate(ids):
            entry = self._contents.images.get(image_id)
            if entry is None:
                raise CacheError(
                    f"{self.folder}: no features of image {image_id!r} in the cache. Run `showtell features` "
                    "with the data set that has this image; it adds what is missing."
                )
            self._read_row(entry.row, result[position : position + 1])
        return result

    @property
    def array(self) -> np.memmap[Any, np.dtype[np.float16]]:
        """All rows as a read-only memory map: float16 (rows, cells, channels) or (rows, channels)."""
        return np.memmap(
            self.folder / DATA, np.float16, "r", HEADER_BYTES, (self._contents.rows, *self.shape)
        )

    @property
    def ids(self) -> list[str]:
        """The ids of all images in the cache, in the order of their rows."""
        return sorted(self._contents.images, key=lambda image_id: self._contents.images[image_id].row)

    def row(self, image_id: str) -> int:
        """Returns an image's row in `array`; KeyError where it is not in the cache."""
        return self._contents.images[image_id].row

    def __len__(self) -> int:
        return len(self._contents.images)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._contents.images

    def close(self) -> None:
        """Closes the file; the cache cannot be read afterwards."""
        self._close()

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_row(self, row: int, target: HalfArray) -> None:
        if not self._close.alive:
            raise CacheError(f"{self.folder}: the cache was closed; open it again to read features.")
        size = self._contents.row_bytes
        offset = HEADER_BYTES + row * size
        if hasattr(os, "pread"):
            data = os.pread(self._descriptor, size, offset)
        else:
            with self._lock:  # Windows has no read at a position
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                data = os.read(self._descriptor, size)
        if len(data) != size:
            raise CacheError(
                f"{self.folder / DATA}: truncated while in use: row {row} is not there. Extract the features "
                "again."
            )
        target[:] = np.frombuffer(data, dtype="<f2").reshape(target.shape)


def _open_data(folder: Path, contents: Contents) -> int:
    path = folder / DATA
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        actual = os.fstat(descriptor).st_size
    except OSError as error:
        raise CacheError(
            f"{path}: cannot be read ({error.strerror}), though {MANIFEST} lists {len(contents.images)} "
            "images. Extract the features again with --rebuild."
        ) from None
    expected = HEADER_BYTES + contents.rows * contents.row_bytes
    if actual < expected:
        os.close(descriptor)
        raise CacheError(
            f"{path}: truncated: {actual:,} bytes, and the manifest's {contents.rows} rows need "
            f"{expected:,}. Copy it again, whole, or extract the features again with --rebuild."
        )
    return descriptor


def _describe_change(image: CaptionedImage) -> str:
    return image.id if image.path.exists() else f"{image.id} (no file {image.path})"


def _listed(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"{', '.join(listed[:most])}{more}"
