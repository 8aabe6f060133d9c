"""Images: from any file to an upright RGB picture, and from there to the numbers that an encoder expects."""

from __future__ import annotations

from showtell.images.addresses import is_url
from showtell.images.ahead import read_ahead, read_batches
from showtell.images.augment import Augmentation, View, draw_view, read_view
from showtell.images.decode import DEFAULT_MAX_PIXELS, open_image, why_too_large
from showtell.images.kept import Allowance, KeptImage
from showtell.images.preprocess import FITS, INTERPOLATIONS, Preprocessing
from showtell.images.sources import ImageSource, is_source, keep_source
from showtell.images.suffixes import IMAGE_SUFFIXES
from showtell.images.web import WebImage

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FITS",
    "IMAGE_SUFFIXES",
    "INTERPOLATIONS",
    "Allowance",
    "Augmentation",
    "ImageSource",
    "KeptImage",
    "Preprocessing",
    "View",
    "WebImage",
    "draw_view",
    "is_source",
    "is_url",
    "keep_source",
    "open_image",
    "read_ahead",
    "read_batches",
    "read_view",
    "why_too_large",
]
