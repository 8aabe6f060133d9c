"""Images: from any file to an upright RGB picture, and from there to the numbers that an encoder expects."""

from __future__ import annotations

from showtell.images.decode import DEFAULT_MAX_PIXELS, open_image
from showtell.images.preprocess import FITS, INTERPOLATIONS, Preprocessing

__all__ = ["DEFAULT_MAX_PIXELS", "FITS", "INTERPOLATIONS", "Preprocessing", "open_image"]
