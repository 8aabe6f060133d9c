"""Images that can be read only once, as streams, or only dearly, as those on the web: kept for a second look."""

from __future__ import annotations

import threading
from typing import BinaryIO

from showtell.errors import ImageError
from showtell.images.web import WebImage


class Allowance:
    """How many bytes kept images may take together. It may be used by several threads at once.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Takes so many bytes, or none if there are fewer left; returns whether it did."""
        with self._lock:
            granted = size <= self._left
            self._left -= size if granted else 0
        return granted

    def give_back(self, size: int) -> None:
        """Gives back what was taken."""
        with self._lock:
            self._left += size


class KeptImage:
    """The content of an image's file, read when it is first wanted and kept until `drop`.

    Args:
        source: an open binary file, or an image on the web.
        name: what messages call it.
        allowance: what it may take of; where that is used up, an image on the web is fetched again instead. None: kept
            in any case.
    """

    def __init__(self, source: BinaryIO | WebImage, name: str, allowance: Allowance | None = None) -> None:
        self.name = name
        self._source = source
        self._allowance = allowance
        self._content: bytes | None = None
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """Returns the content.

        Raises:
            ImageError: it is open as text; a FetchError if it cannot be fetched.
        """
        with self._lock:
            if self._content is not None:
                return self._content
            content = read_content(self._source, self.name)
            if self._allowance is None or self._allowance.take(len(content)):
                self._content = content
            return content

    def drop(self) -> None:
        """Forgets the content, and gives its bytes back."""
        with self._lock:
            if self._content is not None and self._allowance is not None:
                self._allowance.give_back(len(self._content))
            self._content = None

    def __repr__(self) -> str:
        return f"KeptImage({self.name!r})"


def read_content(source: BinaryIO | WebImage | KeptImage, name: str) -> bytes:
    """Returns what is in an open file or an image on the web.

    Raises:
        ImageError: it is open as text; a FetchError if it cannot be fetched.
    """
    content = source.read()
    if not isinstance(content, bytes):
        raise ImageError(f"{name} is open as text; open it in binary mode ('rb')")
    return content
