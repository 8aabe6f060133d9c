"""Pictures in NumPy arrays: bit for bit what the PNG file with the same samples gives, or a refusal that helps."""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from skimage import data

from showtell.errors import FetchError, ImageError
from showtell.images import Allowance, KeptImage, Preprocessing, WebImage, is_source, keep_source, open_image

SAMPLES = np.random.default_rng(5)
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # of PNG, by the number of channels


def write_png(samples: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bytes:
    """Writes a PNG by hand, because Pillow writes no colours in 16 bits."""
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width, channels = samples.shape
    bits = 8 * samples.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, bits, COLOUR_TYPES[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def read(source: object) -> npt.NDArray[np.uint8]:
    return np.asarray(open_image(source))  # type: ignore[arg-type]


def refusal(array: npt.NDArray[np.generic]) -> str:
    with pytest.raises(ImageError) as raised:
        open_image(array)  # type: ignore[arg-type]
    message = str(raised.value)
    assert message.startswith(f"the array ({array.dtype}, shape {array.shape})")
    return message


# The same as the file


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "shape", [(19, 23), (19, 23, 1), (19, 23, 3), (19, 23, 4), (1, 1), (1, 1, 4), (3, 50, 3)]
)
def test_an_array_is_read_as_its_png_is(kind: type[np.uint8 | np.uint16], shape: tuple[int, ...]) -> None:
    samples = SAMPLES.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)
    before = samples.copy()
    samples.setflags(write=False)
    file = write_png(samples)
    np.testing.assert_array_equal(read(samples), read(file))
    wanted = Preprocessing(height=16, width=12, mean=(0.5,) * 3, std=(0.5,) * 3)
    np.testing.assert_array_equal(wanted.read(samples), wanted.read(file))
    np.testing.assert_array_equal(samples, before)


def test_photographs() -> None:
    wanted = Preprocessing(height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    for picture in (data.astronaut(), data.camera(), data.chelsea(), data.page()):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        np.testing.assert_array_equal(wanted.read(picture), wanted.read(buffer.getvalue()))


def test_transparency_lies_on_white() -> None:
    glass = np.zeros((2, 2, 4), np.uint8)
    glass[0, 0] = (255, 0, 0, 255)
    glass[0, 1, 3] = 128
    found = read(glass)
    assert found[0].tolist() == [[255, 0, 0], [127, 127, 127]]
    assert (found[1] == 255).all()


def test_bools_are_black_and_white() -> None:
    mask = SAMPLES.random((21, 13)) < 0.5
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    np.testing.assert_array_equal(read(mask), read(buffer.getvalue()))
    np.testing.assert_array_equal(read(mask)[..., 0], np.where(mask, 255, 0))
    np.testing.assert_array_equal(read(mask[..., None]), read(mask))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_floats_are_shares_of_255(kind: npt.DTypeLike, channels: tuple[int, ...]) -> None:
    levels = np.broadcast_to(
        np.arange(256, dtype=np.uint8).reshape(16, 16, *(1 for _ in channels)), (16, 16, *channels)
    )
    np.testing.assert_array_equal(read((levels / 255).astype(kind)), read(levels))


def test_floats_are_rounded_to_the_nearest_level() -> None:
    assert read(np.array([[0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 1.0]]))[0, :, 0].tolist() == [
        *(0, 0, 1),
        *(254, 255, 255),
    ]


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_the_order_of_bytes_does_not_matter(order: str, shape: tuple[int, ...]) -> None:
    samples = SAMPLES.integers(0, 65536, shape, dtype=np.uint16)
    np.testing.assert_array_equal(read(samples.astype(order)), read(write_png(samples)))


@settings(deadline=None)  # Pillow's plugins are loaded by the first
@given(
    samples=arrays.arrays(np.uint8, st.tuples(st.integers(2, 9), st.integers(2, 9), st.just(3))),
    way=st.sampled_from(
        ["flipped", "mirrored", "every other", "cut out", "turned", "Fortran", "BGR", "spread"]
    ),
)
def test_any_layout_in_memory_reads_alike(samples: npt.NDArray[np.uint8], way: str) -> None:
    view = {
        "flipped": samples[::-1],
        "mirrored": samples[:, ::-1],
        "every other": samples[::2, ::2],
        "cut out": samples[1:, 1:],
        "turned": samples.transpose(1, 0, 2),
        "Fortran": np.asfortranarray(samples),
        "BGR": samples[..., ::-1],
        "spread": np.broadcast_to(samples[:1], samples.shape),
    }[way]
    np.testing.assert_array_equal(read(view), np.ascontiguousarray(view))


def test_what_is_opened_is_no_view_of_the_array() -> None:
    for samples in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)):
        opened = open_image(samples)
        expected = np.array(opened)
        samples[:] = 77
        np.testing.assert_array_equal(np.asarray(opened), expected)


# Refusals


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (np.zeros((3, 40, 50), np.uint8), r"channels come first: array.transpose(1, 2, 0) puts them last"),
        (np.zeros((4, 40, 50), np.float32), r"channels come first"),
        (np.zeros((40, 50, 2), np.uint8), "It has 2 channels"),
        (np.zeros((40, 50, 5), np.uint8), "It has 5 channels"),
        (np.zeros(7, np.uint8), "Its number of dimensions is 1"),
        (np.zeros((), np.uint8), "Its number of dimensions is 0"),
        (np.zeros((2, 2, 2, 2, 3), np.uint8), "Its number of dimensions is 5"),
        (np.zeros((2, 4, 4, 3), np.uint8), "It is a batch of pictures: give it by itself, or list(array)"),
        (np.zeros((4, 4, 3), bool), "array.astype(np.uint8) * 255"),
        (np.zeros((4, 4), np.int64), "array.astype(np.uint8) converts whole numbers from 0 to 255"),
        (np.zeros((4, 4), np.uint32), "array.astype(np.uint8) converts"),
        (np.zeros((4, 4), complex), "np.abs(array) is the magnitude"),
        (np.array([["a.jpg"]]), "give them as a list: list(array)"),
        (np.array([b"a", 1, None], dtype=object), "give them as a list: list(array)"),
        (np.zeros((4, 4), "datetime64[s]"), "datetime64[s] is no type of samples"),
        (np.zeros((4, 4), [("r", "u1"), ("g", "u1")]), "is no type of samples"),
        (np.full((4, 4), np.nan), "It holds NaN: np.nan_to_num(array)"),
        (np.array([[0.5, np.nan]], np.float16), "It holds NaN"),
        (np.array([[0.0, np.inf]]), "Its values go from 0 to inf: np.clip(array, 0, 1)"),
        (np.array([[0.0, 1.001]]), "Its values go from 0 to 1.001: np.clip(array, 0, 1)"),
        (np.array([[-0.001, 1.0]]), "Its values go from -0.001 to 1: np.clip(array, 0, 1)"),
        (np.array([[0.0, 254.0]], np.float32), "Its values go from 0 to 254: array / 255 brings"),
        (np.array([[-1.0, 1.0]]), "Its values go from -1 to 1: (array + 1) / 2 brings"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else f"{value.dtype}-{value.ndim}",
)
def test_what_is_no_picture_is_refused_with_a_way_out(array: npt.NDArray[np.generic], hint: str) -> None:
    message = refusal(array)
    assert " cannot be read as a picture. " in message
    assert hint in message
    assert "An array must be (height, width), (height, width, 1), (height, width, 3) RGB or" in message
    assert "of uint8, uint16, bool (without colours) or floats from 0 to 1." in message


@pytest.mark.parametrize(
    "refused",
    [
        data.astronaut().transpose(2, 0, 1),
        data.astronaut().astype(np.int64),
        data.astronaut().astype(np.float32),
        data.astronaut() / 127.5 - 1,
        data.horse()[..., None].repeat(3, axis=2),
        np.where(data.astronaut() == 7, np.nan, data.astronaut() / 255),
        data.astronaut() / 255 * 1.01,
    ],
    ids=["channels", "signed", "255", "-1 to 1", "bool", "NaN", "overshoot"],
)
def test_the_way_out_is_code_that_works(refused: npt.NDArray[np.generic]) -> None:
    advice = refusal(refused).partition(" as a picture. ")[2]
    found = re.search(r"(\(?(?:np\.\w+\()?array.*?) (?:puts|converts|brings|makes|replaces|cuts)", advice)
    assert found is not None, advice
    converted = eval(found[1], {"np": np, "array": refused})
    assert open_image(converted).size in ((512, 512), (400, 328))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0, 3), (5, 0, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, bool])
def test_nothing_is_no_picture(shape: tuple[int, ...], kind: npt.DTypeLike) -> None:
    if kind is bool and len(shape) == 3:
        shape = (*shape[:2], 1)
    with pytest.raises(ImageError, match=rf"has no pixels \({shape[1]}x{shape[0]}\)"):
        open_image(np.zeros(shape, kind))  # type: ignore[arg-type]


def test_the_limit_of_pixels_holds_and_costs_nothing() -> None:
    huge = np.broadcast_to(np.float64(0.5), (100_000, 100_000, 3))  # 8 bytes of memory
    with pytest.raises(
        ImageError, match="100000x100000 = 10,000,000,000 pixels exceed the limit of 89,000,000"
    ):
        open_image(huge)
    with pytest.raises(ImageError, match="20 pixels exceed the limit of 19 pixels"):
        open_image(np.zeros((4, 5), np.uint8), max_pixels=19)
    assert open_image(np.zeros((4, 5), np.uint8), max_pixels=20).size == (5, 4)


# What counts as one image


class Place:
    """A path-like object that is no Path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


def test_one_image_is_told_from_several(photographs: list[Path]) -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    one = [
        "a.jpg",
        photographs[0],
        Place(photographs[0]),
        b"",
        bytearray(),
        memoryview(b""),
        io.BytesIO(),
        picture,
    ]
    one += [picture[0], Image.new("RGB", (1, 1)), WebImage("https://example.com/a.jpg", None)]  # type: ignore[arg-type]
    assert [thing for thing in one if not is_source(thing)] == []
    several = [["a.jpg"], ("a.jpg",), iter([picture]), picture[None], {"a.jpg"}, range(3), None, 3]
    assert [thing for thing in several if is_source(thing)] == []


def test_path_like_objects_are_paths(photographs: list[Path], tmp_path: Path) -> None:
    import os

    expected = read(photographs[0])
    np.testing.assert_array_equal(read(Place(photographs[0])), expected)
    with os.scandir(photographs[0].parent) as entries:
        [entry] = [entry for entry in entries if entry.name == photographs[0].name]
    np.testing.assert_array_equal(read(entry), expected)
    with os.scandir(os.fsencode(photographs[0].parent)) as entries_in_bytes:
        [raw] = [entry for entry in entries_in_bytes if entry.name == os.fsencode(photographs[0].name)]
    np.testing.assert_array_equal(read(raw), expected)
    with pytest.raises(ImageError, match=r"none\.jpg: there is no such file"):
        open_image(Place(tmp_path / "none.jpg"))


# Images that are kept


class Web:
    """Stands in for a fetcher; counts what is asked of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked = 0

    def fetch(self, url: str) -> Web:
        self.asked += 1
        if not self.content:
            raise FetchError(f"{url}: gone")
        return self


def test_a_stream_is_read_once_and_opened_often(photographs: list[Path]) -> None:
    with photographs[0].open("rb") as file:
        kept = keep_source(file)
        assert isinstance(kept, KeptImage)
        np.testing.assert_array_equal(read(kept), read(kept))
        assert keep_source(kept) is kept
    for lasting in (photographs[0], b"x", np.zeros((2, 2), np.uint8)):
        assert keep_source(lasting) is lasting
    with pytest.raises(ImageError, match=r"is open as text; open it in binary mode \('rb'\)"):
        open_image(keep_source(io.StringIO("text")))  # type: ignore[arg-type]
    with pytest.raises(
        ImageError, match=r"an image must be given as a path, .* or a NumPy array. Received: int"
    ):
        keep_source(3)  # type: ignore[arg-type]


def test_an_image_on_the_web_is_fetched_once_within_the_allowance() -> None:
    small, large = Web(b"x" * 60), Web(b"x" * 60)
    allowance = Allowance(100)
    first, second = (
        KeptImage(WebImage(f"https://example.com/{name}.jpg", web), name, allowance)  # type: ignore[arg-type]
        for name, web in (("a", small), ("b", large))
    )
    assert first.read() == first.read() == small.content
    assert second.read() == second.read() == large.content
    assert (small.asked, large.asked) == (1, 2)  # there was no room for both
    first.drop()
    first.drop()
    assert second.read() == second.read()
    assert (small.asked, large.asked) == (1, 3)
    second.drop()
    assert allowance.take(100)
    assert not allowance.take(1)


def test_what_could_not_be_fetched_is_tried_again() -> None:
    web = Web(b"")
    kept = KeptImage(WebImage("https://example.com/a.jpg", web), "a", Allowance(100))  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(FetchError, match="gone"):
            open_image(kept)
    assert web.asked == 2


def test_one_image_on_several_threads_is_fetched_once() -> None:
    web = Web(b"x" * 10)
    kept = KeptImage(WebImage("https://example.com/a.jpg", web), "a")  # type: ignore[arg-type]
    together = threading.Barrier(4)

    def ask(_: int) -> bytes:
        together.wait(timeout=20)
        return kept.read()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {web.content}
    assert web.asked == 1


# Pillow images that have not read their file yet


def test_a_pillow_image_may_be_opened_on_several_threads(photographs: list[Path]) -> None:
    expected = read(photographs[0])
    for _ in range(10):
        with Image.open(photographs[0]) as image, ThreadPoolExecutor(4) as pool:
            for found in pool.map(read, [image] * 4):
                np.testing.assert_array_equal(found, expected)
