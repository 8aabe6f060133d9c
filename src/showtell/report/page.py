"""A report as one HTML page that holds all it needs: pictures, style and script.

It asks the network for nothing. Its own content security policy forbids it, and names its style and its script by their
digests, so that nothing else can run, whatever stands in a caption or in a file name.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib.resources import files

from showtell import __version__
from showtell.report.cards import Cards
from showtell.report.contents import RANKED_BY, Report
from showtell.report.markup import Markup, element, join
from showtell.report.mistakes import KINDS
from showtell.report.scores import show_scores
from showtell.report.sections import (
    show_comparisons,
    show_confidence,
    show_distributions,
    show_examples,
    show_left_out,
    show_mistakes,
    show_usage,
)
from showtell.report.summary import enumerate_words, show_summary


def write_page(report: Report) -> str:
    """Returns the page."""
    style, script = (
        Markup(f"\n{files('showtell.report').joinpath(name).read_text(encoding='utf-8')}")
        for name in ("page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = f"Captions of {report.dataset}, {report.split}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", style),
    )
    sections = list(_list_sections(report))
    links = [element("li", element("a", heading, href=f"#{key}")) for key, heading, _ in sections]
    body = element(
        "body",
        element("a", "Skip to the images", href="#images", class_="skip"),
        element(
            "header",
            element("h1", title),
            element("nav", element("ul", links), aria_label="Parts of the report"),
        ),
        element(
            "main",
            [
                element(
                    "section",
                    element("h2", heading, id=key, tabindex=-1),
                    content,
                    aria_labelledby=key,
                )
                for key, heading, content in sections
            ],
        ),
        element("footer", _draw_foot(report)),
        element("script", script),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _list_sections(report: Report) -> Iterator[tuple[str, str, Markup]]:
    cards = Cards(report)
    yield "summary", "Summary", show_summary(report)
    yield "scores", "Scores", show_scores(report)
    if report.comparisons:
        yield "comparison", "Comparison", show_comparisons(report, cards)
    yield "distributions", "Distributions", show_distributions(report)
    yield "examples", "Worst and best", show_examples(report, cards)
    yield "mistakes", "Probable mistakes", show_mistakes(report, cards)
    yield "usage", "Novelty and vocabulary", show_usage(report)
    yield "confidence", "Confidence", show_confidence(report)
    if report.left_out:
        yield "left-out", "Left out", show_left_out(report)
    yield (
        "images",
        "All images",
        join(_draw_filter(report), element("div", cards.list_all(), class_="cards")),
    )


def _draw_foot(report: Report) -> Markup:
    """Returns where the report comes from."""
    models = enumerate_words([model.label for model in report.models])
    options = [
        element("li", element("code", f"{key} {value}".rstrip())) for key, value in report.options.items()
    ]
    return join(
        element(
            "p",
            f"Written by Showtell {__version__} on {report.made:%Y-%m-%d} (UTC), of {models} on {report.dataset}, "
            f"split {report.split}. The same numbers are in report.json.",
            class_="soft",
        ),
        element("details", element("summary", "Options of the command"), element("ul", options))
        if options
        else None,
    )


def _draw_filter(report: Report) -> Markup:
    """Returns the form that the script makes use of; without it, it stays hidden, and all images are there."""
    labels = [model.label for model in report.models]
    kinds = [("", "all images"), ("any", "any finding"), ("none", "no finding")]
    kinds += [(key, kind.title) for key, kind in KINDS.items()]
    orders = [("", "as in the data set")]
    orders += [
        (f"{key}|{number}", f"{text}{_of(label, labels)}")
        for number, label in enumerate(labels)
        for key, text in (
            ("worst", f"lowest {RANKED_BY} first"),
            ("best", f"highest {RANKED_BY} first"),
            ("unsure", "least confident first"),
        )
    ]
    for one in report.comparisons:
        pair = f"{labels.index(one.label)}|{labels.index(one.against)}"
        orders.append((f"gain|{pair}", f"{one.label} gains most on {one.against}"))
        orders.append((f"loss|{pair}", f"{one.label} loses most to {one.against}"))
    models = [("", "any model"), *((str(number), label) for number, label in enumerate(labels))]
    return element(
        "form",
        element("label", "Find words ", element("input", type="search", id="words", autocomplete="off")),
        element("label", "Findings ", _choose("kind", kinds)),
        element("label", "Findings in captions of ", _choose("model", models)) if len(labels) > 1 else None,
        element("label", "Order ", _choose("order", orders)),
        element("button", "Show all", type="reset"),
        element("p", "", id="shown", role="status"),
        id="filter",
        hidden=True,
        aria_label="Filter the images",
    )


def _choose(identifier: str, options: list[tuple[str, str]]) -> Markup:
    return element("select", [element("option", text, value=value) for value, text in options], id=identifier)


def _of(label: str, labels: list[str]) -> str:
    return f" ({label})" if len(labels) > 1 else ""


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
