"""One image to caption, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from showtell.images import ImageSource, WebImage

if TYPE_CHECKING:
    from showtell.images.fetch import Fetcher

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Item:
    """One image to caption. What cannot be captioned is an item, too: it keeps its place in the results."""

    name: str  # as it was given or found: what results call it
    source: ImageSource  # what is opened
    error: str = ""  # why that will fail, where this is known better than opening it will say

    @property
    def path(self) -> str | None:
        """The file, or None where the image is none, as an address or bytes."""
        return self.source if isinstance(self.source, str) else None


def web_item(address: str) -> Item:
    """Returns the item of an address on the web, which is fetched when its turn comes."""
    return Item(address, WebImage(address, _open_fetcher()))


@cache
def _open_fetcher() -> Fetcher:
    from showtell.images.fetch import Fetcher  # here: it loads what encrypted connections need

    return Fetcher()
