"""One explained caption: a map per word, and how to show it as a figure or as JSON."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from showtell.decoding import FloatArray
from showtell.explain.overlay import Box, find_top, measure_attention, outline, paint, spread_cells
from showtell.explain.sheet import Legend, Tile, fit_picture, lay_out
from showtell.files import write_atomically, write_json

SIDE = 220  # the longer side of one word's picture, in pixels
KEPT = 1000  # the longer side of the picture that an explanation keeps
_DIGITS = 4  # of numbers in JSON: more than the methods are worth


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why these words: for each word of a caption a map over the picture.

    Attributes:
        words: of the caption, in order.
        maps: float32 (words, rows, columns) over `box`. With the method "attention" the share of its attention that the
            captioner gave to each cell when it chose the word; each map sums to 1. With "occlusion" by how much the
            word's log-probability (natural logarithm) falls when that part of the picture is hidden; below 0 where
            it rises.
        method: "attention" or "occlusion".
        size: (width, height) of the upright picture, in pixels.
        box: the part of it that the captioner sees: left, top, right, bottom in pixels.
        picture: the upright picture, RGB, perhaps smaller than `size`.
        probabilities: (words) of each word after those before it; None where they are not known.
        blind: (words) the same, had the captioner seen the picture's mean colour instead of the picture: what is as
            probable blind came from the language, not from the picture. None where it was not asked.
        name: of the picture, for the record.
    """

    words: tuple[str, ...]
    maps: FloatArray
    method: str
    size: tuple[int, int]
    box: Box
    picture: Image.Image = field(repr=False)
    probabilities: tuple[float, ...] | None = None
    blind: tuple[float, ...] | None = None
    name: str = ""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return self.maps.shape[1], self.maps.shape[2]

    @property
    def text(self) -> str:
        """The caption."""
        return " ".join(self.words)

    def spread(self, size: tuple[int, int] | None = None) -> tuple[FloatArray, float]:
        """Lays the maps over the picture as they are drawn: logarithms of ratios.

        The ratio is the attention in times an even share of it, or how many times less likely the word becomes when
        the part is hidden; 1, and with it 0 here, where it is less.

        Args:
            size: (width, height) in the proportions of the picture; by default that of the picture.

        Returns:
            (words, height, width), 0 outside of the box; and the number at which the scale of the figure ends.
        """
        width, height = size or self.size
        across, down = width / self.size[0], height / self.size[1]
        box = (self.box[0] * across, self.box[1] * down, self.box[2] * across, self.box[3] * down)
        cells = self._strengths()
        return spread_cells(cells, (width, height), box), find_top(cells)

    def draw(self, *, columns: int = 5, side: int = SIDE) -> Image.Image:
        """Draws the picture, and for each word where in the picture it came from.

        Args:
            columns: tiles in a row, at most.
            side: the longer side of a tile, in pixels.

        Returns:
            An RGB picture with the caption, a tile for each word, and what the colours mean.
        """
        plain, lit, top = self._light(side)
        chances = self.probabilities or (None,) * len(self.words)
        blind = self.blind or (None,) * len(self.words)
        tiles = [
            Tile(picture, word, chance, unseeing)
            for picture, word, chance, unseeing in zip(lit, self.words, chances, blind, strict=True)
        ]
        return lay_out([Tile(plain), *tiles], self.text, columns, self._describe(top))

    def light(self, side: int) -> tuple[Image.Image, list[Image.Image]]:
        """Returns the picture, and for each word the picture lit where the word came from.

        Args:
            side: the longer side of each, in pixels. What the captioner sees is framed where it is not all.
        """
        plain, lit, _ = self._light(side)
        return plain, lit

    def save(self, path: Path) -> None:
        """Writes the figure as a PNG file, and beside it what it shows as NAME.json.

        Raises:
            OSError: the disk is full, or the folder may not be written.
        """
        drawn = io.BytesIO()
        self.draw().save(drawn, "PNG")
        write_atomically(path, drawn.getvalue())
        write_json(path.with_suffix(".json"), self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values: the attributes without the picture, maps and probabilities to four digits."""
        words = [
            {
                "word": word,
                "probability": None if self.probabilities is None else _round(self.probabilities[place]),
                "blind_probability": None if self.blind is None else _round(self.blind[place]),
                "map": [[_round(value) for value in row] for row in self.maps[place].tolist()],
            }
            for place, word in enumerate(self.words)
        ]
        return {
            "image": self.name,
            "size": list(self.size),
            "box": [round(edge, 2) for edge in self.box],
            "caption": self.text,
            "method": self.method,
            "grid": list(self.grid),
            "words": words,
        }

    def _light(self, side: int) -> tuple[Image.Image, list[Image.Image], float]:
        """Returns what `light` does, and the number at which the scale ends."""
        small = fit_picture(self.picture, side)
        spread, top = self.spread(small.size)
        scale = small.width / self.size[0], small.height / self.size[1]
        box = (self.box[0] * scale[0], self.box[1] * scale[1], self.box[2] * scale[0], self.box[3] * scale[1])
        lit = [outline(paint(small, strengths / top), box) for strengths in spread]
        return outline(small, box), lit, top

    def _strengths(self) -> FloatArray:
        return measure_attention(self.maps) if self.method == "attention" else np.maximum(self.maps, 0)

    def _describe(self, top: float) -> Legend:
        ratio = f"{math.exp(top):.{1 if top < math.log(10) else 0}f} times"
        if self.method == "attention":
            ends = "an even share of the attention, or less", f"{ratio} an even share"
            text = "Colour: how much attention a part got when the word was chosen; one scale for all words."
        else:
            ends = "as likely without it, or more", f"{ratio} less likely"
            text = "Colour: how much less likely the word becomes when that part is hidden; one scale for all words."
        if self.probabilities is not None:
            text += " Bar: how probable the word was after those before it."
        if self.blind is not None:
            text += " Mark: how probable, had the whole picture been hidden."
        if self.box != (0.0, 0.0, float(self.size[0]), float(self.size[1])):
            text += " Frame: what the captioner sees."
        return Legend(ends, text)


def _round(value: float) -> float:
    # Significant digits, not decimals: a share of attention may be small and still mean something.
    return float(f"{value:.{_DIGITS}g}") + 0.0  # never -0.0
