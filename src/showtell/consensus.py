"""What people said of the training pictures most like this one, as a second opinion on the candidates of a search.

Devlin et al. 2015, "Exploring Nearest Neighbor Approaches for Image Captioning", section 3.3, choose among captions by
how much they agree with those of similar pictures; Mao et al. 2015, "Learning like a Child", section 5, rank the
candidates of a recurrent network so. Agreement is CIDEr-D, its n-grams as rare as in the training captions. The search
knows which sentence is probable; the neighbours know which words fit pictures of this kind.

Pictures are compared by the features that the decoder reads: their mean over the cells, roots instead of the values
(a few large ones would decide everything), of length one, and of that the directions that differ most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from showtell.errors import BundleError, UsageError
from showtell.metrics.reference_index import ReferenceIndex
from showtell.text import SPECIAL, Vocabulary

DIRECTIONS = (
    64  # numbers that a picture is compared by; 128 find hardly better neighbours (docs/experiments.md)
)
_UNKNOWN = "unk"  # in the place of a word that the captioner does not know, and so never writes
_OVERSAMPLED, _ROUNDS = 16, 3  # of the randomised decomposition

Arrays = Mapping[str, npt.NDArray[Any]]
Agreements = npt.NDArray[np.float64]  # of each candidate
Captions = Sequence[Sequence[Sequence[str]]]  # of each picture its candidates, as words


class Opinion(Protocol):
    """Says how much candidates agree with what people said of similar pictures."""

    def agree(self, features: Any, captions: Captions, neighbours: int) -> list[Agreements]:
        """Returns for each picture of a batch the agreement of each of its captions, CIDEr-D from 0 to 10."""
        ...


class Consensus:
    """The training pictures of a captioner, small, with what people said of them.

    Args:
        arrays: what `build_consensus` gave.
        vocabulary: that of the captions' ids.

    Raises:
        BundleError: the arrays do not belong together.
    """

    def __init__(self, arrays: Arrays, vocabulary: Vocabulary) -> None:
        _check(arrays, len(vocabulary))
        self.arrays = arrays
        self._vocabulary = vocabulary
        self._mean = arrays["mean"].astype(np.float32)
        self._directions = arrays["directions"].astype(np.float32)
        self._vectors = arrays["vectors"].astype(np.float32)

    @cached_property
    def _index(self) -> ReferenceIndex:
        words = [
            _UNKNOWN if token == SPECIAL.unknown else self._vocabulary.word(token)
            for token in self.arrays["tokens"].tolist()
        ]
        ends = self.arrays["ends"].tolist()  # of each caption, among all tokens
        captions = [" ".join(words[start:end]) for start, end in zip([0, *ends], ends)]
        owned = self.arrays["owned"].tolist()  # of each picture its last caption's end, among all captions
        return ReferenceIndex(
            {str(row): captions[start:end] for row, (start, end) in enumerate(zip([0, *owned], owned))}
        )

    def find_neighbours(self, features: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
        """Returns the most similar pictures, most similar first: (images, count), fewer where there are fewer.

        Args:
            features: (images, cells, channels) or (images, channels).
            count: of neighbours, at least 1.
        """
        looked = (_describe(features) - self._mean) @ self._directions.T
        # Stable, so that equal pictures come in the same order on every machine.
        order = np.argsort(-(looked @ self._vectors.T), axis=1, kind="stable")
        return order[:, :count]

    def agree(self, features: npt.NDArray[Any], captions: Captions, neighbours: int) -> list[Agreements]:
        """Returns for each picture of a batch the agreement of each of its captions, CIDEr-D from 0 to 10.

        Args:
            features: (images, cells, channels) or (images, channels).
            captions: of each picture, as words.
            neighbours: how many similar pictures are asked, each with the same say.
        """
        found = self.find_neighbours(features, neighbours)
        pairs = [
            (str(row), words)
            for rows, own in zip(found.tolist(), captions, strict=True)
            for words in own
            for row in rows
        ]
        if not pairs:
            return [np.zeros(0) for _ in captions]
        scores = self._index.score(*zip(*pairs), metrics=["CIDEr"]).per_hypothesis["CIDEr"]
        means = scores.reshape(-1, found.shape[1]).mean(axis=1)
        return np.split(means, np.cumsum([len(own) for own in captions])[:-1])


def open_consensus(
    arrays: Arrays | None, vocabulary: Vocabulary, channels: int, where: Path
) -> Consensus | None:
    """Returns the consensus of a captioner, or None where it has none.

    Args:
        arrays: what `build_consensus` gave.
        vocabulary: of the captioner.
        channels: of its encoder's features.
        where: the file that they come from, for messages.

    Raises:
        BundleError: the arrays do not belong together, or not to this captioner.
    """
    if arrays is None:
        return None
    try:
        consensus = Consensus(arrays, vocabulary)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None
    if len(arrays["mean"]) != channels:
        raise BundleError(
            f"{where}: is for features of {len(arrays['mean'])} channels, and the encoder gives "
            f"{channels}. They belong to different captioners."
        )
    return consensus


def build_consensus(
    batches: Iterable[npt.NDArray[Any]], captions: Sequence[Sequence[str]], vocabulary: Vocabulary
) -> Arrays:
    """Returns what a `Consensus` is made of.

    Args:
        batches: features of the training pictures, (images, cells, channels) or (images, channels).
        captions: of each picture, in the same order; pictures without captions are left out.
        vocabulary: of the captioner; what it does not know stays unknown.

    Raises:
        UsageError: no picture has captions.
    """
    known = np.array([bool(own) for own in captions], dtype=bool)
    captions = [own for own in captions if own]
    if not captions:
        raise UsageError("A consensus needs training pictures with captions. Received: none.")
    parts, place = [], 0
    for features in batches:
        parts.append(_describe(features[known[place : place + len(features)]]))
        place += len(features)
    described = np.concatenate(parts)
    del parts
    mean = described.mean(axis=0)
    described -= mean
    directions = _find_directions(described, DIRECTIONS)
    vectors = described @ directions.T
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    ids = [vocabulary.encode(caption) for own in captions for caption in own]
    return {
        "mean": mean.astype(np.float16),
        "directions": directions.astype(np.float16),
        "vectors": np.rint(vectors * 127).astype(np.int8),
        "tokens": np.array([token for own in ids for token in own], np.min_scalar_type(len(vocabulary))),
        "ends": np.cumsum([len(own) for own in ids], dtype=np.int32),
        "owned": np.cumsum([len(own) for own in captions], dtype=np.int32),
    }


def _describe(features: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Returns (images, channels): roots of the mean over the cells, of length one."""
    pooled = features.astype(np.float32)
    if pooled.ndim == 3:
        pooled = pooled.mean(axis=1)
    roots = np.sign(pooled) * np.sqrt(np.abs(pooled))
    length = np.linalg.norm(roots, axis=1, keepdims=True)
    described: npt.NDArray[np.float32] = roots / np.maximum(length, 1e-12)
    return described


def _find_directions(centred: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Returns the first principal directions, (count, channels), fewer where there are fewer pictures or channels.

    Randomised, as an exact decomposition of thousands of pictures takes a minute: Halko, Martinsson and Tropp 2011,
    "Finding structure with randomness", algorithm 4.4.
    """
    width = min(count + _OVERSAMPLED, *centred.shape)
    probe = np.random.default_rng(0).standard_normal((centred.shape[1], width), dtype=np.float32)
    basis = np.linalg.qr(centred @ probe)[0]
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(centred @ np.linalg.qr(centred.T @ basis)[0])[0]
    directions: npt.NDArray[np.float32] = np.linalg.svd(basis.T @ centred, full_matrices=False)[2][:count]
    return directions


def _check(arrays: Arrays, words: int) -> None:
    """Raises BundleError unless the arrays are of the shapes and values that `build_consensus` gives."""
    try:
        mean, directions, vectors = (arrays[name] for name in ("mean", "directions", "vectors"))
        tokens, ends, owned = (arrays[name] for name in ("tokens", "ends", "owned"))
        right = (
            (mean.ndim, directions.ndim, vectors.ndim, tokens.ndim, ends.ndim, owned.ndim)
            == (1, 2, 2, 1, 1, 1)
            and directions.shape == (vectors.shape[1], len(mean))
            and len(owned) == len(vectors) > 0
            and _rises_to(ends, len(tokens), step=0)
            and _rises_to(owned, len(ends), step=1)
            and bool((tokens >= 0).all() and (tokens < words).all())
            and all(bool(np.isfinite(array).all()) for array in (mean, directions))
        )
    except (KeyError, TypeError) as error:
        raise BundleError(f"the captions of the training pictures are damaged: {error!r}") from None
    if not right:
        raise BundleError(
            "the captions of the training pictures are damaged: the parts do not belong together"
        )


def _rises_to(ends: npt.NDArray[Any], last: int, *, step: int) -> bool:
    steps = np.diff(ends, prepend=0)
    return len(ends) > 0 and ends[-1] == last and bool((steps >= step).all())
