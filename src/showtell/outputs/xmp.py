"""XMP sidecars: the description of an image in a file that photo programs read, everything else in it untouched.

The description is `dc:description` in the language "x-default" (XMP specification part 1, section 8.3, and part 2,
section 2.2.1). lxml keeps prefixes, comments, processing instructions and all other properties as they were.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from showtell.errors import SidecarError

if TYPE_CHECKING:
    from lxml import etree

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_DEFAULT = "x-default"
_EMPTY = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
    f'<rdf:Description rdf:about="" xmlns:dc="{_DC}"/></rdf:RDF></x:xmpmeta>'
).encode()
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_description(content: bytes) -> str | None:
    """Returns the description in an XMP file, or None where it has none.

    Raises:
        SidecarError: it is no XMP.
    """
    root = _parse(content)
    entry = _default_entry(root)
    if entry is not None:
        return entry.text or ""
    for element in root.iter(f"{{{_RDF}}}Description"):
        if f"{{{_DC}}}description" in element.attrib:
            return str(element.attrib[f"{{{_DC}}}description"])
    found = root.find(f".//{{{_RDF}}}Description/{{{_DC}}}description")
    plain = "" if found is None else (found.text or "").strip()
    return plain or None


def set_description(content: bytes | None, description: str) -> bytes:
    """Returns an XMP file with this description.

    Args:
        content: of the file that is there, whose other properties stay; None makes a new one.
        description: in the language "x-default"; descriptions in other languages stay.

    Raises:
        SidecarError: `content` is no XMP.
    """
    from lxml import etree

    root = _parse(_EMPTY if content is None else content)
    text = _NOT_IN_XML.sub("\ufffd", description)
    entry = _default_entry(root)
    if entry is None:
        entry = _new_entry(root)
    entry.text = text
    if content is None:
        etree.indent(root)
    # The tree, not the root: packet markers stand around it.
    return bytes(etree.tostring(root.getroottree(), encoding="UTF-8", xml_declaration=False)) + b"\n"


def _parse(content: bytes) -> etree._Element:
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise SidecarError(f"it is not XML ({error})") from None
    if root.tag != f"{{{_RDF}}}RDF" and root.find(f".//{{{_RDF}}}RDF") is None:
        raise SidecarError("it is XML, but not XMP: it has no rdf:RDF")
    return root


def _default_entry(root: etree._Element) -> etree._Element | None:
    entries = root.iterfind(f".//{{{_RDF}}}Description/{{{_DC}}}description/{{{_RDF}}}Alt/{{{_RDF}}}li")
    return next((entry for entry in entries if entry.get(_LANGUAGE) == _DEFAULT), None)


def _new_entry(root: etree._Element) -> etree._Element:
    from lxml import etree

    described = root.find(f".//{{{_RDF}}}Description/{{{_DC}}}description/..")
    if described is None:
        described = root.find(f".//{{{_RDF}}}Description")
    if described is None:
        block: Any = root if root.tag == f"{{{_RDF}}}RDF" else root.find(f".//{{{_RDF}}}RDF")
        described = etree.SubElement(block, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""})
    for element in root.iter(f"{{{_RDF}}}Description"):
        element.attrib.pop(f"{{{_DC}}}description", None)  # a form that XMP does not have for it
    description = described.find(f"{{{_DC}}}description")
    if description is None:
        description = etree.SubElement(described, f"{{{_DC}}}description", nsmap={"dc": _DC})
    alternatives = description.find(f"{{{_RDF}}}Alt")
    if alternatives is None:
        description.text = None
        alternatives = etree.SubElement(description, f"{{{_RDF}}}Alt")
    entry = etree.Element(f"{{{_RDF}}}li", {_LANGUAGE: _DEFAULT})
    alternatives.insert(0, entry)  # the default comes first (part 1, section 8.2.2.4)
    return entry
