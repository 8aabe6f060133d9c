"""Captions against references: the scores that coco-caption gives, over the corpus and per image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from showtell.errors import MetricError, UsageError, did_you_mean
from showtell.metrics.bleu import score_bleu
from showtell.metrics.cider import CorpusIdf, score_cider
from showtell.metrics.meteor import score_meteor
from showtell.metrics.ngrams import MAX_ORDER, Counts, count_ngrams
from showtell.metrics.rouge import score_rouge
from showtell.text.tokenizer import tokenize

METRICS = ("Bleu", "ROUGE_L", "CIDEr", "METEOR")
_NAMED = 3  # ids shown in an error


@dataclass(frozen=True)
class Scores:
    """Scores by coco-caption's keys: Bleu_1 to Bleu_4, ROUGE_L, METEOR (each 0 to 1), CIDEr (0 to 10)."""

    corpus: dict[str, float]  # key -> score of all images together
    per_image: dict[str, dict[str, float]]  # image id -> key -> score
    notes: tuple[str, ...] = ()  # what to know before the numbers are believed


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
        The scores, images in the order of `references`.

    Raises:
        UsageError: an unknown metric, or none.
        MetricError: ids that are on one side only, images without references, captions that are not text; or
            METEOR's Java program failed.
        MissingExtraError: METEOR without pycocoevalcap.
    """
    _check_metrics(metrics)
    _check_captions(references, hypotheses)
    ids = list(references)
    reference_tokens = [[tokenize(caption) for caption in references[identifier]] for identifier in ids]
    hypothesis_tokens = [tokenize(hypotheses[identifier]) for identifier in ids]
    notes: list[str] = []
    corpus: dict[str, float] = {}
    per_image: dict[str, dict[str, float]] = {identifier: {} for identifier in ids}

    def add(key: str, total: float, values: Iterable[float]) -> None:
        corpus[key] = total
        for identifier, value in zip(ids, values, strict=True):
            per_image[identifier][key] = value

    if "Bleu" in metrics or "CIDEr" in metrics:
        reference_counts = [[_count(tokens) for tokens in image] for image in reference_tokens]
        hypothesis_counts = [_count(tokens) for tokens in hypothesis_tokens]
    for metric in dict.fromkeys(metrics):
        if metric == "Bleu":
            totals, values = score_bleu(reference_counts, hypothesis_counts)
            for order in range(MAX_ORDER):
                add(f"Bleu_{order + 1}", totals[order], (scores[order] for scores in values))
        elif metric == "ROUGE_L":
            add("ROUGE_L", *score_rouge(reference_tokens, hypothesis_tokens))
        elif metric == "CIDEr":
            if len(ids) == 1 and corpus_idf is None:
                notes.append(
                    "CIDEr is 0 because only one image was scored: every n-gram occurs in all images, so "
                    "none is rare. Give the document frequencies of a corpus (CorpusIdf) to score single images."
                )
            add("CIDEr", *score_cider(reference_counts, hypothesis_counts, corpus_idf))
        else:
            joined = [[" ".join(tokens) for tokens in image] for image in reference_tokens]
            add("METEOR", *score_meteor(joined, [" ".join(tokens) for tokens in hypothesis_tokens]))
    return Scores(corpus, per_image, tuple(notes))


def _count(tokens: Sequence[str]) -> Counts:
    # coco-caption's BLEU and CIDEr split tokens such as "1\\xa01/2" once more; its ROUGE-L does not.
    return count_ngrams(" ".join(tokens).split())


def _check_metrics(metrics: Sequence[str]) -> None:
    if isinstance(metrics, str) or not metrics:
        raise UsageError(
            f"metrics must be a sequence of names out of {', '.join(METRICS)}. Received: {metrics!r}"
        )
    for name in metrics:
        if name not in METRICS:
            meant = next((known for known in METRICS if known.lower() == str(name).lower()), None)
            hint = f" Did you mean {meant!r}?" if meant else did_you_mean(str(name), METRICS)
            raise UsageError(f"Unknown metric {name!r}.{hint} Choose from: {', '.join(METRICS)}.")


def _check_captions(references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]) -> None:
    if not references:
        raise MetricError("There is nothing to score: the references hold no image.")
    missing = [identifier for identifier in references if identifier not in hypotheses]
    extra = [identifier for identifier in hypotheses if identifier not in references]
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"{_have(missing)} references but no hypothesis: {_some(missing)}")
        if extra:
            parts.append(f"{_have(extra)} a hypothesis but no references: {_some(extra)}")
        raise MetricError(
            f"{'; '.join(parts)}. Score the same images on both sides; ids are compared as text."
        )
    unreferenced = [identifier for identifier, captions in references.items() if not len(captions)]
    if unreferenced:
        raise MetricError(
            f"{_have(unreferenced)} an empty list of references: {_some(unreferenced)}. "
            "Leave these images out or give them references."
        )
    for identifier, captions in references.items():
        if isinstance(captions, str):
            raise MetricError(
                f"The references of image {identifier!r} must be a list of captions. Received: {captions!r}"
            )
        for caption in (*captions, hypotheses[identifier]):
            if not isinstance(caption, str):
                raise MetricError(f"Captions must be text. Received for image {identifier!r}: {caption!r}")


def _have(ids: Sequence[str]) -> str:
    return "1 image has" if len(ids) == 1 else f"{len(ids)} images have"


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(identifier) for identifier in ids[:_NAMED])
    return shown + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")
