"""Opening image files: from any mode, orientation or damage to an upright RGB picture or an ImageError.

Notable choices:

- The content decides, not the file's name. Only formats that hold photographs are tried: Pillow's other
  plugins include one that starts Ghostscript (EPS), and stubs that decode nothing.
- The plugins are called directly rather than through `PIL.Image.open`. Its guard against decompression
  bombs is a process-wide setting and a warning that other code may have switched off; ours is an
  argument, checked from the header before a pixel is decoded.
- A large JPEG may be decoded at a half, a quarter or an eighth of its size, inside the inverse cosine
  transform (libjpeg's scaling). The reduced picture may end within its last column and row, so its extent is
  kept in fractions of a pixel: ignoring them shifts the picture and doubles the error.
- An array is read as the PNG file that holds its samples would be (`showtell.images.arrays`).
- CMYK is converted without its colour profile. JPEG's CMYK is taken as inverted, as Adobe writes it and
  browsers read it.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from showtell.errors import ImageError, MissingExtraError
from showtell.images.addresses import is_url, show_url
from showtell.images.arrays import array_size, image_of_array
from showtell.images.heif import is_heif, register_heif
from showtell.images.kept import read_content
from showtell.images.sources import ImageSource, name_of, path_of
from showtell.images.web import is_web_page

DEFAULT_MAX_PIXELS = 89_000_000  # about 270 MB as RGB; below Pillow's own warning at 89.5 million
LARGEST_FILE = (
    512 << 20
)  # bytes of what is read whole into memory: so many pixels as RGB with 16 bits take less
_READ_WHOLE = ("WEBP", "AVIF", "HEIF")  # their plug-ins do so on opening; the others read in pieces
# HEIF comes last: some AVIF files bear its name, and it needs a plugin that is not Pillow's own.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")

_TURNS = {  # what undoes each value of EXIF's Orientation (Exif 2.32, section 4.6.4, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))  # these swap width and height
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE_VALUE = 0x0112, 258, 262, 281
_WHITE_IS_ZERO = 0

_LOOKS = (  # what people mistake for an image, by its first bytes
    (b"%PDF", "it is a PDF document; export its pages as images first"),
    (b"PK\x03\x04", "it is a ZIP archive; unpack it first"),
    (b"\x1f\x8b", "it is gzip-compressed; unpack it first"),
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the real file with `git lfs pull`"),
    (b"%!PS", "it is PostScript, which is a program; convert it to PNG first"),
    (b"8BPS", "it is a Photoshop document; export it as JPEG or PNG first"),
)

_warning_filters = threading.Lock()  # Python keeps one list of warning filters for all threads
# A Pillow image may not have read its file yet, and two threads that have the same one would both read it. Each
# image has one of these locks; two images that share one only wait for each other.
_loading = tuple(threading.Lock() for _ in range(61))


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A decoded picture as it lies in its file."""

    image: Image.Image  # RGB; it may be the caller's own, so it must not be changed
    turn: Image.Transpose | None  # what puts it upright
    extent: tuple[float, float]  # (width, height) of the picture, in pixels of `image`, from its left top


def open_image(
    source: ImageSource,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    draft_size: tuple[int, int] | None = None,
) -> Image.Image:
    """Returns the picture in `source` as an upright RGB image of its own, detached from the file.

    EXIF orientation is applied, transparency is laid on white, 16-bit and floating-point samples are
    scaled by their true range, and of an animation the first frame is taken.

    Args:
        source: a path; the bytes of a file; an open binary file, read from where it stands; a Pillow
            image, which is not changed (of an animated one the current frame is taken); an array,
            (height, width) or (height, width, 1, 3 or 4), of uint8, uint16, bool or floats from 0 to 1; or a
            `WebImage`, which is fetched.
        max_pixels: the largest width x height, compared with the file's header before anything is decoded.
        draft_size: (width, height) in pixels: a JPEG may be decoded at a half, a quarter or an eighth of
            its size as long as the result is at least this large. Much faster for photographs; ignored
            for other formats.

    Returns:
        A Pillow image in mode RGB.

    Raises:
        ImageError: missing, unreadable, empty, truncated or damaged, no image at all, or larger than
            `max_pixels`; a FetchError if it cannot be fetched. The message names the source and what is
            wrong with it.
    """
    stored = open_stored(source, max_pixels=max_pixels, draft_size=draft_size)
    with _errors_named(name_of(source)):
        image = stored.image.copy() if stored.turn is None else stored.image.transpose(stored.turn)
    image.info = {}  # nothing that could be applied twice
    return image


def open_stored(
    source: ImageSource,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    draft_size: tuple[int, int] | None = None,
) -> StoredImage:
    """Like `open_image`, but without the copies that make the picture upright and its own.

    For those who make the picture smaller at once: turning the result is far cheaper.

    Args:
        source: as for `open_image`.
        max_pixels: as for `open_image`.
        draft_size: as for `open_image`: of the upright picture.

    Raises:
        ImageError: as for `open_image`.
    """
    name = name_of(source)
    with _errors_named(name):
        if isinstance(source, Image.Image):
            _check_size(name, source.size, max_pixels)
            with _loading[id(source) % len(_loading)]:
                return _stored_rgb(source, None)
        if isinstance(source, np.ndarray):
            _check_size(name, array_size(source), max_pixels)
            return _stored_rgb(image_of_array(np.asarray(source)), None)
        if isinstance(source, str | os.PathLike):
            with _open_file(path_of(source), name) as file:
                return _decode(file, name, max_pixels, draft_size)
        if isinstance(source, bytes | bytearray | memoryview):
            return _decode(io.BytesIO(source), name, max_pixels, draft_size)
        return _decode(io.BytesIO(read_content(source, name)), name, max_pixels, draft_size)


@contextlib.contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises on damaged data into an ImageError that names the image."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: there is not enough memory to decode this image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: refused by Pillow's own limit, PIL.Image.MAX_IMAGE_PIXELS: {error}"
        ) from error
    except Exception as error:
        # Pillow's decoders let through SyntaxError, struct.error, OverflowError, EOFError, zlib.error and
        # more.
        what = str(error) or type(error).__name__
        kind = "the file is truncated" if _says_truncated(error) else "the image is damaged"
        raise ImageError(f"{name}: {kind} and cannot be decoded ({what})") from error


def _says_truncated(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, EOFError) or "truncated" in text or "not enough" in text


def _open_file(path: Path, name: str) -> BinaryIO:
    """Opens a regular file, or says why it cannot be opened; `name` is its path as it was given."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{name} is a folder, not an image file")
        if not stat.S_ISREG(mode):  # a pipe would block for ever
            raise ImageError(f"{name} is not a regular file (a pipe, socket or device)")
        return path.open("rb")
    except FileNotFoundError as error:
        if is_url(name):
            raise ImageError(
                f"{show_url(name)} is an address on the web, not a file; give it as a WebImage"
            ) from error
        raise ImageError(f"{name}: there is no such file") from error
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read this file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise ImageError(f"{name!r} cannot be opened: {error}") from error


def _decode(file: IO[bytes], name: str, max_pixels: int, draft_size: tuple[int, int] | None) -> StoredImage:
    image = _identify(file, name, max_pixels)
    _check_size(name, image.size, max_pixels)
    full_size = image.size
    extent: tuple[float, float] | None = None
    if draft_size is not None and image.format in ("JPEG", "MPO"):
        width, height = draft_size
        if _orientation(image) >= 5:  # the file lies on its side
            width, height = height, width
        draft = image.draft(None, (max(1, width), max(1, height)))
        if draft is not None:
            extent = draft[1][2:]
    with _without_bomb_warning(full_size):
        image.load()
    return _stored_rgb(image, extent)


def _identify(file: IO[bytes], name: str, max_pixels: int) -> ImageFile.ImageFile:
    """Returns the opened, not yet decoded image, by the first plugin that knows these bytes."""
    head = file.read(64)
    if not head:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    webp_size = _webp_canvas(head)
    if webp_size is not None:  # this plugin alone allocates its canvas on opening
        _check_size(name, webp_size, max_pixels)
    Image.preinit()
    complaint: Exception | None = None
    for form in _FORMATS:
        if form not in Image.OPEN:
            Image.init()
        if form == "HEIF" and is_heif(head):
            try:
                register_heif()
            except MissingExtraError as error:
                raise ImageError(f"{name}: it is HEIF/HEIC. {error}") from None
        factory, accepts = Image.OPEN.get(form, (None, None))
        if factory is None or accepts is None or accepts(head[:16]) is not True:
            continue
        if form in _READ_WHOLE and (reason := why_too_large(file.seek(0, os.SEEK_END))):
            raise ImageError(f"{name}: {reason}")
        file.seek(0)
        try:
            image = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # Pillow's way to say "not mine"
            complaint = error
            image = None
        if form == "TIFF":
            _refuse_tiff(name, file, image, complaint)
        if image is not None:
            return image
    if complaint is not None:
        raise ImageError(f"{name}: the image's header is damaged or cut short ({complaint})") from complaint
    raise ImageError(f"{name} is not an image that can be read: {_describe(head)}")


def _refuse_tiff(
    name: str, file: IO[bytes], image: ImageFile.ImageFile | None, complaint: Exception | None
) -> None:
    """Refuses a TIFF of a kind that Pillow does not know, or knows wrongly, as what it is."""
    from showtell.images.tiff import (
        describe_misread,
        describe_unread,
    )  # here: Pillow loads its plugin late, too

    what = describe_unread(file, complaint) if image is None else describe_misread(image)
    if what:
        raise ImageError(f"{name}: {what}") from complaint


def _webp_canvas(head: bytes) -> tuple[int, int] | None:
    """Returns (width, height) of an extended WebP header (RFC 9649, section 2.7); None for other bytes."""
    if head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or len(head) < 30:
        return None
    return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1


def _describe(head: bytes) -> str:
    """Says what the first bytes look like, for people who wonder why their file is refused."""
    for start, description in _LOOKS:
        if head.startswith(start):
            return description
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"svg" in text):
        return "it is an SVG drawing; convert it to PNG first"
    if is_web_page(head):
        return "it is an HTML page, perhaps a download that failed"
    if head[4:8] == b"ftyp":
        return "it is a video, or a container of a kind that is not known here"
    if not head.translate(None, bytes(range(0x20, 0x7F)) + b"\t\r\n"):
        return f"it is text, which begins with {head[:24].decode()!r}"
    return f"it starts with {head[:12]!r}; JPEG, PNG, GIF, WebP, TIFF, BMP, PPM, AVIF and JPEG 2000 are read"


def why_too_large(size: int) -> str:
    """Returns why a file of so many bytes must not be read whole, or "" where it may."""
    return f"the file is larger than {LARGEST_FILE:,} bytes" if size > LARGEST_FILE else ""


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the image has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} = {width * height:,} pixels exceed the limit of {max_pixels:,} pixels "
            "(a guard against decompression bombs). Scale the image down, or raise max_pixels"
        )


@contextlib.contextmanager
def _without_bomb_warning(size: tuple[int, int]) -> Iterator[None]:
    """Silences Pillow's warning where the caller has allowed more pixels than Pillow likes."""
    if size[0] * size[1] <= (Image.MAX_IMAGE_PIXELS or DEFAULT_MAX_PIXELS):
        yield
        return
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _orientation(image: Image.Image) -> int:
    """Returns EXIF's orientation, 1 to 8; 1 where it is absent, out of range or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is no reason to refuse a sound picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _stored_rgb(image: Image.Image, extent: tuple[float, float] | None) -> StoredImage:
    image.load()
    # Only now: PNG may hold EXIF after its pixels, and the TIFF plugin turns the image itself while it loads.
    turn = _TURNS.get(_orientation(image))
    return StoredImage(_to_rgb(image), turn, extent or image.size)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Returns the image in mode RGB, transparency on white: itself where nothing needs to change."""
    mode, transparent = image.mode, image.info.get("transparency")
    if mode.startswith("I;16") or mode in ("I", "F"):
        return _grey_from_wide(image).convert("RGB")
    if mode == "P" and not isinstance(transparent, bytes | int | None):  # damaged: Pillow would refuse it
        image = image.copy()
        del image.info["transparency"]
    if mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or (
        mode in ("1", "L", "RGB") and transparent is not None
    ):
        opaque = (image.convert("LA") if mode == "La" else image).convert("RGBA")
        page = Image.new("RGB", image.size, (255, 255, 255))
        page.paste(opaque, mask=opaque.getchannel("A"))
        return page
    return image if mode == "RGB" else image.convert("RGB")


def _grey_from_wide(image: Image.Image) -> Image.Image:
    """Scales samples wider than 8 bits to 0..255; Pillow's own conversion clips them at 255, to white."""
    samples = np.asarray(image).astype(np.float64)  # (height, width)
    low, high = _sample_range(image, samples)
    scaled = np.clip(
        (np.nan_to_num(samples, nan=low, posinf=high, neginf=low) - low) / (high - low), 0.0, 1.0
    )
    if _tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow honours this up to 8 bits only
        scaled = 1.0 - scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled = np.where(samples == transparent, 1.0, scaled)
    return Image.fromarray(np.rint(scaled * 255.0).astype(np.uint8))


def _sample_range(image: Image.Image, samples: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Returns the values that mean black and white, black < white."""
    finite = samples[np.isfinite(samples)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if image.mode.startswith("I;16"):
        declared = _tiff_tag(image, _MAX_SAMPLE_VALUE)
        if declared is None:
            declared = (1 << (_tiff_tag(image, _BITS_PER_SAMPLE) or 16)) - 1
        return 0.0, float(declared) if 0 < declared <= 65535 and high <= declared else 65535.0
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # 16-bit samples in Pillow's 32-bit mode
        return 0.0, 65535.0
    # Nothing declares the range of 32-bit samples: the smallest usual one that holds them all, or else
    # their own.
    usual = (255.0, 65535.0) if image.mode == "I" else (1.0, 255.0, 65535.0)
    if low >= 0.0:
        for limit in usual:
            if high <= limit:
                return 0.0, limit
    return low, high if high > low else low + 1.0


def _tiff_tag(image: Image.Image, tag: int) -> int | None:
    """Returns a whole-number tag of a TIFF (its first value), or None."""
    tags: Any = getattr(image, "tag_v2", None)
    value = tags.get(tag) if tags is not None else None
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, int) else None
