"""Thousands of damaged images: each is captioned or reported, none ends the program, none keeps it busy for ever."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SEED = 20260


def seeds(photographs: list[Path]) -> list[tuple[str, bytes]]:
    """Small sound images in several formats, modes and compressions."""
    made = []

    def add(image: Image.Image, form: str, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        made.append((form.lower(), buffer.getvalue()))

    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for path in photographs[:3]:
        with Image.open(path) as opened:
            image = opened.resize((80, 60))
        add(image, "JPEG", exif=exif)
        add(image, "JPEG", progressive=True)
        add(image.convert("CMYK"), "JPEG")
        add(image, "PNG", exif=exif)
        add(image.convert("P"), "PNG")
        add(image.convert("I;16"), "PNG")
        add(image.convert("LA"), "PNG")
        add(image, "WEBP", exif=exif)
        add(image.convert("RGBA"), "WEBP", lossless=True)
        add(image.convert("P"), "GIF", save_all=True, append_images=[image.convert("P").rotate(90)])
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
            add(image, "TIFF", compression=compression)
        add(image.convert("1"), "TIFF", compression="group4")
    return made


def mutate(content: bytes, other: bytes, chosen: random.Random) -> bytes:
    """Damages a file in one to four ways; the header, where most decisions are made, more often than the rest."""
    data = bytearray(content)
    for _ in range(chosen.randint(1, 4)):
        place = min(chosen.randrange(len(data)), chosen.choice((32, 256, len(data))))
        length = chosen.choice((1, 1, 2, 4, 16, 64))
        kind = chosen.randrange(7)
        if kind == 0:
            data[place : place + 1] = bytes([data[place % len(data)] ^ (1 << chosen.randrange(8))])
        elif kind == 1:
            data[place : place + length] = chosen.randbytes(length)
        elif kind == 2:
            data[place : place + length] = chosen.choice((b"\0", b"\xff", b"\x7f")) * length
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length]
        elif kind == 5:
            del data[chosen.randrange(len(data)) :]
        else:
            start = chosen.randrange(len(other))
            data[place : place + length] = other[start : start + length]
        if not data:
            return b""
    return bytes(data)


def plant(folder: Path, photographs: list[Path], count: int) -> None:
    chosen = random.Random(SEED)
    sound = seeds(photographs)
    for number in range(count):
        form, content = sound[number % len(sound)]
        damaged = mutate(content, chosen.choice(sound)[1], chosen)
        (folder / f"{number:05d}.{form}").write_bytes(damaged)


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_images_are_captioned_or_reported(
    count: int, exported_model: str, photographs: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "damaged").mkdir()
    plant(tmp_path / "damaged", photographs, count)
    words = [sys.executable, "-m", "showtell", "caption", "damaged", "--model", exported_model]
    words += ["--format", "jsonl", "--greedy", "--output", "out.jsonl"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60 + count)
    assert ended.returncode == 1, ended.stderr
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Path(record["image"]).name for record in records] == sorted(
        path.name for path in (tmp_path / "damaged").iterdir()
    )
    captioned = [record for record in records if record.get("captions")]
    reported = [record for record in records if record.get("error")]
    assert len(captioned) + len(reported) == count
    assert min(len(captioned), len(reported)) > count // 10  # the damage is neither nothing nor everything
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr  # what libtiff prints by itself is all that is between our lines
