"""Hiding parts of a picture: the word for an object depends on the place of the object, whatever reads the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from showtell.captioner import Captioner
from showtell.decoding import DecodingSettings, StepResult
from showtell.ensemble import EnsembleBackend
from showtell.errors import UsageError, VocabularyError
from showtell.explain import Explanation, explain_caption
from showtell.explain.occlusion import draw_window
from showtell.images import Preprocessing, open_image
from showtell.text import FIRST_WORD, SPECIAL, Vocabulary
from tiny_runs import trained_run

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
WORDS = ("a", "red", "blue", "square")
COLOURS = {"red": (230, 20, 20), "blue": (20, 20, 230)}
CAPTION = "a red square a blue square"
FITS = ("squash", "crop")


class ColourStepper:
    """Says "red" and "blue" as surely as the picture has them, "a" always, and ends after six words."""

    vocab_size = FIRST_WORD + len(WORDS)

    def __init__(self, features: np.ndarray) -> None:
        self.images = len(features)
        self._features = features

    def start(self, owners: np.ndarray) -> Any:
        return owners, 0

    def step(self, tokens: np.ndarray, state: Any) -> StepResult:
        owners, depth = state
        logits = np.zeros((len(owners), self.vocab_size), dtype=np.float32)
        logits[:, FIRST_WORD] = 0.5
        logits[:, FIRST_WORD + 1 : FIRST_WORD + 3] = self._features[owners]
        logits[:, SPECIAL.end] = 9.0 if depth == 6 else -9.0
        return StepResult(logits, (owners, depth + 1), None)

    def select(self, state: Any, rows: np.ndarray) -> Any:
        return state[0][rows], state[1]


class ColourBackend:
    """A captioner whose reasons are known: it counts red and blue pixels."""

    consensus = None
    attends = False
    grid = (1, 1)
    vocabulary = Vocabulary(WORDS)

    def __init__(self, fit: str = "squash", height: int = 56, width: int = 56) -> None:
        self.preprocessing = Preprocessing(height, width, fit=fit, **PLAIN)  # type: ignore[arg-type]
        self.batches: list[int] = []

    def identify_encoder(self) -> str:
        return "colours"

    def read(self, source: Any) -> np.ndarray:
        return self.preprocessing.read(source)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        far = pixels.astype(np.float32)
        red = (far[..., 0] - far[..., 1:].max(axis=3)).clip(min=0).mean(axis=(1, 2)) / 255
        blue = (far[..., 2] - far[..., :2].max(axis=3)).clip(min=0).mean(axis=(1, 2)) / 255
        return np.stack([red, blue], axis=1) * 60

    def bind(self, features: np.ndarray) -> ColourStepper:
        return ColourStepper(features)


def draw_squares(size: tuple[int, int], **centres: tuple[float, float]) -> Image.Image:
    """Squares of the named colours, an eighth of the shorter side large, around centres in shares of the picture."""
    picture = Image.new("RGB", size, (170, 170, 170))
    half = min(size) / 12
    for colour, (x, y) in centres.items():
        box = (x * size[0] - half, y * size[1] - half, x * size[0] + half, y * size[1] + half)
        ImageDraw.Draw(picture).rectangle(box, fill=COLOURS[colour])
    return picture


def peak_of(explanation: Explanation, word: str, *, nth: int = 0) -> tuple[float, float]:
    """Returns where the map of a word is strongest, x and y in shares of the picture."""
    place = [index for index, one in enumerate(explanation.words) if one == word][nth]
    spread, _ = explanation.spread()
    row, column = np.unravel_index(spread[place].argmax(), spread[place].shape)
    return (column + 0.5) / explanation.size[0], (row + 0.5) / explanation.size[1]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(240, 160), (150, 260), (200, 200)])
@pytest.mark.parametrize("places", [((0.38, 0.4), (0.62, 0.6)), ((0.6, 0.35), (0.4, 0.65))])
def test_each_colour_comes_from_its_square(
    fit: str, size: tuple[int, int], places: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    picture = draw_squares(size, red=places[0], blue=places[1])
    explanation = explain_caption(ColourBackend(fit), picture, CAPTION)
    assert (explanation.method, explanation.grid, explanation.size) == ("occlusion", (7, 7), size)
    for word, place in zip(("red", "blue"), places):
        cell = [(end - begin) / 7 for begin, end in zip(explanation.box, explanation.box[2:])]
        found = peak_of(explanation, word)
        for axis in (0, 1):
            assert abs(found[axis] - place[axis]) * size[axis] < 0.75 * cell[axis]


def test_words_that_the_picture_does_not_decide_have_pale_maps() -> None:
    picture = draw_squares((200, 200), red=(0.3, 0.3), blue=(0.7, 0.7))
    explanation = explain_caption(ColourBackend(), picture, CAPTION)
    strongest = explanation.maps.max(axis=(1, 2))
    # "square" is as likely as what else could be said: it never suffers where a colour is hidden.
    assert strongest[1] > 0.5
    assert strongest[2] < 0.05 * strongest[1]
    assert explanation.probabilities is not None
    assert explanation.blind is not None
    assert explanation.probabilities[1] > 1.2 * explanation.blind[1]
    # Without the picture it does not matter which colour comes.
    assert explanation.blind[1] == pytest.approx(explanation.blind[4], rel=1e-3)


def test_the_second_word_is_judged_after_the_first() -> None:
    """A map belongs to its word, and not to the one before or after it."""
    picture = draw_squares((200, 200), red=(0.25, 0.25))
    explanation = explain_caption(ColourBackend(), picture, "square red a")
    falls = explanation.maps.max(axis=(1, 2))
    assert falls.argmax() == 1
    assert peak_of(explanation, "red") == pytest.approx((0.25, 0.25), abs=0.1)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_in_the_file_changes_nothing(orientation: int, fit: str) -> None:
    upright = draw_squares((210, 140), red=(0.35, 0.3), blue=(0.6, 0.7))
    undo = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # the transposition that lays the picture as the camera did
    lying = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    lying.save(file, "PNG", exif=exif)
    assert np.array_equal(np.asarray(open_image(file.getvalue())), np.asarray(upright))
    expected = explain_caption(ColourBackend(fit), upright, CAPTION)
    found = explain_caption(ColourBackend(fit), file.getvalue(), CAPTION)
    assert (found.size, found.box) == (expected.size, expected.box)
    np.testing.assert_allclose(found.maps, expected.maps, atol=0.02)
    difference = np.abs(np.asarray(found.draw()).astype(int) - np.asarray(expected.draw()).astype(int))
    assert difference.mean() < 0.5


def test_an_ensemble_hides_the_same_part_from_all_members() -> None:
    """One member crops and one does not: what only one sees counts, too, and at the right place."""
    picture = draw_squares((300, 120), red=(0.1, 0.5), blue=(0.5, 0.5))
    members = [ColourBackend("crop", 40, 40), ColourBackend("squash", 60, 48)]
    explanation = explain_caption(EnsembleBackend(members, ["one", "two"]), picture, CAPTION)
    assert explanation.box == (0, 0, 300, 120)
    assert peak_of(explanation, "red") == pytest.approx((0.1, 0.5), abs=0.12)
    assert peak_of(explanation, "blue") == pytest.approx((0.5, 0.5), abs=0.08)


@pytest.mark.parametrize("fit", FITS)
def test_windows_lie_where_they_say(fit: str) -> None:
    reader = Preprocessing(70, 140, fit=fit, **PLAIN)  # type: ignore[arg-type]
    size = (300, 400)
    box = reader.seen_box(*size)
    masks = np.array(
        [[draw_window(reader, size, box, (5, 5), row, column) for column in range(5)] for row in range(5)]
    )
    assert masks.shape == (5, 5, 70, 140)
    assert masks.min() == 0
    assert masks.max() == 1
    assert masks.sum(axis=(0, 1)).min() > 1  # every pixel is hidden by some window
    rows, columns = np.indices((70, 140)) + 0.5
    for row in range(1, 4):
        for column in range(1, 4):
            mask = masks[row, column]
            assert (mask * rows).sum() / mask.sum() == pytest.approx((row + 0.5) * 14, abs=4)
            assert (mask * columns).sum() / mask.sum() == pytest.approx((column + 0.5) * 28, abs=8)
    assert masks[0, 0, 0, 0] == masks[4, 4, -1, -1] == 1


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (3, 900)])
@pytest.mark.parametrize("fit", FITS)
def test_pictures_of_extreme_shapes(size: tuple[int, int], fit: str) -> None:
    explanation = explain_caption(ColourBackend(fit), Image.new("RGB", size, "red"), CAPTION)
    assert np.isfinite(explanation.maps).all()
    figure = explanation.draw()
    assert max(figure.size) < 3000


def test_networks_see_batches() -> None:
    backend = ColourBackend()
    explain_caption(backend, Image.new("RGB", (40, 40)), CAPTION, windows=(5, 6))
    assert sum(backend.batches) == 2 + 2 + 30  # attention is asked for first, and there is none
    assert max(backend.batches) <= 16


def test_mistakes_are_named() -> None:
    picture = Image.new("RGB", (40, 40))
    backend = ColourBackend()
    with pytest.raises(
        UsageError, match=r"one of auto, attention, occlusion. Received: 'oclusion'.*occlusion"
    ):
        explain_caption(backend, picture, CAPTION, "oclusion")
    with pytest.raises(UsageError, match=r"two numbers >= 1, rows and columns. Received: \(0, 7\)"):
        explain_caption(backend, picture, CAPTION, windows=(0, 7))
    with pytest.raises(UsageError, match=r"has no attention.*Use the method occlusion"):
        explain_caption(backend, picture, CAPTION, "attention")
    with pytest.raises(VocabularyError, match=r"does not know the word 'rad'.*red"):
        explain_caption(backend, picture, "a rad square")
    with pytest.raises(UsageError, match="empty caption has no words to explain"):
        explain_caption(backend, picture, "")


def test_every_kind_of_image_is_explained_alike(tmp_path: Path) -> None:
    picture = draw_squares((90, 60), red=(0.3, 0.3))
    path = tmp_path / "squares.png"
    picture.save(path)
    expected = explain_caption(ColourBackend(), picture, CAPTION)
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        found = explain_caption(ColourBackend(), source, CAPTION)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.maps, expected.maps)
        assert found.name == (str(path) if isinstance(source, str | Path) else "")


def test_a_captioner_that_attends_can_be_asked_both_ways(photographs: list[Path]) -> None:
    captioner = Captioner.load(trained_run())
    [result] = captioner.caption(photographs[1], DecodingSettings(max_steps=10))
    caption = result.captions[0]
    looked = explain_caption(captioner, photographs[1], caption)
    assert looked.method == "attention"
    assert caption.attention is not None
    np.testing.assert_allclose(looked.maps.reshape(len(caption.words), -1), caption.attention, atol=1e-4)
    hidden = explain_caption(captioner, photographs[1], caption.text, "occlusion", windows=(3, 4))
    assert (hidden.method, hidden.grid, hidden.words) == ("occlusion", (3, 4), tuple(caption.words))
    for explanation in (looked, hidden):
        assert explanation.probabilities == pytest.approx(np.exp(caption.word_log_probs).tolist(), abs=1e-4)
        assert explanation.size == (451, 300)


def test_colours_of_the_demonstration_come_from_their_shapes(finished: Path) -> None:
    """A trained captioner: hiding what it names makes the word unlikely, in most pictures there more than anywhere."""
    from showtell.data.drawn import read_scenes
    from showtell.data.source import read_dataset

    truths = read_scenes(finished / "scenes")
    captioner = Captioner.load(finished / "run")
    on_object, chance = check_peaks(captioner, read_dataset(finished / "scenes").split("test").images, truths)
    assert len(on_object) >= 20
    assert np.mean(on_object) > 0.75 > 2 * np.mean(chance)


def check_peaks(
    captioner: Captioner, images: Sequence[Any], truths: dict[str, Any], count: int = 24
) -> tuple[list[bool], list[float]]:
    """Returns, for each colour and shape that names one object alone, whether its map peaks on it, and by chance."""
    on_object, chance = [], []
    for image in images[:count]:
        objects = truths[image.path.name]
        [result] = captioner.caption(image.path)
        explanation = explain_caption(captioner, image.path, result.captions[0], "occlusion", windows=(8, 8))
        for thing in objects:
            for word in (thing.shape, thing.colour):
                alone = sum(word in (one.shape, one.colour) for one in objects) == 1
                if alone and explanation.words.count(word) == 1:
                    x, y = peak_of(explanation, word)
                    left, upper, right, lower = thing.box
                    edge = 1 / 16  # half a window's cell
                    on_object.append(left - edge <= x <= right + edge and upper - edge <= y <= lower + edge)
                    chance.append(min(1, right - left + 2 * edge) * min(1, lower - upper + 2 * edge))
    return on_object, chance
