"""HEIF and HEIC, which phones write: read through the plug-in pillow-heif where it is installed (the extra `heif`)."""

from __future__ import annotations

import threading

from PIL import Image

from showtell.errors import MissingExtraError

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")
_registering = threading.Lock()  # pictures are opened on several threads


def is_heif(head: bytes) -> bool:
    """Returns whether a file that begins with these bytes, at least 12, says that it is HEIF."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def register_heif() -> None:
    """Makes Pillow know the format "HEIF"; called when the first such file is met.

    Raises:
        MissingExtraError: the plug-in is not installed.
    """
    with _registering:
        if "HEIF" in Image.OPEN:
            return
        try:
            import pillow_heif
        except ImportError:
            raise MissingExtraError("pillow_heif", "heif", "Reading HEIC") from None
        pillow_heif.register_heif_opener(thumbnails=False)
