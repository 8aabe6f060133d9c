"""What happens to a picture between its file and its encoder; a record that travels with every model.

A mismatch here is the classic reason for "the same caption for every image", so the record is stored in
caches and bundles and compared by its fingerprint.

Large pictures are made smaller in two steps: first cheaply, by a whole factor (a JPEG while it is decoded,
anything else by the mean of whole blocks), then properly. The cheap step leaves twice the encoder's size in each
direction, or three times for blocks, which keeps the pixels within the tolerance of docs/experiments.md.
Pictures below four times the encoder's size are not touched by it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from showtell.errors import ConfigError, ImageError, did_you_mean
from showtell.images.decode import (
    DEFAULT_MAX_PIXELS,
    SIDEWAYS,
    StoredImage,
    open_image,
    open_stored,
)
from showtell.images.sources import ImageSource

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
INTERPOLATIONS = tuple(_FILTERS)
FITS = ("squash", "crop")
# What cheap reduction leaves in each direction, in times the encoder's size: a JPEG's, and that by means of blocks,
# which blur more for the same size.
SPARE = 2
BLOCK_SPARE = 3.0
Part = tuple[
    float, float, float, float
]  # left, top, right, bottom, in shares of the width and the height that are seen
WHOLE: Part = (0.0, 0.0, 1.0, 1.0)
# Turns after which what was the right end of the upright picture comes first in its file, and what was its bottom.
_FROM_THE_RIGHT = frozenset(
    Image.Transpose[name] for name in ("FLIP_LEFT_RIGHT", "ROTATE_180", "ROTATE_270", "TRANSVERSE")
)
_FROM_THE_BOTTOM = frozenset(
    Image.Transpose[name] for name in ("FLIP_TOP_BOTTOM", "ROTATE_180", "ROTATE_90", "TRANSVERSE")
)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the input of an encoder.

    Raises:
        ConfigError: a field has a wrong type or an impossible value.
    """

    height: int  # of the encoder's input, in pixels
    width: int  # of the encoder's input, in pixels
    mean: tuple[float, float, float]  # of red, green and blue, on the scale 0..1
    std: tuple[float, float, float]  # of red, green and blue, on the scale 0..1
    interpolation: str = "bicubic"  # "nearest", "bilinear", "bicubic" or "lanczos"; all but nearest antialias
    fit: str = (
        "squash"  # "squash": the whole picture, aspect ratio not kept; "crop": fill, then cut the centre out
    )

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ConfigError(
                    f"preprocessing: {name} must be a whole number of pixels >= 1. Received: {size!r}"
                )
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0.0:
            raise ConfigError(f"preprocessing: std must be above 0 in every channel. Received: {self.std}")
        _check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        _check_choice("fit", self.fit, FITS)

    def read(
        self, source: ImageSource, *, max_pixels: int = DEFAULT_MAX_PIXELS, part: Part = WHOLE
    ) -> npt.NDArray[np.uint8]:
        """Returns the picture in `source` at the encoder's size: `resize(open_image(source))`, but quicker.

        A JPEG of at least `2 * SPARE` times the encoder's size is decoded at a half, a quarter or an eighth of its
        size, and a picture that lies on its side is turned when it is small, which may change a pixel by one level.
        For other pictures the result is the same, pixel for pixel.

        Args:
            source: as for `open_image`.
            max_pixels: as for `open_image`.
            part: of what would be seen of the upright picture; it is brought to the encoder's size.

        Returns:
            uint8 (height, width, 3), 0..255.

        Raises:
            ImageError: the picture cannot be read; see `open_image`.
        """
        # The seen part has the target's aspect ratio, so what holds for the whole picture holds for that part.
        # "nearest" picks single pixels: there is no smaller picture with the same ones.
        draft_size = None
        if self.interpolation != "nearest":
            shares = part[2] - part[0], part[3] - part[1]
            draft_size = math.ceil(SPARE * self.width / shares[0]), math.ceil(SPARE * self.height / shares[1])
        return self._fit(open_stored(source, max_pixels=max_pixels, draft_size=draft_size), part)

    def resize(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Returns the picture at the encoder's size, still as pixels. An image of that size is not resampled.

        Args:
            image: RGB as `open_image` gives it; other modes are converted in the same way first.

        Returns:
            uint8 (height, width, 3), 0..255.
        """
        if image.mode != "RGB":
            image = open_image(image)
        return self._fit(StoredImage(image, None, image.size))

    def _fit(self, stored: StoredImage, part: Part = WHOLE) -> npt.NDArray[np.uint8]:
        sideways = stored.turn in SIDEWAYS
        extent = stored.extent[::-1] if sideways else stored.extent
        image = stored.image
        size = (self.height, self.width) if sideways else (self.width, self.height)
        if image.size != size or part != WHOLE:
            left, top, right, bottom = self.seen_box(*extent)
            width, height = right - left, bottom - top
            left, right = left + part[0] * width, right - (1 - part[2]) * width
            top, bottom = top + part[1] * height, bottom - (1 - part[3]) * height
            if stored.turn in _FROM_THE_RIGHT:
                left, right = extent[0] - right, extent[0] - left
            if stored.turn in _FROM_THE_BOTTOM:
                top, bottom = extent[1] - bottom, extent[1] - top
            box = (top, left, bottom, right) if sideways else (left, top, right, bottom)
            image = image.resize(size, _FILTERS[self.interpolation], box=box, reducing_gap=BLOCK_SPARE)
        if stored.turn is not None:
            image = image.transpose(stored.turn)
        return np.array(image, dtype=np.uint8)

    def without_colours(self) -> Preprocessing:
        """Returns what `read` depends on: it gives plain pixels; mean and deviation come in with the encoder."""
        return replace(self, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns (pixels / 255 - mean) / std with the channels first.

        Args:
            pixels: uint8 (..., height, width, 3), 0..255.

        Returns:
            float32 (..., 3, height, width), each value correctly rounded.

        Raises:
            ImageError: another type or shape.
        """
        if pixels.dtype != np.uint8 or pixels.shape[-3:] != (self.height, self.width, 3):
            raise ImageError(
                f"pixels must be uint8 (..., {self.height}, {self.width}, 3). "
                f"Received: {pixels.dtype} {tuple(pixels.shape)}"
            )
        # There are only 256 possible values: a table in double precision is faster than arithmetic, and
        # exact.
        levels = np.arange(256, dtype=np.float64) / 255.0
        result = np.empty((*pixels.shape[:-3], 3, self.height, self.width), dtype=np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std)):
            table = ((levels - mean) / std).astype(np.float32)
            # "clip" never clips here; it only spares NumPy a buffer, which halves the time.
            np.take(table, pixels[..., channel], out=result[..., channel, :, :], mode="clip")
        return result

    def apply(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Returns the encoder's input for one picture: float32 (3, height, width)."""
        return self.normalise(self.resize(image))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values; `from_dict` reads them back."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Builds the record from `to_dict`'s result.

        Raises:
            ConfigError: an unknown or missing key, a wrong type or an impossible value.
        """
        fields = dataclasses.fields(cls)
        names = [field.name for field in fields]
        for key in values:
            if key not in names:
                raise ConfigError(
                    f"preprocessing: unknown key {key!r}.{did_you_mean(str(key), names)} "
                    f"The keys are: {', '.join(names)}"
                )
        missing = [
            field.name
            for field in fields
            if field.default is dataclasses.MISSING and field.name not in values
        ]
        if missing:
            raise ConfigError(f"preprocessing: missing keys: {', '.join(missing)}")
        return cls(**values)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the canonical JSON: the same on every machine."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def seen_box(self, width: float, height: float) -> tuple[float, float, float, float]:
        """Returns the part of a picture that the encoder sees, as (left, top, right, bottom) in pixels.

        With "squash" it is all of it; with "crop" the largest centred part that has the target's aspect ratio.
        """
        if self.fit == "squash":
            return 0.0, 0.0, float(width), float(height)
        scale = min(width / self.width, height / self.height)
        part_width, part_height = min(width, self.width * scale), min(height, self.height * scale)
        left, top = (width - part_width) / 2, (height - part_height) / 2
        return left, top, left + part_width, top + part_height


def _three_numbers(name: str, value: Any) -> tuple[float, float, float]:
    numbers = tuple(value) if isinstance(value, tuple | list) else ()
    sound = len(numbers) == 3 and all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        for number in numbers
    )
    if not sound:
        raise ConfigError(
            f"preprocessing: {name} must be three finite numbers (red, green, blue). Received: {value!r}"
        )
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(
            f"preprocessing: {name} must be one of {', '.join(choices)}. Received: {value!r}."
            f"{did_you_mean(str(value), choices)}"
        )
