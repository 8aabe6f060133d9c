"""The contact sheet: one HTML page with a small picture and the captions of every image.

The page holds all it needs, pictures included (about 10 kB each), and asks the network for nothing: its own content
security policy forbids it. Each image is one line, so the page is written and read image by image; browsers lay out
and decode only what is seen. It follows the reader's light or dark setting and narrows down to a phone.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TextIO
from urllib.parse import quote_from_bytes

from PIL import Image

from showtell.errors import ImageError
from showtell.images import ImageSource, open_image
from showtell.outputs.formats import Earlier, Format
from showtell.outputs.names import one_line, readable
from showtell.outputs.record import Record

SIDE = 400  # of a small picture, in pixels at most: sharp at the width of a column
QUALITY = 70  # of its WebP
_FIGURE = re.compile(r'<figure data-image="([^"]*)"( class="failed")?>')
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def draw_thumbnail(source: ImageSource) -> bytes:
    """Returns the image as a small WebP, upright; nothing if it can no longer be read."""
    try:
        return shrink_to_webp(source, SIDE, QUALITY)
    except ImageError:
        return b""


def shrink_to_webp(source: ImageSource, side: int, quality: int) -> bytes:
    """Returns the image as a WebP whose longer side is at most `side`, upright.

    Raises:
        ImageError: it cannot be read.
    """
    image = open_image(source, draft_size=(side, side))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return write_webp(image, quality)


def write_webp(image: Image.Image, quality: int) -> bytes:
    """Returns the image as the bytes of a WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


class SheetFormat(Format):
    """A page of captioned pictures.

    Args:
        folder: where the page will be; links to images are relative to it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def head(self) -> str:
        """Returns everything above the first picture."""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<title>Captions</title>\n<style>\n{_part('sheet.css')}</style>\n</head>\n<body>\n"
            '<header><h1>Captions</h1><span id="shown" role="status"></span><input type="search" hidden '
            'placeholder="Find words" aria-label="Find words in captions and names"></header>\n<main>\n'
        )

    def write(self, record: Record) -> str:
        """Returns one picture with its captions, on one line."""
        best = record.captions[0].text if record.captions else ""
        parts = [f'<figure data-image="{_quoted(readable(record.image))}"']
        parts.append(' class="failed">' if record.error else ">")
        parts.append(self._picture(record, best))
        parts.append("<figcaption>")
        if record.captions:
            parts.append(f"<p>{_quoted(best)}</p>")
        if len(record.captions) > 1:
            others = "".join(f"<li>{_quoted(one.text)}</li>" for one in record.captions[1:])
            parts.append(f"<ul>{others}</ul>")
        if record.failure:
            parts.append(f'<p class="failure">{_quoted(record.failure)}</p>')
        parts.append(f'<div class="name">{_quoted(one_line(record.image))}</div></figcaption></figure>\n')
        return "".join(parts)

    def tail(self, count: int) -> str:
        """Returns everything below the last picture."""
        return f"</main>\n<script>\n{_part('sheet.js')}</script>\n</body>\n</html>\n"

    def read(self, file: TextIO) -> Iterator[Earlier]:
        """Yields the pictures."""
        if not file.readline().startswith("<!DOCTYPE html>"):
            raise ValueError("it is no HTML page")
        found = False
        for line in file:
            found = found or line == "<main>\n"
            match = _FIGURE.match(line)
            if match:
                yield Earlier(html.unescape(match[1]), line, bool(match[2]))
        if not found:
            raise ValueError("it is another HTML page")

    def _picture(self, record: Record, best: str) -> str:
        if record.thumbnail:
            with Image.open(io.BytesIO(record.thumbnail)) as image:
                width, height = image.size
            data = base64.b64encode(record.thumbnail).decode()
            inner = (
                f'<img src="data:image/webp;base64,{data}" alt="{_quoted(best)}" width="{width}" height="{height}" '
                'loading="lazy" decoding="async">'
            )
        else:
            inner = '<span class="none">no picture</span>'
        link = self._link(record.image)
        return f'<a href="{_quoted(link)}">{inner}</a>' if link and record.thumbnail else inner

    def _link(self, image: str) -> str:
        if image.lower().startswith(("http://", "https://")):
            return image
        if image == "-":
            return ""
        try:
            relative = os.path.relpath(image, self._folder)
        except ValueError:  # another drive
            return ""
        return "./" + quote_from_bytes(os.fsencode(relative.replace(os.sep, "/")))


def _quoted(text: str) -> str:
    """Returns text for HTML, also in attributes; line ends as references, so that a record stays one line."""
    return html.escape(text).replace("\n", "&#10;").replace("\r", "&#13;")


def _part(name: str) -> str:
    return files("showtell.outputs").joinpath(name).read_text(encoding="utf-8")
