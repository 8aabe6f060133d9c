"""BLEU as coco-caption computes it (Papineni et al. 2002, sections 2.1 and 2.2).

The corpus score pools the counts of all images; it is not the mean of the images' scores. The reference
length of an image is the one nearest to the hypothesis, the shorter one on a tie.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from showtell.metrics.ngrams import MAX_ORDER, Counts, Ngram

# coco-caption's guards against division by zero; scores near 0 depend on them.
_TINY = 1e-15
_SMALL = 1e-9


def score_bleu(
    references: Sequence[Sequence[Counts]], hypotheses: Sequence[Counts]
) -> tuple[list[float], list[list[float]]]:
    """Scores one hypothesis per image.

    Args:
        references: per image, the n-gram counts of its references, at least one.
        hypotheses: per image, the n-gram counts of its hypothesis.

    Returns:
        Bleu_1 to Bleu_4 of the corpus, and per image; each 0 to 1.
    """
    pooled_matched, pooled_guessed = [0] * MAX_ORDER, [0] * MAX_ORDER
    pooled_length = pooled_nearest = 0
    per_image = []
    for counts_of_references, counts in zip(references, hypotheses, strict=True):
        length = counts[0].total()
        nearest = min(
            (reference[0].total() for reference in counts_of_references),
            key=lambda other: (abs(other - length), other),
        )
        matched = [
            _matched(counts[order], [reference[order] for reference in counts_of_references])
            for order in range(MAX_ORDER)
        ]
        guessed = [max(0, length - order) for order in range(MAX_ORDER)]
        per_image.append(_combine(matched, guessed, length, nearest))
        for order in range(MAX_ORDER):
            pooled_matched[order] += matched[order]
            pooled_guessed[order] += guessed[order]
        pooled_length += length
        pooled_nearest += nearest
    return _combine(pooled_matched, pooled_guessed, pooled_length, pooled_nearest), per_image


def _matched(counts: Counter[Ngram], references: Sequence[Counter[Ngram]]) -> int:
    """Returns how many n-grams match, each at most as often as in the reference that has it most often."""
    return sum(
        min(count, max(reference[ngram] for reference in references)) for ngram, count in counts.items()
    )


def _combine(matched: Sequence[int], guessed: Sequence[int], length: int, nearest: int) -> list[float]:
    """Returns the geometric means of the precisions up to each order, times the brevity penalty."""
    ratio = (length + _TINY) / (nearest + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product = 1.0
    scores = []
    for order in range(MAX_ORDER):
        product *= (matched[order] + _TINY) / (guessed[order] + _SMALL)
        scores.append(product ** (1 / (order + 1)) * penalty)
    return scores
