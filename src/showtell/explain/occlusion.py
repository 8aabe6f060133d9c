"""How much each word depends on each part of a picture: hide the part and ask again.

Zeiler and Fergus (2014), Visualizing and Understanding Convolutional Networks, section 4.2, slide a grey square over
the picture and watch the probability of a class. Here it is that of each word of one given caption, after the words
before it (teacher forcing), so that all maps speak of the same sentence. Needs no gradients and no attention: it
works for any captioner, exported ones and ensembles too.

What hides a part is the mean colour of the picture, and its edge is soft: a hard one is a thing of its own to a
network. Windows are wide and overlap: what is small shows as a hill around it, and what is large is hidden enough to
matter. They lie in the original picture, so that all members of an ensemble, whatever they read, have the same part
hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from showtell.captioning import Backend, split_batches, stack_pictures
from showtell.decoding import Judgement, judge_captions
from showtell.ensemble import EnsembleBackend
from showtell.explain.overlay import Box
from showtell.images import Preprocessing
from showtell.text import SPECIAL

BATCH = 16  # pictures that go through the networks together
_CORE, _REACH = 0.5, 2.0  # a window hides wholly up to so far from its centre and nothing beyond, in cells

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]  # (height, width), 1 where the picture is hidden


def judge_hidden(
    backend: Backend,
    pixels: Any,
    tokens: Sequence[int],
    *,
    size: tuple[int, int],
    box: Box,
    grid: tuple[int, int] | None,
) -> list[Judgement]:
    """Judges one caption of a picture as it is, of the picture with everything hidden, and with each window hidden.

    Args:
        backend: the networks.
        pixels: what `backend.read` gave of the picture.
        tokens: the ids of the caption's words.
        size: (width, height) of the picture.
        box: the part of it that the windows divide.
        grid: rows and columns of windows; None hides no windows.

    Returns:
        For the picture, for the hidden one, and for the windows row by row.
    """
    readers = find_readers(backend)
    views = pixels if isinstance(pixels, tuple) else (pixels,)
    fills = [view.reshape(-1, 3).mean(axis=0) for view in views]

    def hide(masks: Sequence[Mask]) -> Any:
        hidden = tuple(_hide(view, mask, fill) for view, mask, fill in zip(views, masks, fills, strict=True))
        return hidden if isinstance(pixels, tuple) else hidden[0]

    def variants() -> Iterator[Any]:
        yield pixels
        yield hide([np.ones(view.shape[:2], dtype=np.float32) for view in views])
        for row in range(grid[0] if grid else 0):
            for column in range(grid[1] if grid else 0):
                yield hide(
                    [draw_window(reader, size, box, grid or (1, 1), row, column) for reader in readers]
                )

    judged: list[Judgement] = []
    for batch in split_batches(list(variants()), BATCH):
        stepper = backend.bind(backend.encode(stack_pictures(batch)))
        judged += judge_captions(stepper, [tokens] * len(batch), SPECIAL)
    return judged


def find_readers(backend: Backend) -> tuple[Preprocessing, ...]:
    """Returns how a picture becomes each of the views that `backend.read` gives."""
    return tuple(backend.readers) if isinstance(backend, EnsembleBackend) else (backend.preprocessing,)


def find_box(readers: Sequence[Preprocessing], size: tuple[int, int]) -> Box:
    """Returns the part of a picture of (width, height) that any of the readers sees."""
    boxes = np.array([reader.seen_box(*size) for reader in readers])
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    return left, top, right, bottom


def draw_window(
    reader: Preprocessing, size: tuple[int, int], box: Box, grid: tuple[int, int], row: int, column: int
) -> Mask:
    """Returns how much one window hides of each pixel that a reader gives: (height, width), 0..1."""
    seen = reader.seen_box(*size)
    down = _fade(reader.height, (seen[1], seen[3]), (box[1], box[3]), grid[0], row)
    across = _fade(reader.width, (seen[0], seen[2]), (box[0], box[2]), grid[1], column)
    return np.asarray(down[:, None] * across, dtype=np.float32)


def _fade(
    pixels: int, seen: tuple[float, float], box: tuple[float, float], cells: int, cell: int
) -> npt.NDArray[np.float64]:
    """Returns how much a window hides of each pixel along one axis."""
    places = seen[0] + (np.arange(pixels) + 0.5) / pixels * (seen[1] - seen[0])
    cells_away = (places - box[0]) / (box[1] - box[0]) * cells - (cell + 0.5)
    # Beyond the last centres, everything up to the edge belongs to the window there.
    if cell == 0:
        cells_away = np.maximum(cells_away, 0)
    if cell == cells - 1:
        cells_away = np.minimum(cells_away, 0)
    part = ((np.abs(cells_away) - _CORE) / (_REACH - _CORE)).clip(0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * part))


def _hide(view: Pixels, mask: Mask, fill: npt.NDArray[np.float64]) -> Pixels:
    share = mask[..., None]
    return (view * (1 - share) + fill * share).round().clip(0, 255).astype(np.uint8)
