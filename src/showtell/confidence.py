"""How sure a captioner may be: probabilities of a search, made to mean what they say on pictures with known captions.

A word is *supported* if somebody who described the picture used it, too. The confidence of a word is the chance of
that; the confidence of a caption is the share of its content words (all but "a", "is", "with" and their like) that are
expected to be supported. Both are logistic regressions on the log-probabilities of the search, fitted by maximum
likelihood on a split that was not trained on (Platt 1999, "Probabilistic Outputs for Support Vector Machines"; Guo et
al. 2017, "On Calibration of Modern Neural Networks"). The likelihoods of a captioner by themselves are no such thing:
label smoothing makes them too small, rewarded training too large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from showtell.errors import BundleError, UsageError
from showtell.text import tokenize

LEAST_IMAGES = 50  # fewer say too little
BINS = 10  # of a reliability diagram
_FOLDS = 5
_RIDGE = 1e-3  # keeps weights finite where a feature separates
_SURE = 12.0  # log-odds are cut there: a probability of 1 has none
_FAR = 30.0  # log-odds beyond which nothing changes any more, and exponentials overflow
_SMALL_WORDS = (
    "a an the this that these those some another other of in on at by with from to into onto over under near for as "
    "off up down out and or but while is are was were be being been am has have having it its his her hers their "
    "theirs he she they them him who which what there where"
)
FUNCTION_WORDS = frozenset(_SMALL_WORDS.split())  # English; in another language all words count as content

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """One caption that a search wrote."""

    words: Sequence[str]
    log_probs: Sequence[float]  # natural, of each word


@dataclass(frozen=True)
class Rating:
    """How sure a captioner may be of one caption."""

    caption: float  # the share of its content words that are expected to be supported, 0 to 1
    words: tuple[float, ...]  # the chance that each word is supported, 0 to 1


@dataclass(frozen=True)
class Confidence:
    """Two fitted regressions; weights of a constant and of the features that `_word_features` and its like give."""

    word: tuple[float, ...]
    caption: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, weights, count in (("word", self.word, 5), ("caption", self.caption, 4)):
            numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in weights)
            if len(weights) != count or not numbers:
                raise BundleError(f"confidence.{name} must be {count} finite numbers. Received: {weights!r}")

    def rate(self, said: Said) -> Rating:
        """Returns how sure one may be of a caption and of each of its words."""
        if not said.words:
            return Rating(0.0, ())
        words = _predict(_word_features(said), self.word)
        caption = _predict(_caption_features(said, words)[None], self.caption)
        return Rating(float(caption[0]), tuple(words.tolist()))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Confidence:
        """Builds it from `to_dict`'s result.

        Raises:
            BundleError: the values are damaged.
        """
        try:
            return cls(tuple(values["word"]), tuple(values["caption"]))
        except (KeyError, TypeError) as error:
            raise BundleError(f"confidence: damaged: {error!r}") from None


@dataclass(frozen=True)
class Reliability:
    """What predictions are worth: in each bin of them, what was predicted and what was true.

    Equally many predictions are in every bin, as nearly as ties allow.
    """

    predicted: tuple[float, ...]  # mean of each bin
    observed: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def expected_error(self) -> float:
        """The expected calibration error: the mean distance of the two, weighted by the counts (Naeini et al. 2015)."""
        distances = np.abs(np.subtract(self.predicted, self.observed))
        return float(np.average(distances, weights=self.counts))


@dataclass(frozen=True)
class Worth:
    """What ratings are worth on pictures whose captions are known."""

    words: Reliability
    captions: Reliability
    raw_words: Reliability  # of the search's own probabilities, for comparison
    word_ranking: float  # chance that a supported word has a higher confidence than an unsupported one (AUC)
    caption_ranking: float  # Spearman's correlation of confidence and support
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        reliabilities = {name: getattr(self, name) for name in ("words", "captions", "raw_words")}
        return {
            "images": self.images,
            "word_ranking": self.word_ranking,
            "caption_ranking": self.caption_ranking,
            **{
                name: {**asdict(one), "expected_error": one.expected_error}
                for name, one in reliabilities.items()
            },
        }


@dataclass(frozen=True)
class Calibration(Worth):
    """What a fit gave; what it is worth is of images that each fit had not seen (five folds)."""

    confidence: Confidence

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return {"confidence": self.confidence.to_dict(), **super().to_dict()}


def fit_confidence(
    captions: Sequence[Said], references: Sequence[Sequence[str]], *, seed: int = 0
) -> Calibration:
    """Fits the confidence of a captioner on pictures whose captions are known, and measures it.

    Args:
        captions: the best caption of each picture, as its search wrote it.
        references: what people said of each.
        seed: of the folds.

    Raises:
        UsageError: too few pictures, or words that are all supported or all not.
    """
    pairs = [(said, own) for said, own in zip(captions, references, strict=True) if said.words]
    captions, references = [said for said, _ in pairs], [own for _, own in pairs]
    if len(captions) < LEAST_IMAGES:
        raise UsageError(
            f"{len(captions)} images with captions are too few to learn how sure a captioner may be. It takes at least "
            f"{LEAST_IMAGES}, better 1,000: those of another split (--split), or a larger one "
            "(--dev-fraction when training)."
        )
    support = [_find_support(said, own) for said, own in zip(captions, references, strict=True)]
    supported = np.concatenate(support)
    if supported.min() == supported.max():
        raise UsageError(
            "All words of the captions are supported by the references, or none is: nothing to learn."
        )
    folds = np.random.default_rng(seed).permutation(len(captions)) % _FOLDS
    rated: list[Rating] = [Rating(0.0, ())] * len(captions)
    for fold in range(_FOLDS):
        seen = np.flatnonzero(folds != fold).tolist()
        fitted = _fit([captions[i] for i in seen], [support[i] for i in seen])
        for index in np.flatnonzero(folds == fold).tolist():
            rated[index] = fitted.rate(captions[index])
    worth = measure_ratings(captions, rated, references)
    return Calibration(**vars(worth), confidence=_fit(captions, support))


def measure_ratings(
    captions: Sequence[Said], rated: Sequence[Rating], references: Sequence[Sequence[str]]
) -> Worth:
    """Measures what ratings are worth: whether words and captions are supported as often as was predicted.

    Args:
        captions: of each picture one, of at least one word.
        rated: how sure a captioner was of each.
        references: what people said of each.
    """
    support = [_find_support(said, own) for said, own in zip(captions, references, strict=True)]
    supported = np.concatenate(support)
    words = np.concatenate([rating.words for rating in rated])
    shares = np.array([_share(said, found) for said, found in zip(captions, support)])
    whole = np.array([rating.caption for rating in rated])
    return Worth(
        words=measure_reliability(words, supported),
        captions=measure_reliability(whole, shares),
        raw_words=measure_probabilities(captions, references),
        word_ranking=_rank_pairs(words, supported),
        caption_ranking=_correlate(_ranks(whole), _ranks(shares)),
        images=len(captions),
    )


def measure_probabilities(captions: Sequence[Said], references: Sequence[Sequence[str]]) -> Reliability:
    """Returns how often words are supported, by the probability that the search gave them; at least one word."""
    support = [_find_support(said, own) for said, own in zip(captions, references, strict=True)]
    return measure_reliability(
        np.exp(np.concatenate([said.log_probs for said in captions])), np.concatenate(support)
    )


def measure_reliability(predicted: DoubleArray, observed: DoubleArray) -> Reliability:
    """Returns what was predicted and what was true, in bins of equally many predictions.

    Where equal predictions fall into two bins, each of them counts as the mean of what was true of all.
    """
    _, group = np.unique(predicted, return_inverse=True)
    observed = (np.bincount(group, weights=observed) / np.bincount(group))[group]
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return Reliability(
        tuple(float(predicted[part].mean()) for part in parts),
        tuple(float(observed[part].mean()) for part in parts),
        tuple(len(part) for part in parts),
    )


def _fit(captions: Sequence[Said], support: Sequence[DoubleArray]) -> Confidence:
    features = np.concatenate([_word_features(said) for said in captions])
    word = _fit_logistic(features, np.concatenate(support))
    whole = np.array([_caption_features(said, _predict(_word_features(said), word)) for said in captions])
    shares = np.array([_share(said, found) for said, found in zip(captions, support)])
    return Confidence(word, _fit_logistic(whole, shares))


def _find_support(said: Said, references: Sequence[str]) -> DoubleArray:
    used = {word for reference in references for word in tokenize(reference)}
    return np.array([word in used for word in said.words], dtype=np.float64)


def _share(said: Said, support: DoubleArray) -> float:
    content = _is_content(said.words)
    return float(support[content].mean() if content.any() else support.mean())


def _is_content(words: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.array([word not in FUNCTION_WORDS for word in words], dtype=np.bool_)


def _word_features(said: Said) -> DoubleArray:
    """Returns (words, 4): log-odds, those of content words alone, whether it is one, the caption's mean."""
    log_probs = np.minimum(np.asarray(said.log_probs, dtype=np.float64), 0.0)
    odds = _log_odds(np.exp(log_probs))
    content = _is_content(said.words).astype(np.float64)
    mean = np.full(len(odds), log_probs.mean())
    return np.stack([odds, odds * content, content, mean], axis=1)


def _caption_features(said: Said, words: DoubleArray) -> DoubleArray:
    """Returns (3,): log-odds of the mean and of the least confidence of the content words, and how many there are."""
    content = _is_content(said.words)
    chosen = words[content] if content.any() else words
    return np.array([_log_odds(chosen.mean()), _log_odds(chosen.min()), math.log(len(chosen))])


def _log_odds(probability: Any) -> Any:
    least = 1 / (1 + math.exp(_SURE))
    inside = np.clip(probability, least, 1 - least)
    return np.log(inside) - np.log1p(-inside)


def _predict(features: DoubleArray, weights: Sequence[float] | DoubleArray) -> DoubleArray:
    odds = weights[0] + features @ np.asarray(weights[1:], dtype=np.float64)
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -_FAR, _FAR))))


def _fit_logistic(features: DoubleArray, targets: DoubleArray) -> tuple[float, ...]:
    """Returns the weights of greatest likelihood, the constant first; targets may be shares (Newton's method)."""
    design = np.column_stack([np.ones(len(features)), features])
    penalty = np.full(design.shape[1], _RIDGE * len(design))
    penalty[0] = 0.0
    weights = np.zeros(design.shape[1])
    for _ in range(100):
        predicted = _predict(features, weights)
        gradient = design.T @ (predicted - targets) + penalty * weights
        curvature = (design * (predicted * (1 - predicted))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
        weights -= step / max(1.0, float(np.abs(step).max()))  # far steps overshoot where the curve is flat
        if np.abs(step).max() < 1e-9:
            break
    return tuple(float(weight) for weight in weights)


def _rank_pairs(scores: DoubleArray, labels: DoubleArray) -> float:
    ranks = _ranks(scores)
    positive = labels == 1
    count = positive.sum()
    if count in (0, len(labels)):  # nothing to tell apart
        return 0.5
    return float((ranks[positive].sum() - count * (count - 1) / 2) / (count * (len(labels) - count)))


def _correlate(first: DoubleArray, second: DoubleArray) -> float:
    if first.std() == 0 or second.std() == 0:  # all alike: nothing is ranked
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: DoubleArray) -> DoubleArray:
    """Returns ranks from 0, the mean of them for equal values."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts + 1) / 2)[places]
