"""Random changes of pictures in training that leave their captions true.

A caption speaks of what is in the picture, of its colours, sometimes of sides and of writing. So:

- A random part keeps most of the picture; how much is up to the recipe.
- Brightness, contrast and saturation change, hues do not: "a red shirt" stays red.
- A picture is never mirrored if one of its captions names a side ("the man on the left"), a way round ("clockwise"),
  writing, signs, digits or quotes something. To swap "left" and "right" in the caption would be wrong too often: in
  "turn right", "he left", "right in front of", and where only one of the five captions speaks of sides at all. It costs
  little: of Flickr8k's pictures 7 in 100 stay as they are. The words are English.

What a picture goes through depends on the seed, the time and the picture alone, not on the thread that reads it or on
what was read before. torchvision's transforms draw from one generator for all threads, and crop after decoding in full;
here the part is cut out of a JPEG that was decoded at reduced scale, in the one resampling that is needed anyway.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from showtell.config import AugmentationConfig
from showtell.images.preprocess import WHOLE, Part, Preprocessing
from showtell.images.sources import ImageSource

_STRETCH = 4 / 3  # the most that a part's sides change against each other
_SIDES = (
    "left right leftmost rightmost lefthand righthand lefty righty leftward leftwards rightward rightwards "
    "clockwise counterclockwise anticlockwise east west eastern western"
)
_WRITING = (
    "word words text texts letter letters lettering number numbers numbered numeral numerals digit digits writing "
    "written reads say says saying said sign signs logo logos label labels labeled labelled initials spell spells "
    "spelled spelling clock license licence graffiti write writes billboard billboards scoreboard newspaper newspapers "
    "banner banners poster posters book books"
)
_KEEPS_SIDES = frozenset(f"{_SIDES} {_WRITING}".split())
_SIGNS_OF_WRITING = re.compile(r"\d|[\"“”„«»]|''|``")


@dataclass(frozen=True, slots=True)
class View:
    """One way to see a picture."""

    part: Part = WHOLE  # that is seen, of what the encoder would see
    mirrored: bool = False
    brightness: float = 1.0  # 1 leaves it as it is; so for the next two
    contrast: float = 1.0
    saturation: float = 1.0


class Augmentation:
    """Draws views of a data set's pictures.

    Args:
        config: of the recipe.
        captions: of each picture, in the order of the data set.
        seed: of the run.
    """

    def __init__(self, config: AugmentationConfig, captions: Sequence[Iterable[str]], *, seed: int) -> None:
        self.views = config.views
        self._config = config
        self._seed = seed
        self._keeps_sides = [keeps_sides(group) for group in captions]

    def view(self, image: int, when: tuple[int, ...]) -> View:
        """Returns how a picture is seen: the same for the same seed, picture and time.

        Args:
            image: its index in the data set.
            when: any numbers from 0, as epoch and batch.
        """
        # The last number keeps it apart from other streams: NumPy takes a shorter list as filled up with zeros.
        generator = np.random.default_rng([self._seed, *when, image, 1])
        return draw_view(generator, self._config, mirror=not self._keeps_sides[image])

    def keep(self, number: int) -> list[View]:
        """Returns one of the `views` ways to see each picture, in the order of the data set.

        Args:
            number: from 0, where all pictures are as they are.
        """
        return [self.view(image, (number,)) if number else View() for image in range(len(self._keeps_sides))]

    def choose(self, image: int, when: tuple[int, ...]) -> int:
        """Returns which of the `views` ways to see a picture comes next; arguments as for `view`."""
        return int(np.random.default_rng([self._seed, *when, image, 2]).integers(self._config.views))


def draw_view(generator: np.random.Generator, config: AugmentationConfig, *, mirror: bool) -> View:
    """Returns a random view.

    The part has between `config.crop` and all of the area, and width and height change by at most 4/3 against each
    other (Szegedy et al. 2015, "Going Deeper with Convolutions", section 6).

    Args:
        generator: eight numbers are drawn from it, whatever the settings.
        config: `crop`, `flip` and `color`.
        mirror: whether the picture may be mirrored.
    """
    area, stretch, x, y, side, *colors = generator.random(8).tolist()
    area = config.crop + (1 - config.crop) * area
    # Only stretches for which neither side is longer than the picture's, so that the area is what was drawn.
    limit = min(math.log(_STRETCH), -math.log(area))
    ratio = math.exp(limit * (2 * stretch - 1))
    width, height = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    left, top = x * (1 - width), y * (1 - height)
    brightness, contrast, saturation = (1 + config.color * (2 * color - 1) for color in colors)
    return View(
        (left, top, min(1.0, left + width), min(1.0, top + height)),
        mirrored=mirror and side < config.flip,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
    )


def read_view(preprocessing: Preprocessing, source: ImageSource, view: View) -> npt.NDArray[np.uint8]:
    """Returns a picture at the encoder's size as `preprocessing.read` does, but seen as `view` says.

    Args:
        preprocessing: of the encoder.
        source: as for `open_image`.
        view: `View()` changes nothing.

    Returns:
        uint8 (height, width, 3), 0..255.

    Raises:
        ImageError: the picture cannot be read.
    """
    pixels = preprocessing.read(source, part=view.part)
    if view == View():
        return pixels  # as plain features are extracted: no copies
    image = Image.fromarray(pixels)
    for change, factor in (
        (ImageEnhance.Brightness, view.brightness),
        (ImageEnhance.Contrast, view.contrast),
        (ImageEnhance.Color, view.saturation),
    ):
        if factor != 1:
            image = change(image).enhance(factor)
    if view.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(image, dtype=np.uint8)


def keeps_sides(captions: Iterable[str]) -> bool:
    """Returns whether a picture with these captions must not be mirrored: they speak of sides or of writing."""
    return any(
        _SIGNS_OF_WRITING.search(caption) is not None
        or not _KEEPS_SIDES.isdisjoint(re.findall(r"[a-z]+", caption.lower()))
        for caption in captions
    )
