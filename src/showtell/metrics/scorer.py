"""Captions against references: the scores that coco-caption gives, over the corpus and per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from showtell.metrics.bleu import BleuCounts
from showtell.metrics.checks import (
    INDEXED_METRICS,
    METRICS,
    check_hypotheses,
    check_metrics,
    check_references,
    check_same_images,
)
from showtell.metrics.corpus_idf import CorpusIdf
from showtell.metrics.meteor import score_meteor
from showtell.metrics.reference_index import ReferenceIndex
from showtell.text.tokenizer import tokenize

_CIDER_OF_ONE_IMAGE = (
    "CIDEr is 0 because only one image was scored: every n-gram occurs in all images, so none is rare. "
    "Give the document frequencies of a corpus (CorpusIdf) to score single images."
)


@dataclass(frozen=True)
class Scores:
    """Scores by coco-caption's keys: Bleu_1 to Bleu_4, ROUGE_L, METEOR (each 0 to 1), CIDEr (0 to 10)."""

    corpus: dict[str, float]  # key -> score of all images together
    per_image: dict[str, dict[str, float]]  # image id -> key -> score
    notes: tuple[str, ...] = ()  # what to know before the numbers are believed
    # What Bleu comes from, images in the same order; None where it was not asked for.
    bleu: BleuCounts | None = field(default=None, repr=False, compare=False)


def score(
    references: Mapping[str, Sequence[str]],
    hypotheses: Mapping[str, str],
    *,
    metrics: Sequence[str] = ("Bleu", "ROUGE_L", "CIDEr"),
    corpus_idf: CorpusIdf | None = None,
) -> Scores:
    """Scores one caption per image against the image's references.

    Both sides are tokenised here, in the same way; nothing is collapsed, filtered or cut.

    Args:
        references: image id -> captions that people wrote, at least one.
        hypotheses: image id -> the caption to be scored, free of special tokens; the same ids.
        metrics: "Bleu", "ROUGE_L", "CIDEr"; "METEOR" needs Java and the extra `meteor`.
        corpus_idf: where CIDEr takes the rarity of n-grams from; by default the references.

    Returns:
        The scores, images in the order of `references`; METEOR comes last.

    Raises:
        UsageError: an unknown metric, or none.
        MetricError: ids that are on one side only, images without references, captions that are not text; or
            METEOR's Java program failed.
        MissingExtraError: METEOR without pycocoevalcap.
    """
    check_metrics(metrics, METRICS)
    check_same_images(references, hypotheses)
    check_references(references)
    ids = list(references)
    texts = [hypotheses[identifier] for identifier in ids]
    check_hypotheses(references, ids, texts, tokens=False)
    corpus: dict[str, float] = {}
    columns: dict[str, list[float]] = {}
    bleu: BleuCounts | None = None
    indexed = [metric for metric in metrics if metric in INDEXED_METRICS]
    if indexed:
        found = ReferenceIndex(references, corpus_idf=corpus_idf).score(ids, texts, metrics=indexed)
        corpus.update(found.corpus)
        bleu = found.bleu
        columns.update((key, values.tolist()) for key, values in found.per_hypothesis.items())
    if "METEOR" in metrics:
        joined = [[" ".join(tokenize(caption)) for caption in references[identifier]] for identifier in ids]
        corpus["METEOR"], columns["METEOR"] = score_meteor(
            joined, [" ".join(tokenize(text)) for text in texts]
        )
    rows = zip(*columns.values(), strict=True)
    per_image = {identifier: dict(zip(columns, row, strict=True)) for identifier, row in zip(ids, rows)}
    alone = "CIDEr" in metrics and len(ids) == 1 and corpus_idf is None
    return Scores(corpus, per_image, (_CIDER_OF_ONE_IMAGE,) if alone else (), bleu)
