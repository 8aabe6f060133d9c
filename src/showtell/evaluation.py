"""One split in, one report out: each image is captioned once, and the captions are scored as the papers do.

What is scored is what the search wrote, never teacher-forced output; special tokens cannot be in it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from showtell.captioning import Caption
from showtell.data.records import Dataset
from showtell.decoding import DecodingSettings
from showtell.errors import MetricError
from showtell.metrics import CorpusIdf, Interval, Scores, bootstrap_intervals, score
from showtell.text import Vocabulary, tokenize

DEFAULT_METRICS = ("Bleu", "ROUGE_L", "CIDEr")


@dataclass(frozen=True)
class Overlap:
    """Images of the split that training has, too, and what the scores are without them."""

    copies: Mapping[str, Sequence[str]]  # image id -> ids of training images that show the same
    scores: Mapping[
        str, float
    ]  # of the other images, as if they were the whole split; empty if there are none
    images: int  # how many these are

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-serialisable values."""
        copies = {identifier: list(trained) for identifier, trained in self.copies.items()}
        return {"copies": copies, "scores_without": dict(self.scores), "images_without": self.images}


@dataclass(frozen=True)
class EvaluationReport:
    """The scores of one split, and everything needed to see where they come from."""

    scores: Mapping[str, float]  # coco-caption's keys, over the corpus
    per_image: Mapping[str, Mapping[str, float]]
    captions: Mapping[str, Sequence[Caption]]  # by image id, best first; the first one is scored
    settings: DecodingSettings
    dataset: str
    split: str
    split_fingerprint: str
    bundle_digest: str
    coverage: float  # share of the references' running words that the vocabulary has
    seconds: float  # decoding images, encoding and searching
    scored: Scores = field(repr=False, compare=False)  # for showtell.metrics.compare_paired
    notes: tuple[str, ...] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)  # of the scores, by key; METEOR has none
    resamples: int = 0  # corpora that were drawn for the intervals
    overlap: Overlap | None = None  # None: nobody looked for images that are in training, too

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-serialisable values; captions in the order of the data set."""
        texts = [captions[0].text for captions in self.captions.values()]
        lengths = [len(tokenize(text)) for text in texts]
        return {
            "scores": dict(self.scores),
            "intervals": {key: [interval.low, interval.high] for key, interval in self.intervals.items()},
            "resamples": self.resamples,
            "overlap": None if self.overlap is None else self.overlap.to_dict(),
            "dataset": self.dataset,
            "split": self.split,
            "split_fingerprint": self.split_fingerprint,
            "bundle_digest": self.bundle_digest,
            "settings": self.settings.to_dict(),
            "images": len(texts),
            "seconds": self.seconds,
            "vocabulary_coverage": self.coverage,
            "distinct_captions": len(set(texts)),
            "distinct_words": len(Counter(word for text in texts for word in tokenize(text))),
            "mean_length": sum(lengths) / len(lengths),
            "notes": list(self.notes),
            "captions": [
                {
                    "image_id": identifier,
                    "caption": captions[0].text,
                    "score": captions[0].score,
                    "confidence": captions[0].confidence,
                    "others": [other.text for other in captions[1:]],
                    "metrics": dict(self.per_image.get(identifier, {})),
                }
                for identifier, captions in self.captions.items()
            ],
        }


def evaluate_captions(
    dataset: Dataset,
    captions: Iterable[Sequence[Caption]],
    *,
    vocabulary: Vocabulary,
    settings: DecodingSettings,
    bundle_digest: str,
    split: str,
    metrics: Sequence[str] = DEFAULT_METRICS,
    corpus_idf: CorpusIdf | None = None,
    resamples: int = 0,
    copies: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> EvaluationReport:
    """Scores one caption per image against all references of the image.

    Args:
        dataset: the images of one split; every one has at least one reference.
        captions: per image, in the same order, its captions, best first. Consumed once; this is what is timed.
        vocabulary: of the model, for coverage.
        settings: that the captions were decoded with, for the report.
        bundle_digest: of the model, for the report.
        split: its name, for the report.
        metrics: "Bleu", "ROUGE_L", "CIDEr", "METEOR".
        corpus_idf: document frequencies for CIDEr; by default those of the references.
        resamples: corpora that are drawn for the bootstrap intervals; 0 gives no intervals.
        copies: image id -> training images that show the same, as `find_training_copies` gives them. The scores are
            then given without these images, too. None where nobody looked.
        progress: called with (done, total) after each image.

    Raises:
        MetricError: an image without references, or two images with one id.
    """
    for identifier, count in Counter(image.id for image in dataset.images).items():
        if count > 1:
            raise MetricError(f"Data set {dataset.name!r} has {count} images with the id {identifier!r}.")
    started = time.monotonic()
    found: dict[str, Sequence[Caption]] = {}
    for image, candidates in zip(dataset.images, captions, strict=True):
        found[image.id] = candidates
        if progress is not None:
            progress(len(found), len(dataset.images))
    seconds = time.monotonic() - started
    references = {image.id: image.captions for image in dataset.images}
    hypotheses = {identifier: candidates[0].text for identifier, candidates in found.items()}
    scored = score(references, hypotheses, metrics=metrics, corpus_idf=corpus_idf)
    overlap = None
    if copies is not None:
        shared = {identifier: copies[identifier] for identifier in references if identifier in copies}
        rest = {identifier: texts for identifier, texts in references.items() if identifier not in shared}
        others = {identifier: hypotheses[identifier] for identifier in rest}
        scores = scored.corpus
        if shared:  # as a split of its own: the document frequencies are those of the images that are left
            scores = score(rest, others, metrics=metrics, corpus_idf=corpus_idf).corpus if rest else {}
        overlap = Overlap(shared, scores, len(rest))
    return EvaluationReport(
        scores=scored.corpus,
        per_image=scored.per_image,
        captions=found,
        settings=settings,
        dataset=dataset.name,
        split=split,
        split_fingerprint=dataset.fingerprint(),
        bundle_digest=bundle_digest,
        coverage=vocabulary.coverage(caption for image in dataset.images for caption in image.captions),
        seconds=seconds,
        scored=scored,
        notes=scored.notes,
        intervals=bootstrap_intervals(scored, resamples=resamples) if resamples else {},
        resamples=resamples,
        overlap=overlap,
    )
