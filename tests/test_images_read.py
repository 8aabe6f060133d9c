"""From a file to the encoder's pixels: quickly, and within the tolerance of docs/experiments.md."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from showtell.errors import ImageError
from showtell.images import FITS, INTERPOLATIONS, Preprocessing, open_image

MEAN, PERCENTILE, LARGEST = (
    1.0,
    12.0,
    24.0,
)  # the tolerance, in levels of 255: mean, 99.9th percentile, largest
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def preprocessing(width: int = 56, height: int = 56, **options: str) -> Preprocessing:
    return Preprocessing(height=height, width=width, mean=(0.5,) * 3, std=(0.5,) * 3, **options)


def encode(image: Image.Image, form: str = "JPEG", *, orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, form, exif=exif, **({"quality": 90} if form == "JPEG" else {}), **options)
    return stream.getvalue()


def read_plainly(content: bytes, wanted: Preprocessing) -> npt.NDArray[np.uint8]:
    """The whole picture, decoded at full size and resized in one step by Pillow alone."""
    image = open_image(content)
    size, box = (wanted.width, wanted.height), wanted.seen_box(*image.size)
    return np.asarray(image.resize(size, FILTERS[wanted.interpolation], box=box))


def difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    return np.abs(one.astype(np.int64) - other.astype(np.int64))


def assert_within_tolerance(pixels: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> None:
    assert pixels.shape == expected.shape
    errors = difference(pixels, expected)
    found = (float(errors.mean()), float(np.percentile(errors, 99.9)), float(errors.max()))
    assert found[0] <= MEAN, found
    assert found[1] <= PERCENTILE, found
    assert found[2] <= LARGEST, found


@pytest.fixture(scope="module")
def wall(photographs: list[Path]) -> Image.Image:
    """Photographs side by side at their own pixels, 1399x1045: sharper than any camera's picture of this size."""
    page = Image.new("RGB", (1399, 1045))
    for place in range(16):
        with Image.open(photographs[place % len(photographs)]) as image:
            page.paste(image.crop((0, 0, 440, 300)), (440 * (place % 4), 300 * (place // 4)))
    return page


# ---------------------------------------------------------------------------------------------- the tolerance


@pytest.mark.parametrize("size", [(56, 56), (120, 120), (224, 224), (90, 60), (40, 80)])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_sharp_large_jpegs_stay_within_the_tolerance(
    wall: Image.Image, size: tuple[int, int], fit: str, interpolation: str
) -> None:
    wanted = preprocessing(*size, fit=fit, interpolation=interpolation)
    for subsampling in ("4:4:4", "4:2:0"):
        content = encode(wall, subsampling=subsampling)
        assert_within_tolerance(wanted.read(content), read_plainly(content, wanted))


@pytest.mark.parametrize("fit", FITS)
def test_real_photographs_stay_within_the_tolerance(photographs: list[Path], fit: str) -> None:
    wanted = preprocessing(48, 40, fit=fit)
    for path in photographs:
        assert_within_tolerance(wanted.read(path), read_plainly(path.read_bytes(), wanted))


def test_other_formats_stay_within_the_tolerance(wall: Image.Image) -> None:
    content = encode(wall, "PNG", compress_level=0)
    assert_within_tolerance(preprocessing().read(content), read_plainly(content, preprocessing()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
def test_turned_pictures_stay_within_the_tolerance(wall: Image.Image, orientation: int, fit: str) -> None:
    wanted = preprocessing(56, 80, fit=fit)
    content = encode(wall, orientation=orientation)
    assert_within_tolerance(wanted.read(content), read_plainly(content, wanted))


def test_a_reduced_picture_is_not_shifted() -> None:
    # 897 = 8 x 112 + 1 columns: an eighth of the picture ends an eighth into its 113th column.
    wave = 60 * np.sin(np.arange(897) / 15)
    waves = (127.5 + wave[None, :] + wave[:, None]).astype(np.uint8)
    for orientation in range(1, 9):
        content = encode(Image.fromarray(waves).convert("RGB"), orientation=orientation)
        assert difference(preprocessing().read(content), read_plainly(content, preprocessing())).max() <= 12


# ---------------------------------------------------------------------------------------------- what is reduced


def sizes_resized(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The list of sizes from which pictures are resized from here on."""
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def noting(self: Image.Image, *arguments: object, **options: object) -> Image.Image:
        sizes.append(self.size)
        return resize(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", noting)
    return sizes


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((896, 896), (224, 224), (448, 448)),  # four times the target: a half has the spare pixels
        ((895, 2000), (224, 224), (895, 2000)),  # one direction has not
        ((1280, 960), (224, 224), (640, 480)),
        ((1792, 1792), (224, 224), (448, 448)),
        ((1600, 1600), (100, 50), (200, 200)),
        ((1601, 1601), (50, 50), (201, 201)),  # an eighth at most
        ((640, 480), (224, 224), (640, 480)),
    ],
)
def test_a_jpeg_is_decoded_no_smaller_than_twice_the_target(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], target: tuple[int, int], expected: tuple[int, int]
) -> None:
    content = encode(Image.new("RGB", size, (10, 200, 30)))
    sideways = encode(Image.new("RGB", size[::-1], (10, 200, 30)), orientation=6)
    sizes = sizes_resized(monkeypatch)
    for fit in FITS:
        preprocessing(*target, fit=fit).read(content)
        preprocessing(*target, fit=fit).read(sideways)
    assert sizes == [expected, expected[::-1]] * 2


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("target", [(224, 224), (299, 299), (300, 160)])
def test_pictures_that_are_not_large_keep_every_pixel(
    photographs: list[Path], interpolation: str, fit: str, target: tuple[int, int]
) -> None:
    wanted = preprocessing(*target, interpolation=interpolation, fit=fit)
    for path in photographs[:4]:
        np.testing.assert_array_equal(wanted.read(path), read_plainly(path.read_bytes(), wanted))
        np.testing.assert_array_equal(wanted.read(path), wanted.resize(open_image(path)))


def test_nearest_picks_the_pixels_of_the_whole_picture(wall: Image.Image) -> None:
    wanted, content = preprocessing(interpolation="nearest"), encode(wall)
    np.testing.assert_array_equal(wanted.read(content), read_plainly(content, wanted))


def test_a_picture_of_the_target_size_is_turned_but_not_resampled(photographs: list[Path]) -> None:
    with Image.open(photographs[0]) as image:
        page = image.crop((0, 0, 60, 40))
    stored = encode(page, "PNG", orientation=6)
    pixels = preprocessing(40, 60).read(stored)
    np.testing.assert_array_equal(pixels, np.asarray(page.transpose(Image.Transpose.ROTATE_270)))


# ---------------------------------------------------------------------------------------------- sources and errors


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path, wall: Image.Image) -> None:
    path = tmp_path / "wall.jpg"
    path.write_bytes(encode(wall))
    expected = preprocessing().read(path)
    assert expected.flags.writeable
    with path.open("rb") as file:
        for source in (str(path), path.read_bytes(), file):
            np.testing.assert_array_equal(preprocessing().read(source), expected)


def test_a_pillow_image_is_left_as_it_was(wall: Image.Image) -> None:
    lazy = Image.open(io.BytesIO(encode(wall, orientation=3)))
    pixels = preprocessing().read(lazy)
    assert (lazy.size, lazy.mode, lazy.getexif()[0x0112]) == (wall.size, "RGB", 3)
    assert_within_tolerance(pixels, read_plainly(encode(wall, orientation=3), preprocessing()))
    before = np.array(wall)
    preprocessing().read(wall)[:] = 0
    np.testing.assert_array_equal(np.asarray(wall), before)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_large_jpegs_are_refused(wall: Image.Image, part: float) -> None:
    content = encode(wall)
    with pytest.raises(ImageError, match="truncated"):
        preprocessing().read(content[: int(len(content) * part)])


def test_the_pixel_limit_is_that_of_the_whole_picture(wall: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "wall.jpg"
    path.write_bytes(encode(wall))
    with pytest.raises(
        ImageError, match=r"wall\.jpg: 1399x1045 = 1,461,955 pixels exceed the limit of 1,000,000"
    ):
        preprocessing().read(path, max_pixels=1_000_000)


def test_grey_and_cmyk_jpegs_are_reduced_too(wall: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("L", "CMYK"):
        content = encode(wall.convert(mode))
        assert_within_tolerance(preprocessing().read(content), read_plainly(content, preprocessing()))
    sizes = sizes_resized(monkeypatch)
    preprocessing().read(encode(wall.convert("L")))
    assert sizes == [(175, 131)]
