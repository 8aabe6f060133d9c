"""From a picture to an encoder's input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from showtell.errors import ConfigError, ImageError
from showtell.images import FITS, INTERPOLATIONS, Preprocessing

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def gradient(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom, blue is 128."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128.0)], -1).astype(np.uint8))


def test_normalise_is_the_formula_with_channels_first() -> None:
    preprocessing = Preprocessing(height=4, width=6, **IMAGENET)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 6, 3), dtype=np.uint8)
    result = preprocessing.normalise(pixels)
    expected = (pixels / 255.0 - np.array(IMAGENET["mean"])) / np.array(IMAGENET["std"])
    assert result.dtype == np.float32
    assert result.shape == (2, 5, 3, 4, 6)
    assert result.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(result, np.moveaxis(expected, -1, -3).astype(np.float32))


def test_inception_range_is_minus_one_to_one() -> None:
    preprocessing = Preprocessing(height=1, width=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    pixels = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    assert preprocessing.normalise(pixels)[:, 0].tolist() == [[-1.0, 1.0]] * 3


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 6, 3), np.float32),
        np.zeros((6, 4, 3), np.uint8),
        np.zeros((3, 4, 6), np.uint8),
        np.uint8(3),
    ],
)
def test_normalise_refuses_other_shapes_and_types(pixels: Any) -> None:
    with pytest.raises(ImageError, match=r"uint8 \(\.\.\., 4, 6, 3\)\. Received: "):
        Preprocessing(height=4, width=6, **IMAGENET).normalise(pixels)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("fit", FITS)
def test_image_of_the_target_size_is_not_resampled(interpolation: str, fit: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    preprocessing = Preprocessing(height=20, width=30, interpolation=interpolation, fit=fit, **IMAGENET)
    np.testing.assert_array_equal(preprocessing.resize(Image.fromarray(noise)), noise)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40),
    st.sampled_from(FITS), st.sampled_from(INTERPOLATIONS),
)  # fmt: skip
def test_result_always_has_the_encoders_size(
    width: int, height: int, target_width: int, target_height: int, fit: str, interpolation: str
) -> None:
    preprocessing = Preprocessing(
        height=target_height, width=target_width, fit=fit, interpolation=interpolation, **IMAGENET
    )
    pixels = preprocessing.resize(gradient(width, height))
    assert pixels.shape == (target_height, target_width, 3)
    assert pixels.dtype == np.uint8
    assert preprocessing.apply(gradient(width, height)).shape == (3, target_height, target_width)


def test_squash_keeps_the_whole_picture_and_crop_the_middle() -> None:
    wide = gradient(400, 100)
    squashed = Preprocessing(height=50, width=50, fit="squash", **IMAGENET).resize(wide)
    cropped = Preprocessing(height=50, width=50, fit="crop", **IMAGENET).resize(wide)
    assert squashed[25, 0, 0] < 8
    assert squashed[25, -1, 0] > 247
    # The middle quarter of the width: red from 3/8 to 5/8 of its range; the whole height.
    assert cropped[25, [0, -1], 0].tolist() == pytest.approx([255 * 3 / 8, 255 * 5 / 8], abs=3)
    assert cropped[0, 25, 1] < 8
    assert cropped[-1, 25, 1] > 247


def test_crop_of_a_tall_picture_for_a_wide_target() -> None:
    cropped = Preprocessing(height=20, width=40, fit="crop", **IMAGENET).resize(gradient(100, 400))
    assert cropped[10, [0, -1], 0].tolist() == pytest.approx([0.0, 255.0], abs=6)  # the whole width
    assert cropped[[0, -1], 20, 1].tolist() == pytest.approx(
        [255 * 175 / 400, 255 * 225 / 400], abs=4
    )  # 50 of 400 rows


def test_other_modes_are_converted_properly() -> None:
    transparent = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert (Preprocessing(height=5, width=5, **IMAGENET).resize(transparent) == 255).all()


def test_result_owns_its_memory() -> None:
    image = gradient(8, 8)
    pixels = Preprocessing(height=8, width=8, **IMAGENET).resize(image)
    pixels[:] = 0  # writable, and no view of the image
    assert np.asarray(image).max() > 0


def test_dictionary_round_trip_through_json() -> None:
    preprocessing = Preprocessing(height=224, width=299, interpolation="lanczos", fit="crop", **IMAGENET)
    again = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))
    assert again == preprocessing
    assert again.fingerprint() == preprocessing.fingerprint()
    assert hash(again) == hash(preprocessing)


def test_fingerprint_is_fixed_and_sees_every_field() -> None:
    base = {"height": 224, "width": 224, **IMAGENET}
    changes: list[dict[str, Any]] = [
        {}, {"height": 225}, {"width": 225}, {"mean": (0.0, 0.456, 0.406)}, {"std": (1.0, 0.224, 0.225)},
        {"interpolation": "bilinear"}, {"fit": "crop"},
    ]  # fmt: skip
    fingerprints = [Preprocessing(**(base | change)).fingerprint() for change in changes]
    assert len(set(fingerprints)) == len(changes)
    # Stored in caches and bundles: it may never change by accident.
    assert fingerprints[0] == "17d74cb0a7c04288da3b0a6ed2d8b4a8b9dd5b77b6ed17a259b669ed2f6f15de"
    whole = Preprocessing(height=2, width=2, mean=(0, 0, 0), std=(1, 1, 1))
    assert whole.fingerprint() == Preprocessing(2, 2, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "height must be a whole number of pixels >= 1. Received: 0"),
        ({"width": 224.0}, "width must be a whole number of pixels >= 1. Received: 224.0"),
        ({"width": True}, "width must be a whole number"),
        ({"mean": (0.5, 0.5)}, "mean must be three finite numbers"),
        ({"mean": 0.5}, "mean must be three finite numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean must be three finite numbers"),
        ({"std": ("a", "b", "c")}, "std must be three finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be above 0"),
        ({"interpolation": "bicubik"}, "Received: 'bicubik'. Did you mean 'bicubic'?"),
        ({"interpolation": 3}, "interpolation must be one of nearest, bilinear, bicubic, lanczos"),
        ({"fit": "squish"}, "Did you mean 'squash'?"),
        ({"fit": ["crop"]}, "fit must be one of squash, crop"),
    ],
)
def test_impossible_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Preprocessing(**({"height": 224, "width": 224, **IMAGENET} | change))
    assert message in str(caught.value)


def test_unknown_and_missing_keys_are_named() -> None:
    values = Preprocessing(height=224, width=224, **IMAGENET).to_dict()
    with pytest.raises(ConfigError, match=r"unknown key 'hight'\. Did you mean 'height'\?"):
        Preprocessing.from_dict({**values, "hight": 3})
    del values["std"], values["width"]
    with pytest.raises(ConfigError, match="missing keys: width, std"):
        Preprocessing.from_dict(values)


@pytest.mark.shared
def test_shared_photographs_keep_every_pixel(shared: Path) -> None:
    path = next((shared / "data" / "flickr8k" / "images").glob("*.jpg"))
    with Image.open(path) as image:
        pixels = Preprocessing(height=224, width=224, **IMAGENET).resize(image)
        np.testing.assert_array_equal(pixels, np.asarray(image))
