"""What people write in their own programs: mypy checks this file in strict mode, and the tests run it."""

from __future__ import annotations

import dataclasses
import io
import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import showtell
from showtell import Caption, CaptionedPicture, Captioner, DecodingSettings, ImageError, ImageLike


@pytest.fixture(scope="module")
def captioner(tiny_bundle: Path) -> Captioner:
    return showtell.Captioner.load(tiny_bundle)


def read_pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.uint8)


def film(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    yield from [read_pixels(path)[:64, :64]] * 2


def test_every_kind_of_image_has_its_type(captioner: Captioner, photographs: list[Path]) -> None:
    path = photographs[0]
    pixels = read_pixels(path)
    shares: npt.NDArray[np.float32] = (pixels / 255).astype(np.float32)
    mask: npt.NDArray[np.bool_] = pixels[..., 0] > 100
    images: list[ImageLike] = [path, str(path), path.read_bytes(), Image.fromarray(pixels)]
    images += [pixels, shares, mask, io.BytesIO(path.read_bytes())]
    pictures = list(captioner.caption(images))
    assert [picture.error for picture in pictures] == [None] * len(images)
    for one in (path, str(path), pixels, shares):
        assert len(list(captioner.caption(one))) == 1
    assert len(list(captioner.caption(photographs))) == len(photographs)
    assert len(list(captioner.caption(film(path)))) == 2
    assert len(list(captioner.caption(np.stack(list(film(path)))))) == 2
    signed: npt.NDArray[np.int64] = pixels.astype(np.int64)
    [refused] = captioner.caption([signed])  # type: ignore[list-item]
    assert isinstance(refused.error, ImageError)


def test_results_have_their_types(captioner: Captioner, photographs: list[Path]) -> None:
    settings = DecodingSettings(method="beam", beam=2, count=2, max_steps=5)
    assert_type(settings.count, int)
    for picture in captioner.caption(photographs[:2], settings, min_confidence=0.0):
        assert_type(picture, CaptionedPicture)
        assert_type(picture.text, str)
        assert_type(picture.captions, tuple[Caption, ...])
        assert_type(picture.error, ImageError | None)
        assert_type(picture.abstained, bool)
        for caption in picture.captions:
            assert_type(caption, Caption)
            assert_type(caption.text, str)
            assert_type(caption.words, list[str])
            assert_type(caption.score, float)
            assert_type(caption.confidence, float | None)
            assert_type(caption.word_log_probs, tuple[float, ...])
            assert_type(caption.attention, npt.NDArray[np.float32] | None)
    with pytest.raises(TypeError):
        captioner.caption(photographs, min_confidnce=0.5)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        _ = showtell.Captoner  # type: ignore[attr-defined]


def test_results_are_plain_and_frozen(captioner: Captioner, photographs: list[Path], tmp_path: Path) -> None:
    good, bad = captioner.caption([photographs[0], tmp_path / "none.jpg"])
    [again, _] = captioner.caption([photographs[0], tmp_path / "none.jpg"])
    assert good == again
    assert hash(good) == hash(again)
    for thing in (good, good.captions[0], captioner.settings):
        assert dataclasses.is_dataclass(thing)
        name = dataclasses.fields(thing)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)
    for picture in (good, bad):
        copied = pickle.loads(pickle.dumps(picture))  # as for another process
        assert copied.captions == picture.captions
        assert str(copied.error) == str(picture.error)


def test_results_can_be_read_at_the_prompt(captioner: Captioner, photographs: list[Path]) -> None:
    good, bad = captioner.caption([photographs[0], b"no image"])
    best = good.captions[0]
    shown = f"Caption(text={best.text!r}, score={best.score!r}, log_prob={best.log_prob!r}, confidence=None)"
    assert repr(best) == shown
    assert repr(good).startswith(f"CaptionedPicture(captions=({shown},), grid=")
    assert "error=ImageError(" in repr(bad)
    assert repr(captioner).startswith("Captioner('attend-gru-additive', TorchBackend, ")
    assert "DecodingSettings(method=" in repr(captioner)


def test_the_package_says_that_it_is_typed() -> None:
    assert files("showtell").joinpath("py.typed").is_file()


def test_importing_showtell_imports_nothing_large() -> None:
    script = (
        "import sys, showtell; showtell.Captioner\n"
        "print(*(name for name in ('torch', 'timm', 'openvino', 'onnxruntime') if name in sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == ""
    early = "import sys, showtell; print(*(name for name in ('numpy', 'PIL', 'dataclasses') if name in sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", early], text=True).strip() == ""


def test_images_can_be_named_for_the_type_checker_alone() -> None:
    def count(images: list[ImageLike]) -> int:
        return len(images)

    assert count([Path("a.jpg"), "b.jpg", b""]) == 3
