"""Attention over the original picture: the right word, the right place, the right shape."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from showtell.captioner import Captioner
from showtell.captioning import Caption
from showtell.errors import UsageError
from showtell.explain import TILE, attention_maps, draw_attention, draw_sheet
from showtell.images import Preprocessing
from tiny_runs import shared_dataset, trained_run

GRID = (7, 7)
STILL = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
SQUASH = Preprocessing(height=224, width=224, fit="squash", **STILL)  # type: ignore[arg-type]
CROP = Preprocessing(height=224, width=224, fit="crop", **STILL)  # type: ignore[arg-type]


def looking_at(*cells: tuple[int, int], grid: tuple[int, int] = GRID) -> Caption:
    """A caption that looks at one cell for each word."""
    attention = np.zeros((len(cells), grid[0] * grid[1]), dtype=np.float32)
    for word, (row, column) in enumerate(cells):
        attention[word, row * grid[1] + column] = 1
    return Caption(" ".join("abcdefgh"[: len(cells)]), -1.0, -2.0, (-1.0,) * len(cells), attention)


def centre_of(weights: np.ndarray) -> tuple[float, float]:
    """Returns the centre of mass: (x, y) in pixels."""
    rows, columns = np.indices(weights.shape)
    return float((weights * (columns + 0.5)).sum() / weights.sum()), float(
        (weights * (rows + 0.5)).sum() / weights.sum()
    )


@pytest.mark.parametrize("cell", [(0, 0), (0, 6), (3, 3), (2, 5), (6, 1)])
@pytest.mark.parametrize("size", [(700, 175), (175, 700), (420, 420)])
def test_squashed_cells_lie_over_the_whole_picture(cell: tuple[int, int], size: tuple[int, int]) -> None:
    [weights] = attention_maps(looking_at(cell), GRID, size, SQUASH)
    width, height = size
    assert weights.shape == (height, width)
    assert weights.max() == 1
    x, y = centre_of(weights)
    assert x == pytest.approx((cell[1] + 0.5) * width / 7, abs=width / 7 / 2)
    assert y == pytest.approx((cell[0] + 0.5) * height / 7, abs=height / 7 / 2)
    far = np.ones_like(weights, dtype=bool)
    top, left = round((cell[0] - 2) * height / 7), round((cell[1] - 2) * width / 7)
    bottom, right = round((cell[0] + 3) * height / 7), round((cell[1] + 3) * width / 7)
    far[max(0, top) : bottom, max(0, left) : right] = False
    assert not weights[far].any()


@pytest.mark.parametrize("cell", [(3, 0), (3, 3), (0, 6), (6, 2)])
def test_cropped_cells_lie_over_the_centre(cell: tuple[int, int]) -> None:
    [weights] = attention_maps(looking_at(cell), GRID, (400, 200), CROP)
    assert weights.shape == (200, 400)
    assert not weights[:, :100].any()
    assert not weights[:, 300:].any()
    x, y = centre_of(weights)
    assert x == pytest.approx(100 + (cell[1] + 0.5) * 200 / 7, abs=200 / 7 / 2)
    assert y == pytest.approx((cell[0] + 0.5) * 200 / 7, abs=200 / 7 / 2)


@pytest.mark.parametrize("size", [(400, 200), (200, 400), (301, 200), (200, 200), (7, 1), (1, 7)])
def test_the_cropped_part_is_the_one_that_the_encoder_saw(size: tuple[int, int]) -> None:
    even = Caption("a", -1.0, -1.0, (-1.0,), np.full((1, 49), 1 / 49, dtype=np.float32))
    [weights] = attention_maps(even, GRID, size, CROP)
    rows, columns = np.nonzero(weights)
    side = min(size)  # the largest square in the middle
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    right, bottom = left + side, top + side
    assert (columns.min(), rows.min()) == pytest.approx((left, top), abs=1)
    assert (columns.max() + 1, rows.max() + 1) == pytest.approx((right, bottom), abs=1)
    np.testing.assert_allclose(weights[weights > 0], 1, rtol=1e-4)
    [whole] = attention_maps(even, GRID, size, SQUASH)
    np.testing.assert_allclose(whole, 1, rtol=1e-4)


def test_a_grid_that_is_no_square() -> None:
    wide = Preprocessing(height=112, width=224, fit="squash", **STILL)  # type: ignore[arg-type]
    [weights] = attention_maps(looking_at((3, 0), grid=(4, 7)), (4, 7), (700, 400), wide)
    x, y = centre_of(weights)
    assert (x, y) == pytest.approx((50, 350), abs=30)


def test_each_word_has_its_own_map_in_order() -> None:
    cells = [(0, 0), (3, 3), (6, 6), (0, 6)]
    maps = attention_maps(looking_at(*cells), GRID, (140, 140), SQUASH)
    assert maps.shape == (4, 140, 140)
    for weights, (row, column) in zip(maps, cells):
        place = np.unravel_index(weights.argmax(), weights.shape)
        assert (place[0] // 20, place[1] // 20) == (row, column)


def test_what_cannot_be_shown() -> None:
    with pytest.raises(UsageError, match="no attention, so there is nothing to show"):
        attention_maps(Caption("a", -1.0, -1.0, (-1.0,)), GRID, (10, 10), SQUASH)
    with pytest.raises(UsageError, match="has 49 cells, but the grid is 8x8"):
        attention_maps(looking_at((0, 0)), (8, 8), (10, 10), SQUASH)


@pytest.mark.parametrize("size", [(800, 200), (200, 800), (300, 300), (3000, 1)])
def test_drawings_keep_the_proportions_and_have_a_tile_per_word(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (0, 0, 255))
    caption = looking_at((0, 0), (3, 3), (6, 6))
    drawn = draw_attention(image, caption, GRID, SQUASH, columns=2)
    pixels = np.asarray(drawn).astype(int)
    blue = (pixels[..., 2] > pixels[..., 0] + 30) & (pixels[..., 2] > pixels[..., 1] + 30)
    height = max(1, round(TILE * size[1] / size[0]))
    # The picture itself and three dimmed ones, where the light of what was looked at may be less blue.
    assert blue.sum() == pytest.approx(4 * TILE * height, rel=0.25)
    assert blue[:, :TILE].sum(axis=1).max() >= TILE - 20
    one_row = draw_attention(image, caption, GRID, SQUASH, columns=9)
    assert one_row.width > drawn.width


def test_what_was_looked_at_is_lighter() -> None:
    image = Image.new("RGB", (400, 200), (100, 100, 100))
    drawn = np.asarray(draw_attention(image, looking_at((3, 6)), GRID, SQUASH)).astype(int)
    tile = drawn[-110:-10, -210:-10].sum(axis=2)  # the last tile: 200 x 100, in a margin of 10
    assert tile[50, 190] > tile[50, 10] + 100


def test_real_captions_can_be_drawn() -> None:
    path = shared_dataset().images[0].path
    captioner = Captioner.load(trained_run())
    [picture] = captioner.caption([path])
    with Image.open(path) as image:
        drawn = draw_attention(
            image.convert("RGB"), picture.captions[0], picture.grid, captioner.backend.preprocessing
        )
    sheet = draw_sheet([drawn, drawn], "Two pictures")
    assert sheet.height > 2 * drawn.height
    assert sheet.width >= drawn.width
    long = draw_sheet([drawn], "a title that is much too long for one line " * 9)
    assert long.width < 2 * sheet.width
    assert long.height > drawn.height + 4 * 20
