"""Metrics: BLEU, ROUGE-L, CIDEr-D and METEOR with coco-caption's numbers; all but METEOR without Java."""

from showtell.metrics.cider import CorpusIdf
from showtell.metrics.coco_files import read_hypotheses, read_references
from showtell.metrics.scorer import METRICS, Scores, score

__all__ = ["METRICS", "CorpusIdf", "Scores", "read_hypotheses", "read_references", "score"]
