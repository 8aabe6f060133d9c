"""Random changes of pictures: what they are, that captions stay true, and that nothing depends on order or threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from showtell.config import AugmentationConfig
from showtell.images import Augmentation, Preprocessing, read_view
from showtell.images.augment import View, draw_view, keeps_sides

SIZE = 48
ALL = AugmentationConfig(crop=0.5, flip=0.5, color=0.3)


def preprocessing(**settings: Any) -> Preprocessing:
    return Preprocessing(
        **{"height": SIZE, "width": SIZE, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), **settings}
    )


def gradient(width: int = 96, height: int = 96) -> Image.Image:
    """Red rises from left to right, green from top to bottom, blue is 128."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128.0)], -1).astype(np.uint8))


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_the_whole_view_is_what_the_encoder_sees_everywhere_else(photographs: list[Path], fit: str) -> None:
    for path in photographs:
        expected = preprocessing(fit=fit).read(path)
        np.testing.assert_array_equal(read_view(preprocessing(fit=fit), path, View()), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_on_its_side_is_upright_before_a_part_is_taken(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    gradient(640, 400).save(path, exif=exif, quality=95)
    whole = preprocessing().read(path).astype(int)
    assert np.abs(read_view(preprocessing(), path, View()).astype(int) - whole).max() <= 6
    # A quarter of it has half of the range of each direction.
    part = read_view(preprocessing(), path, View((0.0, 0.5, 0.5, 1.0))).astype(int)
    half = whole[SIZE // 2 :, : SIZE // 2]
    assert np.abs(part.mean(axis=(0, 1)) - half.mean(axis=(0, 1))).max() < 4


def test_a_part_is_enlarged_to_the_encoders_size() -> None:
    found = read_view(preprocessing(), gradient(), View((0.5, 0.25, 1.0, 0.75)))
    assert found.shape == (SIZE, SIZE, 3)
    assert found[..., 0].min() > 120  # the right half
    assert 55 < found[..., 1].min() < 70  # the middle of the height
    assert 185 < found[..., 1].max() < 200


def test_small_parts_of_large_photographs_are_not_blurred_by_reduced_decoding(tmp_path: Path) -> None:
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::32] = stripes[:, 1::32] = stripes[:, 2::32] = stripes[:, 3::32] = 255
    path = tmp_path / "stripes.jpg"
    Image.fromarray(stripes).save(path, quality=95)
    view = View((0.0, 0.0, 0.1, 0.1))
    part = Image.fromarray(stripes[:160, :160])
    expected = preprocessing().read(part).astype(float)
    assert expected.std() > 50
    assert np.abs(read_view(preprocessing(), path, view) - expected).mean() < 6


def test_mirroring_and_colours() -> None:
    plain = read_view(preprocessing(), gradient(), View())
    np.testing.assert_array_equal(read_view(preprocessing(), gradient(), View(mirrored=True)), plain[:, ::-1])
    darker = read_view(preprocessing(), gradient(), View(brightness=0.8)).astype(float)
    assert darker.mean() == pytest.approx(0.8 * plain.mean(), rel=0.02)
    flatter = read_view(preprocessing(), gradient(), View(contrast=0.7)).astype(float)
    assert flatter.std() < 0.8 * plain.std()
    gray = read_view(preprocessing(), gradient(), View(saturation=0.5)).astype(float)
    spread, plain_spread = gray.std(axis=2).mean(), plain.std(axis=2).mean()
    assert spread == pytest.approx(0.5 * plain_spread, rel=0.05)


def test_hues_stay() -> None:
    red = Image.new("RGB", (SIZE, SIZE), (200, 30, 40))
    generator = np.random.default_rng(0)
    for _ in range(50):
        pixel = read_view(preprocessing(), red, draw_view(generator, ALL, mirror=True))[5, 5].astype(int)
        assert pixel[0] > 2 * max(pixel[1], pixel[2])


@given(st.integers(0, 2**32), st.floats(0.05, 1.0))
def test_a_part_has_the_share_that_was_asked_for_and_lies_inside(seed: int, crop: float) -> None:
    view = draw_view(np.random.default_rng(seed), AugmentationConfig(crop=crop), mirror=True)
    left, top, right, bottom = view.part
    width, height = right - left, bottom - top
    assert crop - 1e-9 <= width * height <= 1 + 1e-9
    assert 3 / 4 - 1e-9 <= width / height <= 4 / 3 + 1e-9
    assert min(left, top) >= 0
    assert max(right, bottom) <= 1
    assert (view.mirrored, view.brightness, view.contrast, view.saturation) == (False, 1, 1, 1)


def test_without_a_crop_the_picture_stays_whole() -> None:
    view = draw_view(np.random.default_rng(3), AugmentationConfig(flip=1.0), mirror=True)
    assert view == View(mirrored=True)


def test_a_setting_does_not_change_what_the_others_draw() -> None:
    one = draw_view(np.random.default_rng(3), AugmentationConfig(crop=0.5), mirror=True)
    other = draw_view(np.random.default_rng(3), ALL, mirror=True)
    assert one.part == other.part


@pytest.mark.parametrize(
    "caption",
    [
        "The man on the left is smiling.",
        "a dog turns RIGHT",
        "A left-handed pitcher",
        "the dancer spins counterclockwise",
        "A boy in a jersey with the number nine",
        "player 23 jumps",
        "a sign in front of a shop",
        'a shirt that says "free hugs"',
        "He holds a “help” board",
        "a ``hello'' banner",
        "blue lettering on a wall",
    ],
)
def test_pictures_whose_captions_speak_of_sides_or_writing_are_not_mirrored(caption: str) -> None:
    assert keeps_sides(["A dog runs.", caption])


def test_other_pictures_are_mirrored() -> None:
    captions = ["A bright, frightened bird is upright.", "Two brightly-dressed men's wordless play"]
    assert not keeps_sides(captions)
    augmentation = Augmentation(
        AugmentationConfig(flip=1.0), [captions, ["He turns left."], captions], seed=0
    )
    assert [augmentation.view(image, (0, 0)).mirrored for image in range(3)] == [True, False, True]


def test_a_share_of_the_pictures_is_mirrored() -> None:
    augmentation = Augmentation(AugmentationConfig(flip=0.3), [["a dog"]] * 500, seed=0)
    mirrored = sum(augmentation.view(image, (0, 0)).mirrored for image in range(500))
    assert 110 < mirrored < 190


def test_a_view_depends_on_seed_picture_and_time_and_on_nothing_else() -> None:
    def views(seed: int, when: tuple[int, ...], order: list[int]) -> dict[int, View]:
        augmentation = Augmentation(ALL, [["a dog"]] * 20, seed=seed)
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(lambda image: augmentation.view(image, when), order)
            return dict(zip(order, found))

    forward = views(1, (2, 3), list(range(20)))
    assert views(1, (2, 3), [*reversed(range(20))]) == forward
    assert len(set(forward.values())) == 20
    for seed, when in ((2, (2, 3)), (1, (3, 3)), (1, (2, 4))):
        assert not set(views(seed, when, list(range(20))).values()) & set(forward.values())


def test_changes_says_whether_anything_is_changed() -> None:
    assert not AugmentationConfig().changes
    for settings in ({"crop": 0.9}, {"flip": 0.1}, {"color": 0.1}):
        assert AugmentationConfig(**settings).changes  # type: ignore[arg-type]


@pytest.mark.shared
def test_few_of_flickr8ks_pictures_keep_their_sides(shared: Path) -> None:
    captions: dict[str, list[str]] = {}
    text = (shared / "data/flickr8k/Flickr8k.token.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        name, _, caption = line.partition("\t")
        captions.setdefault(name.partition("#")[0], []).append(caption)
    share = sum(map(keeps_sides, captions.values())) / len(captions)
    assert 0.05 < share < 0.12
