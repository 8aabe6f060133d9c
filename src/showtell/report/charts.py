"""Pictures of numbers, as SVG inside the page: histograms, intervals and reliability diagrams.

Colours and fonts come from the page's style sheet, so charts are light or dark as the page is. Each has a sentence for
those who do not see it; the numbers themselves stand beside it in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from showtell.confidence import Reliability
from showtell.report.markup import Markup, element, join, percent, short

_WIDTH, _HEIGHT = 320, 180  # of a chart, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 18, 10, 34  # what axes take of it
_PLOT = (_WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
_INTERVAL = (150, 28)


@dataclass(frozen=True)
class Axis:
    """A horizontal axis."""

    title: str
    edges: Sequence[float]  # of the bins
    ticks: Sequence[tuple[float, str]]  # places on it, and what stands there


@dataclass(frozen=True)
class Histogram:
    """How values spread: shares of them between edges."""

    edges: tuple[float, ...]  # one more than shares
    shares: tuple[float, ...]

    @classmethod
    def count(cls, values: Sequence[float], edges: Sequence[float]) -> Histogram:
        """Counts values; those beyond the edges are in the first or the last bin."""
        inside = np.clip(np.asarray(values, dtype=np.float64), edges[0], edges[-1])
        counts: npt.NDArray[np.int64] = np.histogram(inside, bins=np.asarray(edges))[0]
        return cls(tuple(edges), tuple((counts / max(1, len(values))).tolist()))


def draw_histogram(spread: Histogram, axis: Axis, told: str, *, behind: Histogram | None = None) -> Markup:
    """Returns a chart of bars.

    Args:
        spread: what the bars show.
        axis: with the edges of the bars.
        told: for those who do not see it.
        behind: shown as a line, for comparison; it has the same edges.
    """
    low, high = spread.edges[0], spread.edges[-1]
    most = max(*spread.shares, *(behind.shares if behind else ()), 1e-9)
    top = _round_up(most)

    def x(value: float) -> float:
        return _LEFT + _PLOT[0] * (value - low) / (high - low)

    def y(share: float) -> float:
        return _TOP + _PLOT[1] * (1 - share / top)

    parts = [_draw_frame(axis.title, [(x(value), text) for value, text in axis.ticks], top, y)]
    for begin, end, share in zip(spread.edges, spread.edges[1:], spread.shares):
        if share:
            parts.append(
                element(
                    "rect",
                    class_="bar",
                    x=short(x(begin) + 0.5),
                    y=short(y(share)),
                    width=short(max(0.5, x(end) - x(begin) - 1)),
                    height=short(_TOP + _PLOT[1] - y(share)),
                )
            )
    if behind is not None:
        steps = [
            f"{short(x(edge))},{short(y(share))}"
            for begin, end, share in zip(behind.edges, behind.edges[1:], behind.shares)
            for edge in (begin, end)
        ]
        parts.append(element("polyline", class_="behind", points=" ".join(steps)))
    return _svg(parts, told)


def draw_reliability(lines: Sequence[tuple[str, Reliability]], told: str, axis: str) -> Markup:
    """Returns a chart of what was predicted against what was true, a line with its own marks for each of the given.

    Args:
        lines: the class of the line ("sure" or "raw") and what it shows.
        told: for those who do not see it.
        axis: what is on the horizontal axis.
    """

    def x(value: float) -> float:
        return _LEFT + _PLOT[0] * value

    def y(value: float) -> float:
        return _TOP + _PLOT[1] * (1 - value)

    parts = [
        _draw_frame(axis, [(x(value), percent(value)) for value in (0, 0.5, 1)], 1.0, y),
        element("line", class_="even", x1=short(x(0)), y1=short(y(0)), x2=short(x(1)), y2=short(y(1))),
    ]
    for kind, one in lines:
        points = [(short(x(a)), short(y(b))) for a, b in zip(one.predicted, one.observed)]
        parts.append(element("polyline", class_=kind, points=" ".join(f"{a},{b}" for a, b in points)))
        parts += [element("circle", class_=kind, cx=a, cy=b, r=3.5) for a, b in points]
    return _svg(parts, told)


def draw_interval(
    value: float, low: float, high: float, top: float, *, people: float | None = None
) -> Markup:
    """Returns a small line from low to high with a mark at the value, on a scale from 0 to `top`, in hundredths.

    It is hidden from screen readers: the numbers stand beside it.

    Args:
        value: where the mark is.
        low: of the interval.
        high: of the interval.
        top: the end of the scale; the same in all that are compared.
        people: where people stand, a line across.
    """
    width, height = _INTERVAL

    def x(place: float) -> str:
        return short(4 + (width - 8) * min(1.0, max(0.0, place / top)))

    middle, below = 8, height - 2
    return element(
        "svg",
        element("line", class_="track", x1=4, x2=width - 4, y1=middle, y2=middle),
        element("line", class_="interval", x1=x(low), x2=x(high), y1=middle, y2=middle),
        None if people is None else element("line", class_="people", x1=x(people), x2=x(people), y1=1, y2=15),
        element("circle", class_="value", cx=x(value), cy=middle, r=3),
        element("text", "0", x=4, y=below, text_anchor="start"),
        element("text", short(100 * top), x=width - 4, y=below, text_anchor="end"),
        class_="small",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        aria_hidden="true",
    )


def _draw_frame(
    axis: str, ticks: Sequence[tuple[float, str]], top: float, y: Callable[[float], float]
) -> Markup:
    base = _TOP + _PLOT[1]
    parts = []
    for share in (0, top / 2, top):
        level = short(y(share))
        parts.append(element("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=level, y2=level))
        text = percent(share) if top >= 0.05 or share in (0, top) else ""
        parts.append(element("text", text, x=_LEFT - 5, y=short(y(share) + 4), text_anchor="end"))
    for at, text in ticks:
        parts.append(element("text", text, x=short(at), y=base + 14, text_anchor="middle"))
    parts.append(
        element("text", axis, class_="axis", x=_LEFT + _PLOT[0] / 2, y=_HEIGHT - 4, text_anchor="middle")
    )
    return join(parts)


def _svg(parts: Sequence[Markup], told: str) -> Markup:
    return element(
        "svg", parts, class_="chart", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=told
    )


def _round_up(share: float) -> float:
    steps = (0.02, 0.04, 0.06, 0.1, 0.16, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    return next((step for step in steps if step >= share), 1.0)
