"""Opening images: every mode, orientation and kind of damage."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageFile, features

from showtell.errors import ImageError
from showtell.images import DEFAULT_MAX_PIXELS, open_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def corners(width: int = 48, height: int = 32) -> Image.Image:
    """Red, green / blue, white: every turn gives another picture."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def assert_near(image: Image.Image, expected: Image.Image, tolerance: int = 3) -> None:
    assert (image.mode, image.size) == ("RGB", expected.size)
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(expected.convert("RGB")).astype(int))
    assert difference.max() <= tolerance, difference.max()


# ---------------------------------------------------------------------------------------------- sources


def test_path_text_bytes_stream_and_pillow_image_give_the_same_picture(tmp_path: Path) -> None:
    content = encode(corners(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(content)
    sources = [path, str(path), content, io.BytesIO(content), Image.open(io.BytesIO(content))]
    for source in sources:
        assert_near(open_image(source), corners(), 0)
    with path.open("rb") as file:
        assert_near(open_image(file), corners(), 0)


def test_stream_that_cannot_seek_is_read() -> None:
    read_end, write_end = os.pipe()
    content = encode(corners(), "PNG")
    with os.fdopen(write_end, "wb") as writer:
        writer.write(content)
    with os.fdopen(read_end, "rb") as reader:
        assert_near(open_image(reader), corners(), 0)


def test_result_is_detached_and_free_of_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(corners(), "JPEG", exif=exif, quality=95, subsampling=0))
    first = open_image(path)
    path.unlink()
    assert type(first) is Image.Image
    assert first.info == {}
    assert_near(open_image(first), first, 0)  # opening it again must not turn it again


def test_the_callers_pillow_image_is_left_as_it_was() -> None:
    source = Image.new("P", (4, 4))
    source.info["transparency"] = (1, 2, 3)  # damaged: it must be an index or bytes
    assert open_image(source).size == (4, 4)
    assert source.mode == "P"
    assert source.info["transparency"] == (1, 2, 3)


def test_wrongly_named_file_is_decided_by_content(tmp_path: Path) -> None:
    for name in ("png.jpg", "png.eps", "png.txt", "png"):
        path = tmp_path / name
        path.write_bytes(encode(corners(), "PNG"))
        assert_near(open_image(path), corners(), 0)


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "JPEG", "JPEG2000", "AVIF"])
def test_every_format(form: str) -> None:
    options: dict[str, object] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(
        form, {}
    )
    options |= {"quality": 100, "subsampling": "4:4:4"} if form == "AVIF" else {}
    image = open_image(encode(corners(64, 64), form, **options))
    assert_near(image, corners(64, 64), 12)


# ---------------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(form: str, orientation: int) -> None:
    upright = np.asarray(corners())
    # How a camera stores the upright picture, straight from the definition of the tag: which side the
    # file's row 0 and column 0 show.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(
        form, {}
    )
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif.tobytes(), **options)
    assert_near(open_image(content), corners(), 6)
    with Image.open(io.BytesIO(content)) as lazy:
        assert_near(open_image(lazy), corners(), 6)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_out_of_range_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_near(open_image(encode(corners(), "PNG", exif=exif)), corners(), 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so, and goes on
def test_damaged_exif_does_not_cost_the_picture() -> None:
    content = encode(
        corners(), "JPEG", quality=98, subsampling=0, exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff garbage"
    )
    assert_near(open_image(content), corners(), 6)


# ---------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 255, WHITE),
        ("1", 0, (0, 0, 0)),
        ("L", 100, (100, 100, 100)),
        ("LA", (0, 255), (0, 0, 0)),
        ("LA", (0, 0), WHITE),
        ("LA", (0, 128), (127, 127, 127)),
        ("La", (0, 0), WHITE),
        ("La", (128, 128), WHITE),  # premultiplied: white at half
        ("P", 1, (10, 20, 30)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),  # X is padding, not transparency
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("RGBa", (128, 0, 0, 128), (255, 127, 127)),
        ("CMYK", (0, 255, 255, 0), RED),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("HSV", (85, 255, 255), GREEN),
        ("LAB", (255, 128, 128), WHITE),
        ("I", 65535, WHITE),
        ("I", 255, WHITE),  # an 8-bit picture that someone widened
        ("I", 0, (0, 0, 0)),
        ("I;16", 65535, WHITE),
        ("I;16", 32896, (128, 128, 128)),
        ("I;16", 300, (1, 1, 1)),  # not clipped to white
        ("I;16B", 32896, (128, 128, 128)),
        ("I;16L", 32896, (128, 128, 128)),
        ("F", 1.0, WHITE),
        ("F", 0.5, (128, 128, 128)),
        ("F", 128.0, (128, 128, 128)),
        ("F", 0.0, (0, 0, 0)),
    ],
)
def test_every_mode(mode: str, colour: object, expected: tuple[int, int, int]) -> None:
    if mode == "P":
        source = Image.new("P", (3, 2), 1)
        source.putpalette([0, 0, 0, 10, 20, 30])
    elif mode in ("La", "RGBa"):
        bands = [Image.new("L", (3, 2), value) for value in colour]  # type: ignore[attr-defined]
        source = Image.frombytes(mode, (3, 2), bytes(np.stack([np.asarray(band) for band in bands], -1)))
    else:
        source = Image.new(mode, (3, 2), colour)  # type: ignore[arg-type]
    assert_near(open_image(source), Image.new("RGB", (3, 2), expected), 2)


def test_pa_mode_keeps_its_alpha() -> None:
    image = Image.new("RGBA", (2, 1), (200, 10, 10, 255))
    image.putpixel((1, 0), (200, 10, 10, 0))
    result = open_image(image.convert("PA"))
    assert result.getpixel((1, 0)) == WHITE
    assert result.getpixel((0, 0))[0] > 150


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_palette_transparency(transparency: object) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    result = open_image(encode(image, "PNG", transparency=transparency))
    assert [result.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 200)]


@pytest.mark.parametrize(
    ("mode", "colours", "transparency"),
    [
        ("L", [7, 90], 7),
        ("RGB", [(7, 8, 9), (90, 90, 90)], (7, 8, 9)),
        ("1", [0, 255], 0),
        ("I;16", [7, 23130], 7),
    ],
)
def test_transparent_colour_of_png_without_alpha(
    mode: str, colours: list[object], transparency: object
) -> None:
    image = Image.new(mode, (2, 1))
    for x, colour in enumerate(colours):
        image.putpixel((x, 0), colour)  # type: ignore[arg-type]
    result = open_image(encode(image, "PNG", transparency=transparency))
    assert result.getpixel((0, 0)) == WHITE
    assert result.getpixel((1, 0)) == (WHITE if mode == "1" else (90, 90, 90))


def test_cmyk_jpeg_is_inverted_as_adobe_writes_it() -> None:
    content = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=98)
    assert b"Adobe" in content
    assert_near(open_image(content), Image.new("RGB", (16, 16), RED), 4)


def test_sixteen_bit_png_and_pgm_are_scaled_by_65535_even_when_dark() -> None:
    samples = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    png = encode(Image.fromarray(samples), "PNG")
    pgm = b"P5 4 1 65535\n" + samples.astype(">u2").tobytes()
    for content in (png, pgm):
        assert np.asarray(open_image(content))[0, :, 0].tolist() == [0, 1, 100, 255]
    dark = b"P5 2 1 65535\n" + np.array([0, 200], dtype=">u2").tobytes()
    assert np.asarray(open_image(dark)).max() == 1  # 200 of 65,535 is black, not almost white


def test_twelve_bit_tiff_reaches_white() -> None:
    def tiff(bits: int, photometric: int, data: bytes, extra: list[tuple[int, int, int, int]] = []) -> bytes:  # noqa: B006
        tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric)]
        tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, len(data)), *extra]
        body = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
        padded = data + b"\x00" * (len(data) % 2)
        return (
            b"II*\x00"
            + struct.pack("<I", 8 + len(padded))
            + padded
            + struct.pack("<H", len(tags))
            + body
            + b"\x00" * 4
        )

    white_black = struct.pack("<HH", 4095, 0)
    packed = bytes([0xFF, 0xF0, 0x00])  # two samples of 12 bits: 4095, 0
    assert np.asarray(open_image(tiff(12, 1, packed)))[0, :, 0].tolist() == [255, 0]
    assert np.asarray(open_image(tiff(16, 1, white_black, [(281, 3, 1, 4095)])))[0, :, 0].tolist() == [255, 0]
    assert np.asarray(open_image(tiff(16, 1, white_black)))[0, :, 0].tolist() == [16, 0]
    assert np.asarray(open_image(tiff(16, 0, struct.pack("<HH", 65535, 0))))[0, :, 0].tolist() == [0, 255]


def test_float_and_wide_images_keep_their_contrast() -> None:
    samples = np.array([[-2.0, 0.0, 2.0, np.nan, np.inf]], dtype=np.float32)
    assert np.asarray(open_image(Image.fromarray(samples)))[0, :, 0].tolist() == [0, 128, 255, 0, 255]
    wide = Image.fromarray(np.array([[0, 1_000_000, 2_000_000]], dtype=np.int32))
    assert np.asarray(open_image(wide))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animation_gives_its_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    content = encode(frames[0], form, save_all=True, append_images=frames[1:])
    assert_near(open_image(content), Image.new("RGB", (16, 16), RED), 6)


# ---------------------------------------------------------------------------------------------- refusals


def refused(source: object, *words: str, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    for word in words:
        assert word in message, message
    return message


def test_heic_is_read_where_its_plugin_is_installed(tmp_path: Path) -> None:
    path = tmp_path / "phone.heic"
    pillow_heif.from_pillow(corners()).save(path, quality=95)
    program = "import sys; from showtell.images import open_image; print(open_image(sys.argv[1]).size)"
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == (f"{corners().size}\n", "")


def test_heic_without_its_plugin_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['pillow_heif'] = None\nfrom showtell.images import open_image\n"
        "open_image(b'\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ImageError: the image given as 16 bytes: it is HEIF/HEIC. Reading HEIC needs" in ended.stderr
    assert 'pip install "showtell[heif]"' in ended.stderr


def test_missing_file_folder_and_pipe(tmp_path: Path) -> None:
    refused(tmp_path / "no.jpg", "no.jpg", "no such file")
    refused(tmp_path, str(tmp_path), "is a folder")
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    refused(pipe, "pipe.jpg", "not a regular file")
    refused("a\x00b.jpg", "cannot be opened")
    refused("x" * 5000, "cannot be opened")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(encode(corners(), "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    refused(path, "secret.jpg", "no permission")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty (0 bytes)"),
        (b"hello, I am a text", "not an image that can be read"),
        (b"<!DOCTYPE html><html>404</html>", "HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "PostScript"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00", "video"),
        (b"\xff\xd8\xff\xe0", "header is damaged"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged"),
        (b"GIF89a", "damaged"),
    ],
)
def test_what_is_no_image_is_described(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    refused(path, "photo.jpg", words)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, form: str, part: float) -> None:
    noise = Image.effect_noise((96, 96), 80).convert("RGB")
    content = encode(noise, form)
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: int(len(content) * part)])
    refused(path, "cut.jpg")


def test_truncation_is_called_truncation() -> None:
    noise = Image.effect_noise((96, 96), 80).convert("RGB")
    for form in ("JPEG", "PNG", "BMP"):
        content = encode(noise, form)
        refused(content[: len(content) // 2], "truncated", f"{len(content) // 2} bytes")


def test_wrong_kinds_of_source() -> None:
    refused(42, "Received: int")
    refused(io.StringIO("text"), "binary mode")
    refused(Image.new("RGB", (0, 5)), "no pixels")


# ---------------------------------------------------------------------------------------------- bombs


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims any size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 999))
        + chunk(b"IEND", b"")
    )


def webp_header(width: int, height: int) -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("content", [png_header(30_000, 30_000), webp_header(16_000, 16_000)])
def test_bomb_is_refused_from_its_header(content: bytes) -> None:
    refused(content, "exceed the limit of 89,000,000 pixels", "max_pixels")


def test_pixel_limit_is_exact_and_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(corners(20, 10), "PNG")
    assert open_image(content, max_pixels=200).size == (20, 10)
    refused(content, "20x10 = 200 pixels", "limit of 199", max_pixels=199)
    refused(Image.new("RGB", (20, 10)), "limit of 199", max_pixels=199)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # switched off by other code
    refused(png_header(30_000, 30_000), "limit of 89,000,000")


@pytest.mark.parametrize("form", ["WEBP", "AVIF"])
def test_a_file_that_its_plug_in_would_read_whole_must_not_be_huge(form: str, tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.write_bytes(encode(corners(), form))
    assert open_image(path).size == (48, 32)
    os.truncate(path, 1 << 40)  # sparse: nobody could read it
    with pytest.raises(ImageError, match=r"huge: the file is larger than 536,870,912 bytes"):
        open_image(path)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "WEBP"])
def test_raised_limit_brings_no_warning(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # stands for a picture of 100 million pixels
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert open_image(encode(corners(20, 10), form)).size == (20, 10)
    assert caught == []
    assert warnings.filters == filters


def test_default_limit_is_below_pillows_warning() -> None:
    pillows = Image.MAX_IMAGE_PIXELS or 0
    assert pillows > DEFAULT_MAX_PIXELS


# ---------------------------------------------------------------------------------------------- draft


def test_draft_decodes_smaller_but_never_too_small() -> None:
    content = encode(corners(800, 600), "JPEG", quality=95)
    assert open_image(content, draft_size=(200, 150)).size == (200, 150)
    assert open_image(content, draft_size=(201, 10)).size == (400, 300)
    assert open_image(content, draft_size=(2000, 2000)).size == (800, 600)
    assert open_image(encode(corners(800, 600), "PNG"), draft_size=(100, 100)).size == (800, 600)


def test_draft_size_means_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(corners(800, 200), "JPEG", exif=exif)  # upright 200x800
    assert open_image(content, draft_size=(100, 400)).size == (100, 400)
    assert open_image(content, draft_size=(100, 10)).size == (100, 400)
    assert open_image(content, draft_size=(400, 100)).size == (200, 800)


# ---------------------------------------------------------------------------------------------- robustness


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000"])
def test_mutated_files_decode_or_raise_image_error(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    base = Image.effect_noise((24, 24), 90).convert("RGB")
    with_exif = {"exif": exif} if form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    contents = [encode(base, form, **with_exif)]
    if form in ("PNG", "GIF", "WEBP", "TIFF"):
        contents.append(encode(base.quantize(16) if form != "WEBP" else base.convert("RGBA"), form))
    chance = random.Random(f"mutations of {form}")
    outcomes = {"decoded": 0, "refused": 0}
    for content in contents:
        for _ in range(1000):
            mutated = bytearray(content)
            for _ in range(chance.choice((1, 1, 2, 8, 40))):
                # Half of the damage goes to the header, where the sizes and offsets are.
                where = chance.randrange(min(len(mutated), chance.choice((80, len(mutated)))))
                mutated[where] = chance.choice((0, 255, 127, chance.randrange(256)))
            if chance.random() < 0.2:
                del mutated[chance.randrange(len(mutated)) :]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of damage that it can pass over
                try:
                    image = open_image(bytes(mutated), max_pixels=1_000_000)
                except ImageError:
                    outcomes["refused"] += 1
                else:
                    outcomes["decoded"] += 1
                    assert image.mode == "RGB"
                    assert image.width * image.height <= 1_000_000
    assert outcomes["refused"] > 20  # the mutations do reach the decoders


@pytest.mark.parametrize(
    "error",
    [SyntaxError("x"), struct.error("x"), OverflowError("x"), EOFError(), MemoryError(), zlib.error("x")],
)
def test_any_exception_of_the_decoder_becomes_an_image_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    refused(encode(corners(), "BMP"), "bytes")


def test_decoding_is_the_same_from_many_threads() -> None:
    content = encode(corners(200, 100), "JPEG", quality=95)
    expected = np.asarray(open_image(content))
    failures: list[object] = []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(np.asarray(open_image(content)), expected):
                failures.append("different")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_global_settings_of_pillow_are_not_touched() -> None:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    open_image(encode(corners(), "PNG"))
    refused(png_header(30_000, 30_000))
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
