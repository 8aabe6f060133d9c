"""What every reader takes beside the path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Choices of the caller; a reader ignores those that do not concern its format."""

    images: Path | None = None  # the folder that holds the image files, where the usual places are wrong
    restval: str | None = None  # karpathy: "train" or "drop", what becomes of the split "restval"
    columns: Mapping[str, str] | None = None  # table: "image", "caption", "split" -> column name
