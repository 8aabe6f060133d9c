"""Captions as numbers: words, and the runs of one to four words that BLEU and CIDEr count.

An n-gram's number is exact, not a hash: a run of n words is looked up by the number of its first n - 1 words and
its last word, packed into 64 bits. Everything is sorted arrays, so a whole corpus is numbered in a few dozen
calls of NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ORDER = 4  # of n-grams in BLEU and CIDEr
Ngram = tuple[str, ...]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_WORD_BITS = 32  # of a packed n-gram; the other half holds the number of the n-gram without its last word


@dataclass(frozen=True)
class Captions:
    """Captions as word ids, one behind the other."""

    ids: Ints  # (words,)
    offsets: Ints  # (captions + 1,): where each caption starts, and where the last one ends
    fresh: tuple[str, ...] = ()  # words that were not known; their ids follow those of the known ones

    @property
    def lengths(self) -> Ints:
        """(captions,), in words."""
        return np.diff(self.offsets)

    @classmethod
    def encode(cls, captions: Sequence[Sequence[str]], known: Mapping[str, int]) -> Captions:
        """Numbers the words of `captions`.

        Args:
            captions: the words of each.
            known: word -> id, dense from 0. It is not changed: other words get ids that hold for this call only.
        """
        words = list(chain.from_iterable(captions))
        ids = np.fromiter(map(known.get, words, repeat(-1)), np.int64, len(words))
        fresh: dict[str, int] = {}
        for place in np.flatnonzero(ids < 0).tolist():
            ids[place] = len(known) + fresh.setdefault(words[place], len(fresh))
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        return cls(ids, np.concatenate(([0], np.cumsum(lengths))), tuple(fresh))


def split_again(captions: Sequence[Sequence[str]], distinct: Iterable[str]) -> Sequence[Sequence[str]]:
    """Returns the words that coco-caption's BLEU and CIDEr see; its ROUGE-L sees `captions` themselves.

    The two differ in tokens such as "1\\xa01/2", which white space splits once more. Where no token of the
    `distinct` ones does, the very same object is returned.
    """
    if all(token.split() == [token] for token in distinct):
        return captions
    return [" ".join(caption).split() for caption in captions]


@dataclass(frozen=True)
class NgramTable:
    """Numbers for the n-grams of a text: first its words, then its runs of two, of three and of four."""

    words: int  # how many; the numbers of single words are their ids
    codes: tuple[
        Ints, ...
    ]  # for runs of two to four, ascending: (rank of the run less its last word, that word)
    orders: NDArray[np.int8]  # (n-grams,), by number: words less one

    @classmethod
    def of_words(cls, words: int) -> NgramTable:
        """Returns a table that knows single words only."""
        return cls(words, (np.empty(0, np.int64),) * (MAX_ORDER - 1), np.zeros(words, np.int8))

    @property
    def size(self) -> int:
        """How many n-grams are known."""
        return len(self.orders)


@dataclass(frozen=True)
class Occurrences:
    """Where n-grams occur in captions. Those that the table does not know are numbered behind it."""

    numbers: tuple[Ints, ...]  # by order, (occurrences,)
    captions: tuple[Ints, ...]  # by order, (occurrences,), ascending
    fresh_orders: NDArray[np.int8]  # (n-grams that are not in the table,): words less one
    fresh_places: Ints  # (the same,): where in the captions' ids one of them starts
    fresh_codes: tuple[Ints, ...]  # (the same, by order): what they add to `NgramTable.codes`


def find_ngrams(captions: Captions, table: NgramTable) -> Occurrences:
    """Numbers all runs of one to four words, in O(words x log(words + n-grams of the table))."""
    ids = captions.ids
    caption_of_word = np.repeat(np.arange(len(captions.lengths)), captions.lengths)
    places = np.arange(len(ids))
    remaining = captions.offsets[1:][caption_of_word] - places
    known, fresh = table.words, len(captions.fresh)
    late = np.flatnonzero(ids >= known)
    examples = np.empty(fresh, np.int64)
    examples[ids[late] - known] = late
    numbers = [np.where(ids < known, ids, ids + (table.size - known))]
    owners, fresh_places, fresh_codes = [caption_of_word], [examples], []
    known_before, fresh_before = known, table.size + fresh
    ranks = ids
    for order in range(1, MAX_ORDER):
        inside = remaining[places] > order
        places = places[inside]
        codes = ranks[inside] << _WORD_BITS | ids[places + order]
        known = len(table.codes[order - 1])
        ranks, added, examples = _rank(codes, table.codes[order - 1])
        numbers.append(ranks + np.where(ranks < known, known_before, fresh_before - known))
        owners.append(caption_of_word[places])
        fresh_places.append(places[examples])
        fresh_codes.append(added)
        known_before += known
        fresh_before += len(added)
    return Occurrences(
        tuple(numbers),
        tuple(owners),
        np.repeat(np.arange(MAX_ORDER, dtype=np.int8), [len(examples) for examples in fresh_places]),
        np.concatenate(fresh_places),
        tuple(fresh_codes),
    )


def find_sorted(wanted: Ints, values: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Returns where in the ascending `values` each wanted one is, and whether it is there at all."""
    if not len(values):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    places = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return places, values[places] == wanted


def sum_by_order(rows: Ints, orders: NDArray[np.integer], values: NDArray[Any], size: int) -> Floats:
    """Returns (size, 4): the sum of the values that have the same row and order."""
    sums = np.bincount(rows * MAX_ORDER + orders, values, minlength=size * MAX_ORDER)
    return sums.astype(np.float64, copy=False).reshape(
        size, MAX_ORDER
    )  # of nothing, NumPy gives whole numbers


def _rank(codes: Ints, known: Ints) -> tuple[Ints, Ints, Ints]:
    """Returns each code's rank, the codes that are not known (ranked behind the others), and a place of each."""
    ranks, found = find_sorted(codes, known)
    late = np.flatnonzero(~found)
    order = np.argsort(codes[late])
    ascending = codes[late[order]]
    first = np.diff(ascending, prepend=-1) != 0
    ranks[late[order]] = len(known) + np.cumsum(first) - 1
    return ranks, ascending[first], late[order[first]]
