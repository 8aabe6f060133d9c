"""What the doctor found: numbers and problems, as a table for people and a dictionary for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from showtell.data.records import Problem
from showtell.errors import count

UNSPLIT = "no split"  # the name under which images without a split are counted
_SHOWN = 5  # problems of one kind that the table lists
_BAR = 40  # characters of the longest bar
_ROWS = 12  # rows of a histogram


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, middle and greatest of some numbers."""

    minimum: int
    median: float
    maximum: int

    @classmethod
    def of(cls, histogram: Mapping[int, int]) -> Spread:
        """Returns the spread of a histogram, number -> how often; zeros where it is empty."""
        values = sorted(number for number, count in histogram.items() if count)
        if not values:
            return cls(0, 0.0, 0)
        total = sum(histogram.values())
        lower, upper = _value_at(histogram, (total - 1) // 2), _value_at(histogram, total // 2)
        return cls(values[0], (lower + upper) / 2, values[-1])

    def to_dict(self) -> dict[str, float]:
        """Returns the three numbers by name."""
        return {"min": self.minimum, "median": self.median, "max": self.maximum}

    def __str__(self) -> str:
        return f"{self.minimum} / {self.median:g} / {self.maximum}"


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """One split."""

    images: int
    captions: int
    captions_per_image: Spread
    tokens_per_caption: Spread


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a vocabulary of the words that occur at least `min_count` times would hold."""

    min_count: int
    words: int
    coverage: Mapping[str, float]  # split -> share of its tokens that are in the vocabulary, 0..1


@dataclass(frozen=True, slots=True)
class VocabularySummary:
    """The words of the training captions."""

    counted_on: str  # "train", or "all captions" where there is no train split
    words: int  # distinct
    tokens: int  # running
    thresholds: tuple[Coverage, ...]


@dataclass(frozen=True)
class Report:
    """What is in a data set and what is wrong with it."""

    name: str  # of the data set
    format: str  # the reader's name
    splits: Mapping[str, SplitSummary]  # train, dev, test, "no split": those that there are
    captions_per_image: Mapping[int, int]  # captions -> images that have so many
    caption_lengths: Mapping[int, int]  # tokens -> captions of that length
    vocabulary: VocabularySummary
    decoded: bool  # whether the images were opened
    image_sizes: Mapping[tuple[int, int], int]  # (width, height), upright -> images; empty if not decoded
    duplicate_groups: int | None  # near-duplicates, also within a split; None if not looked for
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> int:
        """The number of problems that make the data wrong."""
        return sum(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> int:
        """The number of problems that one may live with."""
        return len(self.problems) - self.errors

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON-serialisable values under stable keys."""
        widths, heights = _sides(self.image_sizes)
        common = sorted(self.image_sizes.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
        return {
            "name": self.name,
            "format": self.format,
            "images": sum(split.images for split in self.splits.values()),
            "captions": sum(split.captions for split in self.splits.values()),
            "splits": {
                name: {
                    "images": split.images,
                    "captions": split.captions,
                    "captions_per_image": split.captions_per_image.to_dict(),
                    "tokens_per_caption": split.tokens_per_caption.to_dict(),
                }
                for name, split in self.splits.items()
            },
            "captions_per_image": _by_text(self.captions_per_image),
            "caption_lengths": _by_text(self.caption_lengths),
            "vocabulary": {
                "counted_on": self.vocabulary.counted_on,
                "words": self.vocabulary.words,
                "tokens": self.vocabulary.tokens,
                "thresholds": [
                    {"min_count": row.min_count, "words": row.words, "coverage": dict(row.coverage)}
                    for row in self.vocabulary.thresholds
                ],
            },
            "decoded": self.decoded,
            "image_sizes": {
                "width": Spread.of(widths).to_dict(),
                "height": Spread.of(heights).to_dict(),
                "most_common": [
                    {"width": size[0], "height": size[1], "images": images} for size, images in common
                ],
            },
            "duplicate_groups": self.duplicate_groups,
            "errors": self.errors,
            "warnings": self.warnings,
            "problems": [
                {
                    "kind": problem.kind,
                    "severity": problem.severity,
                    "where": problem.where,
                    "message": problem.message,
                }
                for problem in self.problems
            ],
        }

    def table(self) -> str:
        """Returns the report as plain text for people: tables, a histogram, and the problems by kind."""
        sections = [
            f"{self.name} ({self.format})",
            self._split_table(),
            self._captions_table(),
            _histogram("tokens per caption", self.caption_lengths),
            self._vocabulary_table(),
            self._images_text(),
            self._problems_text(),
        ]
        return "\n\n".join(section for section in sections if section)

    def _split_table(self) -> str:
        rows: list[Sequence[str]] = [
            (
                name,
                f"{split.images:,}",
                f"{split.captions:,}",
                str(split.captions_per_image),
                str(split.tokens_per_caption),
            )
            for name, split in self.splits.items()
        ]
        heads = ("split", "images", "captions", "captions per image", "tokens per caption")
        return _align(heads, rows) + "\n(least / median / most)"

    def _captions_table(self) -> str:
        """Captions per image, where images differ in it."""
        if len(self.captions_per_image) < 2:
            return ""
        return _histogram("captions per image", self.captions_per_image)

    def _vocabulary_table(self) -> str:
        vocabulary = self.vocabulary
        splits = list(vocabulary.thresholds[0].coverage) if vocabulary.thresholds else []
        rows = [
            (
                f">= {row.min_count}",
                f"{row.words:,}",
                *(f"{100 * row.coverage[name]:.2f} %" for name in splits),
            )
            for row in vocabulary.thresholds
        ]
        head = (
            f"vocabulary of {vocabulary.counted_on}: {vocabulary.words:,} words, {vocabulary.tokens:,} tokens"
        )
        if not rows:
            return head
        return f"{head}\n{_align(('count', 'words', *(f'{name} covered' for name in splits)), rows)}"

    def _images_text(self) -> str:
        if not self.decoded:
            return "images: not opened"
        widths, heights = _sides(self.image_sizes)
        decoded = sum(self.image_sizes.values())
        lines = [
            f"images: {decoded:,} decoded, width {Spread.of(widths)}, height {Spread.of(heights)} pixels"
        ]
        if self.duplicate_groups is None:
            lines.append("near-duplicates: not looked for")
        else:
            lines.append(f"near-duplicates: {count(self.duplicate_groups, 'group')}, within splits or across")
        return "\n".join(lines)

    def _problems_text(self) -> str:
        if not self.problems:
            return "no problems"
        kinds: dict[tuple[str, str], list[Problem]] = {}
        for problem in sorted(self.problems, key=lambda problem: problem.severity != "error"):
            kinds.setdefault((problem.severity, problem.kind), []).append(problem)
        lines = [f"{count(self.errors, 'error')}, {count(self.warnings, 'warning')}"]
        for (severity, kind), problems in kinds.items():
            lines.append(f"{severity}: {kind} ({len(problems):,})")
            lines += [f"    {problem.where}: {problem.message}" for problem in problems[:_SHOWN]]
            if len(problems) > _SHOWN:
                lines.append(f"    ... and {len(problems) - _SHOWN:,} more")
        return "\n".join(lines)


def _value_at(histogram: Mapping[int, int], position: int) -> int:
    """Returns the value at a position, from 0, of the sorted values that a histogram counts."""
    passed = 0
    for number in sorted(histogram):
        passed += histogram[number]
        if passed > position:
            return number
    return 0


def _sides(sizes: Mapping[tuple[int, int], int]) -> tuple[dict[int, int], dict[int, int]]:
    """Returns the histograms of widths and of heights."""
    widths: dict[int, int] = {}
    heights: dict[int, int] = {}
    for (width, height), images in sizes.items():
        widths[width] = widths.get(width, 0) + images
        heights[height] = heights.get(height, 0) + images
    return widths, heights


def _by_text(histogram: Mapping[int, int]) -> dict[str, int]:
    return {str(number): histogram[number] for number in sorted(histogram)}


def _align(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table: the first column to the left, the others to the right."""
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def _histogram(title: str, histogram: Mapping[int, int]) -> str:
    """Returns a histogram in text, in at most a dozen rows."""
    if not histogram:
        return ""
    first, last = min(histogram), max(histogram)
    # The tail is cut where one caption in five hundred is left, or an odd giant would flatten all the rest.
    total, passed, edge = sum(histogram.values()), 0, last
    for number in sorted(histogram):
        passed += histogram[number]
        if passed >= total * 0.998:
            edge = number
            break
    step = max(1, -(-(edge - first + 1) // _ROWS))
    rows: list[tuple[str, int]] = []
    for start in range(first, edge + 1, step):
        stop = start + step - 1
        count = sum(histogram.get(number, 0) for number in range(start, stop + 1))
        rows.append((str(start) if step == 1 else f"{start}-{stop}", count))
    beyond = total - sum(count for _, count in rows)
    if beyond:
        rows.append((f"{start + step}-{last}", beyond))
    most = max(count for _, count in rows)
    bars = [(label, f"{count:,}", "#" * round(_BAR * count / most)) for label, count in rows]
    label_width = max(len(label) for label, _, _ in bars)
    count_width = max(len(count) for _, count, _ in bars)
    lines = [f"{label:>{label_width}}  {count:>{count_width}}  {bar}".rstrip() for label, count, bar in bars]
    return "\n".join([title, *lines])
