"""Explanations from attention: the right word, the right place, the right shape; figures and JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from showtell.captioner import Captioner
from showtell.captioning import Caption
from showtell.errors import UsageError
from showtell.explain import Explanation, draw_attention, draw_sheet, explain_attention
from showtell.explain.explanation import KEPT, SIDE
from showtell.explain.overlay import LEAST_TOP, choose_colours, outline, paint, spread_cells
from showtell.images import Preprocessing, open_image
from tiny_runs import shared_dataset, trained_run

GRID = (7, 7)
STILL = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
SQUASH = Preprocessing(height=224, width=224, fit="squash", **STILL)  # type: ignore[arg-type]
CROP = Preprocessing(height=224, width=224, fit="crop", **STILL)  # type: ignore[arg-type]
GREY = Image.new("RGB", (10, 10), (128, 128, 128))


def looking_at(*cells: tuple[int, int], grid: tuple[int, int] = GRID) -> Caption:
    """A caption that looks at one cell for each word."""
    attention = np.zeros((len(cells), grid[0] * grid[1]), dtype=np.float32)
    for word, (row, column) in enumerate(cells):
        attention[word, row * grid[1] + column] = 1
    return Caption(" ".join("abcdefgh"[: len(cells)]), -1.0, -2.0, (-1.0,) * len(cells), attention)


def spread_of(
    caption: Caption, size: tuple[int, int], preprocessing: Preprocessing, grid: tuple[int, int] = GRID
) -> np.ndarray:
    """Returns the light of each word over a grey picture, at most 1."""
    explanation = explain_attention(Image.new("RGB", size), caption, grid, preprocessing)
    spread, top = explanation.spread()
    return spread / top


def centre_of(weights: np.ndarray) -> tuple[float, float]:
    """Returns the centre of mass: (x, y) in pixels."""
    rows, columns = np.indices(weights.shape)
    return float((weights * (columns + 0.5)).sum() / weights.sum()), float(
        (weights * (rows + 0.5)).sum() / weights.sum()
    )


# Places


@pytest.mark.parametrize("cell", [(0, 0), (0, 6), (3, 3), (2, 5), (6, 1)])
@pytest.mark.parametrize("size", [(700, 175), (175, 700), (420, 420)])
def test_squashed_cells_lie_over_the_whole_picture(cell: tuple[int, int], size: tuple[int, int]) -> None:
    [weights] = spread_of(looking_at(cell), size, SQUASH)
    width, height = size
    assert weights.shape == (height, width)
    assert weights.max() == pytest.approx(1, abs=0.01)
    x, y = centre_of(weights)
    assert x == pytest.approx((cell[1] + 0.5) * width / 7, abs=width / 7 / 4)
    assert y == pytest.approx((cell[0] + 0.5) * height / 7, abs=height / 7 / 4)
    far = np.ones_like(weights, dtype=bool)
    top, left = round((cell[0] - 1) * height / 7), round((cell[1] - 1) * width / 7)
    bottom, right = round((cell[0] + 2) * height / 7), round((cell[1] + 2) * width / 7)
    far[max(0, top) : bottom, max(0, left) : right] = False
    assert not weights[far].any()


@pytest.mark.parametrize("cell", [(3, 0), (3, 3), (0, 6), (6, 2)])
def test_cropped_cells_lie_over_the_centre(cell: tuple[int, int]) -> None:
    [weights] = spread_of(looking_at(cell), (400, 200), CROP)
    assert weights.shape == (200, 400)
    assert not weights[:, :100].any()
    assert not weights[:, 300:].any()
    x, y = centre_of(weights)
    assert x == pytest.approx(100 + (cell[1] + 0.5) * 200 / 7, abs=200 / 7 / 4)
    assert y == pytest.approx((cell[0] + 0.5) * 200 / 7, abs=200 / 7 / 4)


@pytest.mark.parametrize("size", [(400, 200), (200, 400), (301, 200), (200, 200), (7, 1), (1, 7)])
def test_the_cropped_part_is_the_one_that_the_encoder_saw(size: tuple[int, int]) -> None:
    cells = np.ones((1, 7, 7), dtype=np.float32)
    [weights] = spread_cells(cells, size, CROP.seen_box(*size))
    rows, columns = np.nonzero(weights)
    side = min(size)  # the largest square in the middle
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    right, bottom = left + side, top + side
    assert (columns.min(), rows.min()) == pytest.approx((left, top), abs=1)
    assert (columns.max() + 1, rows.max() + 1) == pytest.approx((right, bottom), abs=1)
    np.testing.assert_allclose(weights[weights > 0], 1, rtol=1e-5)
    [whole] = spread_cells(cells, size, SQUASH.seen_box(*size))
    np.testing.assert_allclose(whole, 1, rtol=1e-5)


def test_a_grid_that_is_no_square() -> None:
    wide = Preprocessing(height=112, width=224, fit="squash", **STILL)  # type: ignore[arg-type]
    [weights] = spread_of(looking_at((3, 0), grid=(4, 7)), (700, 400), wide, (4, 7))
    x, y = centre_of(weights)
    assert (x, y) == pytest.approx((50, 350), abs=20)


def test_each_word_has_its_own_map_in_order() -> None:
    cells = [(0, 0), (3, 3), (6, 6), (0, 6)]
    maps = spread_of(looking_at(*cells), (140, 140), SQUASH)
    assert maps.shape == (4, 140, 140)
    for weights, (row, column) in zip(maps, cells):
        place = np.unravel_index(weights.argmax(), weights.shape)
        assert (place[0] // 20, place[1] // 20) == (row, column)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float32, (1, 3, 4), elements=st.floats(0, 8, width=32)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([SQUASH, CROP]),
)
def test_light_never_exceeds_the_cells_around(
    cells: np.ndarray, size: tuple[int, int], preprocessing: Preprocessing
) -> None:
    """No halo, no ring: every pixel is between the least and the greatest of the cells next to it."""
    box = preprocessing.seen_box(*size)
    [spread] = spread_cells(cells, size, box)
    padded = np.pad(cells[0], 1, mode="edge")
    for y in range(size[1]):
        for x in range(size[0]):
            column = (x + 0.5 - box[0]) / (box[2] - box[0]) * 4
            row = (y + 0.5 - box[1]) / (box[3] - box[1]) * 3
            if not (0 <= column <= 4 and 0 <= row <= 3):
                assert spread[y, x] == 0
                continue
            around = padded[int(row) : int(row) + 3, int(column) : int(column) + 3]
            assert around.min() - 1e-4 <= spread[y, x] <= around.max() + 1e-4


def test_the_centre_of_a_cell_has_its_value() -> None:
    cells = np.random.default_rng(0).random((2, 3, 5), dtype=np.float32)
    spread = spread_cells(cells, (75, 45), (0.0, 0.0, 75.0, 45.0))
    np.testing.assert_allclose(spread[:, 7::15, 7::15], cells, rtol=1e-5)


# Scales and colours


def test_words_share_one_scale_and_an_even_look_stays_grey() -> None:
    attention = np.full((3, 49), 1 / 49, dtype=np.float32)
    attention[1, 0], attention[2, 48] = 8 / 49, 4 / 49
    caption = Caption("a b c", -1.0, -1.0, (-1.0,) * 3, attention)
    explanation = explain_attention(Image.new("RGB", (70, 70)), caption, GRID, SQUASH)
    spread, top = explanation.spread()
    assert top == pytest.approx(np.log(8), rel=1e-4)
    assert spread.reshape(3, -1).max(axis=1) == pytest.approx([0, np.log(8), np.log(4)], abs=1e-4)
    # What is hardly more than even is not shown at full strength.
    attention[1:] = attention[0]
    attention[1, 0] *= 1.1
    faint = explain_attention(Image.new("RGB", (70, 70)), caption, GRID, SQUASH)
    assert faint.spread()[1] == pytest.approx(LEAST_TOP)


def test_colours_become_lighter_all_the_way() -> None:
    colours = choose_colours(np.linspace(0, 1, 50, dtype=np.float32))
    light = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()
    np.testing.assert_array_equal(choose_colours(np.array([-1, 2], dtype=np.float32)), colours[[0, -1]])


def test_what_is_not_lit_is_grey_and_what_is_shows_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 40, 3), dtype=np.uint8)
    strengths = np.zeros((20, 40), dtype=np.float32)
    strengths[:, 20:] = 1
    painted = np.asarray(paint(Image.fromarray(pixels), strengths)).astype(float)
    assert np.ptp(painted[:, :20], axis=2).max() <= 1
    assert (painted[:, 20:, 0] > painted[:, 20:, 2] + 20).all()
    luma = pixels.astype(float) @ [0.299, 0.587, 0.114]
    for half in (slice(0, 20), slice(20, 40)):
        assert np.corrcoef(luma[:, half].ravel(), painted[:, half, 1].ravel())[0, 1] > 0.95


def test_a_crop_is_outlined_and_a_whole_picture_is_not() -> None:
    picture = Image.new("RGB", (60, 30), (128, 128, 128))
    assert outline(picture, (0, 0, 60, 30)) is picture
    framed = np.asarray(outline(picture, (15.0, 0.0, 45.0, 30.0)))
    changed = (framed != 128).any(axis=2)
    assert changed[:, 15].all()
    assert changed[:, 44].all()
    assert not changed[:, :15].any()
    assert not changed[:, 45:].any()
    assert not changed[3:27, 18:42].any()


# Figures


@pytest.mark.parametrize("size", [(800, 200), (200, 800), (300, 300), (3000, 1)])
def test_figures_keep_the_proportions_and_have_a_tile_per_word(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (0, 0, 255))
    caption = looking_at((0, 0), (3, 3), (6, 6))
    drawn = draw_attention(image, caption, GRID, SQUASH, columns=2)
    pixels = np.asarray(drawn).astype(int)
    blue = (pixels == (0, 0, 255)).all(axis=2)  # the picture itself
    scale = SIDE / max(size)
    assert blue.any(axis=0).sum() == max(1, round(size[0] * scale))
    assert blue.any(axis=1).sum() == max(1, round(size[1] * scale))
    assert draw_attention(image, caption, GRID, SQUASH, columns=9).width > drawn.width


def test_what_was_looked_at_is_lit_in_its_own_tile() -> None:
    image = Image.new("RGB", (400, 200), (100, 100, 100))
    explanation = explain_attention(image, looking_at((3, 6), (3, 0)), GRID, SQUASH)
    drawn = np.asarray(explanation.draw(columns=3)).astype(int)
    warm = drawn[..., 0] - drawn[..., 2] > 60
    tiles = [slice(10 + place * (SIDE + 10), 10 + place * (SIDE + 10) + SIDE) for place in range(3)]
    picture, first, second = (warm[30:180, tile] for tile in tiles)
    assert not picture.any()
    assert first[:, SIDE - 20 :].any()
    assert not first[:, : SIDE // 2].any()
    assert second[:, :20].any()
    assert not second[:, SIDE // 2 :].any()


def test_probabilities_become_bars() -> None:
    caption = replace(looking_at((3, 3)), word_log_probs=(float(np.log(0.5)),))
    explanation = replace(explain_attention(GREY, caption, GRID, SQUASH), blind=(0.25,))
    [_, bar] = [np.asarray(explanation.draw())[64, 10 + place * (SIDE + 10) :][:SIDE] for place in (0, 1)]
    filled, mark = (bar == (110, 110, 118)).all(axis=1), (bar == (25, 25, 30)).all(axis=1)
    assert np.flatnonzero(filled).max() == pytest.approx(SIDE / 2, abs=2)
    assert np.flatnonzero(mark).mean() == pytest.approx(SIDE / 4, abs=2)
    assert "Mark: how probable" in explanation._describe(1.0).text
    plain = replace(explanation, blind=None, probabilities=None)
    assert plain.draw().height < explanation.draw().height
    assert "Bar" not in plain._describe(1.0).text
    assert "Frame" in replace(explanation, box=(1.0, 0.0, 9.0, 10.0))._describe(1.0).text


@pytest.mark.parametrize("word", ["a" * 300, "über", "日本", "𝔘", ""])
def test_words_that_do_not_fit_or_have_no_letters(word: str) -> None:
    explanation = replace(explain_attention(GREY, looking_at((3, 3)), GRID, SQUASH), words=(word,))
    assert explanation.draw().width == explain_attention(GREY, looking_at((3, 3)), GRID, SQUASH).draw().width


def test_real_captions_can_be_drawn() -> None:
    path = shared_dataset().images[0].path
    captioner = Captioner.load(trained_run())
    [picture] = captioner.caption([path])
    drawn = draw_attention(
        open_image(path), picture.captions[0], picture.grid, captioner.backend.preprocessing
    )
    sheet = draw_sheet([drawn, drawn], "Two pictures")
    assert sheet.height > 2 * drawn.height
    assert sheet.width >= drawn.width
    long = draw_sheet([drawn], "a title that is much too long for one line " * 9)
    assert long.width < 2 * sheet.width
    assert long.height > drawn.height + 4 * 20


def test_large_pictures_are_not_kept_whole() -> None:
    explanation = explain_attention(Image.new("RGB", (4000, 1000)), looking_at((0, 0)), GRID, CROP)
    assert explanation.size == (4000, 1000)
    assert explanation.box == (1500, 0, 2500, 1000)
    assert explanation.picture.size == (KEPT, KEPT // 4)


# JSON


def test_json_says_it_all() -> None:
    attention = np.random.default_rng(1).dirichlet(np.ones(12), size=3).astype(np.float32)
    caption = Caption("a red dog", -1.0, -2.0, (-0.1, -1.0, -2.0), attention)
    explanation = explain_attention(Image.new("RGB", (401, 200)), caption, (3, 4), CROP, name="dog.jpg")
    explanation = replace(explanation, blind=(0.9, 0.1, 1e-7))
    values = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert values == explanation.to_dict()
    assert list(values) == ["image", "size", "box", "caption", "method", "grid", "words"]
    assert (values["image"], values["size"], values["box"]) == ("dog.jpg", [401, 200], [100.5, 0, 300.5, 200])
    assert (values["caption"], values["method"], values["grid"]) == ("a red dog", "attention", [3, 4])
    assert [word["word"] for word in values["words"]] == caption.words
    assert [word["probability"] for word in values["words"]] == [0.9048, 0.3679, 0.1353]
    assert values["words"][2]["blind_probability"] == 1e-7
    for word, weights in zip(values["words"], attention):
        np.testing.assert_allclose(word["map"], weights.reshape(3, 4), rtol=1e-3)
    assert len(json.dumps(values)) < 800


def test_places_in_large_pictures_stay_exact() -> None:
    explanation = explain_attention(
        Image.new("L", (20_001, 10)).convert("RGB"), looking_at((0, 0)), GRID, CROP
    )
    assert explanation.to_dict()["box"] == [9995.5, 0.0, 10005.5, 10.0]


def test_json_without_probabilities() -> None:
    caption = replace(looking_at((0, 0)), word_log_probs=())
    [word] = explain_attention(GREY, caption, GRID, SQUASH).to_dict()["words"]
    assert (word["probability"], word["blind_probability"]) == (None, None)


def test_what_cannot_be_shown() -> None:
    with pytest.raises(UsageError, match=r"no attention, so there is nothing to show.*method occlusion"):
        explain_attention(GREY, Caption("a", -1.0, -1.0, (-1.0,)), GRID, SQUASH)
    with pytest.raises(UsageError, match="has 49 cells, but the grid is 8x8"):
        draw_attention(GREY, looking_at((0, 0)), (8, 8), SQUASH)
    with pytest.raises(UsageError, match="has 3 words, but attention for 2"):
        explain_attention(GREY, replace(looking_at((0, 0), (1, 1)), text="a b c"), GRID, SQUASH)
    assert isinstance(explain_attention(GREY, looking_at((0, 0)), GRID, SQUASH), Explanation)
