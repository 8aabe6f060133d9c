"""From the address in a page to the picture: a file of the site, or bytes inside of the page.

Nothing outside of the site's root is ever opened, whichever way an address or a link leads there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin

from showtell.pages.document import Document

MAX_DATA = 64 << 20  # bytes of a picture inside of a page
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SHOWN = 80  # characters of an address inside of the page that reports show


@dataclass(frozen=True)
class Located:
    """Where a picture is, or why it cannot be captioned."""

    image: Path | bytes | None  # None where there is nothing to caption
    key: str = ""  # equal for equal pictures
    reason: str = ""  # why there is nothing to caption
    failed: bool = False  # whether that is somebody's mistake, as a missing file is


def locate(candidates: Sequence[str], page: Path, root: Path, base: str) -> Located:
    """Returns the first of the candidates that is a file of the site, or lies inside of the page.

    Args:
        candidates: addresses as the page has them, the best first.
        page: the page's file.
        root: the site's folder, which addresses with a leading slash start from, and which none may leave.
        base: the address that the page's base element names, or "".
    """
    first: Located | None = None
    for address in candidates:
        found = _locate(address, page, root, base)
        if found.image is not None:
            return found
        first = first or found
    return first or Located(None, reason="it names no picture")


def find_base(document: Document) -> str:
    """Returns the address of the first base element that has one, or ""."""
    for element in document.elements:
        is_base = (element.namespace, element.name, element.inert) == ("html", "base", False)
        if is_base and "href" in element.attributes:
            return _clean(element.attributes["href"])
    return ""


def shorten_address(address: str) -> str:
    """Returns an address as reports show it: a picture inside of the page only by its beginning."""
    address = _clean(address)
    if address[:5].lower() != "data:" or len(address) <= _SHOWN:
        return address
    return f"{address[: _SHOWN // 2]}... ({len(address):,} characters)"


def _locate(address: str, page: Path, root: Path, base: str) -> Located:
    address = _clean(address)
    if address[:5].lower() == "data:":
        return _decode_data(address)
    if _is_drawing(address):
        return Located(None, reason="a drawing (SVG) cannot be captioned")
    try:
        whole = _join(base, address)
    except ValueError as error:  # half an IPv6 address
        return Located(None, reason=f"its address is damaged: {error}", failed=True)
    scheme = _SCHEME.match(whole)
    if whole.startswith("//") or (scheme is not None and scheme[1].lower() in ("http", "https")):
        return Located(None, reason="it is on the web, and was not looked at")
    if scheme is not None:
        return Located(None, reason=f"addresses that begin with {scheme[0]!r} are not read", failed=True)
    path = re.split(r"[?#]", whole, maxsplit=1)[0].replace("\\", "/")
    if not path or path.endswith("/"):
        return Located(None, reason="it names no picture")
    name = os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogateescape")))
    if "\0" in name:
        return Located(None, reason=f"{name!r} is no file's name", failed=True)
    file = root / name.lstrip("/") if name.startswith("/") else page.parent / name
    return _open_inside(file, root)


def _open_inside(file: Path, root: Path) -> Located:
    try:
        target, top = file.resolve(), root.resolve()
        inside = target.is_relative_to(top)
        exists = inside and target.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name that is too long
        return Located(None, reason=f"{str(file)!r} cannot be opened: {error}", failed=True)
    if not inside:
        # What it is, and whether it is there, is not said: that is outside.
        return Located(
            None,
            reason=f"it leads out of the site's folder {str(root)!r}, and is not opened. "
            "If it belongs to the site, name a folder above with --root",
            failed=True,
        )
    if not exists:
        return Located(
            None, reason=f"there is no file {os.path.relpath(target, top)!r} in {str(root)!r}", failed=True
        )
    return Located(target, key=str(target))


def _decode_data(address: str) -> Located:
    """Decodes a data: address (RFC 2397; WHATWG Fetch Standard, section 6)."""
    head, comma, body = address[5:].partition(",")
    kind, *parameters = (part.strip().lower() for part in head.split(";"))
    if kind == "image/svg+xml":
        return Located(None, reason="a drawing (SVG) cannot be captioned")
    if not comma or len(body) > MAX_DATA:
        return Located(None, reason="its data: address is damaged or too long", failed=True)
    data = unquote_to_bytes(body)
    if "base64" in parameters[-1:]:
        data = re.sub(rb"\s", b"", data)
        try:
            data = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            return Located(None, reason=f"its data: address is damaged: {error}", failed=True)
    return Located(data, key="data:" + hashlib.sha256(data).hexdigest())


def _join(base: str, address: str) -> str:
    """Resolves an address against a base without removing "..", which must not hide that it leads out of the site."""
    if _is_web(address):
        return address
    if _is_web(base):
        return urljoin(base, address)
    if address.startswith("/") or "/" not in base:
        return address
    return re.split(r"[?#]", base, maxsplit=1)[0].rpartition("/")[0] + "/" + address


def _is_web(address: str) -> bool:
    return address.startswith("//") or _SCHEME.match(address) is not None


def _is_drawing(address: str) -> bool:
    return re.split(r"[?#]", address, maxsplit=1)[0].lower().endswith((".svg", ".svgz"))


def _clean(address: str) -> str:
    """Removes what browsers ignore in an address (WHATWG URL Standard, section 4.4)."""
    return re.sub(r"[\t\n\r]", "", address.strip(" \t\n\f\r"))
