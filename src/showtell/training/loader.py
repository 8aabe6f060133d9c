"""The batches that a captioner learns from, for those who want to see them or to write a training loop of their own.

They are those of `train`: the same captions, in the same order, for the same pictures.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from showtell.data.records import CaptionedImage, Dataset
from showtell.decoders import CaptionBatch
from showtell.encoders import Encoder
from showtell.recipes import Recipe
from showtell.text import Vocabulary
from showtell.training.batches import EncodedCaption, encode_captions, plan_epoch, share_batch
from showtell.training.sources import (
    CachedImages,
    DecodedImages,
    ImageSource,
    load_part,
    open_augmentation,
    prefetch,
)
from showtell.training.stored_features import check_use, open_views
from showtell.training.watcher import SilentWatcher, Watcher


@dataclass(frozen=True)
class LoadedBatch:
    """What one step learns from."""

    images: tuple[CaptionedImage, ...]  # each once
    # Float32. Of a frozen encoder the features, (images, cells, channels) or (images, channels); of one that learns the
    # normalised pixels, (images, 3, height, width).
    inputs: torch.Tensor
    captions: CaptionBatch  # longest first; `captions.owners` count in `images`


class Loader:
    """The batches of the split train, epoch after epoch.

    Args:
        recipe: says what goes into a batch, and how pictures change.
        dataset: with images in "train". Features are those of "dev", too, as `train` needs them: one cache serves both.
        encoder: whose features are loaded where it is frozen, and whose preprocessing pictures go through elsewhere.
        vocabulary: that captions are written in.
        features: a feature cache to use or to fill; by default one in the user's cache folder.
        watcher: is told how the features are computed.

    Raises:
        UsageError: a feature cache for an encoder that learns.
        SplitError: no image has the split train.
        TrainingError: no caption holds a word.
        CacheError: the cache belongs to another encoder or preprocessing, or is stale.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        encoder: Encoder,
        vocabulary: Vocabulary,
        *,
        features: Path | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        check_use(recipe, features)
        self.recipe = recipe
        self.dataset = dataset.split("train")
        self.captions: list[EncodedCaption] = encode_captions(
            self.dataset, vocabulary, recipe.text.max_length
        )
        changes = open_augmentation(recipe, self.dataset)
        self._source: ImageSource
        if recipe.encoder.trainable:
            self._source = DecodedImages(encoder, self.dataset, augmentation=changes)
        else:
            views = open_views(dataset, encoder, features, watcher or SilentWatcher(), changes)
            self._source = CachedImages(views, self.dataset, changes)

    def epoch(self, number: int = 0) -> Generator[LoadedBatch, None, None]:
        """Yields the batches of an epoch, each caption once; the next ones are loaded meanwhile.

        Args:
            number: of the epoch, from 0; each has an order of its own, which the recipe's seed decides.

        Raises:
            ImageError: a picture cannot be read.
        """
        training = self.recipe.training
        plan = plan_epoch(
            self.captions,
            batching=training.batching,
            batch_size=training.batch_size,
            seed=training.seed,
            epoch=number,
        )
        whole = [share_batch([self.captions[index] for index in batch], rank=0, size=1) for batch in plan]
        tasks = [
            partial(load_part, self._source, part, (number, place), torch.device("cpu"), pinned=False)
            for place, part in enumerate(whole)
        ]
        with closing(prefetch(tasks)) as loaded:
            for places, inputs, captions in loaded:
                yield LoadedBatch(tuple(self.dataset.images[place] for place in places), inputs, captions)
