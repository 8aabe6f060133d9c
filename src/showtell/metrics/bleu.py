"""BLEU as coco-caption computes it (Papineni et al. 2002, sections 2.1 and 2.2).

The corpus score pools the counts of all images; it is not the mean of the images' scores. The reference
length of an image is the one nearest to the hypothesis, the shorter one on a tie.
"""

from __future__ import annotations

import numpy as np

from showtell.metrics.ngrams import MAX_ORDER, Floats, Ints

# coco-caption's guards against division by zero; scores near 0 depend on them.
_TINY = 1e-15
_SMALL = 1e-9


def score_bleu(matched: Floats, lengths: Ints, nearest: Ints) -> tuple[list[float], Floats]:
    """Scores hypotheses.

    Args:
        matched: (hypotheses, 4), by order: how many n-grams match, each at most as often as in the reference that has
            it most often.
        lengths: (hypotheses,), in words.
        nearest: (hypotheses,): the length of the reference that is nearest in length.

    Returns:
        Bleu_1 to Bleu_4 of the corpus, and per hypothesis, (hypotheses, 4); each 0 to 1.
    """
    guessed = np.maximum(0, lengths[:, None] - np.arange(MAX_ORDER)).astype(np.float64)
    pooled = _combine(
        matched.sum(0, keepdims=True),
        guessed.sum(0, keepdims=True),
        lengths.sum(keepdims=True),
        nearest.sum(keepdims=True),
    )
    return pooled[0].tolist(), _combine(matched, guessed, lengths, nearest)


def _combine(matched: Floats, guessed: Floats, lengths: Ints, nearest: Ints) -> Floats:
    """Returns the geometric means of the precisions up to each order, times the brevity penalty."""
    ratio = (lengths + _TINY) / (nearest + _SMALL)
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    products = np.cumprod((matched + _TINY) / (guessed + _SMALL), axis=1)
    scores: Floats = products ** (1 / np.arange(1, MAX_ORDER + 1)) * penalty[:, None]
    return scores
