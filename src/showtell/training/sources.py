"""Where a batch's images come from: cached features, or pictures that a trainable encoder reads each time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from showtell.captioning import Features, split_batches
from showtell.data.records import Dataset
from showtell.decoders import CaptionBatch
from showtell.encoders import Encoder, FeatureCache
from showtell.images import Augmentation, read_view
from showtell.recipes import Recipe
from showtell.training.batches import BatchPart, collate

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]  # (images, height, width, 3)
EVALUATION_BATCH = 64  # images


class ImageSource(Protocol):
    """The images of one split, by their index in it."""

    def load(self, indices: Sequence[int], when: tuple[int, ...]) -> Tensor:
        """Returns what the model is fed with in training: features or normalised pixels, float32.

        Args:
            indices: of the images.
            when: epoch and batch; what changes at random depends on them and on the image.
        """
        ...

    def feature_batches(self) -> Iterator[Features]:
        """Yields the features of all images in order, for decoding."""
        ...


def open_augmentation(recipe: Recipe, dataset: Dataset) -> Augmentation | None:
    """Returns what changes the pictures of the training split; None where the recipe leaves them as they are."""
    if not recipe.augmentation.changes:
        return None
    captions = [image.captions for image in dataset.images]
    return Augmentation(recipe.augmentation, captions, seed=recipe.training.seed)


class CachedImages:
    """Features of a frozen encoder, read from the caches of its backbones and joined along the channels.

    Args:
        caches: for each way to see a picture, the first of which is as it is, those of the backbones.
        dataset: the images of one split.
        augmentation: chooses among the ways in training; None where there is one.
    """

    def __init__(
        self,
        caches: Sequence[Sequence[FeatureCache]],
        dataset: Dataset,
        augmentation: Augmentation | None = None,
    ) -> None:
        self._caches = caches
        self._augmentation = augmentation
        self._ids = [image.id for image in dataset.images]

    def load(self, indices: Sequence[int], when: tuple[int, ...] = ()) -> Tensor:
        """Returns features: (images, cells, channels) or (images, channels)."""
        views = [self._augmentation.choose(index, when) if self._augmentation else 0 for index in indices]
        return torch.from_numpy(self._read([self._ids[index] for index in indices], views))

    def feature_batches(self) -> Iterator[Features]:
        """Yields the features of all images as they are, in order."""
        for ids in split_batches(self._ids, EVALUATION_BATCH):
            yield self._read(ids, [0] * len(ids))

    def _read(self, ids: Sequence[str], views: Sequence[int]) -> Features:
        first = self._caches[0]
        shape = (len(ids), *first[0].shape[:-1], sum(cache.shape[-1] for cache in first))
        features = np.empty(shape, dtype=np.float32)
        for view, caches in enumerate(self._caches):
            places = [place for place, seen in enumerate(views) if seen == view]
            if places:
                own = [ids[place] for place in places]
                features[places] = np.concatenate([cache.features(own) for cache in caches], axis=-1)
        return features


class DecodedImages:
    """Pictures, decoded anew for every batch, for an encoder that is trained.

    Args:
        encoder: whose preprocessing they go through.
        dataset: the images of one split.
        augmentation: changes them in training; None leaves them as they are.
        workers: threads that decode.
    """

    def __init__(
        self,
        encoder: Encoder,
        dataset: Dataset,
        *,
        augmentation: Augmentation | None = None,
        workers: int = 2,
    ) -> None:
        self._encoder = encoder
        self._augmentation = augmentation
        self._paths = [image.path for image in dataset.images]
        self._pool = ThreadPoolExecutor(workers)

    def load(self, indices: Sequence[int], when: tuple[int, ...] = ()) -> Tensor:
        """Returns normalised pixels: (images, 3, height, width)."""
        pixels = self._encoder.preprocessing.normalise(
            self._pixels(indices) if self._augmentation is None else self._augmented(indices, when)
        )
        return torch.from_numpy(np.ascontiguousarray(pixels))

    def feature_batches(self) -> Iterator[Features]:
        """Yields the features that the encoder gives as it is now, in evaluation mode."""
        training = self._encoder.training
        self._encoder.eval()
        try:
            for indices in split_batches(range(len(self._paths)), EVALUATION_BATCH):
                yield self._encoder.encode(self._pixels(indices))
        finally:
            self._encoder.train(training)

    def _augmented(self, indices: Sequence[int], when: tuple[int, ...]) -> Pixels:
        paths = [self._paths[index] for index in indices]
        views = [self._augmentation.view(index, when) for index in indices] if self._augmentation else []
        return np.stack(list(self._pool.map(partial(read_view, self._encoder.preprocessing), paths, views)))

    def _pixels(self, indices: Sequence[int]) -> Pixels:
        paths = [self._paths[index] for index in indices]
        return np.stack(list(self._pool.map(self._encoder.preprocessing.read, paths)))


def load_part(
    source: ImageSource, part: BatchPart, when: tuple[int, int], device: torch.device, *, pinned: bool
) -> tuple[list[int], Tensor, CaptionBatch]:
    """Returns what one step needs: its images, what the model is fed with, and the captions.

    Args:
        source: of the images.
        part: the captions.
        when: the epoch and the number of the whole batch in it.
        device: where they will go.
        pinned: whether to put them into memory that a GPU can copy from by itself.
    """
    images, batch = collate(part.captions)
    inputs = source.load(images, when)
    if not pinned:
        return images, inputs, batch
    with torch.cuda.device(device):  # a thread begins with the first GPU, which may be another process's
        return images, inputs.pin_memory(), batch.pin_memory()


def prefetch(tasks: Sequence[Callable[[], T]], *, depth: int = 2) -> Generator[T, None, None]:
    """Yields the results of `tasks` in order; the next ones are computed on a thread meanwhile.

    Args:
        tasks: called once each, in order.
        depth: how many results may wait; bounds the memory.
    """
    results: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def offer(item: tuple[T | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                results.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        for task in tasks:
            try:
                item: tuple[T | None, BaseException | None] = (task(), None)
            except BaseException as error:
                item = (None, error)
            if not offer(item) or item[1] is not None:
                return

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        for _ in tasks:
            value, error = results.get()
            if error is not None:
                raise error
            yield value  # type: ignore[misc]  # a task without error has a value
    finally:
        stopped.set()
        thread.join()
