"""From features to captions, with any backend: the one place where images, networks and the search meet.

A backend is the encoder and the decoder of one captioner, in torch or exported. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from showtell.decoding import DecodingSettings, Hypothesis, Stepper, decode
from showtell.images import Preprocessing
from showtell.text import SPECIAL, Vocabulary

Features = npt.NDArray[Any]  # (images, cells, channels) or (images, channels), float16 or float32


class Backend(Protocol):
    """The networks of one captioner."""

    preprocessing: Preprocessing
    vocabulary: Vocabulary
    grid: tuple[int, int]  # rows and columns of the feature map; (1, 1) for pooled features

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Returns the features of resized pictures: pixels are (images, height, width, 3)."""
        ...

    def bind(self, features: Features) -> Stepper:
        """Returns a stepper over the features of a batch of images."""
        ...


@dataclass(frozen=True)
class Caption:
    """One caption of one image."""

    text: str  # words joined by spaces; never a special token
    score: float  # the length-normalised log-probability that captions of one image are ranked by
    log_prob: float  # natural log-probability of the whole caption
    word_log_probs: tuple[float, ...]  # of each word, in order
    attention: npt.NDArray[np.float32] | None = None  # (words, cells) for decoders that attend

    @property
    def words(self) -> list[str]:
        """The words of the text."""
        return self.text.split(" ") if self.text else []


def caption_features(
    backend: Backend, features: Features, settings: DecodingSettings, *, positions: Sequence[int]
) -> list[list[Caption]]:
    """Captions a batch of images from their features.

    Args:
        backend: the networks.
        features: of the batch.
        settings: of the search.
        positions: of the images in the whole job: a sampled caption depends on the seed and on its image's
            position, not on how the job is cut into batches.

    Returns:
        For each image its captions, best first.
    """
    found = decode(backend.bind(features), settings, SPECIAL, image_seeds=positions)
    return [[_write(hypothesis, backend.vocabulary) for hypothesis in image] for image in found]


def _write(hypothesis: Hypothesis, vocabulary: Vocabulary) -> Caption:
    return Caption(
        text=vocabulary.decode(hypothesis.tokens),
        score=hypothesis.score,
        log_prob=hypothesis.log_prob,
        word_log_probs=hypothesis.token_log_probs[: len(hypothesis.tokens)],
        attention=None if hypothesis.attention is None else hypothesis.attention[: len(hypothesis.tokens)],
    )


def caption_feature_batches(
    backend: Backend, batches: Iterable[Features], settings: DecodingSettings
) -> Iterator[list[Caption]]:
    """Captions batch after batch; yields one list of captions per image, in order."""
    index = 0
    for features in batches:
        positions = range(index, index + len(features))
        yield from caption_features(backend, features, settings, positions=positions)
        index += len(features)


def split_batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yields consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
