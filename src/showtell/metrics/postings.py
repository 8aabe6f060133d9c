"""An inverted index: which of an image's references have an n-gram, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from showtell.metrics.ngrams import Ints, Occurrences, find_sorted

_IMAGES = 256  # sorted at once
_PAIRS = 1 << 15  # gone through at once


@dataclass(frozen=True)
class Postings:
    """The pairs (image, n-gram) of the references; each has one posting for every reference with the n-gram."""

    keys: Ints  # (pairs,), ascending: image x ngrams + n-gram
    starts: Ints  # (pairs + 1,): the first posting of each
    references: NDArray[np.int32]  # (postings,): the reference, counted over all images
    counts: NDArray[np.int32]  # (postings,): how often it has the n-gram
    ngrams: int  # how many there are

    @classmethod
    def build(cls, occurrences: Occurrences, first: Ints, size: int) -> Postings:
        """Sorts occurrences, a few images at a time: what is sorted then stays in the processor's cache.

        Args:
            occurrences: of n-grams in all references; each number is less than `size`.
            first: (images + 1,): the first reference of each image.
            size: how many n-grams there are.
        """
        parts = [
            _sort(occurrences, first, size, start, min(start + _IMAGES, len(first) - 1))
            for start in range(0, len(first) - 1, _IMAGES)
        ]
        keys, lengths, references, counts = (np.concatenate(part) for part in zip(*parts))
        return cls(keys, np.concatenate(([0], np.cumsum(lengths))), references, counts, size)

    def count_images(self) -> Ints:
        """Returns (n-grams,): in how many images each occurs."""
        return np.bincount(self.keys % self.ngrams, minlength=self.ngrams)

    def slices(self) -> Iterator[tuple[Ints, NDArray[np.int32], NDArray[np.int32]]]:
        """Goes through the postings, some at a time: n-grams, references and counts, (postings,) each."""
        for start in range(0, len(self.keys), _PAIRS):
            starts = self.starts[start : start + _PAIRS + 1]
            ngrams = np.repeat(self.keys[start : start + _PAIRS] % self.ngrams, np.diff(starts))
            these = slice(int(starts[0]), int(starts[-1]))
            yield ngrams, self.references[these], self.counts[these]

    def find(self, images: Ints, ngrams: Ints) -> tuple[Ints, Ints]:
        """Looks n-grams up among the references of images.

        Args:
            images: (queries,).
            ngrams: (queries,).

        Returns:
            found: which queries have postings, ascending; each is repeated for each of its postings.
            postings: the same length.
        """
        places, there = find_sorted(images * self.ngrams + ngrams, self.keys)
        found = np.flatnonzero(there)
        starts = self.starts[places[found]]
        lengths = self.starts[places[found] + 1] - starts
        before = np.cumsum(lengths) - lengths
        postings = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
        return np.repeat(found, lengths), postings


def _sort(
    occurrences: Occurrences, first: Ints, size: int, start: int, stop: int
) -> tuple[Ints, Ints, NDArray[np.int32], NDArray[np.int32]]:
    """Returns keys, number of postings of each, references and counts, for the images from `start` to `stop`."""
    numbers, references = [], []
    for ngrams, captions in zip(occurrences.numbers, occurrences.captions):
        low, high = np.searchsorted(captions, [first[start], first[stop]])
        numbers.append(ngrams[low:high])
        references.append(captions[low:high])
    owners = np.concatenate(references)
    per_image = np.diff(first[start : stop + 1])
    most = int(per_image.max())
    image = np.repeat(np.arange(start, stop), per_image)[owners - first[start]]
    combined = (image * size + np.concatenate(numbers)) * most + (owners - first[image])
    postings, counts = np.unique(combined, return_counts=True)
    pairs, slots = np.divmod(postings, most)
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    return (
        pairs[starts],
        np.diff(starts, append=len(pairs)),
        (first[pairs // size] + slots).astype(np.int32),
        counts.astype(np.int32),
    )
