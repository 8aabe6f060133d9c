"""Figures of captions whose attention is at hand."""

from __future__ import annotations

from collections.abc import Container

from PIL import Image

from showtell.captioning import Caption
from showtell.explain.explain import explain_attention
from showtell.explain.overlay import paint
from showtell.explain.sheet import PAPER, lay_out_row
from showtell.images import Preprocessing


def draw_attention(
    image: Image.Image,
    caption: Caption,
    grid: tuple[int, int],
    preprocessing: Preprocessing,
    *,
    columns: int = 5,
) -> Image.Image:
    """Draws the picture, and for each word of the caption where the captioner looked when it chose it.

    Args:
        image: the original picture, upright, in RGB.
        caption: with attention.
        grid: rows and columns of the encoder's cells.
        preprocessing: of the encoder.
        columns: tiles in a row.

    Raises:
        UsageError: the caption has no attention, or one that does not fit the grid.
    """
    return explain_attention(image, caption, grid, preprocessing).draw(columns=columns)


def draw_attention_row(
    image: Image.Image,
    caption: Caption,
    grid: tuple[int, int],
    preprocessing: Preprocessing,
    *,
    words: Container[str],
    tiles: int,
    width: int,
) -> Image.Image:
    """Draws the picture and, in one row with it, where the captioner looked for the words that matter.

    Rows with equal `tiles` and `width` are equally wide, so that they can stand below each other.

    Args:
        image: the original picture, upright, in RGB.
        caption: with attention; the whole of it is the row's title.
        grid: rows and columns of the encoder's cells.
        preprocessing: of the encoder.
        words: those that get a tile.
        tiles: how many tiles fit into the row, the picture's own counted; words beyond that get none.
        width: of a tile, in pixels.
    """
    height = max(1, round(width * image.height / image.width))
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    explanation = explain_attention(image, caption, grid, preprocessing)
    spread, top = explanation.spread(small.size)
    chosen = [
        (paint(small, strengths / top), word)
        for strengths, word in zip(spread, explanation.words)
        if word in words
    ][: tiles - 1]
    blank = Image.new("RGB", small.size, PAPER)
    chosen += [(blank, "")] * (tiles - 1 - len(chosen))
    pictures, labels = zip(*[(small, ""), *chosen])
    return lay_out_row(pictures, labels, caption.text)
