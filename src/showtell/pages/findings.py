"""Which pictures of a page lack alt text (HTML Standard, section 4.8.4.4; WCAG 2.2, success criterion 1.1.1).

Three things are wrong with an alt text: it is missing; it is empty, which says that the picture is decoration; or it is
poor, a file's name or a placeholder (WCAG's failure F30). What is hidden from screen readers, or has its name from
elsewhere (aria-label, aria-labelledby), needs none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from showtell.pages.document import Document, Element

MISSING, EMPTY, POOR = "missing", "empty", "poor"
PROBLEMS = (MISSING, EMPTY, POOR)

_DRAWN = ("img", "image", "graphics-document", "graphics-symbol")  # roles
_TINY = 3  # pixels; counters and spacers are so small
_SUFFIXES = r"(?:jpe?g|jfif|png|gif|webp|svg|bmp|tiff?|avif|heic|heif|ico|jp2|jxl)"
_POOR = re.compile(
    rf"""
    (?:\S+\s){{0,3}}\S*\.{_SUFFIXES}                               # a file's name
    | (?:https?://|www\.|data:|/).*                              # an address
    | (?:img|dscn?|dscf|pict?|p|pxl|mvimg|gopr|gp|dji|cimg|sam|scan|wp|fb[\s_-]img)   # as cameras call their files
      [\s_()-]*\d[\d\s_.():-]{{2,}}(?:wa\d+)?[a-z]?
    | screen[\s_-]?shot[\d\s_.():-]*(?:at[\d\s.:]+)?(?:[ap]m)?
    | (?=.*\d)[0-9a-f-]{{12,}}                                     # a number in place of a name
    | (?:(?:the|an?|my|no|default|new)\s+)?
      (?:image|img|picture|photo|photograph|pic|graphic|thumbnail|thumb|bild|foto|imagen|imagem|immagine|afbeelding)s?
      (?:\s+(?:here|goes\s+here|description|text|name|alt|file|not\s+found|of|placeholder))?[\s_#-]*\(?\d*\)?
    | alt|alt[\s_-]?(?:text|tag|attribute)|alternat(?:e|ive)(?:\s+text)?|placeholder|description|spacer|blank
    | untitled|unnamed|no\s?name|null|none|undefined|nan|n/?a|tbd|tba|xxx+|lorem\s+ipsum.*
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# What fills an attribute in later: Jinja, Liquid, Handlebars, ASP, PHP, JavaScript.
_PLACEHOLDER = re.compile(r"\{\{|\{%|\{#|<%|<\?|\$\{")
_BOUND = frozenset((":alt", "v-bind:alt", "[alt]", "[attr.alt]", "ng-attr-alt", "x-bind:alt", "th:alt"))
_SKIPPED = re.compile(r"[\s,]*")
_ADDRESS = re.compile(r"\S+")
_DESCRIPTOR = re.compile(r"(?:\([^)]*\)?|[^,(])*")  # it may hold commas only inside of parentheses
_SIZE = re.compile(r"([0-9]*\.?[0-9]+)[wx]")
_LAZY = ("data-src", "data-lazy-src", "data-lazy", "data-original", "data-original-src")
_LAZY_SETS = ("data-srcset", "data-lazy-srcset")


@dataclass(frozen=True)
class Finding:
    """One picture of a page that lacks alt text."""

    line: int  # of its tag, from 1
    tag: str  # "img", "input", "area" or "svg"
    problem: str  # "missing", "empty" or "poor"
    alt: str | None  # what the page says; None where it says nothing
    source: str  # its address as the page has it; empty where there is none
    candidates: tuple[str, ...]  # addresses of the picture, the best first
    element: int  # its place in Document.elements
    only_reported: str  # why no text is proposed whatever is asked for, or ""
    names_link: bool  # it is all that a link or button holds, and so says where that leads


def find_images(document: Document) -> Iterator[Finding]:
    """Yields the pictures of a page that lack alt text, in document order."""
    for number, element in enumerate(document.elements):
        if element.inert or element.start is None:
            continue
        problem = _find_problem(element)
        if problem is None or _is_silent(element) or _has_other_name(element.attributes):
            continue
        candidates = tuple(dict.fromkeys(_candidates(element)))
        yield Finding(
            line=document.line(element.start),
            tag=element.name,
            problem=problem,
            alt=element.attributes.get("alt"),
            source=element.attributes.get("src", "").strip() or (candidates[0] if candidates else ""),
            candidates=candidates,
            element=number,
            only_reported=_why_only_reported(element),
            names_link=_names_link(element),
        )


def judge_alt(alt: str | None) -> str | None:
    """Returns what is wrong with an alt text: "missing", "empty", "poor", or None where nothing is."""
    if alt is None:
        return MISSING
    if alt == "":
        return EMPTY
    text = unquote(" ".join(alt.split()))
    # Emoji are no letters, but they are read out.
    speaks = any(one.isalpha() or unicodedata.category(one) == "So" for one in text)
    return POOR if not speaks or _POOR.fullmatch(text) else None


def _find_problem(element: Element) -> str | None:
    attributes = element.attributes
    if (element.namespace, element.name) == ("svg", "svg"):
        titled = any(child.name == "title" and child.has_text for child in element.children)
        return MISSING if attributes.get("role", "").strip().lower() in _DRAWN and not titled else None
    button = element.name == "input" and attributes.get("type", "").strip().lower() == "image"
    link = element.name == "area" and "href" in attributes
    if element.namespace == "html" and (element.name == "img" or button or link):
        return judge_alt(attributes.get("alt"))
    return None


def _is_silent(element: Element) -> bool:
    """Whether screen readers pass over it, as its author wants."""
    role = element.attributes.get("role", "").lower().split()
    if role[:1] in (["presentation"], ["none"]):
        return True
    return any(one.attributes.get("aria-hidden", "").strip().lower() == "true" for one in element.ancestors())


def _has_other_name(attributes: Mapping[str, str]) -> bool:
    return any(attributes.get(name, "").strip() for name in ("aria-label", "aria-labelledby"))


def _why_only_reported(element: Element) -> str:
    attributes = element.attributes
    if element.name == "svg":
        return "a drawing inside the page cannot be captioned: give it a title element"
    if element.name == "input":
        return "the alt text of a button says what it does, which its picture does not know"
    if element.name == "area":
        return "the alt text of an area says where its link leads, which the picture does not know"
    if any(_PLACEHOLDER.search(text) for one in attributes.items() for text in one):
        return "a template fills this tag in: give the text there"
    if any(name.lower() in _BOUND for name in attributes):
        return "a script sets its alt text"
    sizes = [attributes.get(name, "").strip().removesuffix("px") for name in ("width", "height")]
    if all(size.isascii() and size.isdigit() and int(size) <= _TINY for size in sizes):
        return 'it is too small to be seen; alt="" is right for it'
    return ""


def _names_link(element: Element) -> bool:
    for one in element.ancestors():
        if (one.name == "a" and "href" in one.attributes) or one.name == "button":
            return not one.has_text and not _has_other_name(one.attributes)
    return False


def _candidates(element: Element) -> Iterator[str]:
    """Yields addresses of the picture: what lazy loading will show, what is shown, other sizes, other formats.

    Pictures inside of the page come last: where there is another address, they are placeholders.
    """
    attributes = element.attributes
    found = [attributes[name].strip() for name in _LAZY if name in attributes]
    for name in _LAZY_SETS:
        found += split_srcset(attributes.get(name, ""))
    found.append(attributes.get("src", "").strip())
    found += split_srcset(attributes.get("srcset", ""))
    picture = element.parent
    if picture is not None and picture.name == "picture":
        for source in picture.children:
            if source.name == "source":
                for name in ("srcset", *_LAZY_SETS):
                    found += split_srcset(source.attributes.get(name, ""))
    found = [address for address in found if address]
    yield from sorted(found, key=lambda address: address[:5].lower() == "data:")


def split_srcset(value: str) -> list[str]:
    """Returns the addresses of a srcset attribute, the largest first (HTML Standard, section 4.8.4.3.10)."""
    found: list[tuple[float, str]] = []
    position = _end_of(_SKIPPED, value, 0)
    while address := _ADDRESS.match(value, position):
        position = address.end()
        size = ""
        if not address[0].endswith(","):
            end = _end_of(_DESCRIPTOR, value, position)
            size, position = value[position:end], end
        number = _SIZE.search(size)
        found.append((float(number[1]) if number else 1.0, address[0].rstrip(",")))
        position = _end_of(_SKIPPED, value, position)
    return [address for _, address in sorted(found, key=lambda one: -one[0])]


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return position if found is None else found.end()
