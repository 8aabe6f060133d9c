"""Metrics: BLEU, ROUGE-L, CIDEr-D and METEOR with coco-caption's numbers; all but METEOR without Java."""

from showtell.metrics.bootstrap import (
    Difference,
    Interval,
    bootstrap_intervals,
    compare_paired,
    describe_score,
)
from showtell.metrics.checks import METRICS
from showtell.metrics.coco_files import read_hypotheses, read_references
from showtell.metrics.corpus_idf import CorpusIdf
from showtell.metrics.reference_index import HypothesisScores, ReferenceIndex
from showtell.metrics.scorer import Scores, score

__all__ = [
    "METRICS",
    "CorpusIdf",
    "Difference",
    "HypothesisScores",
    "Interval",
    "ReferenceIndex",
    "Scores",
    "bootstrap_intervals",
    "compare_paired",
    "describe_score",
    "read_hypotheses",
    "read_references",
    "score",
]
