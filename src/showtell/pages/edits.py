"""Writing alt texts into pages: nothing else in them changes, and that is checked before anything is written."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from showtell.errors import PageError
from showtell.files import write_atomically
from showtell.pages.document import Document, Item, parse_page
from showtell.pages.encoding import encode_page
from showtell.pages.tags import scan_start_tag, set_alt


def edit_page(document: Document, texts: Mapping[int, str]) -> bytes:
    """Returns the bytes of a page with other alt texts.

    The result is parsed again, and must be the same page but for these texts.

    Args:
        document: the page.
        texts: the alt text, not escaped, of each element that gets one, by its place in `document.elements`.

    Raises:
        PageError: a tag stands in the text other than the parser has read it, or something else would change.
    """
    splices = []
    for number in sorted(texts, key=lambda number: document.elements[number].start or 0):
        element = document.elements[number]
        if element.start is None:
            raise PageError(f"its {element.name} element {number} has no tag of its own")
        where = f"line {document.line(element.start)}"
        try:
            tag = scan_start_tag(document.text.text, element.start)
            name = tag.name.lower().rpartition(":")[2]
            names = {attribute.name.lower() for attribute in tag.attributes}
            # "image" is what some people write, and browsers read as "img".
            if name not in (element.name, "image") or ("alt" in names) != ("alt" in element.attributes):
                raise PageError(f"the tag is not that of the element {element.name!r}")
            splices.append(set_alt(document.text.text, element.start, texts[number]))
        except PageError as error:
            raise PageError(f"{where}: the tag cannot be edited: {error}") from None
    edited = encode_page(document.text, splices)
    _check_edit(document, edited, texts)
    return edited


def write_copy(folder: Path, place: Path, data: bytes) -> Path:
    """Writes an edited page into a folder of copies, at its place in the site, and returns where.

    Raises:
        OSError: it cannot be written; then no part of it is there.
    """
    target = folder / place
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, data)
    return target


def write_in_place(page: Path, before: bytes, after: bytes) -> Path:
    """Replaces a page, whole or not at all, and returns the file that keeps what it was.

    That is PAGE.bak, or where there is one already, PAGE.bak.1, PAGE.bak.2 and so on: none is ever overwritten.

    Raises:
        PageError: the page is no longer what it was when it was read.
        OSError: it cannot be written, and is as it was.
    """
    if page.read_bytes() != before:
        raise PageError("it has changed meanwhile, and was left alone. Run the same command again")
    backup = _keep(page, before)
    mode = page.stat().st_mode
    write_atomically(page, after)
    page.chmod(mode)
    return backup


def _keep(page: Path, data: bytes) -> Path:
    for number in itertools.count():
        backup = page.with_name(f"{page.name}.bak" + (f".{number}" if number else ""))
        try:
            with backup.open("xb") as file:
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                except BaseException:
                    backup.unlink()  # half a backup is worse than none
                    raise
        except FileExistsError:
            continue
        shutil.copystat(page, backup)
        return backup
    raise AssertionError  # counting has no end


def _check_edit(before: Document, edited: bytes, texts: Mapping[int, str]) -> None:
    """Raises PageError if the edited bytes are not the same page with other alt texts."""
    after = parse_page(edited, xml=before.xml)
    if (after.text.codec, after.text.mark) != (before.text.codec, before.text.mark):
        raise PageError("with the new alt texts it would be read in another encoding, so it was left alone")
    number = 0
    for old, new in itertools.zip_longest(before.outline, after.outline):
        expected = old
        if old is not None and old.kind == "element":
            if number in texts:
                expected = Item(old.depth, old.kind, old.name, {**old.content, "alt": texts[number]})
            number += 1
        if new != expected:
            raise PageError("more than alt texts would change in it, so it was left alone")
