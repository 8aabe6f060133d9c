"""The facade: `Captioner.load(model).caption(images)`. Everything that faces people goes through it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from PIL import Image

from showtell.bundle import load_bundle
from showtell.captioning import Backend, Caption, caption_features, check_settings, stack_pictures
from showtell.confidence import Confidence, Said
from showtell.data.records import Dataset
from showtell.decoding import DecodingSettings
from showtell.ensemble import EnsembleBackend, Member
from showtell.errors import ConfigError, ImageError, UsageError, require_framework
from showtell.evaluation import DEFAULT_METRICS, EvaluationReport, evaluate_captions
from showtell.images import ImageSource, is_source, read_batches
from showtell.library import default_model, locate_model
from showtell.metrics import CorpusIdf
from showtell.metrics.bootstrap import RESAMPLES
from showtell.portable import find_model, is_portable, load_portable
from showtell.runtime import EngineOptions, open_portable

ImageLike: TypeAlias = ImageSource
# Captioners are opened one after another: torch has one random generator and OpenVINO one core for the whole process.
_opening = threading.Lock()
BATCH = 16  # images that go through the networks together
FIRST_BATCH = 8  # fewer, so that the networks need not wait for long


@dataclass(frozen=True)
class CaptionedPicture:
    """What one image gave: captions, or the error that prevented them."""

    captions: tuple[Caption, ...]  # best first; empty where `error` is set, or where none was sure enough
    grid: tuple[int, int]  # rows and columns of the cells that attention speaks of
    error: ImageError | None = None

    @property
    def text(self) -> str:
        """The best caption; "" where none was sure enough.

        Raises:
            ImageError: the image could not be read.
        """
        if self.error is not None:
            raise self.error
        return self.captions[0].text if self.captions else ""

    @property
    def abstained(self) -> bool:
        """Whether the image could be read, but no caption was sure enough."""
        return self.error is None and not self.captions


@dataclass(frozen=True)
class _Opened:
    """One model, opened."""

    backend: Member
    settings: DecodingSettings
    digest: str
    name: str
    confidence: Confidence | None


class Captioner:
    """A trained captioner, ready to use.

    Threads can share one: `caption`, `encode` and `evaluate` may run on several at once, with other images and other
    settings, and each call gives what it gives alone. The networks are used in turns, so more threads are hardly faster
    than one; give one call more images instead. What a call returns belongs to the thread that goes through it: two
    threads cannot take from one generator. A generator that is closed, or that nobody holds any more, leaves no threads
    behind.

    Args:
        backend: its networks.
        settings: how it searches unless told otherwise.
        digest: of its bundle; of an ensemble those of its members, joined by "+".
        name: for reports and messages.
        notes: what its users should know.
        confidence: how sure its captions are; None if nobody has measured it (`showtell calibrate`).
    """

    def __init__(
        self,
        backend: Backend,
        settings: DecodingSettings,
        *,
        digest: str = "",
        name: str = "",
        notes: Sequence[str] = (),
        confidence: Confidence | None = None,
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.digest = digest
        self.name = name
        self.notes = tuple(notes)
        self.confidence = confidence

    def __repr__(self) -> str:
        words = f"{len(self.backend.vocabulary):,} words"
        return f"Captioner({self.name!r}, {type(self.backend).__name__}, {words}, {self.settings})"

    @classmethod
    def load(
        cls,
        model: str | Path | Sequence[str | Path] | None = None,
        *,
        engine: str = "auto",
        precision: str = "auto",
        threads: int = 0,
    ) -> Captioner:
        """Opens an exported captioner, a bundle, the best bundle of a run folder, or an ensemble of several of them.

        An exported one runs without torch; the others run on torch. An ensemble searches as its first member does.

        Args:
            model: its folder, the name of one that comes with Showtell, or hub:OWNER/NAME (`showtell.library`);
                several make an ensemble. None is the captioner that comes with Showtell.
            engine: for an exported captioner "openvino", "onnxruntime" or "auto" (the first that is installed); for a
                bundle "torch" or "auto".
            precision: of an exported captioner's encoder: "float32", "bf16" or "auto", the fastest that the processor
                has. A bundle's encoder says its own.
            threads: of the processor; 0 means one per core.

        Raises:
            BundleError: no such model, or its parts do not fit together.
            EncoderError: its backbone cannot be found; the message says which and where to get it.
            ConfigError: an unknown engine, a precision that the processor does not have, or a negative number.
            VocabularyError: the members of an ensemble do not know the same words.
            UsageError: no model at all.
            MissingExtraError: the engine, or torch for a bundle, is not installed.
        """
        model = default_model() if model is None else model
        models = [model] if isinstance(model, str | Path) else list(model)
        if not models:
            raise UsageError("No model was given. Give the folder of one, or of several for an ensemble.")
        with _opening:
            parts = [cls._open(one, engine, precision, threads) for one in models]
        if len(parts) == 1:
            [one] = parts
            return cls(one.backend, one.settings, digest=one.digest, name=one.name, confidence=one.confidence)
        backend = EnsembleBackend([part.backend for part in parts], [str(one) for one in models])
        return cls(
            backend,
            parts[0].settings,
            digest="+".join(part.digest for part in parts),
            name=" + ".join(part.name for part in parts),
            notes=backend.notes,
        )

    @staticmethod
    def _open(model: str | Path, engine: str, precision: str, threads: int) -> _Opened:
        folder = find_model(locate_model(model))
        exported = is_portable(folder)
        options = EngineOptions("auto" if engine == "torch" and not exported else engine, precision, threads)
        if exported:
            portable = load_portable(folder)
            backend = open_portable(portable, options)
            return _Opened(
                backend,
                portable.recipe.decoding,
                portable.digest,
                portable.recipe.name,
                portable.confidence,
            )
        if engine not in ("auto", "torch"):
            raise ConfigError(
                f"{folder}: a bundle runs on torch, not on {engine!r}. Export it first (showtell export {folder} "
                "--output FOLDER) and give the exported folder."
            )
        if precision != "auto":
            raise ConfigError(
                f"{folder}: precision = {precision!r} is an option of exported captioners (showtell export)."
            )
        require_framework("Captioning with a bundle that is not exported")
        bundle = load_bundle(folder)
        # Imported here: torch takes seconds, and those who only look at a bundle do not need it.
        from showtell.training.model import open_backend

        networks = open_backend(bundle, folder, threads=threads)
        return _Opened(networks, bundle.recipe.decoding, bundle.digest, bundle.recipe.name, bundle.confidence)

    def caption(
        self,
        images: Iterable[ImageLike] | ImageLike,
        settings: DecodingSettings | None = None,
        *,
        workers: int = 2,
        min_confidence: float = 0.0,
        start: int = 0,
    ) -> Generator[CaptionedPicture, None, None]:
        """Captions images as they come; yields one result per image, in order.

        Images are decoded on threads while the networks work on those before. An image that cannot be read gives a
        result with its error; the others are not affected.

        Args:
            images: one image or an iterable of them, which may be endless. An image is a path (`str` or path-like), the
                bytes of a file, an open binary file, a Pillow image, a `WebImage`, which is fetched meanwhile, or a
                NumPy array: (height, width), or (height, width, channels) with 1 (grey), 3 (RGB) or 4 (RGBA) channels,
                of uint8, uint16, bool (without colours) or floats from 0 to 1. An array has the caption of the PNG file
                that holds its samples. Four dimensions are a batch, (images, height, width, channels).
            settings: of the search; the captioner's own by default.
            workers: threads that decode images.
            min_confidence: captions with less than this, 0 to 1, are left out.
            start: the position of the first image in a job that was begun before. Where a batch began there
                (`start_of_batch`), results are bit for bit those that the whole job would have given.

        Raises:
            UsageError: `min_confidence` is not from 0 to 1, or above 0 and the captioner does not know how sure it is;
                or what was given is no image and no iterable. These and the next are raised at once, before an image is
                read.
            ConfigError: settings that this captioner cannot search by: words that it does not know, say.
        """
        if not 0 <= min_confidence <= 1:
            raise UsageError(f"min_confidence must be from 0 to 1. Received: {min_confidence!r}")
        if min_confidence > 0 and self.confidence is None:
            raise UsageError(
                f"A least confidence of {min_confidence:g} was asked for, but this captioner does not know how sure it "
                "is. Measure it on captioned images that it was not trained on: showtell calibrate MODEL --data "
                "DATA --write."
            )
        settings = settings or self.settings
        check_settings(self.backend, settings)
        ahead = _decode_ahead(images, self.backend.read, workers, start)
        return self._caption(ahead, settings, min_confidence, start)

    def _caption(
        self,
        ahead: Generator[list[Any | ImageError], None, None],
        settings: DecodingSettings,
        min_confidence: float,
        start: int,
    ) -> Generator[CaptionedPicture, None, None]:
        """Yields one result for each picture or error of the batches, and closes them."""
        index = start
        with contextlib.closing(ahead) as batches:
            for batch in batches:
                positions = [
                    index + place for place, item in enumerate(batch) if not isinstance(item, ImageError)
                ]
                pixels = [item for item in batch if not isinstance(item, ImageError)]
                captions: Iterator[list[Caption]] = iter(())
                if pixels:
                    features = self.backend.encode(stack_pictures(pixels))
                    captions = iter(caption_features(self.backend, features, settings, positions=positions))
                index += len(batch)
                for item in batch:
                    if isinstance(item, ImageError):
                        yield CaptionedPicture((), self.backend.grid, item)
                    else:
                        rated = map(self.rate, next(captions))
                        sure = (one for one in rated if (one.confidence or 0.0) >= min_confidence)
                        yield CaptionedPicture(tuple(sure), self.backend.grid)

    def rate(self, caption: Caption) -> Caption:
        """Returns a caption with how sure it is, and each of its words; as it is where nobody has measured that."""
        if self.confidence is None:
            return caption
        rating = self.confidence.rate(Said(caption.words, caption.word_log_probs))
        return replace(caption, confidence=rating.caption, word_confidences=rating.words)

    def encode(self, images: Iterable[ImageLike] | ImageLike, *, workers: int = 2) -> Iterator[Any]:
        """Yields the features of images, batch by batch, for `caption_feature_batches`.

        Args:
            images: as for `caption`.
            workers: threads that decode images.

        Raises:
            ImageError: an image cannot be read.
        """
        with contextlib.closing(_decode_ahead(images, self.backend.read, workers)) as batches:
            for batch in batches:
                for item in batch:
                    if isinstance(item, ImageError):
                        raise item
                yield self.backend.encode(stack_pictures(batch))

    def evaluate(
        self,
        dataset: Dataset,
        *,
        split: str,
        settings: DecodingSettings | None = None,
        metrics: Sequence[str] = DEFAULT_METRICS,
        corpus_idf: CorpusIdf | None = None,
        max_images: int | None = None,
        resamples: int = RESAMPLES,
        copies: Mapping[str, Sequence[str]] | None = None,
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
            resamples: corpora that are drawn for the bootstrap intervals of the scores; 0 gives no intervals.
            copies: image id -> training images that show the same (`showtell.data.overlap.find_training_copies`); the
                scores are then given without these images, too.
            progress: called with (done, total) after each image.

        Raises:
            SplitError: no image has this split.
            ImageError: an image cannot be read; a score over the others would not be comparable.
            UsageError: training pictures, with a consensus that knows their captions.
        """
        chosen = dataset.split(split)
        chosen = replace(chosen, images=chosen.images[:max_images])
        settings = settings or self.settings
        if settings.consensus and split == "train":
            raise UsageError(
                f"decoding.consensus = {settings.consensus:g} asks what people said of the training pictures, so "
                "scores on the split train would mean nothing. Evaluate another split, or with --consensus 0."
            )
        return evaluate_captions(
            chosen,
            self._captions_of(chosen, settings),
            vocabulary=self.backend.vocabulary,
            settings=settings,
            bundle_digest=self.digest,
            split=split,
            metrics=metrics,
            corpus_idf=corpus_idf,
            resamples=resamples,
            copies=copies,
            progress=progress,
        )

    def _captions_of(self, dataset: Dataset, settings: DecodingSettings) -> Iterator[Sequence[Caption]]:
        for picture in self.caption((image.path for image in dataset.images), settings):
            if picture.error is not None:
                raise picture.error
            yield picture.captions


def start_of_batch(position: int) -> int:
    """Returns where the batch begins in which `Captioner.caption` has the image at `position`."""
    return position - (position - FIRST_BATCH) % BATCH if position >= FIRST_BATCH else 0


def _list_images(images: Iterable[ImageLike] | ImageLike) -> Iterable[ImageLike]:
    """Returns an iterable of images; one image by itself would otherwise be read letter by letter, or row by row.

    Raises:
        UsageError: neither an image nor an iterable.
    """
    if is_source(images):
        return [images]
    several = cast("Iterable[ImageLike]", images)
    if not isinstance(several, Iterable):
        raise UsageError(
            f"The images must be one image or an iterable of images. Received: {type(images).__name__}"
        )
    # What a list or a batch holds is all there, and stays as it is.
    return several if isinstance(several, Sequence | np.ndarray) else map(_detach, several)


def _detach(image: ImageLike) -> ImageLike:
    """Returns what stays as it is while the generator that gave it goes on, perhaps in the same memory."""
    if isinstance(image, np.ndarray):
        return image.copy()
    if isinstance(image, Image.Image):
        # Of an animated one the frames come one after another in the same object. What is damaged is said when it is
        # opened.
        with contextlib.suppress(Exception):
            return image.copy() if getattr(image, "is_animated", False) else image
    return image


def _decode_ahead(
    images: Iterable[ImageLike] | ImageLike, read: Callable[[ImageLike], Any], workers: int, start: int = 0
) -> Generator[list[Any | ImageError], None, None]:
    """Yields batches of pictures at the encoder's size, or errors; the next batch is read meanwhile."""
    size = BATCH if start >= FIRST_BATCH else FIRST_BATCH
    first = size - (start - start_of_batch(start))
    return read_batches(_list_images(images), read, size=BATCH, first=first, workers=max(1, workers))
