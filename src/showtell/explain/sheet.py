"""Laying out labelled pictures on one sheet of paper; what they show is not known here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from showtell.explain.overlay import paint_scale

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MARGIN, LINE = 10, 26
INK, PALE, TRACK, PAPER = (25, 25, 30), (110, 110, 118), (226, 226, 230), (255, 255, 255)
_TITLE, _LABEL, _SMALL = 20, 17, 14  # sizes of type
_BAR = 5  # height of a probability's bar
_NARROWEST = 120  # a cell has room for its word, however narrow the picture is
_SCALE = (240, 12)


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet and what stands above it."""

    picture: Image.Image  # RGB
    label: str = ""
    probability: float | None = None  # drawn as a bar and in percent
    blind: float | None = None  # drawn as a mark on the bar


@dataclass(frozen=True)
class Legend:
    """What the colours of a sheet mean."""

    ends: tuple[str, str]  # what the two ends of the scale say
    text: str  # sentences below it


def fit_picture(image: Image.Image, side: int) -> Image.Image:
    """Returns the picture in its own proportions, its longer side as long as given."""
    scale = side / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def lay_out(tiles: Sequence[Tile], title: str, columns: int, legend: Legend | None = None) -> Image.Image:
    """Returns a sheet: a title, the tiles row by row, at most so many columns, and the legend."""
    width = max(_NARROWEST, *(tile.picture.width for tile in tiles))
    bars = any(tile.probability is not None for tile in tiles)
    cells = [_draw_tile(tile, width, LINE + _BAR + 3 if bars else LINE) for tile in tiles]
    rows = math.ceil(len(tiles) / columns)
    sheet = _grid(cells, title, math.ceil(len(tiles) / rows))  # no row is much shorter than the others
    return sheet if legend is None else _add_legend(sheet, legend)


def lay_out_row(pictures: Sequence[Image.Image], labels: Sequence[str], title: str) -> Image.Image:
    """Returns pictures of one size beside each other, each with its label, below a title."""
    cells = []
    for picture, label in zip(pictures, labels, strict=True):
        cell = Image.new("RGB", (picture.width, picture.height + LINE), PAPER)
        cell.paste(picture, (0, LINE))
        ImageDraw.Draw(cell).text((2, 2), label, font=choose_font(_LABEL, label), fill=INK)
        cells.append(cell)
    return _grid(cells, title, len(cells))


def draw_sheet(pictures: Sequence[Image.Image], title: str, *, columns: int = 1) -> Image.Image:
    """Puts drawn pictures below each other, with a title."""
    return _grid(list(pictures), title, columns)


def choose_font(size: int, text: str) -> Font:
    """Returns Pillow's own font, or for letters that it lacks DejaVu Sans where the machine has it."""
    if not text.isascii():
        try:
            return ImageFont.truetype("DejaVuSans.ttf", size)
        except OSError:
            pass
    return ImageFont.load_default(size=size)


def _draw_tile(tile: Tile, width: int, head: int) -> Image.Image:
    cell = Image.new("RGB", (width, head + tile.picture.height), PAPER)
    cell.paste(tile.picture, (0, head))
    draw = ImageDraw.Draw(cell)
    room = width - 2
    if tile.probability is not None:
        share = _percent(tile.probability)
        small = choose_font(_SMALL, share)
        length = math.ceil(small.getlength(share))
        draw.text((width - length - 1, LINE - 4), share, font=small, fill=PALE, anchor="ls")
        room -= length + 8
        bottom = LINE + _BAR - 1
        draw.rectangle((0, LINE, width - 1, bottom), fill=TRACK)
        filled = round(tile.probability * width)
        if filled:
            draw.rectangle((0, LINE, filled - 1, bottom), fill=PALE)
        if tile.blind is not None:
            mark = min(width - 2, round(tile.blind * width))
            draw.rectangle((mark - 1, LINE - 2, mark + 2, bottom + 2), fill=PAPER)
            draw.rectangle((mark, LINE - 2, mark + 1, bottom + 2), fill=INK)
    font = choose_font(_LABEL, tile.label)
    draw.text((1, LINE - 4), _shorten(tile.label, font, room), font=font, fill=INK, anchor="ls")
    return cell


def _percent(probability: float) -> str:
    return "<1%" if 0 < probability < 0.005 else f"{probability:.0%}"


def _shorten(label: str, font: Font, room: int) -> str:
    if font.getlength(label) <= room:
        return label
    while label and font.getlength(f"{label}...") > room:
        label = label[:-1]
    return f"{label}..."


def _add_legend(sheet: Image.Image, legend: Legend) -> Image.Image:
    font = choose_font(_SMALL, legend.text)
    low, high = (math.ceil(font.getlength(end)) for end in legend.ends)
    taken = 2 * MARGIN + low + high + 16
    width = max(sheet.width, taken + _SCALE[0] // 4)
    scale = min(_SCALE[0], width - taken)
    lines = _wrap(legend.text, font, width - 2 * MARGIN)
    line = _SMALL + 6
    with_legend = Image.new("RGB", (width, sheet.height + line * (len(lines) + 1) + 2 * MARGIN), PAPER)
    with_legend.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(with_legend)
    draw.line((MARGIN, sheet.height, width - MARGIN, sheet.height), fill=TRACK, width=1)
    base = sheet.height + MARGIN + _SMALL
    draw.text((MARGIN, base), legend.ends[0], font=font, fill=PALE, anchor="ls")
    with_legend.paste(paint_scale(scale, _SCALE[1]), (MARGIN + low + 8, base - _SCALE[1] + 1))
    draw.text((MARGIN + low + scale + 16, base), legend.ends[1], font=font, fill=PALE, anchor="ls")
    for number, text in enumerate(lines, start=1):
        draw.text((MARGIN, base + number * line), text, font=font, fill=PALE, anchor="ls")
    return with_legend


def _grid(cells: Sequence[Image.Image], title: str, columns: int) -> Image.Image:
    font = choose_font(_TITLE, title)
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


def _wrap(text: str, font: Font, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines if text else []
