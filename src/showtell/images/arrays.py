"""Pictures in NumPy arrays: what a PNG file with the same samples would give, or an ImageError that says what to do.

Nothing is guessed. Floats beyond 1, signed numbers and channels that come first could be read in more than one way, so
they are refused with the line of code that converts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from showtell.errors import ImageError

Array = npt.NDArray[Any]
_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_SHAPES = "(height, width), (height, width, 1), (height, width, 3) RGB or (height, width, 4) RGBA"
_ACCEPTED = f"An array must be {_SHAPES}, of uint8, uint16, bool (without colours) or floats from 0 to 1"


def name_array(array: Array) -> str:
    """Returns what messages call an array."""
    return f"the array ({array.dtype}, shape {array.shape})"


def array_size(array: Array) -> tuple[int, int]:
    """Returns (width, height) of the picture in an array, which may be 0.

    Raises:
        ImageError: its type or its shape is not that of a picture.
    """
    _check_type(array)
    if array.ndim not in (2, 3):
        if array.ndim == 4:
            hint = "It is a batch of pictures: give it by itself, or list(array) together with others"
        else:
            hint = f"Its number of dimensions is {array.ndim}"
        raise _refusal(array, hint)
    if array.ndim == 3 and array.shape[2] not in _CHANNELS:
        if array.shape[0] in _CHANNELS:
            raise _refusal(array, "Its channels come first: array.transpose(1, 2, 0) puts them last")
        raise _refusal(array, f"It has {array.shape[2]} channels")
    if array.dtype.kind == "b" and array.ndim == 3 and array.shape[2] > 1:
        raise _refusal(array, "It is bool in several channels: array.astype(np.uint8) * 255 makes it uint8")
    return array.shape[1], array.shape[0]


def image_of_array(array: Array) -> Image.Image:
    """Returns the Pillow image that a PNG file with these samples would be decoded to: in mode 1, L, I;16, RGB or RGBA.

    As with files, 16 bits are kept where there is one channel, and of each of several the upper 8 are taken.

    Args:
        array: for which `array_size` gave a width and a height above 0. It is not changed.

    Raises:
        ImageError: floats outside of 0 to 1.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype.kind == "f":
        array = _scale(array)
    elif array.dtype.itemsize == 2 and array.ndim == 3:
        array = (array >> 8).astype(np.uint8)
    return Image.fromarray(array)


def _check_type(array: Array) -> None:
    """Raises ImageError unless samples of this type have one meaning."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "bf" or (kind == "u" and size <= 2):
        return
    if kind in "OUST":
        raise _refusal(array, "If it holds paths or pictures, give them as a list: list(array)")
    if kind == "c":
        raise _refusal(array, "Of complex numbers np.abs(array) is the magnitude, to be scaled to 0 to 1")
    if kind in "iu":
        raise _refusal(array, "array.astype(np.uint8) converts whole numbers from 0 to 255")
    raise _refusal(array, f"{array.dtype} is no type of samples")


def _scale(array: Array) -> npt.NDArray[np.uint8]:
    """Returns floats from 0 to 1 times 255, rounded."""
    low, high = float(array.min()), float(array.max())
    if np.isnan(low):  # of any NaN; both are
        raise _refusal(array, "It holds NaN: np.nan_to_num(array) replaces it by 0")
    if low < 0.0 or high > 1.0:
        hint = "np.clip(array, 0, 1) cuts off what lies outside"
        if low >= 0.0 and 2.0 <= high <= 255.0:
            hint = "array / 255 brings 0 to 255 to that range"
        elif -1.0 <= low < -0.5 and high <= 1.0:
            hint = "(array + 1) / 2 brings -1 to 1 to that range"
        raise _refusal(array, f"Its values go from {low:g} to {high:g}: {hint}")
    # float16 has too few digits to count to 255 in steps of less than a half.
    scaled: Array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    np.multiply(scaled, 255.0, out=scaled)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8)


def _refusal(array: Array, what: str) -> ImageError:
    return ImageError(f"{name_array(array)} cannot be read as a picture. {what}. {_ACCEPTED}.")
