"""Drawing a scene: flat shapes with a soft shadow on a gently shaded ground, antialiased."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from showtell.data.drawn.scenes import BACKGROUNDS, COLOURS, DrawnObject, Layout

_FINER = 4  # shapes are drawn this much larger and then averaged down
_JITTER = 8  # colours vary by at most this much per channel
_TILT = 7.0  # shapes are turned by at most this many degrees

_Point = tuple[float, float]

# Corners on a square from -1 to 1, y downwards; the circle is drawn by itself.
_OUTLINES: dict[str, tuple[_Point, ...]] = {
    "square": ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
    "triangle": ((0.0, -0.95), (1.0, 0.82), (-1.0, 0.82)),
    "diamond": ((0.0, -1.0), (0.74, 0.0), (0.0, 1.0), (-0.74, 0.0)),
    "star": tuple(
        (radius * math.sin(turn * math.pi / 5), 0.08 - radius * math.cos(turn * math.pi / 5))
        for turn, radius in enumerate((1.05, 0.46) * 5)
    ),
    "cross": (
        (-0.33, -0.97), (0.33, -0.97), (0.33, -0.33), (0.97, -0.33), (0.97, 0.33), (0.33, 0.33),
        (0.33, 0.97), (-0.33, 0.97), (-0.33, 0.33), (-0.97, 0.33), (-0.97, -0.33), (-0.33, -0.33),
    ),
}  # fmt: skip


def draw_layout(layout: Layout, *, size: int, rng: random.Random) -> Image.Image:
    """Draws a scene.

    Args:
        layout: what to draw.
        size: width and height of the picture in pixels.
        rng: for small variations of colour, angle and light.

    Returns:
        An RGB image of `size` x `size` pixels.
    """
    picture = _draw_ground(BACKGROUNDS[layout.background], size, rng)
    for thing in sorted(
        layout.objects, key=lambda thing: thing.box[0] - thing.box[2]
    ):  # the larger one first
        mask = _draw_mask(thing, size, rng)
        shadow = ImageChops.offset(mask, max(1, size // 64), max(1, size // 48))
        shadow = shadow.filter(ImageFilter.BoxBlur(size / 64)).point(_SHADOW)
        picture.paste((0, 0, 0), mask=shadow)
        picture.paste(_vary(COLOURS[thing.colour], rng), mask=mask)
    return picture


_SHADOW = [value * 2 // 9 for value in range(256)]


def _draw_ground(colour: tuple[int, int, int], size: int, rng: random.Random) -> Image.Image:
    """A ground that is a little lighter on one side, as if lit from there."""
    base = _vary(colour, rng)
    light = Image.linear_gradient("L").resize((size, size), Image.Resampling.BILINEAR)
    light = light.transpose(rng.choice(list(_TURNS)))
    lit = tuple(min(255, channel + 14) for channel in base)
    dim = tuple(max(0, channel - 14) for channel in base)
    return Image.composite(Image.new("RGB", (size, size), lit), Image.new("RGB", (size, size), dim), light)


_TURNS = (
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
)


def _draw_mask(thing: DrawnObject, size: int, rng: random.Random) -> Image.Image:
    """Returns the shape in white on black, mode L, antialiased."""
    fine = size * _FINER
    left, upper, right, lower = (side * fine for side in thing.box)
    mask = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(mask)
    angle = math.radians(rng.uniform(-_TILT, _TILT))
    if thing.shape == "circle":
        pen.ellipse((left, upper, right, lower), fill=255)
    else:
        half, x, y = (right - left) / 2, (left + right) / 2, (upper + lower) / 2
        sine, cosine = math.sin(angle), math.cos(angle)
        pen.polygon(
            [
                (x + half * (px * cosine - py * sine), y + half * (px * sine + py * cosine))
                for px, py in _OUTLINES[thing.shape]
            ],
            fill=255,
        )
    return mask.reduce(_FINER)


def _vary(colour: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, channel + rng.randint(-_JITTER, _JITTER))) for channel in colour)
    return red, green, blue
