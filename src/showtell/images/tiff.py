"""TIFF files that Pillow does not read, or reads wrongly: said as what they are, and not as damage.

TIFF holds more than photographs: measurements as floating-point numbers, volumes, samples of 64 bits.
"""

from __future__ import annotations

from typing import IO, Any

from PIL import ImageFile, TiffImagePlugin

_BIG = 43  # the version in the header of a BigTIFF
_COMPRESSION, _BITS, _PLANAR, _FORMAT = 259, 258, 284, 339
_KINDS = {1: "whole numbers", 2: "signed whole numbers", 3: "floating-point numbers"}
_ADVICE = "Save it with 8 or 16 bits per sample, as whole numbers"


def describe_unread(file: IO[bytes], complaint: Exception | None) -> str:
    """Returns what a TIFF holds that Pillow does not know, and what to do; "" where it is damaged.

    Args:
        file: all of it, wherever it stands.
        complaint: what Pillow says of it.
    """
    try:
        file.seek(0)
        header = file.read(8)
        if _BIG in header[2:4]:
            header += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        compression = tags.get(_COMPRESSION, 1)
        bits, kind = _samples(tags)
    except Exception:  # damaged, which is what will be said
        return ""
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return f"it is a TIFF in a compression that is not read ({compression}). Save it with another, or with none"
    if str(complaint) != "unknown pixel mode":
        return ""
    return f"it is a TIFF of a kind that is not read: {len(bits)} x {max(bits)} bits per pixel, {kind}. {_ADVICE}"


def describe_misread(image: ImageFile.ImageFile) -> str:
    """Returns what is wrong with a TIFF that Pillow opens but would decode to noise, and what to do; "" for others."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return ""
    bits, kind = _samples(image.tag_v2)
    plain = image.tag_v2.get(_COMPRESSION, 1) == 1
    if plain and image.tag_v2.get(_PLANAR, 1) == 2 and len(bits) > 1 and max(bits) > 8:
        # Pillow takes the bytes of a plane for samples of 8 bits.
        return f"it is a TIFF with each colour by itself, {max(bits)} bits, uncompressed, which is not read. {_ADVICE}"
    if not plain and image.tag_v2.prefix == b"MM" and image.mode in ("I", "F"):
        # libtiff has turned the bytes already, and Pillow turns them once more.
        return f"it is a compressed TIFF of {max(bits)}-bit {kind}, which is not read. {_ADVICE}"
    return ""


def _samples(tags: Any) -> tuple[tuple[int, ...], str]:
    """Returns the bits of each sample of a pixel, and what samples are."""
    bits = tuple(tags.get(_BITS, (1,)))
    kind = tags.get(_FORMAT, (1,))[0]
    return bits, _KINDS.get(kind, f"of sample format {kind}")
