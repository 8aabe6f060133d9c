"""What people said of the training pictures, collected for a captioner: see `showtell.consensus`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from showtell.bundle import Bundle, find_bundle, load_bundle, store_consensus
from showtell.captioning import Features
from showtell.consensus import Arrays, build_consensus
from showtell.data.records import Dataset
from showtell.errors import BundleError
from showtell.recipes import Recipe
from showtell.training.model import open_backend
from showtell.training.sources import DecodedImages, ImageSource
from showtell.training.watcher import Watcher


def collect_consensus(
    bundle: Bundle,
    folder: Path,
    training_set: Dataset,
    watcher: Watcher,
    *,
    source: ImageSource | None = None,
) -> Arrays:
    """Returns what a `Consensus` is made of.

    Args:
        bundle: the captioner.
        folder: where it is.
        training_set: the pictures that it will remember, with their captions; those without captions are left out.
        watcher: is told how it goes.
        source: of the features that this captioner's encoder gives of them; None computes them.

    Raises:
        BundleError: the captioner has no encoder.
        EncoderError: its backbone cannot be found.
        ImageError: a picture cannot be read.
        UsageError: no picture has captions.
    """
    if source is None:
        encoder = open_backend(bundle, folder).encoder
        if encoder is None:
            raise BundleError(f"{folder}: has no encoder.")
        source = DecodedImages(encoder, training_set)
    watcher.stage("consensus", len(training_set.images), "images")
    captions = [image.captions for image in training_set.images]
    return build_consensus(_watch(source, watcher), captions, bundle.vocabulary)


def add_consensus(
    run: Path, recipe: Recipe, training_set: Dataset, source: ImageSource, watcher: Watcher
) -> None:
    """Adds to the best bundle of a run what people said of the training pictures.

    Nothing happens where the recipe asks for no consensus, or the bundle has one already.

    Args:
        run: the run's folder.
        recipe: of the run; from now on the bundle searches as it says.
        training_set: the pictures.
        source: of their features, where the encoder is frozen. Of one that learns, those of the best epoch are
            computed, which may not be the last one.
        watcher: is told how it goes.
    """
    if not recipe.decoding.consensus:
        return
    folder = find_bundle(run)
    bundle = load_bundle(folder)
    if bundle.consensus is not None:
        return
    kept = None if recipe.encoder.trainable else source
    arrays = collect_consensus(bundle, folder, training_set, watcher, source=kept)
    store_consensus(folder, bundle, arrays, recipe.decoding)


def _watch(source: ImageSource, watcher: Watcher) -> Iterator[Features]:
    for features in source.feature_batches():
        yield features
        watcher.advance(len(features))
