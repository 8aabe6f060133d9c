"""The bytes of a page as text and back, so that what is not edited stays as it is, to the byte.

Which encoding a page has is decided as browsers do (HTML Standard, section 13.2.3): a byte-order mark, else what the
page declares, else UTF-8 where its bytes are valid UTF-8, else windows-1252. There is no HTTP header to ask.

Bytes that their encoding does not know become lone surrogates in `text`, each of which stands for one byte
(PEP 383), so that also a page with wrong bytes in it is written back unchanged.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

import webencodings

from showtell.errors import PageError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_XML_DECLARATION = re.compile(
    rb"""<\?xml\s+version\s*=\s*["'][0-9.]+["']\s+encoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']"""
)
_LONE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class PageText:
    """A page, decoded."""

    mark: bytes  # the byte-order mark, which `text` is without
    text: str  # bytes that the encoding does not know are lone surrogates
    codec: str  # Python's name of the encoding
    declared: bool  # whether the page says its encoding itself, so that browsers will read it as we do

    @property
    def readable(self) -> str:
        """The text as browsers read it, character by character as long as `text`."""
        return _LONE.sub("\ufffd", self.text)


@dataclass(frozen=True)
class Splice:
    """A piece of a text that is replaced."""

    start: int  # of the characters that go away
    end: int
    text: str  # what comes in their place


def decode_page(data: bytes, *, declared: str | None = None, xml: bool = False) -> PageText:
    """Decodes a page.

    Args:
        data: the whole file.
        declared: the encoding that a meta element names, if any; it is ignored where the page has a byte-order mark.
        xml: whether the page is XML, whose declaration names the encoding, and which is UTF-8 without one.

    Raises:
        PageError: the bytes do not fit the encoding.
    """
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return _decode(mark, data[len(mark) :], codec, declared=True, strict=xml)
    if xml:
        found = _XML_DECLARATION.match(data)
        named = found[1].decode("ascii") if found else "utf-8"
        known = find_codec(named)
        if known is None:
            raise PageError(f"its encoding {named!r} is not known")
        return _decode(b"", data, known, declared=True, strict=True)
    known = find_codec(declared) if declared is not None else None
    if known is not None:
        # A page that could be read so far is not UTF-16, whatever it says (section 13.2.3.2).
        return _decode(b"", data, "utf-8" if known.startswith("utf-16") else known, declared=True)
    try:
        return PageText(b"", data.decode("utf-8"), "utf-8", declared=False)
    except UnicodeDecodeError:
        return _decode(b"", data, "cp1252", declared=False)


def encode_page(page: PageText, splices: Sequence[Splice]) -> bytes:
    """Returns the bytes of the page with the splices put in; all other bytes are those of the original.

    Characters that the encoding lacks become character references, and so does everything beyond ASCII where the
    page does not say its encoding: browsers might read it as another one.

    Args:
        page: as `decode_page` gave it.
        splices: sorted, without overlaps; their texts must be escaped.

    Raises:
        PageError: the encoding gives other bytes for the same text, as some do that switch between states.
    """
    pieces, original, position = [page.mark], [page.mark], 0
    for splice in splices:
        new = splice.text
        if not page.declared:
            new = new.encode("ascii", "xmlcharrefreplace").decode("ascii")
        kept = page.text[position : splice.start].encode(page.codec, "surrogateescape")
        pieces += [kept, new.encode(page.codec, "xmlcharrefreplace")]
        original += [kept, page.text[splice.start : splice.end].encode(page.codec, "surrogateescape")]
        position = splice.end
    rest = page.text[position:].encode(page.codec, "surrogateescape")
    if b"".join([*original, rest]) != page.mark + page.text.encode(page.codec, "surrogateescape"):
        raise PageError(f"its encoding ({page.codec}) cannot be edited in pieces. Convert it to UTF-8 first")
    return b"".join([*pieces, rest])


def find_codec(label: str) -> str | None:
    """Returns Python's codec for the label of an encoding on the web, or None for an unknown one."""
    encoding = webencodings.lookup(label)
    name = "" if encoding is None else str(encoding.codec_info.name)
    try:
        return codecs.lookup(name).name
    except LookupError:  # "replacement" and "x-user-defined" are no codecs of Python's
        return None


def _decode(mark: bytes, data: bytes, codec: str, *, declared: bool, strict: bool = False) -> PageText:
    try:
        text = data.decode(codec, "strict" if strict else "surrogateescape")
    except UnicodeDecodeError as error:
        raise PageError(
            f"its bytes are not {codec}, as it says: {error.reason} at byte {error.start + len(mark):,}"
        ) from None
    page = PageText(mark, text, codec, declared)
    if text.encode(codec, "surrogateescape") != data:
        raise PageError(
            f"its encoding ({codec}) has several ways to write the same. Convert it to UTF-8 first"
        )
    return page
