"""What people reach by the same measures, each judged by the others of the same picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from showtell.metrics import CorpusIdf, score
from showtell.report.mistakes import KINDS, find_mistakes
from showtell.report.nouns import Nouns
from showtell.report.words import AGREEING
from showtell.text import tokenize

_SEED = 0  # of the draw of one caption of each picture


@dataclass(frozen=True)
class People:
    """How people do where models are judged; nothing is known of them where no image has two references."""

    images: int = 0  # those with two references or more
    scores: Mapping[str, float] = field(default_factory=dict)  # coco-caption's keys, of one caption an image
    judged: int = 0  # images where the rules look at what people wrote: those that `shows_mistakes`
    mistakes: Mapping[str, float] = field(default_factory=dict)  # kind -> share of the references with one
    mistaken: float | None = None  # share of the references with a mistake of any kind

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-serialisable values."""
        return asdict(self)


def shows_mistakes(references: Sequence[str]) -> bool:
    """Returns whether all rules can find something in what people wrote.

    Without the caption that is judged, so many must be left as have to agree by most rules.
    """
    return len(references) > AGREEING


def judge_people(
    references: Mapping[str, Sequence[str]],
    nouns: Nouns,
    *,
    metrics: Sequence[str],
    corpus_idf: CorpusIdf | None = None,
) -> People:
    """Judges people's own captions as those of models are judged, each by the others of its picture.

    The rules look at every caption of the images that `shows_mistakes`. The metrics look at one of each picture, drawn
    with a fixed seed: people differ in how they write, and data sets may list one writer first.

    Args:
        references: image id -> captions.
        nouns: that the rules tell from other words.
        metrics: as for `showtell.metrics.score`.
        corpus_idf: document frequencies for CIDEr; by default those of all references, as for models.
    """
    several = {identifier: list(own) for identifier, own in references.items() if len(own) > 1}
    if not several:
        return People()
    counts: Counter[str] = Counter()
    written = mistaken = 0
    judged = [own for own in several.values() if shows_mistakes(own)]
    for own in judged:
        words = [tokenize(text) for text in own]
        for place, caption in enumerate(words):
            found = find_mistakes(caption, [*words[:place], *words[place + 1 :]], nouns)
            counts.update({mistake.kind for mistake in found})
            mistaken += bool(found)
            written += 1
    generator = np.random.default_rng(_SEED)
    drawn = {identifier: own.pop(generator.integers(len(own))) for identifier, own in several.items()}
    scores = score(
        several, drawn, metrics=metrics, corpus_idf=corpus_idf or CorpusIdf.from_references(references)
    )
    return People(
        images=len(several),
        scores=scores.corpus,
        judged=len(judged),
        mistakes={kind: counts[kind] / written for kind in KINDS} if judged else {},
        mistaken=mistaken / written if judged else None,
    )
