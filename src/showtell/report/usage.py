"""What a captioner says again and again: captions that it knows by heart, and the words that it makes use of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from showtell.confidence import FUNCTION_WORDS
from showtell.text import Vocabulary

LISTED = 15  # captions or words of each kind


@dataclass(frozen=True)
class Favourite:
    """A caption that is said more than once, or that stands in the training data."""

    caption: str
    times: int
    in_training: int | None  # how often; None: there is no such data


@dataclass(frozen=True)
class Preference:
    """A word, and how often a captioner and people use it."""

    word: str
    said: float  # share of the captions that have it
    people: float  # share of the references that have it


@dataclass(frozen=True)
class Usage:
    """How new captions are, and how rich their words."""

    captions: int
    distinct: int
    copied: int | None  # captions that stand in the training data, word for word; None: there is no such data
    words: int  # different ones in the captions
    vocabulary: int  # words that the captioner knows
    people_words: int  # different ones in the references
    favourites: tuple[Favourite, ...]  # the most frequent captions
    overused: tuple[Preference, ...]  # content words, furthest above people's share first
    underused: tuple[
        Preference, ...
    ]  # content words that the captioner knows, furthest below people's share first

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-serialisable values."""
        return asdict(self)


def measure_usage(
    captions: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    vocabulary: Vocabulary,
    training: Counter[str] | None,
) -> Usage:
    """Compares captions with the training data and with what people said of the same pictures.

    Args:
        captions: one of each picture, tokenised.
        references: of each picture, tokenised.
        vocabulary: of the captioner.
        training: caption, tokenised and joined by spaces -> how often; None where there is no training split.
    """
    texts = Counter(" ".join(caption) for caption in captions)
    people = [reference for own in references for reference in own]
    ours, theirs = _share(captions), _share(people)
    content = [word for word in {**ours, **theirs} if word not in FUNCTION_WORDS]
    preferences = [Preference(word, ours.get(word, 0.0), theirs.get(word, 0.0)) for word in content]
    preferences.sort(key=lambda one: (one.people - one.said, one.word))
    known = [one for one in preferences if one.word in vocabulary]
    again = (
        (text, times) for text, times in texts.most_common() if times > 1 or (training and training[text])
    )
    return Usage(
        captions=len(captions),
        distinct=len(texts),
        copied=None if training is None else sum(texts[text] for text in texts if training[text]),
        words=len(ours),
        vocabulary=len(vocabulary.words),
        people_words=len(theirs),
        favourites=tuple(
            Favourite(text, times, None if training is None else training[text])
            for text, times in islice(again, LISTED)
        ),
        overused=tuple(one for one in preferences[:LISTED] if one.said > one.people),
        underused=tuple(one for one in known[::-1][:LISTED] if one.said < one.people),
    )


def _share(captions: Iterable[Sequence[str]]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    number = 0
    for words in captions:
        counts.update(set(words))
        number += 1
    return {word: count / number for word, count in counts.items()}
