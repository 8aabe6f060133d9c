"""BLEU as coco-caption computes it (Papineni et al. 2002, sections 2.1 and 2.2).

The corpus score pools the counts of all images; it is not the mean of the images' scores. The reference
length of an image is the one nearest to the hypothesis, the shorter one on a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from showtell.metrics.ngrams import MAX_ORDER, Floats, Ints

# coco-caption's guards against division by zero; scores near 0 depend on them.
_TINY = 1e-15
_SMALL = 1e-9


@dataclass(frozen=True)
class BleuCounts:
    """What BLEU needs to know of each of some hypotheses; pooled, it gives the score of a corpus."""

    matched: (
        Floats  # (hypotheses, 4), by order: n-grams that match, each at most as often as in one reference
    )
    guessed: Floats  # (hypotheses, 4), by order: n-grams of the hypothesis
    lengths: Floats  # (hypotheses,), in words
    nearest: Floats  # (hypotheses,): the length of the reference that is nearest in length

    @classmethod
    def of(cls, matched: Floats, lengths: Ints, nearest: Ints) -> BleuCounts:
        """Counts hypotheses; each n-gram matches at most as often as in the reference that has it most often."""
        guessed = np.maximum(0, lengths[:, None] - np.arange(MAX_ORDER)).astype(np.float64)
        return cls(matched, guessed, lengths.astype(np.float64), nearest.astype(np.float64))

    def pool(self, shares: Floats) -> BleuCounts:
        """Returns the counts of whole corpora.

        Args:
            shares: (corpora, hypotheses): how often each hypothesis is in each corpus.
        """
        return BleuCounts(
            shares @ self.matched, shares @ self.guessed, shares @ self.lengths, shares @ self.nearest
        )

    def score(self) -> Floats:
        """Returns Bleu_1 to Bleu_4, (hypotheses, 4), each 0 to 1: the geometric means of the precisions up to each
        order, times the brevity penalty."""
        ratio = (self.lengths + _TINY) / (self.nearest + _SMALL)
        penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
        products = np.cumprod((self.matched + _TINY) / (self.guessed + _SMALL), axis=1)
        scores: Floats = products ** (1 / np.arange(1, MAX_ORDER + 1)) * penalty[:, None]
        return scores
