"""Counts of n-grams, which BLEU and CIDEr share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MAX_ORDER = 4  # of n-grams in BLEU and CIDEr
Ngram = tuple[str, ...]
Counts = tuple[Counter[Ngram], ...]  # by order: [0] single words, ..., [3] runs of four


def count_ngrams(words: Sequence[str]) -> Counts:
    """Returns how often each run of one to four words occurs."""
    return tuple(
        Counter(zip(*(words[start:] for start in range(order)), strict=False))
        for order in range(1, MAX_ORDER + 1)
    )
