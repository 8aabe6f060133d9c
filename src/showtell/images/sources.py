"""What an image can be given as."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from showtell.errors import ImageError
from showtell.images.arrays import name_array
from showtell.images.kept import KeptImage
from showtell.images.web import WebImage

_Stream: TypeAlias = BinaryIO | WebImage | KeptImage
ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | Image.Image
    | npt.NDArray[np.bool_ | np.unsignedinteger[Any] | np.floating[Any]]
    | _Stream
)

# What can be opened again and again.
_LASTING = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, KeptImage)


def is_source(thing: object) -> TypeGuard[ImageSource]:
    """Returns whether something is meant as one image, and not as an iterable of images.

    A batch, an array (images, height, width, channels), is such an iterable.
    """
    if isinstance(thing, np.ndarray):
        return thing.ndim != 4
    return isinstance(thing, (*_LASTING, WebImage)) or callable(getattr(thing, "read", None))


def keep_source(source: ImageSource) -> ImageSource:
    """Returns a source that can be opened again and again: what can be read only once is kept when it is first read.

    Raises:
        ImageError: it is no source of an image.
    """
    return source if isinstance(source, _LASTING) else KeptImage(source, name_of(source))


def path_of(source: str | os.PathLike[str]) -> Path:
    """Returns the path that something path-like means."""
    return Path(os.fsdecode(source))  # an entry of a folder that was named in bytes has a path in bytes


def name_of(source: ImageSource) -> str:
    """Returns what messages call the source, or refuses it if it is none."""
    if isinstance(source, Image.Image):
        return f"the Pillow image (mode {source.mode}, {source.width}x{source.height})"
    if isinstance(source, np.ndarray):
        return name_array(source)
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)  # as it was given: a path would lose a slash of an address
    if isinstance(source, WebImage | KeptImage):
        return source.name
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the image given as {len(source)} bytes"
    if callable(getattr(source, "read", None)):
        return f"the open file {getattr(source, 'name', '(no name)')!r}"
    raise ImageError(
        "an image must be given as a path, bytes, an open binary file, a Pillow image or a NumPy array. "
        f"Received: {type(source).__name__}"
    )
