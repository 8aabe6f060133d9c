"""Which words are nouns, learnt from captions alone.

A noun often stands right behind a determiner, a number or a colour ("a dog", "two dogs", "red shorts"), and what
follows it there is often a function word or the end of the caption ("the dog in", "a hat"). Adjectives
have the first, but not the second; verbs have the second, but not the first. Counting both over some hundred captions
parts them well enough for a report, without a tagger and its model. English only, as the lists of words are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from showtell.confidence import FUNCTION_WORDS
from showtell.report.words import COLOURS, DETERMINERS, NUMBERS, SINGULARS

LEAST_SEEN = 3  # times behind a determiner; fewer say too little
_LEAST_BEHIND = (
    0.15  # share of a noun's places that are behind a determiner; below are verbs ("a playing dog")
)
_LEAST_CLOSED = 0.2  # share of these that a function word follows; below are adjectives ("a young man")
_BEFORE = DETERMINERS | NUMBERS.keys()
# After these words the description of a thing may go on: "a black and white dog".
_AFTER = (FUNCTION_WORDS - {"and", "or", "but", "while", "up", "off", "out", "down", "other"}) | _BEFORE


class Nouns:
    """The nouns of some captions.

    Args:
        captions: tokenised.
    """

    def __init__(self, captions: Iterable[Sequence[str]]) -> None:
        seen: Counter[str] = Counter()
        behind: Counter[str] = Counter()
        closed: Counter[str] = Counter()
        for words in captions:
            seen.update(words)
            for place, (before, word) in enumerate(pairwise(words), start=1):
                if before in _BEFORE or before in COLOURS:
                    behind[word] += 1
                    closed[word] += place + 1 == len(words) or words[place + 1] in _AFTER
        never = FUNCTION_WORDS | _BEFORE | COLOURS.keys()
        self.words = frozenset(
            word
            for word, count in behind.items()
            if count >= LEAST_SEEN
            and word not in never
            and count >= _LEAST_BEHIND * seen[word]
            and closed[word] >= _LEAST_CLOSED * count
        )

    def find(self, word: str) -> str | None:
        """Returns the singular of a noun as far as it is known, else the noun itself; None for other words."""
        singular = find_singular(word, self.words)
        return singular if singular in self.words or word in self.words else None


def find_singular(word: str, nouns: frozenset[str]) -> str:
    """Returns the singular of a plural if it is one of the nouns, else the word."""
    if word in SINGULARS:
        return SINGULARS[word]
    endings = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))
    for ending, instead in endings:
        if word.endswith(ending):
            singular = word[: -len(ending)] + instead
            if singular in nouns:
                return singular
    return word
