"""CIDEr as coco-caption reports it, which is CIDEr-D (Vedantam et al. 2015, sections 4 and 7).

Counts of n-grams are weighted by how rare the n-gram is among the images; a hypothesis is compared with each
reference by a clipped cosine, damped by a Gaussian of their difference in length. coco-caption measures that
length in bigrams, so captions of none and of one word count as equally long; that is kept.
"""

from __future__ import annotations

import numpy as np

from showtell.metrics.ngrams import MAX_ORDER, Floats, Ints

_SIGMA = 6.0  # of the Gaussian, in bigrams
_SCALE = 10.0


def score_cider(products: Floats, norms: Floats, differences: Ints, starts: Ints) -> Floats:
    """Scores hypotheses from the comparison of each with each of its references.

    Args:
        products: (comparisons, 4), by order: the sum over the n-grams of min(weight in the hypothesis, weight in the
            reference) x weight in the reference.
        norms: (comparisons, 4): the Euclidean norms of both sides' weights, multiplied.
        differences: (comparisons,), of the two lengths in bigrams.
        starts: (hypotheses,): the first comparison of each hypothesis, ascending; each has at least one.

    Returns:
        (hypotheses,), each 0 to 10. The corpus has their mean.
    """
    cosines = np.divide(products, norms, out=np.zeros_like(products), where=norms != 0)
    damped = cosines.sum(1) / MAX_ORDER * np.exp(-(differences**2) / (2 * _SIGMA**2))
    scores: Floats = _SCALE * np.add.reduceat(damped, starts) / np.diff(starts, append=len(damped))
    return scores


def weigh(document_frequency: Ints | Floats, images: int) -> Floats:
    """Returns log(images / images that have the n-gram); an n-gram that no image has counts as in one."""
    weights: Floats = np.log(images) - np.log(np.maximum(1, document_frequency))
    return weights
