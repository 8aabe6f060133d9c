"""TIFF beyond plain photographs: several pages, every compression, and kinds that Pillow does not read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage
import tifffile
from PIL import Image

from showtell.errors import ImageError
from showtell.images import open_image

PICTURE = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3) * 7 % 256


@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
@pytest.mark.parametrize(
    "compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd", "jpeg"]
)
def test_of_several_pages_the_first_is_read(
    compression: str | None, big: bool, photographs: list[Path], tmp_path: Path
) -> None:
    pages = [open_image(path) for path in photographs[:3]]
    path = tmp_path / "pages.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression, big_tiff=big)
    with Image.open(path) as written:
        assert getattr(written, "n_frames") == 3  # noqa: B009  # only some of Pillow's images have it
        for source in (path, path.read_bytes(), written):
            read = np.asarray(open_image(source)).astype(int)
            difference = np.abs(read - np.asarray(pages[0])).mean()
            assert difference < 5 if compression == "jpeg" else difference == 0


def tiff(pixels: npt.NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bits_are_read_where_pillow_reads_them(compression: str | None, byteorder: str) -> None:
    content = tiff((PICTURE * 257).astype(np.uint16), compression=compression, byteorder=byteorder)
    np.testing.assert_array_equal(np.asarray(open_image(content)), PICTURE)


GREY = (PICTURE[..., 0] / 255).astype(np.float32)
PLANES = np.moveaxis((PICTURE * 257).astype(np.uint16), 2, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            tiff(PICTURE / 255),
            "it is a TIFF of a kind that is not read: 3 x 64 bits per pixel, floating-point",
        ),
        (tiff(PICTURE), "it is a TIFF of a kind that is not read: 3 x 32 bits per pixel, whole numbers"),
        (
            tiff((PICTURE // 2).astype(np.int8), compression="zlib", bigtiff=True),
            "it is a TIFF of a kind that is not read: 3 x 8 bits per pixel, signed whole numbers",
        ),
        # These two Pillow reads as noise, without a word.
        (
            tiff(PLANES, planarconfig="separate"),
            "it is a TIFF with each colour by itself, 16 bits, uncompressed",
        ),
        (
            tiff(GREY, compression="zlib", byteorder=">"),
            "it is a compressed TIFF of 32-bit floating-point numbers",
        ),
    ],
    ids=["float64", "uint32", "int8", "planes", "big-endian"],
)
def test_what_is_not_read_is_called_what_it_is(content: bytes, message: str) -> None:
    with pytest.raises(ImageError) as error:
        open_image(content)
    assert message in str(error.value)
    assert "Save it with 8 or 16 bits per sample, as whole numbers" in str(error.value)
    assert "damaged" not in str(error.value)


def test_an_unknown_compression_is_named() -> None:
    content = tiff(PICTURE.astype(np.uint8))
    entry = b"\x03\x01\x03\x00\x01\x00\x00\x00"  # tag 259, one short
    assert content.count(entry + b"\x01\x00") == 1
    with pytest.raises(ImageError, match=r"in a compression that is not read \(34892\)"):
        open_image(content.replace(entry + b"\x01\x00", entry + (34892).to_bytes(2, "little")))


def test_a_file_of_scikit_image() -> None:
    path = Path(skimage.__file__).parent / "data" / "multipage_rgb.tif"  # two pages of 64-bit numbers
    with pytest.raises(
        ImageError, match=r"multipage_rgb\.tif: it is a TIFF of a kind that is not read: 3 x 64"
    ):
        open_image(path)
