"""An ensemble: several captioners that write one caption together (`showtell.decoding.EnsembleStepper`).

Members may have other encoders, picture sizes, decoders and engines. They must know the same words; the ids may
differ. Pictures are read once for each size, and encoders that several members share run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from showtell.captioning import Backend
from showtell.consensus import Agreements, Captions, Opinion
from showtell.decoding import EnsembleStepper, IntArray, Voice
from showtell.errors import UsageError, VocabularyError
from showtell.images import DEFAULT_MAX_PIXELS, ImageSource, Preprocessing, keep_source
from showtell.text import Vocabulary
from showtell.text.vocabulary import FIRST_WORD

_SHOWN = 3  # words that an error names


class Member(Backend, Protocol):
    """The networks of one captioner."""

    attends: bool  # whether its decoder tells where it looks

    def identify_encoder(self) -> str:
        """Returns what is equal only for encoders that give equal features for equal pictures."""
        ...


class _MemberOpinion:
    """The consensus of one member, asked with the features of all."""

    def __init__(self, opinion: Opinion, place: int) -> None:
        self._opinion = opinion
        self._place = place

    def agree(self, features: tuple[Any, ...], captions: Captions, neighbours: int) -> list[Agreements]:
        """Returns what the member says."""
        return self._opinion.agree(features[self._place], captions, neighbours)


class EnsembleBackend:
    """The networks of several captioners; implements `showtell.captioning.Backend`.

    The consensus is that of the first member that has one. Where it looked is the mean of the members that attend, if
    their cells lie on the same parts of the picture.

    Args:
        members: two or more.
        names: of the members, for messages.

    Attributes:
        readers: how pictures become what `encode` takes, one for each size, in the order of `read`.
        notes: what users should know, one sentence each.

    Raises:
        UsageError: fewer than two members.
        VocabularyError: they do not know the same words.
    """

    def __init__(self, members: Sequence[Member], names: Sequence[str]) -> None:
        if len(members) < 2:
            raise UsageError(f"An ensemble needs two models or more. Received: {len(members)}.")
        self.members = tuple(members)
        self.vocabulary = members[0].vocabulary
        self._ids = [
            match_vocabularies(self.vocabulary, member.vocabulary, names[0], name)
            for member, name in zip(members, names, strict=True)
        ]
        # Which of the distinct pictures and encoders each member takes.
        sizes: dict[Preprocessing, int] = {}
        encoders: dict[tuple[str, int], tuple[int, Member]] = {}
        self._features: list[int] = []
        for member in members:
            size = sizes.setdefault(member.preprocessing.without_colours(), len(sizes))
            index, _ = encoders.setdefault((member.identify_encoder(), size), (len(encoders), member))
            self._features.append(index)
        self.readers = [
            next(one.preprocessing for one in members if one.preprocessing.without_colours() == size)
            for size in sizes
        ]
        self._encoders = [(size, member) for (_, size), (_, member) in encoders.items()]

        opinions = [
            _MemberOpinion(member.consensus, place)
            for member, place in zip(members, self._features)
            if member.consensus is not None
        ]
        self.consensus = opinions[0] if opinions else None
        looking = [member for member in members if member.attends]
        agree = len({(member.grid, _seen(member.preprocessing)) for member in looking}) == 1
        self._looks = [agree and member.attends for member in members]
        first = looking[0] if agree else members[0]
        self.preprocessing, self.grid = first.preprocessing, first.grid
        self.notes: tuple[str, ...] = ()
        if looking and not agree:
            grids = ", ".join("x".join(map(str, member.grid)) for member in looking)
            self.notes = (
                f"The ensemble does not tell where it looked: its members look at different cells ({grids}).",
            )

    def read(self, source: ImageSource, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[Any, ...]:
        """Returns one picture at every size that a member wants."""
        if len(self.readers) > 1:
            source = keep_source(source)
        return tuple(reader.read(source, max_pixels=max_pixels) for reader in self.readers)

    def encode(self, pixels: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the features of every distinct encoder."""
        return tuple(member.encode(pixels[size]) for size, member in self._encoders)

    def bind(self, features: tuple[Any, ...]) -> EnsembleStepper:
        """Returns a stepper over all members."""
        return EnsembleStepper(
            [
                Voice(member.bind(features[index]), ids, looks)
                for member, index, ids, looks in zip(
                    self.members, self._features, self._ids, self._looks, strict=True
                )
            ]
        )


def match_vocabularies(
    ours: Vocabulary, theirs: Vocabulary, our_name: str, their_name: str
) -> IntArray | None:
    """Returns their id of each of our tokens, (vocab,), or None where the ids are the same.

    Raises:
        VocabularyError: the words are not the same; the message names some that one side lacks.
    """
    if ours == theirs:
        return None
    places = {word: FIRST_WORD + place for place, word in enumerate(theirs.words)}
    lacking = [word for word in ours.words if word not in places]
    known = set(ours.words)
    extra = [word for word in theirs.words if word not in known]
    if lacking or extra:
        parts = [
            f"{name} lacks {len(words):,} of them ({', '.join(map(repr, words[:_SHOWN]))}"
            f"{', ...' if len(words) > _SHOWN else ''})"
            for name, words in ((their_name, lacking), (our_name, extra))
            if words
        ]
        raise VocabularyError(
            f"The members of an ensemble must know the same words, but {' and '.join(parts)}. "
            "Train them on the same captions with the same text.min_count and text.max_words."
        )
    return np.array([*range(FIRST_WORD), *(places[word] for word in ours.words)], dtype=np.int64)


def _seen(preprocessing: Preprocessing) -> float:
    """Returns the proportions of the part of a picture that the encoder sees; 0 stands for the whole picture."""
    return 0.0 if preprocessing.fit == "squash" else preprocessing.width / preprocessing.height
