"""Extraction: every image of a data set through a frozen encoder, once, into a cache on disk.

Threads decode images while the network runs; two batches of them at most are in memory. After each
batch the features are on disk before the journal lists them, so that a kill loses at most the batch in
flight.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from showtell.data.records import CaptionedImage, Dataset
from showtell.encoders.backbone import Encoder
from showtell.encoders.cache import HalfArray
from showtell.encoders.cache_contents import (
    DATA,
    HEADER_BYTES,
    JOURNAL,
    MANIFEST,
    Contents,
    Entry,
    check_fingerprint,
    read_contents,
    read_journal,
)
from showtell.encoders.cache_writer import CacheWriter
from showtell.errors import CacheError, EncoderError, ImageError, UsageError
from showtell.files import lock_folder
from showtell.images import Preprocessing, View, read_batches, read_view

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class ExtractionReport:
    """What one extraction did."""

    images: int  # computed now
    reused: int  # already in the cache, unchanged
    seconds: float  # from the first image to the finished cache
    images_per_second: float  # of those computed now, decoding and writing included
    bytes: int  # of the whole cache on disk
    skipped: Mapping[str, str] = field(default_factory=dict)  # image id to reason: unreadable images left out


@dataclass(frozen=True)
class _Picture:
    """One image as it comes from the threads that read."""

    image_id: str
    pixels: npt.NDArray[np.uint8]  # (height, width, 3)
    entry: Entry  # its row is not known yet


def extract_features(
    dataset: Dataset,
    encoder: Encoder,
    folder: str | Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    rebuild: bool = False,
    skip_bad: bool = False,
    views: Sequence[View] | None = None,
) -> ExtractionReport:
    """Computes the features of all images that the cache does not have yet.

    Args:
        dataset: the images; ids must be unique.
        encoder: frozen, of a single backbone; several are extracted one by one, each into a cache of its own
            (`list_caches`).
        folder: of the cache; made if need be. One that was interrupted is continued, a finished one is
            extended with images that are new or have changed.
        batch_size: images per batch; also what a crash loses at most.
        workers: threads that decode images.
        progress: called with (done, total) after each batch.
        rebuild: throw away what is in the folder's cache first.
        skip_bad: leave out images that cannot be read, and report them.
        views: how each image is seen, in their order; None sees them as they are. Other views need another cache, and
            so do more images with views.

    Returns:
        What was done, how fast, and how large the cache is.

    Raises:
        UsageError: batch_size or workers below 1.
        EncoderError: the encoder is trainable, so that its features change with every step, or has several backbones.
        CacheError: the folder holds the features of another encoder, or is in use; images cannot be read (all
            others are kept); or the disk is full (what was finished is kept). Running again goes on.
    """
    if batch_size < 1 or workers < 1:
        raise UsageError(
            f"batch_size and workers must be at least 1. Received: batch_size={batch_size}, workers={workers}"
        )
    if encoder.trainable:
        raise EncoderError(
            f"The encoder {encoder.config.name} is trainable: its features change while it is trained and "
            "cannot be kept. Set encoder.trainable = false."
        )
    if len(encoder.members) > 1:
        raise EncoderError(
            f"The encoder {encoder.config.name!r} has {len(encoder.members)} backbones. Each has a cache of its own: "
            "extract the features of each of encoder.members."
        )
    _check_ids(dataset)
    folder = Path(folder)
    started = time.perf_counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"{folder}: the folder of the cache cannot be made: {error.strerror}") from None
    with lock_folder(folder, CacheError, "another process is extracting features into this cache"):
        if rebuild:
            _discard(folder)
        contents = _resume(folder, encoder, fingerprint_features(dataset, encoder, views))
        todo = [
            (image, view)
            for image, view in zip(dataset.images, views or [View()] * len(dataset.images), strict=True)
            if image.id not in contents.images or not contents.images[image.id].is_current(image.path)
        ]
        reused = len(dataset.images) - len(todo)
        _check_space(folder, len(todo) * contents.row_bytes)
        read = functools.partial(_read, preprocessing=encoder.preprocessing)
        bad: dict[str, str] = {}
        done = 0
        if progress is not None:
            progress(reused, len(dataset.images))
        with (
            CacheWriter(folder, contents) as writer,
            contextlib.closing(read_batches(todo, read, size=batch_size, workers=workers)) as batches,
        ):
            for batch in batches:
                for (image, _), item in zip(todo[done:], batch):
                    if isinstance(item, ImageError):
                        bad[image.id] = str(item)
                full = batch_size if done else len(batch)
                done += len(batch)
                pictures = [item for item in batch if isinstance(item, _Picture)]
                writer.append(*_encode(encoder, pictures, size=full))
                if progress is not None:
                    progress(reused + done, len(dataset.images))
            if bad and not skip_bad:
                raise CacheError(
                    f"{folder}: {len(bad)} of {len(dataset.images)} images cannot be read: {_listed(bad)}. "
                    "The features of all others are kept. Repair or remove these images and run again, or "
                    "leave them out with --skip-bad."
                )
            writer.finish(bad)
    seconds = time.perf_counter() - started
    computed = done - len(bad)
    return ExtractionReport(
        images=computed,
        reused=reused,
        seconds=seconds,
        images_per_second=computed / seconds if computed else 0.0,
        bytes=sum((folder / name).stat().st_size for name in (DATA, MANIFEST)),
        skipped=bad,
    )


def _encode(
    encoder: Encoder, pictures: list[_Picture], *, size: int
) -> tuple[list[tuple[str, Entry]], HalfArray]:
    """Returns what the cache lists of each picture, by id, and the features.

    A batch smaller than `size`, the last one, is filled up with black pictures: torch plans its convolutions anew, and
    takes memory, for every number of pictures that it has not met.
    """
    if not pictures:
        return [], np.empty((0, *encoder.shape), dtype=np.float16)
    pixels = np.zeros((max(size, len(pictures)), *pictures[0].pixels.shape), dtype=np.uint8)
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
    return [(picture.image_id, picture.entry) for picture in pictures], features.astype("<f2")


def fingerprint_features(dataset: Dataset, encoder: Encoder, views: Sequence[View] | None = None) -> str:
    """Returns what is equal only for equal features: the encoder's fingerprint, or one of it and the images' views."""
    if views is None:
        return encoder.fingerprint
    seen = {image.id: asdict(view) for image, view in zip(dataset.images, views, strict=True)}
    facts = {"encoder": encoder.fingerprint, "views": seen}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(item: tuple[CaptionedImage, View], preprocessing: Preprocessing) -> _Picture:
    image, view = item
    try:
        # The digest and the pixels must be of the same bytes, so they are read once; the status is taken
        # before, so that a change in between makes the entry stale rather than wrong.
        status = image.path.stat()
        if not image.path.is_file():
            raise ImageError(f"{image.path} is not a file")
        data = image.path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{image.path}: {reason}") from error
    try:
        pixels = read_view(preprocessing, data, view)
    except ImageError as error:  # it speaks of bytes; here the file's name is known
        reason = str(error).partition(": ")[2] or str(error)
        raise ImageError(f"{image.path}: {reason}") from error
    digest = hashlib.sha256(data).hexdigest()
    return _Picture(image.id, pixels, Entry(-1, digest, len(data), status.st_mtime_ns))


def _resume(folder: Path, encoder: Encoder, fingerprint: str) -> Contents:
    """Returns what the folder's cache holds for this encoder: the manifest's images, then the journal's."""
    contents = read_contents(folder)
    if contents is not None and contents.finished and (folder / JOURNAL).exists():
        journal = read_journal(folder / JOURNAL)
        if journal is not None:
            check_fingerprint(folder, journal, contents.encoder["fingerprint"])
            contents.images.update(journal.images)
    description = _describe(encoder, fingerprint)
    if contents is None:
        return Contents(description, encoder.shape, {}, {}, finished=False)
    check_fingerprint(folder, contents, fingerprint)
    if contents.encoder.get("precision") != encoder.precision:
        raise CacheError(
            f"{folder}: these features were computed in {contents.encoder.get('precision')}, and the encoder "
            f"now computes in {encoder.precision}. Set the precision to {contents.encoder.get('precision')} "
            "(--precision), or extract all of them again with --rebuild."
        )
    expected = HEADER_BYTES + contents.rows * contents.row_bytes
    actual = (folder / DATA).stat().st_size if (folder / DATA).exists() else 0
    if contents.rows and actual < expected:
        raise CacheError(
            f"{folder / DATA}: truncated: {actual:,} bytes, and the {contents.rows} rows that are listed "
            f"need {expected:,}. Extract the features again with --rebuild."
        )
    return contents


def _describe(encoder: Encoder, fingerprint: str) -> dict[str, Any]:
    description = {
        "fingerprint": fingerprint,
        "name": encoder.source.name,
        "output": encoder.output,
        "grid": list(encoder.grid),
        "weights": encoder.source.to_dict(),
        "preprocessing": encoder.preprocessing.to_dict(),
        "precision": encoder.precision,
    }
    plain: dict[str, Any] = json.loads(json.dumps(description))  # as it will be read back
    return plain


def _discard(folder: Path) -> None:
    """Removes a cache. The manifest goes last: without its data it is refused, and so never misread."""
    for name in (DATA, JOURNAL, MANIFEST):
        (folder / name).unlink(missing_ok=True)


def _check_ids(dataset: Dataset) -> None:
    if not dataset.images:
        raise CacheError(f"Data set {dataset.name!r} has no images to extract features of.")
    seen: set[str] = set()
    for image in dataset.images:
        if image.id in seen:
            raise CacheError(
                f"Data set {dataset.name!r} has two images with the id {image.id!r}; ids must be unique."
            )
        seen.add(image.id)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CacheError(
            f"{folder}: the disk is too full: the features need {needed / 1e6:,.1f} MB, and "
            f"{free / 1e6:,.1f} MB are free. Make room, choose a folder on another disk, or extract pooled "
            "features."
        )


def _listed(bad: Mapping[str, str], most: int = 5) -> str:
    shown = [f"{image_id} ({reason})" for image_id, reason in list(bad.items())[:most]]
    more = f" and {len(bad) - most} more" if len(bad) > most else ""
    return "; ".join(shown) + more
