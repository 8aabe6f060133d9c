"""Results on paper: reads the JSON lines that benchmarks have printed, draws each, and writes the table of the README.

    python -m benchmarks caption >> results.jsonl
    python -m benchmarks report results.jsonl

Of several lines of one benchmark the last one counts, so a file may be added to and reported on again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sides import ROOT, note

PLOTS = ROOT / "docs" / "images" / "benchmarks"
README = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
HEAD = "| benchmark | measure | value | at least / at most | reached |\n|---|---|---|---|---|"
OURS, THEIRS = "#1f6f8b", "#b8bfc4"
Line = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Draws one PNG per benchmark and rewrites the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, help="files of JSON lines")
    parser.add_argument("--plots", type=Path, default=PLOTS, help="folder of the PNG files")
    parser.add_argument("--readme", type=Path, default=README, help="file that holds the table")
    arguments = parser.parse_args(argv)
    lines = read_lines(arguments.results)
    arguments.plots.mkdir(parents=True, exist_ok=True)
    plots = []
    for line in lines:
        path = arguments.plots / f"{line['benchmark']}.png"
        if draw(line, path):
            plots.append(path)
        note(f"{path}" if path in plots else f"{line['benchmark']}: nothing that can be drawn")
    write_table(lines, arguments.readme, plots)
    note(f"{arguments.readme}")
    return 0


def read_lines(paths: Iterable[Path]) -> list[Line]:
    """Returns the last line of each benchmark, in the order in which they first come."""
    found: dict[str, Line] = {}
    for path in paths:
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
                found[line["benchmark"]] = line
            except (ValueError, KeyError, TypeError):
                raise SystemExit(f"benchmarks: {path}, line {number}: not a line of a benchmark") from None
    return list(found.values())


def write_table(lines: Sequence[Line], readme: Path, plots: Sequence[Path] = ()) -> None:
    """Puts the table of targets, what it was measured on, and the plots between the two marks of a Markdown file."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"benchmarks: {readme} has no {BEGIN} ... {END} to put the table between")
    rows = [row for line in lines for row in table_rows(line)]
    pictures = [
        f"![{path.stem}]({Path(os.path.relpath(path.resolve(), readme.resolve().parent)).as_posix()})"
        for path in plots
    ]
    parts = [begin, "", HEAD, *rows, "", describe_setting(lines), "", *pictures, "", end]
    readme.write_text(before + "\n".join(parts) + after, encoding="utf-8")


def table_rows(line: Line) -> list[str]:
    """Returns a row per target of a line."""
    verdicts = {True: "yes", False: "no", None: "does not apply here"}
    rows = []
    for target in line.get("targets", []):
        limit = (
            f">= {target['at_least']:g}"
            if "at_least" in target
            else f"<= {target.get('at_most', math.nan):g}"
        )
        verdict = verdicts[target["reached"]]
        rows.append(
            f"| `{line['benchmark']}` | {target['what']} | {target['value']:.3g} | {limit} | {verdict} |"
        )
    return rows


def describe_setting(lines: Sequence[Line]) -> str:
    """Returns one sentence on the machine and the versions; the lines should agree on them."""
    machines = {
        f"{line['machine']['processor']}, {line['machine']['cores']} cores, {' '.join(line['machine']['flags'])}"
        for line in lines
    }
    versions = {name: number for line in lines for name, number in line.get("versions", {}).items()}
    loads = [line["machine"]["load"] for line in lines]
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    load = f"{min(loads):g} to {max(loads):g}"
    return f"Measured on: {'; '.join(sorted(machines))}. Load while measuring: {load}. Versions: {named}."


def draw(line: Line, path: Path) -> bool:
    """Draws a line as a PNG file; returns False where there is nothing to draw."""
    from matplotlib.figure import Figure

    label, bars = gather_bars(line)
    if bars:
        figure = Figure(figsize=(7.0, 1.6 + 0.5 * len(bars)), layout="constrained")
        _draw_bars(figure.subplots(), label, bars)
    elif "by_number_of_images" in line:
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        _draw_growth(figure.subplots(1, 2), line["by_number_of_images"])
    else:
        return False
    figure.suptitle(f"{line['benchmark']}: {_headline(line)}".rstrip(": "), fontsize=10)
    figure.savefig(path, dpi=110)
    return True


def gather_bars(line: Line) -> tuple[str, dict[str, Any]]:
    """Returns what the bars of a line mean, and for each its median, quartiles and rounds.

    A line has sides, or sizes of pictures with sides for each; a side says units per second, or else seconds.
    """
    groups = {f"{size}, ": group for size, group in line.get("sizes", {}).items()} or {"": line}
    sides = {
        f"{prefix}{name}": side
        for prefix, group in groups.items()
        for name, side in group.get("sides", {}).items()
    }
    key = f"{line['unit']}_per_second" if "unit" in line else "seconds"
    return key.replace("_", " "), {name: side[key] for name, side in sides.items() if key in side}


def _draw_bars(axes: Any, label: str, bars: dict[str, Any]) -> None:
    """The median, with the quartiles as whiskers."""
    medians = [bar["median"] for bar in bars.values()]
    below = [max(0.0, bar["median"] - bar["quartiles"][0]) for bar in bars.values()]
    above = [max(0.0, bar["quartiles"][1] - bar["median"]) for bar in bars.values()]
    ours = ("showtell", "together")
    colours = [OURS if name.rpartition(", ")[2] in ours else THEIRS for name in bars]
    drawn = axes.barh(list(bars), medians, xerr=(below, above), color=colours, capsize=3)
    axes.bar_label(drawn, [f"{median:.3g}" for median in medians], padding=6)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"{label} (median and quartiles of the rounds)")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_growth(panels: Any, stages: dict[str, dict[str, Any]]) -> None:
    """Two panels over the number of images: cost of each image, and peak memory."""
    for axes, key, label in (
        (panels[0], "milliseconds_per_image", "milliseconds per image"),
        (panels[1], "peak_rss_mb", "peak resident memory, MB"),
    ):
        for stage, by_count in stages.items():
            counts = sorted(by_count, key=int)
            values = [by_count[count][key] for count in counts]
            axes.plot([int(count) for count in counts], values, marker="o", label=stage)
        measured = sorted({int(count) for by_count in stages.values() for count in by_count})
        axes.set_xscale("log")
        axes.set_xticks(measured, [f"{count:,}" for count in measured])
        axes.set_xticks([], minor=True)
        most = max(by_count[count][key] for by_count in stages.values() for count in by_count)
        axes.set_ylim(0.0, 1.08 * most)
        axes.set_xlabel("images")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)


def _headline(line: Line) -> str:
    """Returns the figure that the line is about, in words."""
    targets = line.get("targets", [])
    return f"{targets[0]['value']:.3g} {targets[0]['what']}" if targets else ""


if __name__ == "__main__":
    raise SystemExit(main())
