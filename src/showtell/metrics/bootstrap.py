"""How far scores would move with other images: bootstrap intervals, and whether one system beats another.

The images are drawn again, with replacement, and every such corpus is scored: BLEU from the pooled counts of its
images, ROUGE_L and CIDEr as means of theirs. The interval holds the middle part of these scores (Efron and Tibshirani
1993, section 13.3; Koehn 2004 for BLEU). CIDEr keeps the document frequencies of the whole corpus: how rare an n-gram
is belongs to the metric, not to the sample. METEOR's corpus score comes from inside its Java program, so it has no
interval.

An interval speaks of the images alone. What another seed in training would change is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from showtell.errors import MetricError, UsageError
from showtell.metrics.ngrams import MAX_ORDER, Floats
from showtell.metrics.scorer import Scores

RESAMPLES = 1000
CONFIDENCE = 0.95
_AT_ONCE = 100  # corpora; with 5,000 images their shares take 4 MB
_MEANS = ("ROUGE_L", "CIDEr")  # metrics whose corpus score is the mean of the images'


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the score of a corpus lies if its images are drawn again."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one system is than another on the same images."""

    value: float  # score of the first system minus that of the second
    interval: Interval  # of this difference
    better: float  # share of the corpora where the first system scores higher; a tie counts half
    p_value: float  # two-sided: how often so large a difference comes about if there is none

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-serialisable values."""
        return {
            "difference": self.value,
            "interval": [self.interval.low, self.interval.high],
            "better": self.better,
            "p_value": self.p_value,
        }


def bootstrap_intervals(
    scores: Scores, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> dict[str, Interval]:
    """Returns the percentile interval of each corpus score but METEOR's.

    Args:
        scores: of one system.
        resamples: how many corpora are drawn.
        confidence: the share of them that an interval holds.
        seed: equal seeds give equal intervals.

    Raises:
        UsageError: resamples below 1, or a confidence that is not between 0 and 1.
    """
    drawn = _resample([scores], resamples, confidence, seed)
    return {key: _interval(values[0], confidence) for key, values in drawn.items()}


def compare_paired(
    first: Scores,
    second: Scores,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compares two systems on the same images, which are drawn for both together (Koehn 2004, section 4).

    Args:
        first: scores of one system.
        second: scores of the other, with the same metrics and images.
        resamples: how many corpora are drawn.
        confidence: the share of them that an interval holds.
        seed: equal seeds give equal results.

    Raises:
        MetricError: the systems were not scored on the same images.
        UsageError: resamples below 1, or a confidence that is not between 0 and 1.
    """
    if list(first.per_image) != list(second.per_image):
        raise MetricError(
            "Only systems that were scored on the same images, in the same order, can be compared."
        )
    found = {}
    for key, (ours, theirs) in _resample([first, second], resamples, confidence, seed).items():
        differences = ours - theirs
        better = float(((differences > 0) + 0.5 * (differences == 0)).mean())
        # One is added to both counts (Davison and Hinkley 1997, section 4.2.3): no finite number of corpora shows that
        # something never happens.
        smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
        p_value = min(1.0, 2 * (smaller + 1) / (resamples + 1))
        found[key] = Difference(
            first.corpus[key] - second.corpus[key], _interval(differences, confidence), better, p_value
        )
    return found


def describe_score(key: str, value: float, interval: Interval | None = None) -> str:
    """Returns a score for people, times 100, as "CIDEr 49.6 [47.1, 52.0]"."""
    bounds = "" if interval is None else f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return f"{key} {100 * value:.1f}{bounds}"


def _resample(systems: list[Scores], resamples: int, confidence: float, seed: int) -> Mapping[str, Floats]:
    """Returns key -> scores, (systems, resamples): of the same drawn images for every system."""
    if resamples < 1:
        raise UsageError(f"A bootstrap needs at least 1 resample. Received: {resamples}")
    if not 0 < confidence < 1:
        raise UsageError(f"The confidence of an interval must be between 0 and 1. Received: {confidence}")
    images = len(systems[0].per_image)
    parts: dict[str, list[list[Floats]]] = {}
    for shares in _draw(images, resamples, seed):
        for place, scores in enumerate(systems):
            for key, values in _score(scores, shares).items():
                parts.setdefault(key, [[] for _ in systems])[place].append(values)
    return {
        key: np.stack([np.concatenate(of_system) for of_system in each])
        for key, each in parts.items()
        if all(each)  # a metric that only one system has cannot be compared
    }


def _draw(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yields shares, (corpora, images): how often each image is in each corpus."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _AT_ONCE):
        corpora = min(_AT_ONCE, resamples - start)
        drawn = generator.integers(images, size=(corpora, images)) + np.arange(corpora)[:, None] * images
        counts = np.bincount(drawn.ravel(), minlength=corpora * images)
        yield counts.reshape(corpora, images).astype(np.float64)


def _score(scores: Scores, shares: Floats) -> dict[str, Floats]:
    """Returns key -> the scores, (corpora,), of corpora that hold the images so often."""
    found: dict[str, Floats] = {}
    if scores.bleu is not None:
        pooled = scores.bleu.pool(shares).score()
        found.update((f"Bleu_{order + 1}", pooled[:, order]) for order in range(MAX_ORDER))
    for key in _MEANS:
        if key in scores.corpus:
            values = np.array([image[key] for image in scores.per_image.values()])
            found[key] = shares @ values / len(values)
    return found


def _interval(values: Floats, confidence: float) -> Interval:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
