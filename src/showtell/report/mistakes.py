"""What is probably wrong with a caption, by rules over what people said of the same picture.

The rules see words, not pictures. They miss mistakes that no rule is about, and find some where people only chose other
words; that is why each finding says what it was decided by. Words are those of `showtell.report.words`, English ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from showtell.confidence import FUNCTION_WORDS
from showtell.report.nouns import Nouns
from showtell.report.words import AGREEING, ANYBODY, COLOURS, DETERMINERS, GENDERS, NUMBERS, PLACES, SUBJECTS

SEVERAL = 0  # a number that nobody said: "dogs"
_REACH = 3  # words between a number and what it counts: "two little brown dogs"
Words = Sequence[str]
Found: TypeAlias = Iterator[tuple[tuple[str, ...], str]]  # words of the caption, and the reason


@dataclass(frozen=True)
class Case:
    """What a rule judges by."""

    caption: Words
    references: Sequence[Words]
    nouns: Nouns


@dataclass(frozen=True)
class Mistake:
    """One finding."""

    kind: str  # a key of KINDS
    words: tuple[str, ...]  # of the caption; none where something is missing
    reason: str  # what it was decided by, for people


@dataclass(frozen=True)
class Kind:
    """One rule."""

    title: str
    rule: str  # how it decides, for people
    find: Callable[[Case], Found]


def find_mistakes(caption: Words, references: Sequence[Words], nouns: Nouns) -> tuple[Mistake, ...]:
    """Returns what the rules find.

    Args:
        caption: tokenised.
        references: of the same picture, tokenised.
        nouns: that are told from other words.
    """
    return tuple(
        Mistake(key, words, reason)
        for key, kind in KINDS.items()
        for words, reason in kind.find(Case(caption, references, nouns))
    )


def _find_repeated(case: Case) -> Found:
    for word, count in Counter(case.caption).items():
        most = max((Counter(reference)[word] for reference in case.references), default=0)
        twice = any(pair == (word, word) for pair in pairwise(case.caption))
        if twice or (word not in FUNCTION_WORDS and count > max(1, most)):
            people = "nobody said it" if most == 0 else f"people said it at most {_times(most)}"
            yield (word,), f"“{word}” comes {_times(count)}; {people}"


def _find_counts(case: Case) -> Found:
    counted = [count_things(reference, case.nouns) for reference in case.references]
    for noun, (count, word) in count_things(case.caption, case.nouns).items():
        theirs = [counts[noun][0] for counts in counted if noun in counts]
        if len(theirs) >= AGREEING and not any(_agree(count, other) for other in theirs):
            said = _list({_number(other) for other in theirs})
            yield (word,), f"“{word}”: {_number(count)}; people said {said}"


def _find_colours(case: Case) -> Found:
    named = [{COLOURS[word] for word in reference if word in COLOURS} for reference in case.references]
    theirs = set().union(*named)
    if sum(bool(colours) for colours in named) < AGREEING:
        return
    for word in dict.fromkeys(case.caption):
        if word in COLOURS and COLOURS[word] not in theirs:
            yield (word,), f"“{word}”; the colours that people said: {_list(theirs)}"


def _find_genders(case: Case) -> Found:
    by = {name: sum(not SUBJECTS[name].isdisjoint(one) for one in case.references) for name in GENDERS}
    for name, other in (GENDERS, GENDERS[::-1]):
        said = tuple(dict.fromkeys(word for word in case.caption if word in SUBJECTS[other]))
        if by[name] >= AGREEING and not by[other] and said and SUBJECTS[name].isdisjoint(case.caption):
            theirs = {word for reference in case.references for word in reference if word in SUBJECTS[name]}
            yield said, f"“{said[0]}”; people said {_list(theirs)}"


def _find_missing(case: Case) -> Found:
    said = {noun for word in case.caption if (noun := case.nouns.find(word)) is not None} | set(case.caption)
    named: Counter[str] = Counter()
    for reference in case.references:
        named.update({noun for word in reference if (noun := case.nouns.find(word)) is not None} - PLACES)
    people = len(case.references)
    missing = [
        f"{noun} ({count} of {people} people)"
        for noun, count in named.most_common()
        if count >= AGREEING and 2 * count > people and said.isdisjoint(_same(noun))
    ]
    if missing:
        yield (), ", ".join(missing)


KINDS: Mapping[str, Kind] = {
    "repeated": Kind(
        "Repeated words",
        "A content word stands more often in the caption than in any one reference, and at least twice; "
        "or any word stands twice in a row.",
        _find_repeated,
    ),
    "counts": Kind(
        "Wrong counts",
        "The caption counts a thing (“two dogs”, “a dog”, or “dogs” for several), at least two references "
        "count the same noun, and none of them gives a number that fits.",
        _find_counts,
    ),
    "colours": Kind(
        "Colours",
        "The caption names a colour that no reference names, though at least two of them name colours. "
        "What the colour belongs to is not compared.",
        _find_colours,
    ),
    "gender": Kind(
        "Gender words",
        "The caption speaks of women or girls alone where at least two references speak of men or boys and none of "
        "women or girls, or the other way round.",
        _find_genders,
    ),
    "missing": Kind(
        "Missing objects",
        "A noun that more than half of the references have, and at least two, is not in the caption, nor is a word "
        "that is known to mean the same. Which words are nouns is learnt from the captions of the data set.",
        _find_missing,
    ),
}


def count_things(caption: Words, nouns: Nouns) -> dict[str, tuple[int, str]]:
    """Returns noun -> how many of it a caption speaks of (SEVERAL for a bare plural), and the word that says so.

    Nouns without a number or determiner that are no plurals ("snow") are not counted.
    """
    found: dict[str, tuple[int, str]] = {}
    for place, word in enumerate(caption):
        noun = nouns.find(word)
        compound = place + 1 < len(caption) and nouns.find(caption[place + 1]) is not None
        if noun is None or noun in PLACES or compound:
            continue
        number = _find_number(caption, place)
        plural = noun != word
        count = SEVERAL if plural and number in (None, 1) else number
        if count is None:
            continue
        if noun in found and "the" not in caption[max(0, place - _REACH) : place]:
            before = found[noun][0]
            count = SEVERAL if SEVERAL in (before, count) else before + count
        elif noun in found:  # "the dog" is one that was spoken of before
            continue
        found[noun] = (count, word)
    return found


def _find_number(caption: Words, place: int) -> int | None:
    """Returns the number before a noun, 1 for a determiner of one thing, None where neither is near."""
    for word in reversed(caption[max(0, place - _REACH) : place]):
        if word in NUMBERS:
            return NUMBERS[word]
        if word in DETERMINERS:
            return 1
        if word != "of" and word in FUNCTION_WORDS:
            return None
    return None


def _agree(one: int, other: int) -> bool:
    return one == other or (SEVERAL in (one, other) and max(one, other) >= 2)


def _same(noun: str) -> set[str]:
    """Returns the words that may stand for a noun."""
    same = {noun}
    for words in SUBJECTS.values():
        if noun in words:
            same |= words
    person = any(noun in SUBJECTS[name] for name in ("man", "woman", "child"))
    if noun in ANYBODY:
        same |= SUBJECTS["man"] | SUBJECTS["woman"] | SUBJECTS["child"]
    return same | (ANYBODY if person else set())


def _number(count: int) -> str:
    return "several" if count == SEVERAL else str(count)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _list(words: set[str]) -> str:
    return ", ".join(sorted(words))
