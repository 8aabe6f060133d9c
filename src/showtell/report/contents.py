"""What a report holds, before it is written as a page or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from showtell import __version__
from showtell.confidence import Reliability, Worth
from showtell.evaluation import EvaluationReport
from showtell.metrics import Difference
from showtell.report.mistakes import KINDS, Mistake
from showtell.report.people import People, shows_mistakes
from showtell.report.usage import Usage

RANKED_BY = "CIDEr"  # what makes a caption a good or a bad one
FORMAT = "showtell-report-1"  # of the JSON file


@dataclass(frozen=True)
class Pictured:
    """One image of the split."""

    id: str
    path: Path
    references: tuple[str, ...]
    thumbnail: bytes  # WebP, perhaps none
    size: tuple[int, int]  # of the thumbnail


@dataclass(frozen=True)
class LeftOut:
    """An image that is not in the scores."""

    id: str
    reason: str


@dataclass(frozen=True)
class LitWord:
    """One word of a caption, and where it came from."""

    word: str
    probability: float | None
    blind: float | None  # had the captioner not seen the picture
    picture: bytes  # WebP, lit where the word came from


@dataclass(frozen=True)
class Explained:
    """Why these words."""

    method: str  # "attention" or "occlusion"
    size: tuple[int, int]  # of the pictures
    words: tuple[LitWord, ...]


@dataclass(frozen=True)
class Judged:
    """One model on the split."""

    label: str
    evaluation: EvaluationReport
    mistakes: Mapping[str, tuple[Mistake, ...]]  # image id -> findings
    usage: Usage
    worth: Worth | None  # of its confidence; None where it has none
    probabilities: (
        Reliability | None
    )  # of the search's own probabilities of words; None where nothing was said
    explained: Mapping[str, Explained]  # image id -> why, of the worst and the best

    def count_mistakes(self, among: Collection[str] | None = None) -> dict[str, int]:
        """Returns kind -> images that have such a mistake, of all or of those with these ids."""
        counts = Counter(
            kind
            for identifier in (self.mistakes if among is None else among)
            for kind in {one.kind for one in self.mistakes[identifier]}
        )
        return {kind: counts[kind] for kind in KINDS}

    def rank(self) -> list[str]:
        """Returns the ids of all images, the worst caption first."""
        return rank_images(self.evaluation)


def rank_images(evaluation: EvaluationReport) -> list[str]:
    """Returns the ids of all images, the worst caption first."""
    scores = evaluation.per_image
    return sorted(scores, key=lambda identifier: scores[identifier][RANKED_BY])


@dataclass(frozen=True)
class Comparison:
    """One model against the first, on the same images."""

    label: str
    against: str
    differences: Mapping[str, Difference]
    gains: Mapping[str, float]  # image id -> its score by this model minus that by the first

    @property
    def wins(self) -> tuple[int, int, int]:
        """Images where this model's caption scores higher, equally, and lower."""
        above = sum(gain > 0 for gain in self.gains.values())
        below = sum(gain < 0 for gain in self.gains.values())
        return above, len(self.gains) - above - below, below

    def rank(self) -> list[str]:
        """Returns the ids of all images, those that lost most first."""
        return sorted(self.gains, key=lambda identifier: self.gains[identifier])


@dataclass(frozen=True)
class Report:
    """Models on one split of a data set."""

    dataset: str
    split: str
    images: tuple[Pictured, ...]
    left_out: tuple[LeftOut, ...]
    models: tuple[Judged, ...]
    comparisons: tuple[Comparison, ...]
    people: People  # how people do by the same measures
    examples: int  # worst and best images that are shown of each model
    trained: bool  # whether there is a training split beside the one that is looked at
    options: Mapping[
        str, str
    ]  # of the command: option -> what was given, files and folders by their names alone
    made: datetime  # in UTC

    def beside_people(self) -> list[str]:
        """Returns the ids of the images where mistakes of models can be compared with those of people."""
        return [image.id for image in self.images if shows_mistakes(image.references)]

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-serialisable values; each model's `evaluation` is what `showtell evaluate --output` writes."""
        return {
            "format": FORMAT,
            "showtell": __version__,
            "dataset": self.dataset,
            "split": self.split,
            "options": dict(self.options),
            "made": self.made.isoformat(timespec="seconds"),
            "images": len(self.images),
            "left_out": [asdict(one) for one in self.left_out],
            "rules": {key: {"title": kind.title, "rule": kind.rule} for key, kind in KINDS.items()},
            "people": self.people.to_dict(),
            "models": [_describe(model) for model in self.models],
            "comparisons": [
                {
                    "model": one.label,
                    "against": one.against,
                    "differences": {key: value.to_dict() for key, value in one.differences.items()},
                    "wins": dict(zip(("better", "equal", "worse"), one.wins)),
                    "gains": dict(one.gains),
                }
                for one in self.comparisons
            ],
        }


def _describe(model: Judged) -> dict[str, Any]:
    probabilities = model.probabilities
    return {
        "model": model.label,
        "evaluation": model.evaluation.to_dict(),
        "mistakes": {
            "images": model.count_mistakes(),
            "found": {
                identifier: [asdict(one) for one in found]
                for identifier, found in model.mistakes.items()
                if found
            },
        },
        "usage": model.usage.to_dict(),
        "confidence": None if model.worth is None else model.worth.to_dict(),
        "word_probabilities": None
        if probabilities is None
        else {**asdict(probabilities), "expected_error": probabilities.expected_error},
    }
