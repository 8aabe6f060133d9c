"""The first part of the page: what the tables behind it come to, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from showtell.errors import count
from showtell.metrics import Difference
from showtell.report.contents import RANKED_BY, Judged, Report
from showtell.report.markup import Content, Markup, element, join, percent
from showtell.report.mistakes import KINDS
from showtell.report.scores import compare_with_people
from showtell.report.words import AGREEING

_FREQUENT = 3  # kinds of mistakes that are named


def show_summary(report: Report) -> Markup:
    """Returns a sentence on what was looked at, and a few on each model."""
    models = [model.label for model in report.models]
    left_out = f", {len(report.left_out):,} left out" if report.left_out else ""
    compared = [
        f"{RANKED_BY} of {one.label} minus that of {one.against} is {_tell_difference(difference, report)}."
        for one in report.comparisons
        if (difference := one.differences.get(RANKED_BY))
    ]
    return join(
        element(
            "p",
            f"{count(len(report.images), 'image')}{left_out}; captions by {enumerate_words(models)}.",
        ),
        element("ul", [element("li", _sum_up(model, report)) for model in report.models]),
        [element("p", text) for text in compared],
        element(
            "p",
            "Mistakes are found by rules that compare words with words; shares are of captions, and what the same "
            "rules find in what people wrote stands beside them.",
            class_="soft",
        ),
    )


def describe_p(p_value: float, resamples: int) -> str:
    """Returns a p of `compare_paired`; the least that so many resamples can show is "at most" that."""
    least = 2 / (resamples + 1)
    digits = max(3, math.ceil(-math.log10(least)))
    if p_value <= least * (1 + 1e-9):
        return f"at most {min(1.0, math.ceil(least * 10**digits) / 10**digits):.{digits}f}"
    return f"{p_value:.{digits}f}"


def enumerate_words(words: Sequence[str]) -> str:
    """Returns "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def describe_shared(shared: Sequence[str]) -> str:
    """Returns on which images mistakes are compared with those of people, where it is not on all."""
    return f"on the {count(len(shared), 'image')} with {AGREEING + 1} references or more"


def _sum_up(model: Judged, report: Report) -> Markup:
    evaluation = model.evaluation
    interval = evaluation.intervals.get(RANKED_BY)
    bounds = f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]" if interval else ""
    beside = compare_with_people(report, evaluation)
    parts: list[Content] = [
        element("b", model.label),
        f": {RANKED_BY} {100 * evaluation.scores[RANKED_BY]:.1f}{bounds}",
        f", {beside}" if beside else None,
        f". {_count_mistakes(model, report)} {_calibrated(model)}",
    ]
    return join(parts)


def _count_mistakes(model: Judged, report: Report) -> str:
    captions = len(model.mistakes)
    having = sum(bool(found) for found in model.mistakes.values())
    people, shared = report.people, report.beside_people()
    share = percent(having / captions)
    if len(shared) == captions:
        share += _beside(people.mistaken)
    elif shared and people.mistaken is not None:
        ours = sum(bool(model.mistakes[identifier]) for identifier in shared) / len(shared)
        share += f" ({describe_shared(shared)} {percent(ours)}, people {percent(people.mistaken)})"
    has = "has" if having == 1 else "have"
    told = f"Of {count(captions, 'caption')}, {having:,} {has} a probable mistake, {share}"
    counts = {kind: images for kind, images in model.count_mistakes().items() if images}
    frequent = sorted(counts, key=lambda kind: -counts[kind])[:_FREQUENT]
    named = [
        f"{KINDS[kind].title.lower()} {percent(counts[kind] / captions, 1)}"
        f"{_beside(people.mistakes.get(kind), 1) if len(shared) == captions else ''}"
        for kind in frequent
    ]
    return f"{told}, most often {enumerate_words(named)}." if named else f"{told}."


def _beside(share: float | None, digits: int = 0) -> str:
    return "" if share is None else f" (people {percent(share, digits)})"


def _calibrated(model: Judged) -> str:
    if model.worth is None:
        said = any(captions[0].confidence is not None for captions in model.evaluation.captions.values())
        return "It says nothing." if said else "It does not say how sure it is."
    error = model.worth.captions.expected_error
    return f"Its confidence in a caption is off by {100 * error:.1f} percentage points on average."


def _tell_difference(difference: Difference, report: Report) -> str:
    interval = difference.interval
    p_value = describe_p(difference.p_value, report.models[0].evaluation.resamples)
    bounds = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * difference.value:+.1f} {bounds}, p {p_value}"
