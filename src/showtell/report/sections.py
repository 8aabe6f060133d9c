"""The parts of the page that speak of all images together, behind the scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from showtell.confidence import Reliability
from showtell.errors import count
from showtell.outputs.names import readable
from showtell.report.cards import Cards
from showtell.report.charts import Axis, Histogram, draw_histogram, draw_reliability
from showtell.report.contents import RANKED_BY, Comparison, Judged, Report
from showtell.report.markup import Content, Markup, element, join, percent, short, table
from showtell.report.mistakes import KINDS
from showtell.report.summary import describe_p, describe_shared
from showtell.report.usage import Preference, Usage
from showtell.text import tokenize

_FEW = 5  # captions that stand below a rule
_BINS = 20
_LONGEST = 40  # words; longer captions count as this
_RULES = (
    "The rules compare words with words; they see no picture and miss much. They are heuristics, for "
    "English. The column "
    "“people” says how often the same rule finds something in what people wrote, each caption judged "
    "by the others of its "
    "picture, where there are three or more: what a rule finds no more often than there is mostly a choice of words."
)
_TRAINING = (
    "The training data are the train split of the data that this report was made from. What a model learnt from other "
    "data is not known here."
)


def show_comparisons(report: Report, cards: Cards) -> Markup:
    """Returns each other model against the first, on the same images."""
    models = {model.label: model for model in report.models}
    parts = []
    for one in report.comparisons:
        pair = (models[one.against], models[one.label])
        ranked = one.rank()
        above, equal, below = one.wins
        better = [identifier for identifier in ranked[::-1] if one.gains[identifier] > 0][: report.examples]
        worse = [identifier for identifier in ranked if one.gains[identifier] < 0][: report.examples]
        parts += [
            element("h3", f"{one.label} against {one.against}"),
            _differences(one, report.models[0].evaluation.resamples) if one.differences else None,
            element(
                "p",
                f"By {RANKED_BY}, {one.label} is better on {above:,} images, worse on {below:,}, and equal on "
                f"{equal:,}.",
            ),
            element("h4", f"Where {one.label} gains most") if better else None,
            cards.compare(one, pair, better) if better else None,
            element("h4", f"Where {one.label} loses most") if worse else None,
            cards.compare(one, pair, worse) if worse else None,
        ]
    return join(parts)


def show_distributions(report: Report) -> Markup:
    """Returns how lengths, scores and confidences spread."""
    people = [len(tokenize(text)) for image in report.images for text in image.references]
    lengths = [[len(tokenize(text)) for text in _texts(model)] for model in report.models]
    scores = [[one[RANKED_BY] for one in model.evaluation.per_image.values()] for model in report.models]
    longest = min(_LONGEST, max(*people, *(max(values) for values in lengths)))
    edges = [place + 0.5 for place in range(-1, longest + 1)]
    length_axis = Axis("words in a caption", edges, [(at, str(at)) for at in range(0, longest + 1, 5)])
    # The few images far above all others would leave no room for the rest.
    usual = float(np.quantile(np.concatenate([np.asarray(values) for values in scores]), 0.98))
    halves = max(2, math.ceil(2 * usual))
    score_axis = Axis(
        f"{RANKED_BY}, times 100 (last bar: and above)",
        [place / 10 for place in range(5 * halves + 1)],
        [(part / 2, f"{50 * part}") for part in range(0, halves + 1, math.ceil(halves / 6))],
    )
    share_axis = Axis(
        "confidence of a caption",
        [place / _BINS for place in range(_BINS + 1)],
        [(part / 4, percent(part / 4)) for part in range(5)],
    )
    behind = Histogram.count(people, edges)
    parts: list[Content] = [
        element(
            "p",
            "In the charts of words, the bars are the model's captions, the line is what people wrote.",
            class_="soft",
        )
    ]
    for model, counted, scored in zip(report.models, lengths, scores):
        sure = [
            captions[0].confidence
            for captions in model.evaluation.captions.values()
            if captions[0].confidence is not None
        ]
        charts = [
            _spread(f"{model.label}: words in a caption", counted, length_axis, behind),
            _spread(f"{model.label}: {RANKED_BY} of an image", scored, score_axis, times=100),
        ]
        if sure:
            title = f"{model.label}: confidence of a caption, in percent"
            charts.append(_spread(title, sure, share_axis, times=100))
        parts.append(element("div", charts, class_="charts"))
        if not sure:
            parts.append(
                element(
                    "p",
                    f"{model.label} does not say how sure it is (",
                    element("code", "showtell calibrate"),
                    ").",
                    class_="soft",
                )
            )
    return join(parts)


def show_examples(report: Report, cards: Cards) -> Markup:
    """Returns the worst and the best images of each model, explained."""
    parts: list[Content] = [
        element(
            "p",
            "Each word stands below the picture lit where it came from: where the model looked (attention), or what "
            "makes the word less likely when it is hidden (occlusion, for models without attention). The number is how "
            "probable the word was; “unseen”, how probable it was without the picture: where both are alike, the word "
            "came from the language and not from the picture. A low score need not be a bad caption: people may have "
            "said the same in other words.",
            class_="soft",
        )
    ]
    for model in report.models:
        ranked = model.rank()
        for title, ids in (
            ("worst", ranked[: report.examples]),
            ("best", ranked[::-1][: report.examples]),
        ):
            parts += [
                element("h3", f"{model.label}: the {title} by {RANKED_BY}"),
                cards.explain(model, ids),
            ]
    return join(parts)


def show_mistakes(report: Report, cards: Cards) -> Markup:
    """Returns what the rules found, rule by rule."""
    counts = [model.count_mistakes() for model in report.models]
    images = len(report.images)
    shared = report.beside_people()
    labels = [model.label for model in report.models]
    header = ["Rule", *labels, "people"]
    beside: list[dict[str, int]] = []  # models where people are judged, if that is not everywhere
    if 0 < len(shared) < images:
        beside = [model.count_mistakes(shared) for model in report.models]
        where = describe_shared(shared)
        header = ["Rule", *labels, *(f"{label} {where}" for label in labels), f"people {where}"]
    rows = [
        [
            kind.title,
            *(
                join(
                    f"{found[key]:,} ({percent(found[key] / images, 1)}) ",
                    _show_button(key, number, model.label, found[key]) if found[key] else None,
                )
                for number, (model, found) in enumerate(zip(report.models, counts))
            ),
            *(percent(found[key] / len(shared), 1) for found in beside),
            percent(report.people.mistakes[key], 1) if key in report.people.mistakes else "–",
        ]
        for key, kind in KINDS.items()
    ]
    parts: list[Content] = [
        element("p", _RULES, class_="soft"),
        table("Images with a finding", header, rows),
    ]
    for key, kind in KINDS.items():
        inner: list[Content] = [element("p", kind.rule)]
        for model in report.models:
            lowest = [
                (identifier, one)
                for identifier in model.rank()
                for one in model.mistakes[identifier]
                if one.kind == key
            ][:_FEW]
            if not lowest:
                continue
            captions = model.evaluation.captions
            items = [
                element(
                    "li",
                    cards.link(identifier),
                    f" {captions[identifier][0].text} ",
                    element("em", one.reason),
                )
                for identifier, one in lowest
            ]
            inner += [element("h3", f"{model.label}, lowest {RANKED_BY} first"), element("ul", items)]
        parts.append(element("details", element("summary", kind.title), inner))
    return join(parts)


def show_usage(report: Report) -> Markup:
    """Returns how new captions are and how rich their words."""
    usages = [(model.label, model.usage) for model in report.models]
    rows = [
        ["Different captions", *(_part(one.distinct, one.captions) for _, one in usages)],
        [
            "Captions that stand in the training data, word for word",
            *(
                "unknown: no training split" if one.copied is None else _part(one.copied, one.captions)
                for _, one in usages
            ),
        ],
        ["Different words said", *(_part(one.words, one.vocabulary, "known") for _, one in usages)],
        ["Different words that people said", *(f"{one.people_words:,}" for _, one in usages)],
    ]
    parts: list[Content] = [
        element("p", _TRAINING, class_="soft") if report.trained else None,
        table("How new captions are, and how rich", ["Measure", *(label for label, _ in usages)], rows),
    ]
    for label, usage in usages:
        parts += [element("h3", label), element("div", _usage_tables(label, usage), class_="tables")]
    return join(parts)


def show_confidence(report: Report) -> Markup:
    """Returns whether probabilities and confidences mean what they say."""
    parts: list[Content] = [
        element(
            "p",
            "A word is supported if somebody who described the picture used it, too. In each chart, captions or words "
            "are sorted by what was predicted and parted into ten groups of one size; on the "
            "straight line, predictions "
            "would be true. On a split that the confidence was fitted on (",
            element("code", "showtell calibrate"),
            "), it looks a little better than it is.",
            class_="soft",
        )
    ]
    for model in report.models:
        charts = []
        if model.probabilities is not None:
            lines = [("raw", "probability of the search", model.probabilities)]
            if model.worth is not None:
                lines.append(("sure", "confidence", model.worth.words))
            charts.append(_reliable(f"{model.label}: words", lines))
        if model.worth is not None:
            charts.append(
                _reliable(f"{model.label}: captions", [("sure", "confidence", model.worth.captions)])
            )
        parts += [
            element("h3", model.label),
            element("div", charts, class_="charts")
            if charts
            else element("p", "It said nothing of any image."),
            None
            if model.worth is not None
            else element(
                "p",
                "This model does not say how sure it is; ",
                element("code", "showtell calibrate"),
                " teaches it.",
                class_="soft",
            ),
        ]
        if model.worth is not None:
            parts.append(
                element(
                    "p",
                    f"A supported word has a higher confidence than another one in "
                    f"{percent(model.worth.word_ranking)} of all "
                    "pairs (50 % by chance); confidence and support of captions correlate with "
                    f"{model.worth.caption_ranking:.2f} (Spearman).",
                )
            )
    return join(parts)


def show_left_out(report: Report) -> Markup:
    """Returns the images that are not in the scores."""
    rows = [[readable(one.id), one.reason] for one in report.left_out]
    title = f"{count(len(rows), 'image')} {'is' if len(rows) == 1 else 'are'} not in the scores"
    return table(title, ["Image", "Why"], rows)


def _differences(one: Comparison, resamples: int) -> Markup:
    rows = [
        [
            key,
            f"{100 * value.value:+.1f}",
            f"{100 * value.interval.low:+.1f} to {100 * value.interval.high:+.1f}",
            percent(value.better, 1),
            describe_p(value.p_value, resamples),
        ]
        for key, value in one.differences.items()
    ]
    header = ["Metric", "Difference", "95 % interval", "Better in so many resamples", "p"]
    return table(f"{one.label} minus {one.against}, times 100, paired bootstrap", header, rows)


def _spread(
    title: str, values: Sequence[float], axis: Axis, behind: Histogram | None = None, *, times: float = 1
) -> Markup:
    least, middle, most = (times * float(value) for value in np.quantile(values, [0, 0.5, 1]))
    mean = times * sum(values) / len(values)
    told = f"Mean {short(mean)}, median {short(middle)}, from {short(least)} to {short(most)}."
    chart = draw_histogram(Histogram.count(values, axis.edges), axis, f"{title}. {told}", behind=behind)
    return element("figure", element("figcaption", element("b", title), f" {told}"), chart)


def _reliable(title: str, lines: Sequence[tuple[str, str, Reliability]]) -> Markup:
    legend = [
        element("span", f"{name} (expected error {one.expected_error:.3f})", class_=f"key {kind}")
        for kind, name, one in lines
    ]
    told = f"{title}: " + "; ".join(
        f"{name}, expected calibration error {one.expected_error:.3f}" for _, name, one in lines
    )
    chart = draw_reliability(
        [(kind, one) for kind, _, one in lines], told, "predicted (across), supported (up)"
    )
    header = ["Group", *(column for _, name, _ in lines for column in (f"{name}: predicted", "supported"))]
    groups = max(len(one.counts) for _, _, one in lines)
    rows = [
        [
            str(place + 1),
            *(
                percent(values[place], 1) if place < len(values) else ""
                for _, _, one in lines
                for values in (one.predicted, one.observed)
            ),
        ]
        for place in range(groups)
    ]
    numbers = element("details", element("summary", "Numbers"), table(title, header, rows))
    return element("figure", element("figcaption", element("b", title), legend), chart, numbers)


def _usage_tables(label: str, usage: Usage) -> list[Markup]:
    known = usage.copied is not None
    favourites = [
        [one.caption or "–", f"{one.times:,}", *([f"{one.in_training:,}"] if known else [])]
        for one in usage.favourites
    ]
    header = ["Caption", "Times", *(["In training"] if known else [])]
    return [
        table(f"{label}: captions said again and again", header, favourites)
        if favourites
        else element(
            "p", f"No caption is said twice{', and none stands in the training data' if known else ''}."
        ),
        _preferences(f"{label}: words said more often than people do", usage.overused),
        _preferences(f"{label}: known words said less often than people do", usage.underused),
    ]


def _preferences(title: str, words: Sequence[Preference]) -> Markup:
    rows = [[one.word, percent(one.said, 1), percent(one.people, 1)] for one in words]
    return table(title, ["Word", "Captions", "References"], rows)


def _show_button(kind: str, model: int, label: str, images: int) -> Markup:
    title = KINDS[kind].title.lower()
    return element(
        "button",
        "Show",
        type="button",
        hidden=True,
        class_="show",
        data_kind=kind,
        data_model=model,
        aria_label=f"Show the {count(images, 'image')} of {label}: {title}",
    )


def _part(part: int, whole: int, of: str = "") -> str:
    share = f" ({percent(part / whole, 1)})" if whole else ""
    return f"{part:,} of {whole:,}{' ' + of if of else ''}{share}"


def _texts(model: Judged) -> list[str]:
    return [captions[0].text for captions in model.evaluation.captions.values()]
