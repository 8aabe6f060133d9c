"""HTML that is built, not pasted: text is escaped unless it is markup, so no caption or file name can break out."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from typing import TypeAlias

from showtell.outputs.names import one_line

_VOID = frozenset({"img", "input", "meta", "link", "br"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content: TypeAlias = "str | Markup | Iterable[Content] | None"


def element(tag: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Markup:
    """Returns one element.

    Args:
        tag: its name.
        content: text, which is escaped, markup, which is not, or several of both; None is nothing.
        attributes: `class_` is class, `data_x` is data-x; True is one without a value, None and False are none.
    """
    written = [tag]
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        if value is True:
            written.append(name)
        elif value is not None and value is not False:
            written.append(f'{name}="{_escape(str(value))}"')
    opening = f"<{' '.join(written)}>"
    return Markup(opening if tag in _VOID else f"{opening}{join(*content)}</{tag}>")


def join(*content: Content) -> Markup:
    """Returns text, which is escaped, and markup, which is not, behind each other."""
    parts: list[str] = []
    for one in content:
        if isinstance(one, Markup):
            parts.append(one)
        elif isinstance(one, str):
            parts.append(_escape(one))
        elif one is not None:
            parts.append(join(*one))
    return Markup("".join(parts))


def picture(data: bytes, size: tuple[int, int], alt: str) -> Markup:
    """Returns an image whose WebP is in the page; it is decoded when it is seen."""
    source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    return element(
        "img", src=source, alt=alt, width=size[0], height=size[1], loading="lazy", decoding="async"
    )


def percent(share: float, digits: int = 0) -> str:
    """Returns a share in percent; what is above 0 and would be written as 0 is "<1 %"."""
    if 0 < share < 0.005 and not digits:
        return "<1\u00a0%"
    return f"{100 * share:.{digits}f}\u00a0%"


def short(value: float) -> str:
    """Returns a number with one decimal at most: 0.000222 is "0", 406.28 "406.3"."""
    return f"{value:.1f}".removesuffix(".0")


def table(caption: str, header: Iterable[Content], rows: Iterable[Iterable[Content]]) -> Markup:
    """Returns a table whose first column heads its rows; where it is too wide, it can be scrolled by keyboard, too."""
    head = element("tr", [element("th", cell, scope="col") for cell in header])
    body = [
        element(
            "tr",
            [
                element("td", cell) if place else element("th", cell, scope="row")
                for place, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    inner = element("table", element("caption", caption), element("thead", head), element("tbody", body))
    return element("div", inner, class_="wide", role="region", tabindex=0, aria_label=caption)


def _escape(text: str) -> str:
    return html.escape(one_line(text, restorable=False))
