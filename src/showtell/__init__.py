"""Showtell: image captioning. An image goes in, a sentence comes out.

What is exported here is loaded when it is first used, so that `import showtell` takes milliseconds and no
deep-learning framework.
"""

from __future__ import annotations

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from showtell.captioner import CaptionedPicture, Captioner, ImageLike
    from showtell.captioning import Caption
    from showtell.data import Dataset, join_datasets, read_dataset
    from showtell.decoding import DecodingSettings
    from showtell.errors import ImageError, ShowtellError
    from showtell.metrics import score
    from showtell.recipes import Recipe, list_recipes, load_recipe
    from showtell.text import Vocabulary

__version__ = "0.1.0"

_HOMES = {
    "Caption": "captioning",
    "CaptionedPicture": "captioner",
    "Captioner": "captioner",
    "Dataset": "data",
    "DecodingSettings": "decoding",
    "ImageError": "errors",
    "ImageLike": "captioner",
    "Recipe": "recipes",
    "ShowtellError": "errors",
    "Vocabulary": "text",
    "join_datasets": "data",
    "list_recipes": "recipes",
    "load_recipe": "recipes",
    "read_dataset": "data",
    "score": "metrics",
}

__all__ = [
    "Caption",
    "CaptionedPicture",
    "Captioner",
    "Dataset",
    "DecodingSettings",
    "ImageError",
    "ImageLike",
    "Recipe",
    "ShowtellError",
    "Vocabulary",
    "join_datasets",
    "list_recipes",
    "load_recipe",
    "read_dataset",
    "score",
]


if (
    not _typing.TYPE_CHECKING
):  # a type checker that saw it would take every name for one of ours, mistyped ones, too

    def __getattr__(name: str) -> _typing.Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'showtell' has no attribute {name!r}")
        return getattr(_importlib.import_module(f"showtell.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
