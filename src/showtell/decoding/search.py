"""The one entry to decoding: a decoder bound to images in, captions out."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from showtell.decoding.beam import search_beams
from showtell.decoding.constraints import check_words
from showtell.decoding.hypothesis import Hypothesis
from showtell.decoding.phrases import UNCONSTRAINED, Constraints, require_beam
from showtell.decoding.rollout import Watch, decode_greedily, sample_captions
from showtell.decoding.settings import DecodingSettings
from showtell.decoding.stepper import Stepper
from showtell.errors import UsageError
from showtell.text.vocabulary import SpecialTokens


def decode(
    stepper: Stepper,
    settings: DecodingSettings,
    special: SpecialTokens,
    *,
    image_seeds: Sequence[int] | None = None,
    constraints: Constraints | None = None,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """Returns the captions of every image that the stepper is bound to, best score first.

    No caption is empty or holds a special token, and what an image gets does not depend on the others.

    Args:
        stepper: a decoder and its images.
        settings: the method and its numbers. Its words to include and exclude are in `constraints`.
        special: the ids of padding, start, end and unknown.
        image_seeds: for sampling, one whole number >= 0 per image; by default its place in this batch. With a
            number that belongs to the image, its samples are the same in every batch and place.
        constraints: what `Constraints.read` gave for the settings and the decoder's vocabulary; may be left out where
            the settings include and exclude nothing.
        watch: of greedy decoding and sampling: told the tokens of every step as soon as they are decided, with the
            slot of each, `image * count + sample`.

    Raises:
        ConfigError: the special tokens or the constraints do not fit the decoder; words are to be included by a method
            that cannot, or in fewer steps than they need.
        UsageError: `image_seeds` are not one whole number >= 0 per image, the constraints are missing, or a beam is to
            be watched, which decides all its words at its end.
        ShowtellError: the decoder returned logits that are not finite or have the wrong shape.
    """
    seeds = _read_seeds(image_seeds, stepper.images)
    if constraints is None:
        if settings.include or settings.exclude:
            raise UsageError(
                "The settings include or exclude words, which have ids only in a vocabulary: give decode the "
                "constraints that Constraints.read(settings, vocabulary) returns."
            )
        constraints = UNCONSTRAINED
    if constraints.include:
        require_beam(settings.method)
    check_words(constraints, special, vocab_size=stepper.vocab_size)
    if watch is not None and settings.method == "beam":
        raise UsageError(
            "A beam decides no word before its end, so there is nothing to watch. Use the method 'greedy' or 'sample'."
        )
    if stepper.images == 0:
        return []
    if settings.method == "greedy":
        return decode_greedily(stepper, settings, special, constraints.exclude, watch)
    if settings.method == "beam":
        return search_beams(stepper, settings, special, constraints)
    return sample_captions(stepper, settings, special, seeds, constraints.exclude, watch)


def _read_seeds(image_seeds: Sequence[int] | None, images: int) -> Sequence[int]:
    if image_seeds is None:
        return range(images)
    if len(image_seeds) != images:
        raise UsageError(f"There are {images} images but {len(image_seeds)} image_seeds: give one per image.")
    try:
        seeds = [operator.index(seed) for seed in image_seeds]
    except TypeError as error:
        raise UsageError(f"image_seeds must be whole numbers. Received: {list(image_seeds)!r}.") from error
    if min(seeds, default=0) < 0:
        raise UsageError(f"image_seeds must not be negative. Received: {min(seeds)}.")
    return seeds
