"""What a caption may not say: words right after themselves, n-grams that it has already, and excluded words.

A forbidden word is taken out of the choice, but the log-probabilities of the others stay the model's own. Were they
raised to sum to 1 again, a caption that ran into a repetition would be rewarded for it: whatever it says instead
would seem likely.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from showtell.decoding.phrases import TokenPhrase
from showtell.decoding.settings import DecodingSettings
from showtell.decoding.stepper import FloatArray, IntArray


class Bans:
    """The words of every unfinished caption, and which of them may not follow.

    The end token is never forbidden, so a caption that can say nothing else can still end.

    Args:
        settings: no_repeat_ngram (Paulus et al. 2018, section 2.5, have 3) and no_double_words are used.
        rows: how many captions begin.
        exclude: the words and phrases that never come out. Of a phrase the last word is forbidden, where the others
            stand before it.
    """

    def __init__(self, settings: DecodingSettings, rows: int, exclude: Collection[TokenPhrase] = ()) -> None:
        self._order = settings.no_repeat_ngram
        self._doubles = settings.no_double_words
        self._excluded = [
            _split_last([phrase for phrase in exclude if len(phrase) == length])
            for length in sorted({len(phrase) for phrase in exclude})
        ]
        self.active = self._order > 0 or self._doubles or bool(self._excluded)
        self._words = np.zeros((rows, 0), dtype=np.int64)  # (rows, steps so far)

    def forbid(self, logits: FloatArray) -> FloatArray:
        """Returns logits that are -inf where a word may not follow.

        Args:
            logits: (rows, vocab); left as they are, and returned themselves where nothing is forbidden.
        """
        words = self._words
        steps = words.shape[1]
        bans: list[tuple[IntArray, IntArray]] = []  # rows and words
        if self._doubles and steps:
            bans.append((np.arange(len(words)), words[:, -1]))
        places = steps - self._order + 1  # where an n-gram of the caption begins
        if self._order and places > 0:
            same = np.ones((len(words), places), dtype=np.bool_)
            for offset in range(self._order - 1):
                newest = words[:, steps - self._order + 1 + offset]
                same &= words[:, offset : offset + places] == newest[:, None]
            rows, begins = np.nonzero(same)
            bans.append((rows, words[rows, begins + self._order - 1]))
        for before, last in self._excluded:
            length = before.shape[1]
            if steps >= length:
                stands = words[:, None, steps - length :] == before[None]  # (rows, phrases, length)
                rows, phrases = np.nonzero(stands.all(axis=2))
                bans.append((rows, last[phrases]))
        if not any(len(rows) for rows, _ in bans):
            return logits
        allowed = logits.copy()
        for rows, banned in bans:
            allowed[rows, banned] = -np.inf
        return allowed

    def extend(self, rows: IntArray, tokens: IntArray) -> None:
        """Goes on with the given rows, each with a new word.

        Args:
            rows: (captions,), in their new order; a row may be repeated or left out.
            tokens: (captions,).
        """
        if self.active:
            self._words = np.concatenate([self._words[rows], tokens[:, None]], axis=1)


def _split_last(phrases: Sequence[TokenPhrase]) -> tuple[IntArray, IntArray]:
    """Returns all words but the last, (phrases, length - 1), and the last ones, (phrases,)."""
    table = np.array(phrases, dtype=np.int64)
    return table[:, :-1], table[:, -1]
