"""Pictures of where a captioner looked, word by word, in the original picture's own shape.

The cells of the attention are laid back over the part of the picture that the encoder saw: all of it where the
preprocessing squashes, the centre where it crops. Row i of the attention belongs to word i.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from showtell.captioning import Caption
from showtell.errors import UsageError
from showtell.images import Preprocessing

TILE = 200  # width of one word's picture, in pixels
MARGIN, LINE = 10, 26
INK, PAPER = (25, 25, 30), (255, 255, 255)
GLOW = np.array([255, 196, 61], dtype=np.float32)


def attention_maps(
    caption: Caption, grid: tuple[int, int], size: tuple[int, int], preprocessing: Preprocessing
) -> npt.NDArray[np.float32]:
    """Returns one map per word over the original picture.

    Args:
        caption: with attention.
        grid: rows and columns of the encoder's cells.
        size: (width, height) of the maps, in the proportions of the original picture.
        preprocessing: of the encoder; with "crop", what lay outside of the crop is 0.

    Returns:
        (words, height, width), each map scaled so that its largest value is 1.

    Raises:
        UsageError: the caption has no attention, or one that does not fit the grid.
    """
    if caption.attention is None:
        raise UsageError(
            "This captioner has no attention, so there is nothing to show. Use one whose decoder attends, as "
            "attend-gru-additive does."
        )
    rows, columns = grid
    if caption.attention.shape[1] != rows * columns:
        raise UsageError(
            f"The attention has {caption.attention.shape[1]} cells, but the grid is {rows}x{columns}."
        )
    width, height = size
    left, top, right, bottom = (round(edge) for edge in preprocessing.seen_box(width, height))
    maps = np.zeros((len(caption.attention), height, width), dtype=np.float32)
    for word, weights in enumerate(caption.attention):
        cells = Image.fromarray(weights.reshape(rows, columns).astype(np.float32))
        spread = np.asarray(cells.resize((right - left, bottom - top), Image.Resampling.BICUBIC)).clip(min=0)
        maps[word, top:bottom, left:right] = spread / max(float(spread.max()), 1e-12)
    return maps


def draw_attention(
    image: Image.Image,
    caption: Caption,
    grid: tuple[int, int],
    preprocessing: Preprocessing,
    *,
    columns: int = 5,
) -> Image.Image:
    """Draws the picture, and for each word of the caption where the captioner looked before it wrote it.

    Args:
        image: the original picture, upright, in RGB.
        caption: with attention.
        grid: rows and columns of the encoder's cells.
        preprocessing: of the encoder.
        columns: tiles in a row.
    """
    tiles = _draw_tiles(image, caption, grid, preprocessing, TILE)
    return _lay_out(tiles, ["", *caption.words], caption.text, columns)


def draw_attention_row(
    image: Image.Image,
    caption: Caption,
    grid: tuple[int, int],
    preprocessing: Preprocessing,
    *,
    words: Container[str],
    tiles: int,
    width: int = TILE,
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
    drawn = _draw_tiles(image, caption, grid, preprocessing, width)
    chosen = [(tile, word) for tile, word in zip(drawn[1:], caption.words) if word in words][: tiles - 1]
    blank = Image.new("RGB", drawn[0].size, PAPER)
    chosen += [(blank, "")] * (tiles - 1 - len(chosen))
    return _lay_out(
        [drawn[0], *(tile for tile, _ in chosen)], ["", *(word for _, word in chosen)], caption.text, tiles
    )


def draw_sheet(pictures: Sequence[Image.Image], title: str, *, columns: int = 1) -> Image.Image:
    """Puts drawn pictures below each other, with a title."""
    return _grid(list(pictures), title, columns)


def _draw_tiles(
    image: Image.Image, caption: Caption, grid: tuple[int, int], preprocessing: Preprocessing, width: int
) -> list[Image.Image]:
    """Returns the picture, and for each word the picture with what was not looked at dimmed."""
    height = max(1, round(width * image.height / image.width))
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    maps = attention_maps(caption, grid, small.size, preprocessing)
    pixels = np.asarray(small, dtype=np.float32)
    tiles = [small]
    for weights in maps:
        # Dim what was not looked at; warm what was.
        share = weights[..., None]
        mixed = pixels * (0.25 + 0.75 * share) * (1 - 0.25 * share) + GLOW * 0.25 * share
        tiles.append(Image.fromarray(mixed.clip(0, 255).astype(np.uint8)))
    return tiles


def _lay_out(tiles: Sequence[Image.Image], labels: Sequence[str], title: str, columns: int) -> Image.Image:
    labelled = []
    font = ImageFont.load_default(size=17)
    for tile, label in zip(tiles, labels):
        cell = Image.new("RGB", (tile.width, tile.height + LINE), PAPER)
        cell.paste(tile, (0, LINE))
        ImageDraw.Draw(cell).text((2, 2), label, font=font, fill=INK)
        labelled.append(cell)
    return _grid(labelled, title, min(columns, len(labelled)))


def _grid(cells: Sequence[Image.Image], title: str, columns: int) -> Image.Image:
    font = ImageFont.load_default(size=20)
    rows = math.ceil(len(cells) / columns)
    heights = [max(cell.height for cell in cells[row * columns : (row + 1) * columns]) for row in range(rows)]
    width = max(cell.width for cell in cells)
    total = MARGIN + columns * (width + MARGIN)
    lines = _wrap(title, font, total - 2 * MARGIN)
    head = MARGIN + len(lines) * LINE
    sheet = Image.new("RGB", (total, head + sum(heights) + rows * MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN / 2 + number * LINE), line, font=font, fill=INK)
    top = head
    for row in range(rows):
        for column, cell in enumerate(cells[row * columns : (row + 1) * columns]):
            sheet.paste(cell, (MARGIN + column * (width + MARGIN), top))
        top += heights[row] + MARGIN
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines if text else []
