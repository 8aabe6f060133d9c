"""Every error that Showtell raises on purpose.

::

    ShowtellError
    ├── UsageError             what was asked for makes no sense: an unknown name, contradicting options
    │   └── ConfigError        a recipe or configuration with an unknown key, a wrong type, an impossible combination
    ├── InputError             something to caption that is not there, or holds no images
    ├── DataError              a data set that cannot be read as it is
    │   └── SplitError         images without a split, or a split that does not exist
    ├── ImageError             one image that cannot be used; the others can
    │   └── FetchError         an image on the web that must not or cannot be fetched
    ├── PageError              one web page that cannot be read or edited; the others can
    ├── SidecarError           a caption that cannot be written beside its image; the others can
    ├── JournalError           results of an interrupted run that cannot be gone on with
    ├── VocabularyError        a vocabulary that is empty, damaged or does not fit
    ├── EncoderError           a backbone or its weights that cannot be built, found or fed
    ├── CacheError             a feature cache that is stale, foreign or incomplete
    ├── ExportError            a network that cannot be written as an ONNX graph
    ├── BundleError            a bundle whose parts are missing, damaged or do not fit together
    ├── MetricError            references and hypotheses that cannot be scored
    ├── TrainingError          a run that cannot go on (non-finite loss, a checkpoint that does not fit)
    ├── Interrupted            what was stopped by Ctrl-C and says how to go on
    │   └── TrainingInterrupted    a run that was saved and can be resumed
    └── MissingExtraError      an optional dependency that is not installed

Messages say what was wrong (with the value), where, and what to do. The command line prints them without a
traceback and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable


class ShowtellError(Exception):
    """The root: `except ShowtellError` catches everything that Showtell raises on purpose."""

    exit_code = 2  # of the command line: 2 is "usage or configuration"


class UsageError(ShowtellError):
    """What was asked for makes no sense: an unknown name, contradicting options."""


class ConfigError(UsageError):
    """A configuration with an unknown key, a wrong type, or an impossible combination."""


class InputError(ShowtellError):
    """Something to caption that is not there, or holds no images."""

    exit_code = 1


class DataError(ShowtellError):
    """A data set that cannot be read as it is."""


class SplitError(DataError):
    """Images without a split, or a split that does not exist."""


class ImageError(ShowtellError):
    """One image that cannot be used; the others can."""

    exit_code = 1


class FetchError(ImageError):
    """An image on the web that must not or cannot be fetched."""


class PageError(ShowtellError):
    """One web page that cannot be read or edited; the others can."""

    exit_code = 1


class SidecarError(ShowtellError):
    """A caption that cannot be written beside its image; the others can."""

    exit_code = 1


class JournalError(ShowtellError):
    """Results of an interrupted run that cannot be gone on with, or that a new run would lose."""


class VocabularyError(ShowtellError):
    """A vocabulary that is empty, damaged or does not fit."""


class EncoderError(ShowtellError):
    """A backbone or its weights that cannot be built, found or fed."""


class CacheError(ShowtellError):
    """A feature cache that is stale, foreign or incomplete."""


class ExportError(ShowtellError):
    """A network that cannot be written as an ONNX graph."""


class BundleError(ShowtellError):
    """A bundle whose parts are missing, damaged or do not fit together."""


class MetricError(ShowtellError):
    """References and hypotheses that cannot be scored."""


class TrainingError(ShowtellError):
    """A run that cannot go on: non-finite loss, a checkpoint that does not fit."""

    exit_code = 1


class Interrupted(ShowtellError):
    """What was stopped by Ctrl-C; the message says what is kept and how to go on."""

    exit_code = 130  # 128 + SIGINT, what shells report


class TrainingInterrupted(Interrupted):
    """A run that was stopped by Ctrl-C, saved, and can be resumed."""


class MissingExtraError(ShowtellError):
    """A dependency that is not installed: of an extra, or of Showtell itself where `extra` is empty."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        wanted = f'"showtell[{extra}]"' if extra else "showtell"
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install {wanted}"
        )


def require_packages(extra: str, purpose: str, *packages: str) -> None:
    """Raises MissingExtraError for the first of `packages`, import names of the extra `extra`, that is not there."""
    for package in packages:
        try:
            found = importlib.util.find_spec(package) is not None
        except (ImportError, ValueError):  # something keeps it from being imported
            found = False
        if not found:
            raise MissingExtraError(package, extra, purpose)


def require_framework(purpose: str) -> None:
    """Raises MissingExtraError if torch, or what encoders and decoders need with it, is not there."""
    require_packages("train", purpose, "torch", "timm", "jaxtyping")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest of `choices`, or "" where none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def count(number: int, noun: str) -> str:
    """Returns "1 image", "12,000 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
