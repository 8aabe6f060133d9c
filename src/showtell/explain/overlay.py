"""From a few cells to light over a picture.

Both kinds of map are ratios, so their colours are logarithmic: attention in times an even share of it, occlusion in
how many times less likely a word becomes. The scale begins where nothing is said (a ratio of 1 stays grey) and is one
for all words of a caption: words that looked nowhere in particular stay pale, instead of showing their noise at full
strength.

Between the centres of cells, values follow a smooth step. That never overshoots, as cubic kernels do: no rings around
a peak, no light where no cell has any, and none outside of what the encoder saw.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from showtell.decoding import FloatArray

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, right and bottom exclusive

LEAST_TOP = math.log(2)  # a scale ends at a ratio of 2 or more: what is less has little to say
_DIM, _BRIGHT = 0.14, 0.66  # the greys that black and white of the picture become where nothing is said
_STOPS = np.array(  # from red to yellow, ever lighter, so that the order shows without colours, too
    [(150, 38, 98), (196, 56, 78), (236, 96, 40), (252, 152, 20), (255, 208, 52), (255, 240, 140)],
    dtype=np.float32,
)
_VEIL = 0.85  # how much of the picture the strongest colour covers
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_FRAME = (255, 255, 255)


def measure_attention(maps: FloatArray) -> FloatArray:
    """Returns the logarithm of attention in times an even share: (words, rows, columns), 0 where it is less."""
    shares = maps * (maps.shape[1] * maps.shape[2])
    return np.asarray(np.log(np.maximum(shares, 1.0)), dtype=np.float32)


def find_top(strengths: FloatArray) -> float:
    """Returns the logarithm of the ratio at which the scale of a caption ends."""
    return max(float(strengths.max(initial=0.0)), LEAST_TOP)


def spread_cells(cells: FloatArray, size: tuple[int, int], box: Box) -> FloatArray:
    """Lays cells over the pixels of a picture.

    Args:
        cells: (words, rows, columns).
        size: (width, height) of the picture.
        box: the part of it that the cells divide evenly.

    Returns:
        (words, height, width), 0 for pixels whose centre is outside of the box. At the centre of a cell it is the
        cell's value; between centres it never leaves the range of those around.
    """
    _, rows, columns = cells.shape
    across = _weigh_cells(size[0], box[0], box[2], columns)
    down = _weigh_cells(size[1], box[1], box[3], rows)
    return np.asarray(down @ cells @ across.T, dtype=np.float32)


def _weigh_cells(pixels: int, begin: float, end: float, cells: int) -> FloatArray:
    """Returns the weight of each cell in each pixel along one axis: (pixels, cells)."""
    centres = np.arange(pixels) + 0.5
    places = ((centres - begin) / max(end - begin, 1e-9) * cells - 0.5).clip(0, cells - 1)
    before = np.floor(places).astype(np.int64)
    after = np.minimum(before + 1, cells - 1)
    part = places - before
    part = (part + part * part * (3 - 2 * part)) / 2
    weights = np.zeros((pixels, cells), dtype=np.float32)
    inside = np.flatnonzero((centres >= begin) & (centres <= end))
    np.add.at(weights, (inside, before[inside]), (1 - part[inside]).astype(np.float32))
    np.add.at(weights, (inside, after[inside]), part[inside].astype(np.float32))
    return weights


def choose_colours(strengths: FloatArray) -> FloatArray:
    """Returns the colours of strengths from 0 to 1: (..., 3), 0..255."""
    places = strengths.clip(0, 1) * (len(_STOPS) - 1)
    before = np.minimum(places.astype(np.int64), len(_STOPS) - 2)
    part = (places - before)[..., None]
    return np.asarray(_STOPS[before] * (1 - part) + _STOPS[before + 1] * part, dtype=np.float32)


def paint(picture: Image.Image, strengths: FloatArray) -> Image.Image:
    """Returns the picture in dim grey, lit where the strengths are.

    Args:
        picture: RGB.
        strengths: (height, width), 0..1.
    """
    light = (np.asarray(picture, dtype=np.float32) / 255) @ _LUMA
    grey = 255 * (_DIM + (_BRIGHT - _DIM) * light)[..., None]
    # The colours keep the lights and shadows of the picture, so that what was looked at can be seen.
    lit = choose_colours(strengths) * (0.62 + 0.5 * light)[..., None]
    cover = (_VEIL * strengths.clip(0, 1) ** 0.75)[..., None]
    return Image.fromarray((grey * (1 - cover) + lit * cover).clip(0, 255).astype(np.uint8))


def paint_scale(width: int, height: int) -> Image.Image:
    """Returns the scale from 0 to 1, as it looks over a middle grey."""
    strengths: npt.NDArray[np.float32] = np.linspace(0, 1, width, dtype=np.float32)
    return paint(Image.new("RGB", (width, height), (190, 190, 190)), np.tile(strengths, (height, 1)))


def outline(picture: Image.Image, box: Box) -> Image.Image:
    """Returns the picture with the box outlined, if it is less than the whole picture."""
    width, height = picture.size
    left, top, right, bottom = (round(edge) for edge in box)
    if (left, top, right, bottom) == (0, 0, width, height):
        return picture
    framed = picture.copy()
    edges = (left, top, max(left, right - 1), max(top, bottom - 1))
    draw = ImageDraw.Draw(framed)
    draw.rectangle(edges, outline=(0, 0, 0), width=1)
    draw.rectangle(
        (edges[0] + 1, edges[1] + 1, max(edges[0] + 1, edges[2] - 1), max(edges[1] + 1, edges[3] - 1)),
        outline=_FRAME,
        width=1,
    )
    return framed
