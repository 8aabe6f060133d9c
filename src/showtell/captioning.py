"""From features to captions, with any backend: the one place where images, networks and the search meet.

A backend is the encoder and the decoder of one captioner, in torch or exported. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from showtell.consensus import Agreements, Opinion
from showtell.decoding import Constraints, DecodingSettings, Hypothesis, Stepper, Watch, decode
from showtell.errors import ConfigError
from showtell.images import DEFAULT_MAX_PIXELS, ImageSource, Preprocessing
from showtell.text import SPECIAL, Vocabulary

Features = npt.NDArray[Any]  # (images, cells, channels) or (images, channels), float16 or float32


class Backend(Protocol):
    """The networks of one captioner, or of several that caption together.

    Pictures and features are arrays where there is one encoder, and tuples of arrays where there are several.
    """

    preprocessing: Preprocessing  # of what attention speaks of
    vocabulary: Vocabulary
    grid: tuple[int, int]  # rows and columns of the feature map; (1, 1) for pooled features

    @property
    def consensus(self) -> Opinion | None:
        """What people said of similar training pictures, where the captioner knows it."""
        ...

    def read(self, source: ImageSource, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Any:
        """Returns one picture at the encoder's size; called on several threads.

        Args:
            source: the picture.
            max_pixels: the largest width x height, compared with the file's header before anything is decoded.

        Raises:
            ImageError: it cannot be read.
        """
        ...

    def encode(self, pixels: Any) -> Any:
        """Returns the features of what `read` gave, stacked by `stack_pictures`: (images, height, width, 3)."""
        ...

    def bind(self, features: Any) -> Stepper:
        """Returns a stepper over the features of a batch of images."""
        ...


def count_images(features: Any) -> int:
    """Returns how many images a batch of what `Backend.encode` gave has."""
    return len(features[0] if isinstance(features, tuple) else features)


def pick_images(features: Any, places: Sequence[int]) -> Any:
    """Returns the features of some images of a batch, in the given order."""
    if isinstance(features, tuple):
        return tuple(one[list(places)] for one in features)
    return features[list(places)]


def stack_pictures(pictures: Sequence[Any]) -> Any:
    """Returns the pictures that `Backend.read` gave, at least one, as one batch."""
    if isinstance(pictures[0], tuple):
        return tuple(np.stack(views) for views in zip(*pictures, strict=True))
    return np.stack(pictures)


@dataclass(frozen=True)
class Caption:
    """One caption of one image."""

    text: str  # words joined by spaces; never a special token
    score: float  # what captions of one image are ranked by: the length-normalised log-probability, and the consensus
    log_prob: float  # natural log-probability of the whole caption
    word_log_probs: tuple[float, ...] = field(repr=False)  # of each word, in order
    # (words, cells) for decoders that attend. Not compared: arrays have no one truth.
    attention: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    # The share of its content words that people would use, too; None: not calibrated.
    confidence: float | None = None
    # The chance that people would use each word, too.
    word_confidences: tuple[float, ...] | None = field(default=None, repr=False)

    @property
    def words(self) -> list[str]:
        """The words of the text."""
        return self.text.split(" ") if self.text else []


def caption_features(
    backend: Backend,
    features: Any,
    settings: DecodingSettings,
    *,
    positions: Sequence[int],
    watch: Watch | None = None,
) -> list[list[Caption]]:
    """Captions a batch of images from their features.

    Args:
        backend: the networks.
        features: of the batch.
        settings: of the search.
        positions: of the images in the whole job: a sampled caption depends on the seed and on its image's
            position, not on how the job is cut into batches.
        watch: of `showtell.decoding.decode`.

    Returns:
        For each image its captions, best first.

    Raises:
        ConfigError: a consensus is asked for, and the captioner does not know what people said; or words are to be
            included that it does not know, or that do not fit into `max_steps`.
    """
    consensus = _consensus(backend, settings)
    if consensus is None:
        return _search(backend, features, settings, positions, watch)
    captions = _search(backend, features, replace(settings, count=settings.candidates), positions, watch)
    words = [[caption.words for caption in image] for image in captions]
    agreements = consensus.agree(features, words, settings.neighbours)
    return [
        _rank(image, settings.consensus * agreement)[: settings.count]
        for image, agreement in zip(captions, agreements, strict=True)
    ]


def check_settings(backend: Backend, settings: DecodingSettings) -> None:
    """Refuses what a search of this captioner would refuse, before there are features.

    Raises:
        ConfigError: as `caption_features`.
    """
    _consensus(backend, settings)
    Constraints.read(settings, backend.vocabulary)


def _consensus(backend: Backend, settings: DecodingSettings) -> Opinion | None:
    """Returns who ranks the captions, or None where nobody is asked."""
    if not settings.consensus or settings.candidates == 1:
        return None
    if backend.consensus is None:
        raise ConfigError(
            f"decoding.consensus = {settings.consensus:g}: this captioner does not know the captions of its training "
            "pictures. Add them to its bundle (showtell remember MODEL --data DATA --output FOLDER), or set it to 0."
        )
    return backend.consensus


def _search(
    backend: Backend,
    features: Any,
    settings: DecodingSettings,
    positions: Sequence[int],
    watch: Watch | None = None,
) -> list[list[Caption]]:
    constraints = Constraints.read(settings, backend.vocabulary)
    found = decode(
        backend.bind(features), settings, SPECIAL, image_seeds=positions, constraints=constraints, watch=watch
    )
    return [[_write(hypothesis, backend.vocabulary) for hypothesis in image] for image in found]


def _rank(captions: Sequence[Caption], more: Agreements) -> list[Caption]:
    scored = [
        replace(caption, score=caption.score + value) for caption, value in zip(captions, more.tolist())
    ]
    return sorted(scored, key=lambda caption: -caption.score)  # stable: of equals the more probable one first


def _write(hypothesis: Hypothesis, vocabulary: Vocabulary) -> Caption:
    return Caption(
        text=vocabulary.decode(hypothesis.tokens),
        score=hypothesis.score,
        log_prob=hypothesis.log_prob,
        word_log_probs=hypothesis.token_log_probs[: len(hypothesis.tokens)],
        attention=None if hypothesis.attention is None else hypothesis.attention[: len(hypothesis.tokens)],
    )


def caption_feature_batches(
    backend: Backend, batches: Iterable[Any], settings: DecodingSettings
) -> Iterator[list[Caption]]:
    """Captions batch after batch; yields one list of captions per image, in order."""
    index = 0
    for features in batches:
        images = count_images(features)
        yield from caption_features(backend, features, settings, positions=range(index, index + images))
        index += images


def split_batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yields consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
