"""References prepared once, to score many hypotheses against them.

Self-critical training (Rennie et al. 2017) scores sampled captions of the same images thousands of times. What
depends on the references alone is done once: their tokens, the numbers of their n-grams, and how rare each is.
`showtell.metrics.score` scores through the same class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showtell.metrics.bleu import BleuCounts
from showtell.metrics.checks import INDEXED_METRICS, check_hypotheses, check_metrics, check_references
from showtell.metrics.cider import score_cider, weigh
from showtell.metrics.corpus_idf import CorpusIdf
from showtell.metrics.ngrams import (
    MAX_ORDER,
    Captions,
    Floats,
    Ints,
    NgramTable,
    find_ngrams,
    split_again,
    sum_by_order,
)
from showtell.metrics.postings import Postings
from showtell.metrics.rouge import score_rouge
from showtell.text.tokenizer import tokenize

_AT_ONCE = 512  # hypotheses; bounds the memory of one call, and stays in the processor's cache


@dataclass(frozen=True)
class HypothesisScores:
    """Scores by coco-caption's keys: Bleu_1 to Bleu_4, ROUGE_L (each 0 to 1), CIDEr (0 to 10)."""

    corpus: dict[str, float]  # key -> score of all hypotheses together
    per_hypothesis: dict[str, Floats]  # key -> (hypotheses,)
    bleu: BleuCounts | None = None  # what Bleu comes from; None where it was not asked for


class ReferenceIndex:
    """The references of some images, ready to score batches of hypotheses.

    Building takes O(words x log(words)) time for the words of all references. Scoring takes time for the
    hypotheses' words and the postings that match them; the size of the index enters only through binary search.
    The index takes about 100 bytes for each word of the references (30 MB for 5,000 images with five each). It keeps
    nothing of what it has scored and never changes, so threads can share it.

    Args:
        references: image id -> captions that people wrote, at least one.
        corpus_idf: where CIDEr takes the rarity of n-grams from; by default the references.
        end: a token that is put behind every reference, for hypotheses that say with it where they end; "" puts none.

    Raises:
        MetricError: there is no image, an image has no reference, or a reference is not text.
    """

    def __init__(
        self,
        references: Mapping[str, Sequence[str]],
        *,
        corpus_idf: CorpusIdf | None = None,
        end: str = "",
    ) -> None:
        check_references(references)
        self._rows = {identifier: row for row, identifier in enumerate(references)}
        per_image = np.fromiter(map(len, references.values()), np.int64, len(references))
        self._first = np.concatenate(([0], np.cumsum(per_image)))  # (images + 1,), among all references
        closing = [end] if end else []
        tokens = [tokenize(caption) + closing for captions in references.values() for caption in captions]
        names = dict.fromkeys(chain.from_iterable(tokens))
        pieces = split_again(tokens, names)
        if pieces is not tokens:
            names.update(dict.fromkeys(chain.from_iterable(pieces)))
        self._names = list(names)
        self._word_ids = dict(zip(self._names, count()))
        self._tokens = Captions.encode(tokens, self._word_ids)  # what ROUGE_L compares
        words = self._tokens if pieces is tokens else Captions.encode(pieces, self._word_ids)
        self._lengths = words.lengths  # (references,), in words
        table = NgramTable.of_words(len(self._names))
        occurrences = find_ngrams(words, table)
        orders = np.concatenate((table.orders, occurrences.fresh_orders))
        self._table = NgramTable(table.words, occurrences.fresh_codes, orders)
        self._postings = Postings.build(occurrences, self._first, self._table.size)
        if corpus_idf is None:
            self._corpus_idf = CorpusIdf({}, len(references))  # for n-grams that no reference has
            frequency = self._postings.count_images()
        else:
            self._corpus_idf = corpus_idf
            ids = np.concatenate((np.arange(table.words), words.ids))
            places = np.concatenate((np.arange(table.words), occurrences.fresh_places + table.words))
            frequency = self._look_up(ids, places, orders, ())
        self._idf = weigh(frequency, self._corpus_idf.images)  # (n-grams,)
        squares = np.zeros((len(self._lengths), MAX_ORDER))
        for ngrams, references_with, counts in self._postings.slices():
            weights = counts * self._idf[ngrams]
            np.add.at(squares, (references_with, orders[ngrams]), weights * weights)
        self._norms = np.sqrt(squares)  # (references, 4)

    @property
    def ids(self) -> tuple[str, ...]:
        """The images, in the order in which they were given."""
        return tuple(self._rows)

    def score(
        self,
        images: Sequence[str],
        hypotheses: Sequence[str | Sequence[str]],
        *,
        metrics: Sequence[str] = INDEXED_METRICS,
    ) -> HypothesisScores:
        """Scores hypotheses, any number of them for an image.

        Args:
            images: the image id of each hypothesis.
            hypotheses: text, which is tokenised as the references were; or a list of tokens, which is taken as it is.
            metrics: some of "Bleu", "ROUGE_L" and "CIDEr".

        Returns:
            The scores, hypotheses in the order given.

        Raises:
            UsageError: an unknown metric, or none.
            MetricError: an image that is not in the index, lists of different lengths or of nothing, or a hypothesis
                that is neither text nor a list of tokens.
        """
        check_metrics(metrics, INDEXED_METRICS)
        check_hypotheses(self._rows, images, hypotheses, tokens=True)
        rows = np.fromiter(map(self._rows.__getitem__, images), np.int64, len(images))
        tokens = [
            tokenize(hypothesis) if isinstance(hypothesis, str) else hypothesis for hypothesis in hypotheses
        ]
        parts = [
            self._score_part(rows[start : start + _AT_ONCE], tokens[start : start + _AT_ONCE], metrics)
            for start in range(0, len(rows), _AT_ONCE)
        ]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        corpus: dict[str, float] = {}
        values: dict[str, Floats] = {}
        bleu: BleuCounts | None = None
        for metric in dict.fromkeys(metrics):
            if metric == "Bleu":
                bleu = BleuCounts.of(joined["matched"], joined["lengths"], joined["nearest"])
                totals, columns = bleu.pool(np.ones((1, len(rows)))).score()[0], bleu.score()
                for order in range(MAX_ORDER):
                    corpus[f"Bleu_{order + 1}"] = float(totals[order])
                    values[f"Bleu_{order + 1}"] = columns[:, order]
            else:
                corpus[metric] = float(joined[metric].mean())
                values[metric] = joined[metric]
        return HypothesisScores(corpus, values, bleu)

    def _score_part(
        self, rows: Ints, tokens: Sequence[Sequence[str]], metrics: Sequence[str]
    ) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """Compares each hypothesis with each reference of its image; (comparisons,) is the number of these pairs."""
        references = self._first[rows + 1] - self._first[rows]
        starts = np.cumsum(references) - references  # (hypotheses,): the first comparison of each
        hypothesis = np.repeat(np.arange(len(rows)), references)
        reference = np.arange(len(hypothesis)) + np.repeat(self._first[rows] - starts, references)
        found: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {}
        captions = Captions.encode(tokens, self._word_ids)
        if "ROUGE_L" in metrics:
            found["ROUGE_L"] = score_rouge(captions, self._tokens, hypothesis, reference, starts)
        if "Bleu" not in metrics and "CIDEr" not in metrics:
            return found
        pieces = split_again(tokens, set(chain.from_iterable(tokens)))
        words = captions if pieces is tokens else Captions.encode(pieces, self._word_ids)
        occurrences = find_ngrams(words, self._table)
        stride = self._table.size + len(occurrences.fresh_orders)
        numbers, captions_of_numbers = map(np.concatenate, (occurrences.numbers, occurrences.captions))
        distinct, counts = np.unique(captions_of_numbers * stride + numbers, return_counts=True)
        owners, ngrams = np.divmod(distinct, stride)  # (distinct n-grams of each hypothesis,)
        known = ngrams < self._table.size
        orders = _pick(self._table.orders, occurrences.fresh_orders, ngrams, known)
        queries = np.flatnonzero(known)
        matches, postings = self._postings.find(rows[owners[queries]], ngrams[queries])
        matches = queries[matches]  # (postings that match,): the n-gram of a hypothesis that has them
        if "Bleu" in metrics:
            first = np.flatnonzero(np.diff(matches, prepend=-1))
            matched = matches[first]
            most = np.maximum.reduceat(self._postings.counts[postings], first) if len(first) else first
            clipped = np.minimum(counts[matched], most)
            found["matched"] = sum_by_order(owners[matched], orders[matched], clipped, len(rows))
            found["lengths"] = words.lengths
            found["nearest"] = _find_nearest(words.lengths[hypothesis], self._lengths[reference], starts)
        if "CIDEr" in metrics:
            fresh = self._look_up(words.ids, occurrences.fresh_places, occurrences.fresh_orders, words.fresh)
            idf = _pick(self._idf, weigh(fresh, self._corpus_idf.images), ngrams, known)
            weights = counts * idf
            others = self._postings.counts[postings] * idf[matches]
            comparison = starts[owners[matches]] + (
                self._postings.references[postings] - self._first[rows[owners[matches]]]
            )
            products = np.minimum(weights[matches], others) * others
            norms = np.sqrt(sum_by_order(owners, orders, weights * weights, len(rows)))
            bigrams = np.maximum(1, words.lengths)[hypothesis] - np.maximum(1, self._lengths)[reference]
            found["CIDEr"] = score_cider(
                sum_by_order(comparison, orders[matches], products, len(hypothesis)),
                norms[hypothesis] * self._norms[reference],
                bigrams,
                starts,
            )
        return found

    def _look_up(self, ids: Ints, places: Ints, orders: NDArray[np.int8], fresh: Sequence[str]) -> Ints:
        """Returns in how many images of the corpus each n-gram occurs, given where it starts in `ids`."""
        frequency = self._corpus_idf.document_frequency
        if not frequency:
            return np.zeros(len(places), np.int64)
        names = [*self._names, *fresh] if len(fresh) else self._names
        words = [names[word] for word in ids.tolist()]
        spans = zip(places.tolist(), (places + orders + 1).tolist())
        return np.fromiter(
            (frequency.get(tuple(words[start:stop]), 0) for start, stop in spans), np.int64, len(places)
        )


def _pick(
    known_values: NDArray[Any], fresh_values: NDArray[Any], ngrams: Ints, known: NDArray[np.bool_]
) -> NDArray[Any]:
    """Returns the value of each n-gram; those that are not known are numbered behind the others."""
    values = np.empty(len(ngrams), known_values.dtype)
    values[known] = known_values[ngrams[known]]
    values[~known] = fresh_values[ngrams[~known] - len(known_values)]
    return values


def _find_nearest(lengths: Ints, others: Ints, starts: Ints) -> Ints:
    """Returns (hypotheses,): of the references' lengths the nearest, and the shorter one on a tie."""
    stride = int(others.max()) + 1
    nearest: Ints = np.minimum.reduceat(np.abs(others - lengths) * stride + others, starts) % stride
    return nearest
