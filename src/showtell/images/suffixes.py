"""How the names of image files end: for finding images in folders. What is opened is decided by its content."""

from __future__ import annotations

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2", ".heic", ".heif", ".hif"),
    }
)
