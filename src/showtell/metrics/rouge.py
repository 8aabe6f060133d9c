"""ROUGE-L as coco-caption computes it (Lin 2004, section 3.1).

The best precision and the best recall may come from different references; recall weighs more (beta = 1.2).

The longest common subsequences are found bit-parallel (Crochemore et al. 2001, "A fast and practical bit-vector
algorithm for the longest common subsequence problem"; in the form of Hyyro 2004, "Bit-parallel LCS-length
computation revisited"): one row of the usual table is held in the bits of one number, where zeros mark the places at
which the length grows. Here NumPy advances the rows of all comparisons at once, a word of the references at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from showtell.metrics.ngrams import Captions, Floats, Ints, find_sorted

_BETA_SQUARED = 1.2**2
_BITS = 64  # of a row; longer hypotheses, which no captioner writes, go one by one
_SET_BITS = np.array([number.bit_count() for number in range(256)], np.uint8)


def score_rouge(
    hypotheses: Captions, references: Captions, hypothesis: Ints, reference: Ints, starts: Ints
) -> Floats:
    """Scores hypotheses.

    Args:
        hypotheses: by coco-caption's tokens, with the same ids as the references.
        references: the same, of any number of images.
        hypothesis: (comparisons,): which hypothesis is compared, ascending.
        reference: (comparisons,): with which reference.
        starts: (hypotheses,): the first comparison of each hypothesis, ascending; each has at least one.

    Returns:
        (hypotheses,), each 0 to 1. The corpus has their mean.
    """
    # coco-caption splits the empty caption into one empty token; two of these match.
    lengths, others = hypotheses.lengths[hypothesis], references.lengths[reference]
    common = np.where((lengths == 0) & (others == 0), 1, 0)
    short = lengths <= _BITS
    common[short] += _measure_common(hypotheses, references, hypothesis[short], reference[short])
    for place in np.flatnonzero(~short).tolist():
        common[place] = _measure_long(
            _ids(hypotheses, int(hypothesis[place])), _ids(references, int(reference[place]))
        )
    precision = np.maximum.reduceat(common / np.maximum(1, lengths), starts)
    recall = np.maximum.reduceat(common / np.maximum(1, others), starts)
    weighted = recall + _BETA_SQUARED * precision
    return np.divide(
        (1 + _BETA_SQUARED) * precision * recall, weighted, out=np.zeros_like(weighted), where=weighted != 0
    )


def _measure_common(hypotheses: Captions, references: Captions, hypothesis: Ints, reference: Ints) -> Ints:
    """Returns (comparisons,): the length of the longest common subsequence of each."""
    # Longest references first, so that those with a word at a step are always the first ones.
    order = np.argsort(-references.lengths[reference], kind="stable")
    hypothesis, reference = hypothesis[order], reference[order]
    lengths = references.lengths[reference]
    words = int(lengths.max(initial=0))
    active = np.searchsorted(-lengths, -np.arange(words), side="left")  # comparisons with a word at each step
    keys, masks, stride = _mask_places(hypotheses, int(references.ids.max(initial=0)))
    # All steps are looked up at once; the first of the masks stands for words that the hypothesis has not.
    steps = np.repeat(np.arange(words), active)
    rows_of_steps = np.arange(len(steps)) - np.repeat(np.cumsum(active) - active, active)
    ids = references.ids[references.offsets[reference][rows_of_steps] + steps]
    places, found = find_sorted(hypothesis[rows_of_steps] * stride + ids, keys)
    masks_of_steps = masks[np.where(found, places + 1, 0)]
    rows = np.full(len(hypothesis), ~np.uint64(0))
    start = 0
    for count in active.tolist():
        row = rows[:count]
        matches = row & masks_of_steps[start : start + count]
        rows[:count] = (row + matches) | (row - matches)
        start += count
    common = np.empty(len(hypothesis), np.int64)
    common[order] = _SET_BITS[(~rows).view(np.uint8).reshape(-1, 8)].sum(1)
    return common


def _mask_places(hypotheses: Captions, largest: int) -> tuple[Ints, NDArray[np.uint64], int]:
    """Returns where the hypotheses have which word.

    Returns:
        keys: (distinct words of each hypothesis,), ascending: hypothesis x stride + word.
        masks: (keys + 1,): a bit for each place at which the word is; none in the first mask.
        stride: larger than any word.
    """
    stride = max(largest, int(hypotheses.ids.max(initial=0))) + 1
    caption = np.repeat(np.arange(len(hypotheses.offsets) - 1), hypotheses.lengths)
    places = np.arange(len(caption)) - hypotheses.offsets[caption]
    keys = caption * stride + hypotheses.ids
    order = np.argsort(keys)
    ascending = keys[order]
    first = np.flatnonzero(np.diff(ascending, prepend=-1))
    bits = np.uint64(1) << np.minimum(places[order], _BITS - 1).astype(np.uint64)
    joined = np.bitwise_or.reduceat(bits, first) if len(first) else bits
    return ascending[first], np.concatenate((np.zeros(1, np.uint64), joined)), stride


def _ids(captions: Captions, caption: int) -> list[int]:
    ids: list[int] = captions.ids[captions.offsets[caption] : captions.offsets[caption + 1]].tolist()
    return ids


def _measure_long(first: list[int], second: list[int]) -> int:
    """The same for one comparison of any length."""
    places: dict[int, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    mask = (1 << len(first)) - 1
    row = mask
    for word in second:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & mask
    return len(first) - row.bit_count()
