"""Words that captions must or must not hold: read as people write them, checked, and turned into token ids.

An entry is a word or a phrase ("Dog", "red shirt"). In `include` it may name alternatives ("dog|puppy|small dog"), of
which any one will do. They are cut into words by the tokeniser that training and scoring use, so "Dog" is "dog", and
"don't" is the phrase "do n't".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from showtell.errors import ConfigError, did_you_mean
from showtell.text.tokenizer import tokenize
from showtell.text.vocabulary import SPECIAL, Vocabulary

if TYPE_CHECKING:
    from showtell.decoding.settings import DecodingSettings

OR = "|"  # between alternatives
MAX_INCLUDED = 10  # entries: the search knows every set of those that a caption holds, 2 to the power of this
_MAX_STATES = 1 << 24  # words x words x sets of entries: seconds of work and some hundred megabytes

TokenPhrase: TypeAlias = tuple[int, ...]
_LIST_COMMA = re.compile(r",(?!\d)")  # not that of 1,000


@dataclass(frozen=True, slots=True)
class Constraints:
    """What `include` and `exclude` say, in the token ids of one vocabulary."""

    include: tuple[tuple[TokenPhrase, ...], ...] = ()  # of each entry its alternatives
    exclude: tuple[TokenPhrase, ...] = ()

    @classmethod
    def read(cls, settings: DecodingSettings, vocabulary: Vocabulary) -> Constraints:
        """Returns the constraints of the settings.

        What the vocabulary lacks can never come out, so nothing needs to be done to exclude it.

        Raises:
            ConfigError: the vocabulary lacks a word of every alternative of an entry to include.
        """
        exclude = [tuple(vocabulary.encode(entry)) for entry in settings.exclude]
        return cls(
            # Equal entries are one, as those that are written otherwise but mean the same.
            include=tuple(
                dict.fromkeys(_find_ids(entry, settings, vocabulary) for entry in settings.include)
            ),
            exclude=tuple(dict.fromkeys(phrase for phrase in exclude if SPECIAL.unknown not in phrase)),
        )


UNCONSTRAINED = Constraints()


def read_entries(key: str, values: object) -> tuple[str, ...]:
    """Returns what `include` or `exclude` was set to as a tuple.

    Raises:
        ConfigError: it is no list of texts, or an entry holds no word.
    """
    example = f'{key} = ["dog", "red shirt"]'
    if not isinstance(values, list | tuple):
        raise ConfigError(f"Decoding needs {key} to be a list, as in {example}. Received: {values!r}.")
    for entry in values:
        if not isinstance(entry, str):
            raise ConfigError(f"Decoding needs words in {key}, as in {example}. Received: {entry!r}.")
        if OR in entry and key == "exclude":
            raise ConfigError(
                f"Decoding excludes each word alone, without {OR!r}. Received: {entry!r}. "
                f"Write its alternatives as {len(entry.split(OR))} entries."
            )
        if _LIST_COMMA.search(entry):
            raise ConfigError(
                f"Decoding needs each word or phrase of {key} as an entry of its own, without commas, as in "
                f"{example}. Received: {entry!r}."
            )
        if not all(split_alternatives(entry)):
            raise ConfigError(f"Decoding needs words in {key}. Received: {entry!r}, which has none.")
    return tuple(values)


def split_alternatives(entry: str) -> list[tuple[str, ...]]:
    """Returns the words of each alternative of an entry."""
    return [tuple(tokenize(text)) for text in entry.split(OR)]


def check_constraints(settings: DecodingSettings) -> None:
    """Raises ConfigError where no caption could have what the settings include, whatever the vocabulary."""
    if not settings.include:
        return
    require_beam(settings.method)
    if len(settings.include) > MAX_INCLUDED:
        raise ConfigError(
            f"Decoding can include {MAX_INCLUDED} words or phrases. Received: {len(settings.include)}. Name fewer, or "
            f"write words of which one is enough as alternatives of one entry, as in 'dog{OR}puppy'."
        )
    words = sum(len(phrase) for entry in settings.include for phrase in split_alternatives(entry))
    if words**2 << len(settings.include) > _MAX_STATES:
        raise ConfigError(
            f"Decoding cannot include {words:,} words in {len(settings.include)} entries: too much to search for. "
            "Name fewer alternatives."
        )
    for entry in settings.include:
        if _find_sayable(entry, settings):
            continue
        for other in settings.exclude:
            if not any(_may_say(words, [tuple(tokenize(other))]) for words in split_alternatives(entry)):
                raise ConfigError(
                    f"Decoding cannot include {entry!r} and exclude {other!r}. Drop one of them."
                )
        rules = {name: getattr(settings, name) for name in ("no_repeat_ngram", "no_double_words", "exclude")}
        given = " and ".join(f"{name} = {str(value).lower()}" for name, value in rules.items() if value)
        raise ConfigError(f"Decoding cannot include {entry!r}: {given} forbids it. Drop one of them.")


def require_beam(method: str) -> None:
    """Raises ConfigError unless the method is "beam", which alone can include words."""
    if method != "beam":
        raise ConfigError(
            f"Decoding can include words only with method 'beam' (--beam K), which keeps several captions to find "
            f"places for them. Received: {method!r}."
        )


def is_banned(
    words: Sequence[Hashable], exclude: Collection[Sequence[Hashable]], *, order: int, doubles: bool
) -> bool:
    """Returns whether the last of some words may not follow the others; what `Bans` says, for one caption.

    Args:
        words: at least one.
        exclude: words and phrases that may not occur.
        order: no_repeat_ngram.
        doubles: no_double_words.
    """
    if any(tuple(words[-len(phrase) :]) == tuple(phrase) for phrase in exclude):
        return True
    if doubles and len(words) > 1 and words[-1] == words[-2]:
        return True
    newest = tuple(words[-order:]) if order else ()
    places = range(len(words) - order if order else 0)
    return any(tuple(words[place : place + order]) == newest for place in places)


def _may_say(
    words: Sequence[str], exclude: Collection[Sequence[str]], order: int = 0, *, doubles: bool = False
) -> bool:
    ends = range(1, len(words) + 1)
    return not any(is_banned(words[:end], exclude, order=order, doubles=doubles) for end in ends)


def _find_sayable(entry: str, settings: DecodingSettings) -> list[str]:
    """Returns the alternatives of an entry that what is forbidden leaves possible, as they are written."""
    exclude = [tuple(tokenize(other)) for other in settings.exclude]
    return [
        text
        for text in entry.split(OR)
        if _may_say(tokenize(text), exclude, settings.no_repeat_ngram, doubles=settings.no_double_words)
    ]


def _find_ids(entry: str, settings: DecodingSettings, vocabulary: Vocabulary) -> tuple[TokenPhrase, ...]:
    sayable = _find_sayable(entry, settings)
    phrases = {tuple(vocabulary.encode(text)) for text in sayable}
    known = {phrase for phrase in phrases if SPECIAL.unknown not in phrase}
    if not known:
        words = dict.fromkeys(word for text in sayable for word in tokenize(text))
        lacking = [word for word in words if word not in vocabulary]
        hints = "".join(did_you_mean(word, vocabulary) for word in lacking)
        raise ConfigError(
            f"decoding.include asks for {entry!r}, but the model's vocabulary of {len(vocabulary.words):,} words lacks "
            f"{' and '.join(map(repr, lacking))}.{hints} It can say only words of its training captions."
        )
    return tuple(sorted(known))  # in one order, so that "dog|cat" and "cat|dog" are the same
