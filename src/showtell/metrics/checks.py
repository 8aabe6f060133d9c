"""What scoring refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from showtell.errors import MetricError, UsageError, did_you_mean

INDEXED_METRICS = ("Bleu", "ROUGE_L", "CIDEr")  # what a ReferenceIndex computes
METRICS = (*INDEXED_METRICS, "METEOR")
_NAMED = 3  # ids shown in an error


def check_metrics(metrics: Sequence[str], choices: Sequence[str]) -> None:
    """Raises UsageError for a metric that is not among `choices`, for none, and for a single name."""
    if isinstance(metrics, str) or not metrics:
        raise UsageError(
            f"metrics must be a sequence of names out of {', '.join(choices)}. Received: {metrics!r}"
        )
    for name in metrics:
        if name not in choices:
            meant = next((known for known in choices if known.lower() == str(name).lower()), None)
            hint = f" Did you mean {meant!r}?" if meant else did_you_mean(str(name), choices)
            if name in METRICS:
                hint = " It needs Java: use showtell.metrics.score."
            raise UsageError(f"Unknown metric {name!r}.{hint} Choose from: {', '.join(choices)}.")


def check_references(references: Mapping[str, Sequence[str]]) -> None:
    """Raises MetricError for no image, an image without references, and references that are not text."""
    if not references:
        raise MetricError("There is nothing to score: the references hold no image.")
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
        for caption in captions:
            if not isinstance(caption, str):
                raise MetricError(f"Captions must be text. Received for image {identifier!r}: {caption!r}")


def check_same_images(references: Mapping[str, object], hypotheses: Mapping[str, object]) -> None:
    """Raises MetricError for ids that are on one side only."""
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


def check_hypotheses(
    known: Mapping[str, object],
    images: Sequence[str],
    hypotheses: Sequence[str | Sequence[str]],
    *,
    tokens: bool,
) -> None:
    """Raises MetricError where an image is not `known`, and for what is neither text nor, with `tokens`, a list of
    tokens."""
    if isinstance(hypotheses, str) or isinstance(images, str) or len(images) != len(hypotheses):
        raise MetricError(
            "There must be a list of hypotheses and a list with the image id of each. "
            f"Received: {len(images)} ids and {len(hypotheses)} hypotheses."
        )
    if not len(images):
        raise MetricError("There is nothing to score: no hypothesis was given.")
    for image, hypothesis in zip(images, hypotheses, strict=True):
        if image not in known:
            raise MetricError(
                f"Image {image!r} is not among the {len(known)} images of this reference index. "
                "Build the index with its references."
            )
        if isinstance(hypothesis, str):
            continue
        listed = isinstance(hypothesis, list | tuple) and all(isinstance(word, str) for word in hypothesis)
        if not (tokens and listed):
            raise MetricError(f"Captions must be text. Received for image {image!r}: {hypothesis!r}")


def _have(ids: Sequence[str]) -> str:
    return "1 image has" if len(ids) == 1 else f"{len(ids)} images have"


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(identifier) for identifier in ids[:_NAMED])
    return shown + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")
