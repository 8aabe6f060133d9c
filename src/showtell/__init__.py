"""Showtell: image captioning. An image goes in, a sentence comes out.

What is exported here is loaded when it is first used, so that `import showtell` takes milliseconds and no
deep-learning framework.
"""

from __future__ import annotations

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from showtell.captioner import CaptionedPicture, Captioner
    from showtell.captioning import Caption
    from showtell.data import Dataset, join_datasets, read_dataset
    from showtell.decoding import DecodingSettings
    from showtell.errors import ShowtellError
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
    "Recipe",
    "ShowtellError",
    "Vocabulary",
    "join_datasets",
    "list_recipes",
    "load_recipe",
    "read_dataset",
    "score",
]


def __getattr__(name: str) -> _typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'showtell' has no attribute {name!r}")
    return getattr(_importlib.import_module(f"showtell.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
