"""The facade: `Captioner.load(model).caption(images)`. Everything that faces people goes through it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from showtell.bundle import find_bundle, load_bundle
from showtell.captioning import Backend, Caption, caption_features
from showtell.data.records import Dataset
from showtell.decoding import DecodingSettings
from showtell.errors import ImageError
from showtell.evaluation import DEFAULT_METRICS, EvaluationReport, evaluate_captions
from showtell.images import open_image
from showtell.metrics import CorpusIdf

ImageLike = str | Path | bytes | BinaryIO | Image.Image
BATCH = 32  # images that go through the networks together


@dataclass(frozen=True)
class CaptionedPicture:
    """What one image gave: captions, or the error that prevented them."""

    captions: tuple[Caption, ...]  # best first; empty where `error` is set
    grid: tuple[int, int]  # rows and columns of the cells that attention speaks of
    error: ImageError | None = None

    @property
    def text(self) -> str:
        """The best caption.

        Raises:
            ImageError: the image could not be read.
        """
        if self.error is not None:
            raise self.error
        return self.captions[0].text


class Captioner:
    """A trained captioner, ready to use.

    Args:
        backend: its networks.
        settings: how it searches unless told otherwise.
        digest: of its bundle.
        name: for reports and messages.
    """

    def __init__(
        self, backend: Backend, settings: DecodingSettings, *, digest: str = "", name: str = ""
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.digest = digest
        self.name = name

    @classmethod
    def load(cls, model: str | Path) -> Captioner:
        """Opens a bundle folder, or the best bundle of a run folder.

        Raises:
            BundleError: no such model, or its parts do not fit together.
            EncoderError: its backbone cannot be found; the message says which and where to get it.
        """
        folder = find_bundle(Path(model))
        bundle = load_bundle(folder)
        # Imported here: torch takes seconds, and those who only look at a bundle do not need it.
        from showtell.training.model import open_backend

        backend = open_backend(bundle, folder)
        return cls(backend, bundle.recipe.decoding, digest=bundle.digest, name=bundle.recipe.name)

    def caption(
        self,
        images: Iterable[ImageLike] | ImageLike,
        settings: DecodingSettings | None = None,
        *,
        workers: int = 2,
    ) -> Iterator[CaptionedPicture]:
        """Captions images as they come; yields one result per image, in order.

        Images are decoded on threads while the networks work on those before. An image that cannot be read gives a
        result with its error; the others are not affected.

        Args:
            images: paths, bytes, open files or PIL images; may be endless.
            settings: of the search; the captioner's own by default.
            workers: threads that decode images.
        """
        if isinstance(images, str | Path | bytes | Image.Image):
            images = [images]  # one picture; a string would otherwise be read letter by letter
        settings = settings or self.settings
        index = 0
        for batch in _decode_ahead(images, self.backend.preprocessing.resize, workers):
            positions = [
                index + place for place, item in enumerate(batch) if not isinstance(item, ImageError)
            ]
            pixels = [item for item in batch if not isinstance(item, ImageError)]
            captions: Iterator[list[Caption]] = iter(())
            if pixels:
                features = self.backend.encode(np.stack(pixels))
                captions = iter(caption_features(self.backend, features, settings, positions=positions))
            index += len(batch)
            for item in batch:
                if isinstance(item, ImageError):
                    yield CaptionedPicture((), self.backend.grid, item)
                else:
                    yield CaptionedPicture(tuple(next(captions)), self.backend.grid)

    def evaluate(
        self,
        dataset: Dataset,
        *,
        split: str,
        settings: DecodingSettings | None = None,
        metrics: Sequence[str] = DEFAULT_METRICS,
        corpus_idf: CorpusIdf | None = None,
        max_images: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> EvaluationReport:
        """Captions each image of a split once and scores the captions.

        Args:
            dataset: the data set; only the images of `split` are used.
            split: "train", "dev" or "test".
            settings: of the search; the captioner's own by default.
            metrics: "Bleu", "ROUGE_L", "CIDEr", "METEOR".
            corpus_idf: document frequencies for CIDEr; by default those of the references.
            max_images: only the first so many.
            progress: called with (done, total) after each image.

        Raises:
            SplitError: no image has this split.
            ImageError: an image cannot be read; a score over the others would not be comparable.
        """
        chosen = dataset.split(split)
        chosen = replace(chosen, images=chosen.images[:max_images])
        settings = settings or self.settings
        return evaluate_captions(
            chosen,
            self._captions_of(chosen, settings),
            vocabulary=self.backend.vocabulary,
            settings=settings,
            bundle_digest=self.digest,
            split=split,
            metrics=metrics,
            corpus_idf=corpus_idf,
            progress=progress,
        )

    def _captions_of(self, dataset: Dataset, settings: DecodingSettings) -> Iterator[Sequence[Caption]]:
        for picture in self.caption((image.path for image in dataset.images), settings):
            if picture.error is not None:
                raise picture.error
            yield picture.captions


Pixels = npt.NDArray[np.uint8]


def _decode_ahead(
    images: Iterable[ImageLike], resize: Callable[[Image.Image], Pixels], workers: int
) -> Iterator[list[Pixels | ImageError]]:
    """Yields batches of resized pictures or errors; at most two batches of images are decoded ahead."""

    def read(image: ImageLike) -> Pixels | ImageError:
        try:
            return resize(open_image(image))
        except ImageError as error:
            return error

    waiting: deque[Future[Pixels | ImageError]] = deque()
    source = iter(images)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        exhausted = False
        while waiting or not exhausted:
            while not exhausted and len(waiting) < 2 * BATCH:
                try:
                    waiting.append(pool.submit(read, next(source)))
                except StopIteration:
                    exhausted = True
            if waiting:
                yield [waiting.popleft().result() for _ in range(min(BATCH, len(waiting)))]
