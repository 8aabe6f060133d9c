"""Formulas of the documentation as MathML, which browsers draw by themselves: no script, no font, no request.

`$x_t$` within a line and a block fenced as `math` are LaTeX, as forges read it, too; latex2mathml translates.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.util import AtomicString


class _Inline(InlineProcessor):  # type: ignore[misc]  # markdown has no types
    """A formula between dollars; beside the inner side of either there is no space, as in "from $5 to $6"."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:  # noqa: N802
        mathml = convert(m.group(1))
        return AtomicString(self.md.htmlStash.store(mathml)), m.start(0), m.end(0)


class MathExtension(Extension):  # type: ignore[misc]
    """Adds formulas within lines to Python-Markdown."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Registers the pattern before that of backslashes, which LaTeX is full of, and after code."""
        md.inlinePatterns.register(
            _Inline(r"(?<![\\$\w])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?![\w$])", md), "math", 185
        )


def format_block(source: str, *_: Any, **__: Any) -> str:
    """Returns a block of formulas as MathML, for the fences of pymdownx.superfences."""
    # latex2mathml knows the environment by the name that it has outside of a formula.
    mathml = convert(source.replace("{aligned}", "{align*}"), display="block")
    return f'<div class="formula">{mathml}</div>'


def makeExtension(**options: Any) -> MathExtension:  # noqa: N802
    """What Python-Markdown asks a module for."""
    return MathExtension(**options)
