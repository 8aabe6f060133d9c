"""Captions as the API gives them, and errors of the project as problems."""

from __future__ import annotations

import math
from typing import Any

from showtell import __version__
from showtell.captioner import Captioner
from showtell.captioning import Caption
from showtell.errors import ConfigError, FetchError, ImageError
from showtell.outputs import WrittenCaption
from showtell.server.batcher import Captioned
from showtell.server.bodies import Item
from showtell.server.problems import INVALID, NOT_FETCHED, UNREADABLE, Problem
from showtell.server.schemas import CaptionOptions

_UNNAMED = "the image given as "  # how messages call bytes


def name_model(captioner: Captioner) -> dict[str, str]:
    """Returns `schemas.ModelName`."""
    return {"name": captioner.name, "digest": captioner.digest, "version": __version__}


def write_image(
    item: Item, found: Captioned, captioner: Captioner, options: CaptionOptions
) -> dict[str, Any]:
    """Returns `schemas.ImageAnswer` of a picture that was captioned."""
    sure = [one for one in found.captions if (one.confidence or 0.0) >= options.min_confidence]
    captions = [_write_caption(caption, as_alt=options.alt_text) for caption in sure]
    if options.explain and found.size is not None:
        for caption, written in zip(sure, captions, strict=True):
            written["explanation"] = _explain(caption, found.size, captioner)
    return {
        "name": item.name,
        "sha256": found.digest.hex(),
        "captions": captions,
        "cached": found.batch == 0,
        "timings": {stage: milliseconds(value) for stage, value in found.seconds.items()},
    }


def write_failure(item: Item, found: Problem, request_id: str) -> dict[str, Any]:
    """Returns `schemas.ImageAnswer` of a picture that gave no captions."""
    return {"name": item.name, "error": found.to_dict(request_id)}


def explain_failure(item: Item, error: Exception) -> Problem | None:
    """Returns what an error means for the client; None if it is not the client's."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, FetchError):
        return Problem(NOT_FETCHED, str(error))
    if isinstance(error, ImageError):
        # Messages begin with what they call the image, which is its size where it came as bytes.
        text = str(error)
        if text.startswith(_UNNAMED):
            text = item.name + text.removeprefix(_UNNAMED).lstrip("0123456789").removeprefix(" bytes")
        return Problem(UNREADABLE, text)
    if isinstance(error, ConfigError):
        return Problem(INVALID, str(error))
    return None


def milliseconds(seconds: float) -> float:
    """Returns seconds as milliseconds, to a thousandth of one."""
    return round(1000 * seconds, 3)


def _write_caption(caption: Caption, *, as_alt: bool) -> dict[str, Any]:
    words: list[dict[str, Any]] = []
    sure = caption.word_confidences or (None,) * len(caption.words)
    for word, log_prob, confidence in zip(caption.words, caption.word_log_probs, sure, strict=True):
        words.append({"word": word, "probability": math.exp(min(log_prob, 0.0))})
        if confidence is not None:
            words[-1]["confidence"] = confidence
    return {**WrittenCaption.of(caption, as_alt=as_alt).to_dict(), "words": words}


def _explain(caption: Caption, size: tuple[int, int], captioner: Captioner) -> dict[str, Any] | None:
    if caption.attention is None:
        return None
    rows, columns = captioner.backend.grid
    maps = caption.attention.reshape(-1, rows, columns)
    return {
        "method": "attention",
        "size": list(size),
        "box": [round(edge, 2) for edge in captioner.backend.preprocessing.seen_box(*size)],
        "grid": [rows, columns],
        "maps": [[[_digits(share) for share in row] for row in one] for one in maps.tolist()],
    }


def _digits(share: float) -> float:
    return float(f"{share:.4g}")  # significant ones: a share may be small and still mean something
