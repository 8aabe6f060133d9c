"""Extraction: every image of a data set through a frozen encoder, once, into a cache on disk.

What is to do is found out first; then batches come from where they are computed (`BatchSource`), and one writer
appends them. After each batch the features are on disk before the journal lists them, so that a kill loses at
most the batches in flight.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from showtell.data.records import Dataset
from showtell.encoders.backbone import Encoder
from showtell.encoders.batches import BatchSource, Wanted, compute_batches
from showtell.encoders.cache_contents import (
    DATA,
    HEADER_BYTES,
    JOURNAL,
    MANIFEST,
    Contents,
    check_fingerprint,
    read_contents,
    read_journal,
)
from showtell.encoders.cache_writer import CacheWriter
from showtell.errors import CacheError, EncoderError, UsageError
from showtell.files import lock_folder
from showtell.images import View


@dataclass(frozen=True)
class ExtractionReport:
    """What one extraction did."""

    images: int  # computed now
    reused: int  # already in the cache, unchanged
    seconds: float  # from the first image to the finished cache
    images_per_second: float  # of those computed now, decoding and writing included
    bytes: int  # of the whole cache on disk
    skipped: Mapping[str, str] = field(default_factory=dict)  # image id to reason: unreadable images left out


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
    source: BatchSource = compute_batches,
) -> ExtractionReport:
    """Computes the features of all images that the cache does not have yet.

    Args:
        dataset: the images; ids must be unique.
        encoder: frozen, of a single backbone; several are extracted one by one, each into a cache of its own
            (`list_caches`).
        folder: of the cache; made if need be. One that was interrupted is continued, a finished one is
            extended with images that are new or have changed.
        batch_size: images per batch; also what a crash loses at most.
        workers: threads that decode images, of each process that computes.
        progress: called with (done, total) after each batch.
        rebuild: throw away what is in the folder's cache first.
        skip_bad: leave out images that cannot be read, and report them.
        views: how each image is seen, in their order; None sees them as they are. Other views need another cache, and
            so do more images with views.
        source: where the features are computed; in this process by default. Whatever it is, this process alone writes.

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
        wanted = [
            Wanted(image.id, image.path, view)
            for image, view in zip(dataset.images, views or [View()] * len(dataset.images), strict=True)
            if image.id not in contents.images or not contents.images[image.id].is_current(image.path)
        ]
        reused = len(dataset.images) - len(wanted)
        _check_space(folder, len(wanted) * contents.row_bytes)
        bad: dict[str, str] = {}
        done = 0
        if progress is not None:
            progress(reused, len(dataset.images))
        with CacheWriter(folder, contents) as writer:
            if wanted:
                size = min(batch_size, len(wanted))
                with contextlib.closing(source(encoder, wanted, size=size, workers=workers)) as batches:
                    for batch in batches:
                        bad.update(batch.bad)
                        writer.append(batch.entries, batch.features)
                        done += len(batch)
                        if progress is not None:
                            progress(reused + done, len(dataset.images))
            bad = {one.image_id: bad[one.image_id] for one in wanted if one.image_id in bad}  # in their order
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


def fingerprint_features(dataset: Dataset, encoder: Encoder, views: Sequence[View] | None = None) -> str:
    """Returns what is equal only for equal features: the encoder's fingerprint, or one of it and the images' views."""
    if views is None:
        return encoder.fingerprint
    seen = {image.id: asdict(view) for image, view in zip(dataset.images, views, strict=True)}
    facts = {"encoder": encoder.fingerprint, "views": seen}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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
