"""The feature caches of a run: the user's own, or those in the cache folder that all runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from showtell.data.records import Dataset
from showtell.encoders import Encoder, FeatureCache, extract_features, fingerprint_features, list_caches
from showtell.errors import CacheError, UsageError
from showtell.files import cache_folder
from showtell.images import Augmentation, View
from showtell.recipes import Recipe

if TYPE_CHECKING:
    from showtell.training.watcher import Watcher


def check_use(recipe: Recipe, folder: Path | None) -> None:
    """Raises UsageError where a cache is given for features that change with every step."""
    if folder is not None and recipe.encoder.trainable:
        raise UsageError(
            f"encoder.trainable = true changes the features with every step, so those in the cache {folder} would be "
            "stale. Leave out --features, or set encoder.trainable = false."
        )


def open_views(
    dataset: Dataset,
    encoder: Encoder,
    folder: Path | None,
    watcher: Watcher,
    augmentation: Augmentation | None,
) -> list[list[FeatureCache]]:
    """Returns the cached features of each way to see a picture: as it is, then those of training.

    As they are, the pictures of both train and dev: whoever looks at the one alone, or at less of the other, finds the
    cache that a run fills, and fills the one that it finds.

    Args:
        dataset: with images in "train", which are also seen in other ways.
        encoder: a frozen encoder.
        folder: as for `open_features`.
        watcher: is told how it goes.
        augmentation: of the training images; None where they are seen as they are alone.
    """
    training_set = dataset.split("train")
    others = tuple(image for image in dataset.images if image.split == "dev")
    images = replace(dataset, images=training_set.images + others)
    caches = [open_features(images, encoder, folder, watcher)]
    if augmentation is None:
        return caches
    for number in range(1, augmentation.views):
        views = augmentation.keep(number)
        caches.append(open_features(training_set, encoder, folder, watcher, views=views, number=number))
    return caches


def open_features(
    dataset: Dataset,
    encoder: Encoder,
    folder: Path | None,
    watcher: Watcher,
    *,
    views: Sequence[View] | None = None,
    number: int = 0,
) -> list[FeatureCache]:
    """Returns the cached features of all images, a cache for each backbone; what is missing is computed first.

    Args:
        dataset: the images that are needed.
        encoder: a frozen encoder.
        folder: the cache; where the encoder has several backbones, the folder that holds one for each, called as the
            backbone is. None chooses one for each backbone by the images and the backbone.
        watcher: is told how it goes.
        views: how each image is seen; None sees them as they are.
        number: of the views, from 1: the caches are then in folders `view-1` of those of the plain features.

    Raises:
        CacheError: a cache belongs to another encoder or preprocessing, or is stale.
    """
    if folder is not None:
        caches = [
            (member, own / f"view-{number}" if number else own)
            for member, own in list_caches(encoder, folder)
        ]
    else:
        names = "\n".join(sorted(f"{image.id}\t{image.path.resolve()}" for image in dataset.images))
        key = hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        shared = cache_folder() / "features"
        caches = [
            (
                member,
                shared / f"{member.source.name}-{fingerprint_features(dataset, member, views)[:12]}-{key}",
            )
            for member in encoder.members
        ]
    return [_open_cache(dataset, member, own, watcher, views) for member, own in caches]


def _open_cache(
    dataset: Dataset, encoder: Encoder, folder: Path, watcher: Watcher, views: Sequence[View] | None
) -> FeatureCache:
    """Returns the cached features of one backbone."""
    fingerprint = fingerprint_features(dataset, encoder, views)
    try:  # first without a lock: several runs may read one complete cache at the same time
        return FeatureCache.open(folder, encoder_fingerprint=fingerprint, dataset=dataset)
    except CacheError as error:
        if folder.is_dir():
            watcher.note(f"{error} What can be computed is computed now.")
    watcher.stage("features", len(dataset.images), "images")
    done = 0

    def advance(images: int, _total: int) -> None:
        nonlocal done
        watcher.advance(images - done)
        done = images

    report = extract_features(dataset, encoder, folder, progress=advance, views=views)
    if report.images:
        watcher.note(
            f"features of {report.images:,} images in {folder}: {report.images_per_second:.0f} images/s"
        )
    return FeatureCache.open(folder, encoder_fingerprint=fingerprint, dataset=dataset)
