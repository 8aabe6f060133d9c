"""The scores on the page: with intervals, beside what people reach, and with what to know before they are believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from showtell.evaluation import EvaluationReport
from showtell.report.charts import draw_interval
from showtell.report.contents import RANKED_BY, Report
from showtell.report.markup import Content, Markup, element, join, percent, table

_TENTHS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def show_scores(report: Report) -> Markup:
    """Returns scores with intervals, what people reach, and the plain facts of each model."""
    evaluations = [model.evaluation for model in report.models]
    labels = [model.label for model in report.models]
    resamples = evaluations[0].resamples
    notes = dict.fromkeys(note for evaluation in evaluations for note in evaluation.notes)
    return join(
        _tabulate(report),
        _explain_people(report),
        element(
            "p",
            "An interval says where the score would lie with other images of this kind; it is a bootstrap over images "
            f"({resamples:,} resamples). What another training run would change is not in it. All bars have one scale"
            f"{'; the line across is what people reach' if report.people.scores else ''}.",
            class_="soft",
        )
        if resamples
        else None,
        _explain_overlap(report),
        [element("p", note, class_="note") for note in notes],
        table("The models", ["Fact", *labels], _list_facts(evaluations)),
    )


def compare_with_people(report: Report, evaluation: EvaluationReport) -> str | None:
    """Returns a model's CIDEr beside that of people, on the same images, in words; None where theirs is not known."""
    reached = report.people.scores.get(RANKED_BY)
    if not reached:
        return None
    shared = [image.id for image in report.images if len(image.references) > 1]
    share = fmean(evaluation.per_image[identifier][RANKED_BY] for identifier in shared) / reached
    if share > 1.05:
        return "more than what people reach among themselves"
    if share > 0.95:
        return "about what people reach among themselves"
    tenths = min(9, round(10 * share))
    if tenths == 0:
        return "next to nothing of what people reach among themselves"
    if tenths == 5:
        return "about half of what people reach among themselves"
    return f"about {_TENTHS[tenths - 1]} {'tenth' if tenths == 1 else 'tenths'} of what people reach among themselves"


def _tabulate(report: Report) -> Markup:
    people = report.people.scores
    evaluations = [model.evaluation for model in report.models]
    reached = [_reach(one, key) for one in evaluations for key in one.scores]
    top = max(0.2, math.ceil(5 * max(reached + list(people.values()))) / 5)
    rows = [
        [
            key,
            *(_score(one, key, top, people.get(key)) for one in evaluations),
            *([f"{100 * people[key]:.1f}"] if people else []),
        ]
        for key in evaluations[0].scores
    ]
    header = ["Metric", *(model.label for model in report.models), *(["people"] if people else [])]
    caption = "Scores, times 100" + (", with 95 % intervals" if evaluations[0].resamples else "")
    return table(caption, header, rows)


def _explain_people(report: Report) -> Markup:
    people = report.people
    if not people.images:
        return element(
            "p",
            "What people reach is not known: no image has two references, so nobody can be judged by the others.",
            class_="soft",
        )
    compared = [(model.label, compare_with_people(report, model.evaluation)) for model in report.models]
    models = "; ".join(f"{RANKED_BY} of {label} is {words}" for label, words in compared if words)
    of = (
        "each image"
        if people.images == len(report.images)
        else f"each image that has two or more ({people.images:,} of {len(report.images):,}; where models are compared "
        "with people in words, it is on these)"
    )
    return element(
        "p",
        f"“People” is one reference of {of}, drawn by chance and judged by the others, as if a "
        "model had written it. They are judged by one reference fewer than the models, so their scores stand a little "
        "lower than they would beside the models'.",
        f" {models}." if models else None,
        f" To reach more {RANKED_BY} than people is not to write better: it rewards words that most people would "
        "choose.",
    )


def _explain_overlap(report: Report) -> Markup | None:
    """Returns why nobody knows of copies of training pictures; None where they were looked for."""
    if report.models[0].evaluation.overlap is not None:
        return None
    if report.split == "train":
        text = (
            "These are images of the training split: on pictures that a model has not seen, it may do worse."
        )
    elif report.trained:
        text = (
            "Nobody looked for copies of training pictures among these images; where there are some, the scores are "
            "too high."
        )
    else:
        text = (
            "The data have no training split, so copies of training pictures could not be looked for. If a model was "
            "trained on some of these pictures, its scores are too high."
        )
    return element("p", text, class_="note")


def _list_facts(evaluations: Sequence[EvaluationReport]) -> list[list[Content]]:
    facts: list[list[Content]] = [["Images", *(f"{len(one.captions):,}" for one in evaluations)]]
    shared = evaluations[0].overlap
    if shared is not None:
        facts.append(["Images that training has, too", *[f"{len(shared.copies):,}"] * len(evaluations)])
        if shared.copies and shared.scores:
            without = [
                f"{100 * one.overlap.scores[RANKED_BY]:.1f}" if one.overlap else "" for one in evaluations
            ]
            facts.append([f"{RANKED_BY} without them", *without])
    return [
        *facts,
        ["Search", *(_search(one) for one in evaluations)],
        ["Words of the references that it knows", *(percent(one.coverage, 1) for one in evaluations)],
        ["Digest", *(element("code", one.bundle_digest[:12]) for one in evaluations)],
    ]


def _score(evaluation: EvaluationReport, key: str, top: float, people: float | None) -> Markup:
    value = evaluation.scores[key]
    interval = evaluation.intervals.get(key)
    if interval is None:
        return element("b", f"{100 * value:.1f}")
    return join(
        element("b", f"{100 * value:.1f}"),
        f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}] ",
        draw_interval(value, interval.low, interval.high, top, people=people),
    )


def _reach(evaluation: EvaluationReport, key: str) -> float:
    interval = evaluation.intervals.get(key)
    return max(evaluation.scores[key], interval.high if interval else 0.0)


def _search(evaluation: EvaluationReport) -> str:
    settings = evaluation.settings
    parts = [f"beam of {settings.beam}" if settings.method == "beam" else settings.method]
    if settings.consensus:
        parts.append(f"consensus {settings.consensus:g}")
    return ", ".join(parts)
