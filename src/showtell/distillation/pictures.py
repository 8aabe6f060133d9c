"""The pictures of an epoch: a new part of each, sometimes mixed with another, the same for teacher and student.

What is drawn depends on the seed, the epoch and the picture alone, so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from showtell.distillation.settings import DistillationSettings
from showtell.errors import ImageError
from showtell.images import Preprocessing, draw_view, read_ahead, read_view

Result = TypeVar("Result")
Pixels = npt.NDArray[np.uint8]  # (batch, height, width, 3)


def plan_batches(images: int, settings: DistillationSettings, epoch: int) -> list[npt.NDArray[np.int64]]:
    """Returns the pictures of each batch of an epoch, by index; those that fill no batch are left to another epoch."""
    order = np.random.default_rng([settings.seed, epoch]).permutation(images)
    whole = len(order) // settings.batch_size
    return list(order[: whole * settings.batch_size].reshape(whole, settings.batch_size))


def read_pictures(
    paths: Sequence[Path],
    plan: Sequence[npt.NDArray[np.int64]],
    settings: DistillationSettings,
    preprocessing: Preprocessing,
    epoch: int,
    *,
    workers: int = 2,
) -> Generator[tuple[Pixels, npt.NDArray[np.int64]], None, None]:
    """Yields the pictures of each batch at the teacher's size, read ahead on threads, and which they are.

    Args:
        paths: of all pictures.
        plan: the batches that are left of the epoch, from `plan_batches`.
        settings: of the run.
        preprocessing: of the teacher.
        epoch: from 0.
        workers: threads that decode.

    Raises:
        ImageError: a picture cannot be read.
    """
    changes = settings.views()

    def read(index: int) -> Pixels:
        generator = np.random.default_rng([settings.seed, epoch, index, 1])
        return read_view(preprocessing, paths[index], draw_view(generator, changes, mirror=True))

    sources = (int(index) for batch in plan for index in batch)
    pictures = read_ahead(sources, read, workers=workers, ahead=4 * settings.batch_size)
    try:
        for batch in plan:
            found = [require_read(next(pictures)) for _ in batch]
            generator = np.random.default_rng([settings.seed, epoch, int(batch[0]), 2])
            yield mix_pictures(np.stack(found), settings.mix, generator), batch
    finally:
        pictures.close()


def require_read(result: Result | ImageError) -> Result:
    """Returns what was read ahead; raises the ImageError that came instead."""
    if isinstance(result, ImageError):
        raise result
    return result


def mix_pictures(pixels: Pixels, share: float, generator: np.random.Generator) -> Pixels:
    """Returns the pictures, the first so many of them mixed with their neighbours in even proportions (mixup).

    Args:
        pixels: uint8 (batch, height, width, 3).
        share: of the pictures that are mixed.
        generator: draws how much of each remains.
    """
    count = round(share * len(pixels))
    if count == 0:
        return pixels
    kept = generator.random((count, 1, 1, 1), dtype=np.float32)
    mixed = pixels.copy()
    mixed[:count] = np.rint(kept * pixels[:count] + (1 - kept) * np.roll(pixels, 1, axis=0)[:count])
    return mixed
