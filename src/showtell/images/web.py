"""Images on the web, as sources beside files and bytes.

Only what is needed to name one stands here: to fetch one takes `showtell.images.fetch`, whose import of TLS and HTTP
costs those nothing who caption files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from showtell.images.addresses import show_url

if TYPE_CHECKING:
    from showtell.images.fetch import Fetcher

_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
_PAGES = (
    b"<html",
    b"<head",
    b"<body",
    b"<script",
    b"<style",
    b"<meta",
    b"<title",
    b"<div",
    b"<iframe",
    b"<h1",
)


@dataclass(frozen=True, slots=True, repr=False)
class WebImage:
    """An image at a URL. It is fetched when it is opened, anew each time, on the thread that opens it."""

    url: str
    fetcher: Fetcher

    @property
    def name(self) -> str:
        """What messages call it: the URL without what may be secret."""
        return show_url(self.url)

    def read(self) -> bytes:
        """Returns the content of its file.

        Raises:
            FetchError: see `Fetcher.fetch`.
        """
        return self.fetcher.fetch(self.url).content

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"WebImage({self.name!r})"


def is_web_page(content: bytes) -> bool:
    """Returns whether a file is HTML, whatever it is called, by how it begins."""
    head = content[:1024]
    if head[:2] in _BYTE_ORDER_MARKS:  # 16 bits per character
        head = head.replace(b"\0", b"")
    for mark in _BYTE_ORDER_MARKS:
        head = head.removeprefix(mark)
    text = head.lstrip().lower()
    while text.startswith(b"<!--"):
        text = text.partition(b"-->")[2].lstrip()
    if text.startswith((b"<?xml", b"<!doctype")):
        return b"<html" in text or b"doctype html" in text
    return text.startswith(_PAGES)
