"""Photographs to measure on: real ones from two Python packages, at the size that cameras and phones send around.

Nothing is downloaded: scikit-image and scikit-learn carry these pictures. A folder of a thousand is made of six by
cutting, mirroring, brightness, and a little noise, without which enlarged pictures would be smoother than any camera's
and decode faster than they should.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from showtell.photographs import INSTALL, find_photographs

WIDTH, HEIGHT = 1280, 960
QUALITY = 88  # of the JPEG files
_NAMES = ("palace", "flower", "astronaut", "coffee", "cat", "rocket")


def write_photographs(
    folder: Path, count: int, *, width: int = WIDTH, height: int = HEIGHT, seed: int = 0
) -> list[Path]:
    """Writes `count` different JPEG photographs into a folder, those that are not there yet; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    sources: list[Image.Image] = []
    for number, path in enumerate(paths):
        if path.exists():
            continue
        sources = sources or [_open_source(name) for name in _NAMES]
        generator = np.random.default_rng([seed, number])
        photograph = _vary(sources[number % len(sources)], generator, width, height)
        photograph.save(path, quality=QUALITY)
    return paths


def draw_pixels(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Returns pictures (count, height, width, 3) without any file: smooth colours, the same in every process."""
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        pictures.append(np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)))
    return np.stack(pictures)


def _vary(source: Image.Image, generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Returns another picture of the same scene at the size that is asked for."""
    share = generator.uniform(0.8, 1.0)
    # The largest part with the right aspect ratio, then a share of it, anywhere.
    scale = share * min(source.width / width, source.height / height)
    left = generator.uniform(0.0, source.width - scale * width)
    top = generator.uniform(0.0, source.height - scale * height)
    box = (left, top, left + scale * width, top + scale * height)
    picture = source.resize((width, height), Image.Resampling.BICUBIC, box=box)
    if generator.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(picture, dtype=np.float32) * generator.uniform(0.85, 1.15)
    # The noise is drawn on a plane of its own size and laid on all channels: grain, not coloured speckles.
    pixels += generator.standard_normal((height, width, 1), dtype=np.float32) * 3.0
    return Image.fromarray(np.clip(pixels, 0.0, 255.0).astype(np.uint8))


def _open_source(name: str) -> Image.Image:
    path = find_photographs().get(name)
    if path is None:
        raise SystemExit(f"benchmarks: the photographs come with two packages: {INSTALL}")
    with Image.open(path) as image:
        return image.convert("RGB")
