"""Describing a scene in five different true captions, and grading a caption against the scene."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from showtell.data.drawn.scenes import COLOURS, SHAPES, DrawnObject, Layout

CAPTIONS_PER_SCENE = 5
_Sentence = Callable[[], str]  # says the same in other words each time

# The first object is <phrase> the second.
_PHRASES = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "in", "within"),
    "around": ("around",),
}
_OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above", "inside": "around"}
_SIDES = {
    "left": ("on the left", "on the right"),
    "right": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}


@dataclass(frozen=True, slots=True)
class Grade:
    """How well a caption names the colours and shapes of a scene."""

    right: int  # colours and shapes named right
    total: int  # colours and shapes to name: two per distinct object, and two per object that is not there
    missing: tuple[tuple[str, str], ...]  # (colour, shape) pairs in the scene that the caption does not name
    extra: tuple[tuple[str, str], ...]  # (colour, shape) pairs in the caption that the scene does not show

    @property
    def accuracy(self) -> float:
        """The share of colours and shapes named right, 0..1."""
        return self.right / self.total


def describe_layout(layout: Layout, *, rng: random.Random) -> tuple[str, ...]:
    """Returns five different true captions, in lower case, with the objects in either order."""
    if len(layout.objects) == 1:
        sentences = _describe_one(layout.objects[0], rng)
    elif _pair(layout.objects[0]) == _pair(layout.objects[1]):
        sentences = _describe_twins(layout, rng)
    else:
        sentences = _describe_two(layout, rng)
    captions: dict[str, None] = {}  # ordered and without repetitions
    for sentence in rng.sample(sentences, CAPTIONS_PER_SCENE):
        captions[sentence()] = None
    return tuple(captions)


def grade_caption(objects: Sequence[DrawnObject], caption: str) -> Grade:
    """Grades the colours and shapes that a caption names.

    A caption names an object with a colour word directly before a shape word ("red circle", "red circles").
    Named and drawn objects are matched so that most colours and shapes agree; naming one twice changes
    nothing, naming one that is not there counts against the caption. Relations, counts and sizes are not
    graded.

    Args:
        objects: what the scene shows, as `Scene.objects`.
        caption: any text.
    """
    drawn = sorted({_pair(thing) for thing in objects})
    named = sorted(set(_NAMED.findall(caption.lower())))
    longest = max(len(drawn), len(named))
    matches = itertools.permutations([*named, *[("", "")] * len(drawn)], len(drawn))
    right = max(
        sum(said[0] == shown[0] for said, shown in zip(match, drawn))
        + sum(said[1] == shown[1] for said, shown in zip(match, drawn))
        for match in matches
    )
    return Grade(
        right=right,
        total=2 * longest,
        missing=tuple(pair for pair in drawn if pair not in named),
        extra=tuple(pair for pair in named if pair not in drawn),
    )


_NAMED = re.compile(rf"\b({'|'.join(COLOURS)})\s+({'|'.join(SHAPES)})(?:s|es)?\b")


def _pair(thing: DrawnObject) -> tuple[str, str]:
    return thing.colour, thing.shape


def _name(thing: DrawnObject, rng: random.Random, article: str = "a") -> str:
    """Returns "a red circle", with its size now and then; "an orange circle"; no article for ""."""
    words = f"{thing.colour} {thing.shape}"
    if rng.random() < 0.3:
        words = f"{thing.size} {words}"
    if article == "a":
        article = "an" if words.startswith("o") else "a"
    return f"{article} {words}".strip()


def _describe_one(thing: DrawnObject, rng: random.Random) -> list[_Sentence]:
    return [
        lambda: _name(thing, rng),
        lambda: f"there is {_name(thing, rng)}",
        lambda: f"a picture of {_name(thing, rng)}",
        lambda: f"one {_name(thing, rng, '')}",
        lambda: f"{_name(thing, rng)} and nothing else",
        lambda: f"a single {_name(thing, rng, '')}",
    ]


def _describe_twins(layout: Layout, rng: random.Random) -> list[_Sentence]:
    thing = layout.objects[0]
    plural = "es" if thing.shape.endswith("s") else "s"
    upright = layout.relation in ("above", "below")
    together = "one above the other" if upright else "side by side"
    apart = "one at the top and one at the bottom" if upright else "one on the left and one on the right"
    return [
        lambda: f"two {_name(thing, rng, '')}{plural}",
        lambda: f"there are two {_name(thing, rng, '')}{plural}",
        lambda: f"two {_name(thing, rng, '')}{plural} {together}",
        lambda: f"a pair of {_name(thing, rng, '')}{plural}",
        lambda: f"two {_name(thing, rng, '')}{plural} , {apart}",
        lambda: f"a picture of two {_name(thing, rng, '')}{plural} {together}",
    ]


def _describe_two(layout: Layout, rng: random.Random) -> list[_Sentence]:
    """Sentences about two different objects; half of them start with the second one."""
    first, second = layout.objects
    relation = layout.relation or ""
    opposite = _OPPOSITES[relation]

    def phrase(key: str) -> str:
        return rng.choice(_PHRASES[key])

    sentences: list[_Sentence] = [
        lambda: f"{_name(first, rng)} {phrase(relation)} {_name(second, rng)}",
        lambda: f"{_name(second, rng)} {phrase(opposite)} {_name(first, rng)}",
        lambda: f"there is {_name(first, rng)} {phrase(relation)} {_name(second, rng)}",
        lambda: f"there is {_name(second, rng)} {phrase(opposite)} {_name(first, rng)}",
        lambda: f"the {_name(first, rng, '')} is {phrase(relation)} the {_name(second, rng, '')}",
        lambda: f"{_name(second, rng)} with {_name(first, rng)} {phrase(relation)} it",
    ]
    if relation in _SIDES:
        here, there = _SIDES[relation]
        sentences += [
            lambda: f"{_name(first, rng)} {here} and {_name(second, rng)} {there}",
            lambda: f"{_name(second, rng)} {there} , {_name(first, rng)} {here}",
        ]
    return sentences
