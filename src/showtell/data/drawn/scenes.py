"""What to draw: one or two coloured shapes in a simple relation, chosen by a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 44),
    "green": (38, 148, 62),
    "blue": (38, 84, 214),
    "yellow": (250, 212, 36),
    "purple": (142, 56, 176),
    "orange": (246, 130, 24),
    "black": (28, 28, 32),
    "white": (252, 252, 250),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "cream": (240, 228, 204),
    "sky": (188, 216, 234),
    "mint": (196, 226, 204),
    "rose": (238, 206, 206),
    "stone": (158, 158, 160),
    "slate": (84, 98, 116),
    "night": (44, 50, 70),
}
RELATIONS = ("left", "right", "above", "below", "inside")  # the first object is ... of the second
SIZES = ("small", "large")
_CONTRAST = 105.0  # least distance in RGB between a shape and what it is drawn on

_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class DrawnObject:
    """One shape on the canvas."""

    shape: str  # one of SHAPES
    colour: str  # one of COLOURS
    size: str  # "small" or "large"
    box: _Box  # left, upper, right, lower as fractions of the canvas, 0..1


@dataclass(frozen=True, slots=True)
class Layout:
    """A scene before it is drawn and described."""

    objects: tuple[DrawnObject, ...]  # one or two
    relation: str | None  # of the first object to the second, one of RELATIONS; None for a single object
    background: str  # one of BACKGROUNDS


def arrange_layouts(rng: random.Random) -> Iterator[Layout]:
    """Yields layouts without end, no two of them alike.

    Two layouts are alike when they show the same objects at the same places, to a twelfth of the canvas: a
    model cannot have seen a test scene in training. The same shapes in the same colours elsewhere do occur.
    """
    seen = set()
    while True:
        layout = _arrange_layout(rng)
        key = frozenset(
            (thing.shape, thing.colour, *(round(side * 12) for side in thing.box)) for thing in layout.objects
        )
        if key not in seen:
            seen.add(key)
            yield layout


def _arrange_layout(rng: random.Random) -> Layout:
    kind = rng.random()
    if kind < 0.35:  # many single objects: from them a captioner learns most quickly what a word looks like
        return _arrange_single(rng)
    if kind < 0.47:
        return _arrange_inside(rng)
    return _arrange_pair(rng, alike=kind < 0.57)


def _arrange_single(rng: random.Random) -> Layout:
    background = rng.choice(list(BACKGROUNDS))
    size = rng.choice(SIZES)
    width = _choose_width(rng, size)
    middle = (
        rng.uniform(width / 2 + 0.03, 0.97 - width / 2),
        rng.uniform(width / 2 + 0.03, 0.97 - width / 2),
    )
    colour = _choose_colour(rng, BACKGROUNDS[background])
    return Layout((DrawnObject(rng.choice(SHAPES), colour, size, _box(middle, width)),), None, background)


def _arrange_inside(rng: random.Random) -> Layout:
    background = rng.choice(list(BACKGROUNDS))
    outer_width = rng.uniform(0.74, 0.88)
    inner_width = rng.uniform(0.27, 0.31)
    middle = (rng.uniform(0.46, 0.54), rng.uniform(0.46, 0.54))
    outer_colour = _choose_colour(rng, BACKGROUNDS[background])
    inner_colour = _choose_colour(rng, COLOURS[outer_colour])
    outer_shape = rng.choice(("circle", "square", "diamond"))  # the others have no room inside
    inner_shape = rng.choice([shape for shape in SHAPES if shape != outer_shape])
    inner = DrawnObject(inner_shape, inner_colour, "small", _box(middle, inner_width))
    outer = DrawnObject(outer_shape, outer_colour, "large", _box(middle, outer_width))
    return Layout((inner, outer), "inside", background)


def _arrange_pair(rng: random.Random, *, alike: bool) -> Layout:
    """Two objects beside or above each other; `alike` gives both the same shape and colour."""
    background = rng.choice(list(BACKGROUNDS))
    first_size = rng.choice(SIZES)
    second_size = first_size if alike else rng.choice(SIZES)
    widths = (_choose_width(rng, first_size, most=0.44), _choose_width(rng, second_size, most=0.44))
    gap = rng.uniform(0.05, 0.10)
    total = widths[0] + gap + widths[1]
    start = rng.uniform(0.02, max(0.02, 0.98 - total))
    along = (start + widths[0] / 2, start + widths[0] + gap + widths[1] / 2)
    across = rng.uniform(0.32, 0.68)
    drift = (rng.uniform(-0.07, 0.07), rng.uniform(-0.07, 0.07))

    upright = rng.random() < 0.5
    middles = [(place, across + shift) for place, shift in zip(along, drift)]
    if upright:
        middles = [(second, first) for first, second in middles]

    shape, colour = rng.choice(SHAPES), _choose_colour(rng, BACKGROUNDS[background])
    other_shape, other_colour = shape, colour
    while not alike and (other_shape, other_colour) == (shape, colour):
        other_shape, other_colour = rng.choice(SHAPES), _choose_colour(rng, BACKGROUNDS[background])
    first = DrawnObject(shape, colour, first_size, _box(middles[0], widths[0]))
    second = DrawnObject(other_shape, other_colour, second_size, _box(middles[1], widths[1]))
    if rng.random() < 0.5:
        return Layout((first, second), "above" if upright else "left", background)
    return Layout((second, first), "below" if upright else "right", background)


def _choose_width(rng: random.Random, size: str, most: float = 0.62) -> float:
    return rng.uniform(0.31, 0.35) if size == "small" else rng.uniform(most - 0.03, most)


def _choose_colour(rng: random.Random, ground: tuple[int, int, int]) -> str:
    """Returns a colour that stands out from the ground."""
    return rng.choice(
        [
            name
            for name, colour in COLOURS.items()
            if sum((one - other) ** 2 for one, other in zip(colour, ground)) ** 0.5 >= _CONTRAST
        ]
    )


def _box(middle: tuple[float, float], width: float) -> _Box:
    x, y = (min(max(place, width / 2 + 0.01), 0.99 - width / 2) for place in middle)
    half = width / 2
    return round(x - half, 4), round(y - half, 4), round(x + half, 4), round(y + half, 4)
