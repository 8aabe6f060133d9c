"""One start tag in the text of a page: where its attributes stand (HTML Standard, section 13.2.5).

A parser says where a tag begins and which attributes it has; only the text says where these are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from showtell.alt_text import escape_attribute
from showtell.errors import PageError
from showtell.pages.encoding import Splice

_NAME = re.compile(r"<([A-Za-z_][^\t\n\f\r />]*)")
_BETWEEN = re.compile(r"[\t\n\f\r /]*")
_SPACES = re.compile(r"[\t\n\f\r ]*")
_ATTRIBUTE = re.compile(r"=?[^\t\n\f\r />=]*")
_UNQUOTED = re.compile(r"[^\t\n\f\r >]*")


@dataclass(frozen=True)
class Attribute:
    """One attribute as it stands in the text."""

    name: str  # as written
    name_end: int
    end: int  # behind its value, or behind its name where it has none


@dataclass(frozen=True)
class StartTag:
    """One start tag as it stands in the text."""

    name: str  # as written
    name_end: int
    attributes: tuple[Attribute, ...]  # all of them, also those whose name was there before
    end: int  # behind its ">"


def scan_start_tag(text: str, start: int) -> StartTag:
    """Reads the start tag that begins at `start`.

    Raises:
        PageError: no tag begins there, or it has no end.
    """
    found = _NAME.match(text, start)
    if found is None:
        raise PageError(f"no tag begins at character {start:,}: {text[start : start + 20]!r}")
    attributes: list[Attribute] = []
    position = found.end()
    while True:
        position = _end_of(_BETWEEN, text, position)
        if position >= len(text):
            raise PageError(f"the tag at character {start:,} has no end")
        if text[position] == ">":
            return StartTag(found[1], found.end(), tuple(attributes), position + 1)
        name_end = end = _end_of(_ATTRIBUTE, text, position)
        name = text[position:name_end]
        position = _end_of(_SPACES, text, name_end)
        if text[position : position + 1] == "=":
            end = position = _end_of_value(text, _end_of(_SPACES, text, position + 1), start)
        attributes.append(Attribute(name, name_end, end))


def set_alt(text: str, start: int, alt: str) -> Splice:
    """Returns the change that gives the tag at `start` this alt text; where it has one, that is replaced.

    Raises:
        PageError: no tag begins there, or it has no end.
    """
    tag = scan_start_tag(text, start)
    value = f'="{escape_attribute(alt)}"'
    for attribute in tag.attributes:
        if attribute.name.lower() == "alt":
            return Splice(attribute.name_end, attribute.end, value)
    # Behind the name: nothing that stands there can swallow it, as "src=" or an unquoted value could elsewhere.
    return Splice(tag.name_end, tag.name_end, f" alt{value}")


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return position if found is None else found.end()


def _end_of_value(text: str, position: int, start: int) -> int:
    quote = text[position : position + 1]
    if quote not in ("'", '"'):
        return _end_of(_UNQUOTED, text, position)
    end = text.find(quote, position + 1)
    if end < 0:
        raise PageError(f"the tag at character {start:,} has no end")
    return end + 1
