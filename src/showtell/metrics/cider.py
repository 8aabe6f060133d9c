"""CIDEr as coco-caption reports it, which is CIDEr-D (Vedantam et al. 2015, sections 4 and 7).

Counts of n-grams are weighted by how rare the n-gram is among the images; a hypothesis is compared with each
reference by a clipped cosine, damped by a Gaussian of their difference in length. coco-caption measures that
length in bigrams, so captions of none and of one word count as equally long; that is kept.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from showtell.errors import MetricError
from showtell.files import write_json
from showtell.metrics.ngrams import MAX_ORDER, Counts, Ngram, count_ngrams
from showtell.text.tokenizer import tokenize

_SIGMA = 6.0  # of the Gaussian, in bigrams
_SCALE = 10.0
_FORMAT = "showtell-corpus-idf"
_VERSION = 1

# One caption: by order, the weights of its n-grams and their Euclidean norm; and the number of bigrams.
_Vector = tuple[list[dict[Ngram, float]], list[float], int]


@dataclass(frozen=True)
class CorpusIdf:
    """In how many images of a corpus each n-gram occurs: it makes CIDEr meaningful for few images, or one."""

    document_frequency: Mapping[Ngram, int]  # n-gram -> number of images with a reference that has it
    images: int  # number of images in the corpus

    @classmethod
    def from_references(cls, references: Mapping[str, Sequence[str]]) -> CorpusIdf:
        """Counts the n-grams of a corpus.

        Args:
            references: image id -> its captions, as people wrote them.

        Raises:
            MetricError: there is no image.
        """
        if not references:
            raise MetricError("Document frequencies cannot be counted: there are no references.")
        return cls.from_counts(
            [count_ngrams(" ".join(tokenize(caption)).split()) for caption in captions]
            for captions in references.values()
        )

    @classmethod
    def from_counts(cls, references: Iterable[Sequence[Counts]]) -> CorpusIdf:
        """The same, from the n-gram counts of each image's references."""
        frequency: Counter[Ngram] = Counter()
        images = 0
        for images, captions in enumerate(references, start=1):  # noqa: B007 - its last value is used
            frequency.update({ngram for counts in captions for order in counts for ngram in order})
        return cls(frequency, images)

    def save(self, path: Path) -> None:
        """Writes the frequencies as JSON, atomically. The words of an n-gram are joined by spaces."""
        frequency = {" ".join(ngram): count for ngram, count in sorted(self.document_frequency.items())}
        write_json(
            path,
            {
                "format": _FORMAT,
                "version": _VERSION,
                "images": self.images,
                "document_frequency": frequency,
            },
        )

    @classmethod
    def load(cls, path: Path) -> CorpusIdf:
        """Reads what `save` wrote.

        Raises:
            MetricError: the file is missing, is not such a file, or comes from a newer version.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise MetricError(
                f"Document frequencies cannot be read from {path}: {error.strerror}."
            ) from error
        except (ValueError, RecursionError) as error:
            raise MetricError(
                f"Document frequencies cannot be read from {path}: not JSON ({error})."
            ) from error
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise MetricError(
                f'{path} holds no document frequencies (no "format": "{_FORMAT}"). '
                "Make such a file with CorpusIdf.from_references(...).save(path)."
            )
        if data.get("version") != _VERSION:
            raise MetricError(
                f"{path} has format version {data.get('version')!r}, this Showtell reads version {_VERSION}. "
                "Make the file anew, or use the Showtell that wrote it."
            )
        images, frequency = data.get("images"), data.get("document_frequency")
        if (
            not _is_count(images)
            or not isinstance(frequency, dict)
            or not all(map(_is_count, frequency.values()))
        ):
            raise MetricError(
                f'{path} is damaged: "images" and "document_frequency" must hold counts of 1 or more.'
            )
        if max(frequency.values(), default=0) > images:
            raise MetricError(
                f"{path} is damaged: an n-gram is said to occur in more images than the {images} there are."
            )
        return cls({tuple(ngram.split(" ")): count for ngram, count in frequency.items()}, images)


def score_cider(
    references: Sequence[Sequence[Counts]], hypotheses: Sequence[Counts], corpus_idf: CorpusIdf | None = None
) -> tuple[float, list[float]]:
    """Scores one hypothesis per image.

    Args:
        references: per image, the n-gram counts of its references, at least one.
        hypotheses: per image, the n-gram counts of its hypothesis.
        corpus_idf: where rarity comes from; by default from `references` themselves, as coco-caption does.

    Returns:
        The mean over the images, and per image; each 0 to 10.
    """
    idf = corpus_idf or CorpusIdf.from_counts(references)
    weights = _Weights(idf)
    per_image = []
    for counts_of_references, counts in zip(references, hypotheses, strict=True):
        hypothesis = _weigh(counts, weights)
        similarities = [_compare(hypothesis, _weigh(other, weights)) for other in counts_of_references]
        per_image.append(_SCALE * sum(similarities) / len(similarities))
    return sum(per_image) / len(per_image), per_image


class _Weights(dict[Ngram, float]):
    """N-gram -> log(images / images that have it); an n-gram that no image has counts as in one."""

    def __init__(self, idf: CorpusIdf) -> None:
        self._unseen = math.log(idf.images)
        super().__init__(
            (ngram, self._unseen - math.log(count)) for ngram, count in idf.document_frequency.items()
        )

    def __missing__(self, ngram: Ngram) -> float:
        return self._unseen


def _weigh(counts: Counts, weights: _Weights) -> _Vector:
    vectors = [{ngram: count * weights[ngram] for ngram, count in order.items()} for order in counts]
    norms = [math.sqrt(sum(weight * weight for weight in vector.values())) for vector in vectors]
    return vectors, norms, counts[1].total()


def _compare(hypothesis: _Vector, reference: _Vector) -> float:
    """Returns the damped mean over the orders of the clipped cosines, 0 to 1."""
    difference = hypothesis[2] - reference[2]
    similarity = 0.0
    for order in range(MAX_ORDER):
        norm = hypothesis[1][order] * reference[1][order]
        if norm == 0:
            continue
        others = reference[0][order]
        similarity += (
            sum(
                min(weight, others[ngram]) * others[ngram]
                for ngram, weight in hypothesis[0][order].items()
                if ngram in others
            )
            / norm
        )
    return similarity / MAX_ORDER * math.exp(-(difference**2) / (2 * _SIGMA**2))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
