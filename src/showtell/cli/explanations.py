"""Where `caption --explain` puts its figures: one name for each image, the same in every run to the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from showtell.cli.output import log
from showtell.files import path_digest

if TYPE_CHECKING:
    from showtell.captioner import CaptionedPicture, Captioner
    from showtell.intake import Item


class Explanations:
    """The figures in one folder, NAME.png with NAME.json.

    What an earlier run drew of an image is replaced. What belongs to another image, to this run or to nobody stays:
    then the figure is NAME-2.png, or the next that is free.

    Args:
        folder: made when it is first written to.
        method: of `explain_caption`.
    """

    def __init__(self, folder: Path, method: str) -> None:
        self.replaced = 0
        self._folder = folder
        self._method = method
        # By stem and from number 1 on: whose figure it is; "" of those that must stay.
        self._owners: dict[str, list[str]] = {}

    def draw(self, item: Item, result: CaptionedPicture, captioner: Captioner) -> None:
        """Draws where each word of the best caption came from.

        Raises:
            UsageError: the model has no attention, and it was asked for.
            ImageError: the image cannot be read a second time.
        """
        from showtell.explain import explain_caption
        from showtell.outputs import one_line

        explanation = explain_caption(captioner, item.source, result.captions[0], self._method)
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._place("image" if item.path is None else Path(item.path).stem, explanation.name)
        explanation.save(target)
        log(f"{one_line(item.name)}: where its words come from is in {one_line(str(target))}")

    def has(self, item: Item) -> bool:
        """Returns whether an item is itself such a figure, which nobody wants to have captioned."""
        if item.path is None:
            return False
        path = Path(item.path)
        here = path_digest(item.path) == path_digest(str(self._folder / path.name))
        return here and path.suffix == ".png" and read_owner(path.with_suffix(".json")) is not None

    def _place(self, stem: str, image: str | None) -> Path:
        owners = self._owners.setdefault(stem, [])
        while True:
            number = len(owners) + 1
            figure = self._figure(stem, number)
            if not figure.exists() and not figure.with_suffix(".json").exists():
                break
            owners.append(read_owner(figure.with_suffix(".json")) or "")
        if image and image in owners:
            number = owners.index(image) + 1
            owners[number - 1] = ""
            self.replaced += 1
        else:
            owners.append("")
        return self._figure(stem, number)

    def _figure(self, stem: str, number: int) -> Path:
        return self._folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")


def read_owner(path: Path) -> str | None:
    """Returns the image that a JSON file explains, "" if that has no name, or None if it is no explanation."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return str(values["image"] or "") if {"caption", "method", "grid", "words"} <= values.keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
