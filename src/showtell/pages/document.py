"""A page as its elements, each with the place of its tag in the text.

Pages are parsed as browsers do: HTML by the algorithm of the HTML Standard (justhtml), .xhtml as XML (expat). Both
give the same two things: the elements, and the `outline`, everything in the page in order, so that two versions of a
page can be compared. The text of `noscript` is parsed as elements, because it is what somebody without scripts gets.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.parsers import expat

from showtell.errors import PageError
from showtell.pages.encoding import PageText, decode_page, find_codec

MAX_BYTES = 16 << 20
XML_SUFFIXES = (".xhtml", ".xht")
_XHTML = "http://www.w3.org/1999/xhtml"
_NAMESPACES = {_XHTML: "html", "http://www.w3.org/2000/svg": "svg"}


@dataclass(eq=False)
class Element:
    """One element of a page."""

    name: str
    namespace: str  # "html", "svg", or another
    attributes: Mapping[str, str]  # of several with one name the first
    start: int | None  # where its tag begins in the text; None where the parser has made it up
    parent: Element | None
    inert: bool  # in a template, from which scripts make elements, or not
    has_text: bool = False  # it, or an element in it, holds more than spaces
    children: list[Element] = field(default_factory=list)

    def ancestors(self) -> Iterator[Element]:
        """Yields the element itself, its parent, and so on."""
        element: Element | None = self
        while element is not None:
            yield element
            element = element.parent


@dataclass(frozen=True)
class Item:
    """One thing in a page, as the outline lists them."""

    depth: int
    kind: str  # "element", "text", "comment" or the like
    name: str
    content: Any  # of an element its attributes; else a text


@dataclass(frozen=True)
class Document:
    """A page, parsed."""

    text: PageText
    elements: tuple[Element, ...]  # in document order
    outline: tuple[Item, ...]  # everything, in document order
    xml: bool

    def line(self, position: int) -> int:
        """Returns the line of a place in the text, from 1."""
        return bisect.bisect_right(self._breaks, position) + 1

    @functools.cached_property
    def _breaks(self) -> list[int]:
        return [one.end() for one in re.finditer(r"\r\n|\r|\n", self.text.text)]


def parse_page(data: bytes, *, xml: bool = False) -> Document:
    """Decodes and parses a page.

    Args:
        data: the whole file.
        xml: whether it is XML, as .xhtml files are.

    Raises:
        PageError: it is too large, its bytes do not fit its encoding, or it is not well-formed XML.
    """
    if len(data) > MAX_BYTES:
        raise PageError(
            f"{len(data):,} bytes are more than the {MAX_BYTES:,} of the largest page that is read. Divide it"
        )
    if xml:
        return _parse_xml(decode_page(data, xml=True))
    text = decode_page(data)
    document = _parse_html(text)
    if text.declared:
        return document
    label = _declared_encoding(document)
    codec = find_codec(label) if label is not None else None
    if codec is None:
        return document
    text = decode_page(data, declared=label)
    if text.text == document.text.text:
        return replace(document, text=text)
    return _parse_html(text)


def _declared_encoding(document: Document) -> str | None:
    """Returns what the first meta element that names an encoding says (HTML Standard, section 4.2.5.4)."""
    for element in document.elements:
        if element.name != "meta" or element.namespace != "html" or element.inert:
            continue
        if "charset" in element.attributes:
            return element.attributes["charset"]
        content = re.search(
            r"""charset\s*=\s*["']?([^\s;"']+)""", element.attributes.get("content", ""), re.IGNORECASE
        )
        if element.attributes.get("http-equiv", "").lower() == "content-type" and content:
            return content[1]
    return None


class _Builder:
    """Collects elements and outline while a page is walked through."""

    def __init__(self) -> None:
        self.elements: list[Element] = []
        self.outline: list[Item] = []

    def add(self, element: Element, depth: int) -> None:
        self.elements.append(element)
        if element.parent is not None:
            element.parent.children.append(element)
        self.outline.append(Item(depth, "element", f"{element.namespace}:{element.name}", element.attributes))

    def add_text(self, text: str, parent: Element | None, depth: int) -> None:
        self.outline.append(Item(depth, "text", "", text))
        if text.strip():
            while parent is not None and not parent.has_text:
                parent.has_text = True
                parent = parent.parent


def _parse_html(text: PageText) -> Document:
    from justhtml import JustHTML

    tree = JustHTML(text.readable, sanitize=False, track_node_locations=True, scripting_enabled=False)
    builder = _Builder()
    # (node, parent, depth, inert); a stack, because pages may be nested deeper than Python calls.
    waiting: list[tuple[Any, Element | None, int, bool]] = [(tree.root, None, 0, False)]
    while waiting:
        node, parent, depth, inert = waiting.pop()
        name = node.name
        if name == "#text":
            builder.add_text(node.data or "", parent, depth)
            continue
        if name == "!doctype":
            doctype = node.data
            identifiers = (doctype.name, doctype.public_id, doctype.system_id)
            builder.outline.append(Item(depth, "doctype", "", identifiers))
            continue
        if name.startswith("#"):
            if name == "#comment":
                builder.outline.append(Item(depth, "comment", "", node.data))
        else:
            attributes = {key: value or "" for key, value in (node.attrs or {}).items()}
            parent = Element(name, node.namespace or "html", attributes, node.origin_offset, parent, inert)
            builder.add(parent, depth)
        children = [(child, parent, depth + 1, inert) for child in node.children or ()]
        content = getattr(node, "template_content", None)
        if content is not None:
            shown = "shadowrootmode" in (node.attrs or {})  # a shadow root, which is part of the page
            children.append((content, parent, depth + 1, inert or not shown))
        waiting.extend(reversed(children))
    return Document(text, tuple(builder.elements), tuple(builder.outline), xml=False)


def _parse_xml(text: PageText) -> Document:
    data = text.text.encode("utf-8")
    builder = _Builder()
    open_elements: list[Element] = []
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.buffer_text = True
    bytes_before, characters_before = 0, 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal bytes_before, characters_before
        here = parser.CurrentByteIndex
        characters_before += len(data[bytes_before:here].decode("utf-8"))
        bytes_before = here
        address, _, local = name.rpartition(" ")
        parent = open_elements[-1] if open_elements else None
        inert = parent is not None and (parent.inert or parent.name == "template")
        namespace = _NAMESPACES.get(address, address or "none")
        element = Element(local, namespace, attributes, characters_before, parent, inert)
        builder.add(element, len(open_elements))
        open_elements.append(element)

    def characters(content: str) -> None:
        builder.add_text(content, open_elements[-1] if open_elements else None, len(open_elements))

    def other(kind: str) -> Any:
        return lambda *content: builder.outline.append(Item(len(open_elements), kind, "", content))

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = characters
    parser.CommentHandler = other("comment")
    parser.ProcessingInstructionHandler = other("instruction")
    parser.StartDoctypeDeclHandler = other("doctype")
    parser.SkippedEntityHandler = other("entity")
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise PageError(
            f"it is not well-formed XML, as .xhtml must be: {expat.ErrorString(error.code)} in line {error.lineno}"
        ) from None
    return Document(text, tuple(builder.elements), tuple(builder.outline), xml=True)
