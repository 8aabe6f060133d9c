"""Options that name pictures to look at, without captioning them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from showtell.cli.output import log


def find_images(words: Sequence[str]) -> tuple[list[Path], int]:
    """Returns the images that the words name; what names none is told on standard error, and counted."""
    from showtell.intake import Intake

    if not words:
        return [], 0
    found, missing = [], 0
    for item in Intake(words):
        if item.path is not None and not item.error:
            found.append(Path(item.path))
        else:
            missing += 1
            log(f"error: {item.name}: {item.error or 'it must be a file'}")
    return found, missing
