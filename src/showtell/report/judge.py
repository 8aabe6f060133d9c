"""From models and a split to what a report holds: each model captions every image once, and all is looked at."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from showtell.captioner import Captioner
from showtell.captioning import Caption
from showtell.confidence import Rating, Said, measure_probabilities, measure_ratings
from showtell.data.records import CaptionedImage, Dataset
from showtell.decoding import DecodingSettings
from showtell.errors import DataError, ImageError, UsageError
from showtell.evaluation import DEFAULT_METRICS, EvaluationReport
from showtell.explain import explain_caption
from showtell.images import open_image
from showtell.metrics import CorpusIdf, compare_paired
from showtell.metrics.bootstrap import RESAMPLES
from showtell.outputs.sheet import shrink_to_webp, write_webp
from showtell.report.contents import (
    RANKED_BY,
    Comparison,
    Explained,
    Judged,
    LeftOut,
    LitWord,
    Pictured,
    Report,
    rank_images,
)
from showtell.report.mistakes import find_mistakes
from showtell.report.nouns import Nouns
from showtell.report.people import judge_people
from showtell.report.usage import measure_usage
from showtell.text import tokenize

EXAMPLES = 8  # worst and best images of each model that are explained
PICTURES = 1500  # images that get a picture
SIDE, QUALITY = 256, 55  # of a picture, in pixels at most, and of its WebP: 6 kB
LIT_SIDE, LIT_QUALITY = 140, 50  # of a picture that is lit for one word: 2 kB
Progress = Callable[[str, int, int], object]  # told what is done, how many, of how many


def judge_models(
    models: Mapping[str, Captioner],
    dataset: Dataset,
    *,
    split: str,
    settings: Mapping[str, DecodingSettings] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    corpus_idf: CorpusIdf | None = None,
    max_images: int | None = None,
    resamples: int = RESAMPLES,
    copies: Mapping[str, Sequence[str]] | None = None,
    examples: int = EXAMPLES,
    pictures: int = PICTURES,
    options: Mapping[str, str] | None = None,
    progress: Progress = lambda _what, _done, _total: None,
) -> Report:
    """Captions a split with each model and looks at the captions from all sides.

    Images that cannot be read, and images without references, are left out and listed.

    Args:
        models: by the names that they get in the report. Each one captions by itself; the others are compared with the
            first.
        dataset: with its training split, if it has one: novelty is judged by it.
        split: "train", "dev" or "test".
        settings: of the search, by name; each captioner's own by default.
        metrics: as for `Captioner.evaluate`; CIDEr must be among them.
        corpus_idf: document frequencies for CIDEr; by default those of the references.
        max_images: only the first so many.
        resamples: corpora that are drawn for intervals and for the comparison; 0 gives neither.
        copies: image id -> training images that show the same.
        examples: how many of the worst and of the best images of each model are explained.
        pictures: how many images are shown at most; those that are explained come first.
        options: that the command was given, for the foot of the page.
        progress: told what is done.

    Raises:
        SplitError: no image has this split.
        DataError: none of its images can be used.
        UsageError: no model, or CIDEr is not among the metrics.
    """
    if not models:
        raise UsageError("A report needs at least one model.")
    if RANKED_BY not in metrics:
        raise UsageError(
            f"A report ranks images by {RANKED_BY}, so it must be among the metrics. Received: {', '.join(metrics)}"
        )
    chosen = dataset.split(split)
    usable, shown, left_out = _open_images(chosen, max_images, pictures, progress)
    evaluations = {
        label: captioner.evaluate(
            replace(chosen, images=tuple(usable)),
            split=split,
            settings=(settings or {}).get(label),
            metrics=metrics,
            corpus_idf=corpus_idf,
            resamples=resamples,
            copies=copies,
            progress=lambda done, total, label=label: progress(f"captions of {label}", done, total),  # type: ignore[misc]
        )
        for label, captioner in models.items()
    }
    captions = {image.id: image.captions for image in usable}
    references = {identifier: [tokenize(text) for text in own] for identifier, own in captions.items()}
    training = _list_training(dataset) if split != "train" else None
    nouns = Nouns(
        [one for own in references.values() for one in own] + [text.split(" ") for text in training or ()]
    )
    comparisons = _compare(evaluations, resamples)
    needed = _list_examples(evaluations, comparisons, examples)
    paths = {image.id: image.path for image in usable}
    judged = [
        _judge(
            label,
            captioner,
            evaluations[label],
            references,
            captions,
            nouns,
            training,
            {
                identifier: paths[identifier]
                for identifier in _pick(rank_images(evaluations[label]), examples)
            },
            progress,
        )
        for label, captioner in models.items()
    ]
    kept = set(list(dict.fromkeys([*needed, *paths]))[:pictures])
    return Report(
        dataset=chosen.name,
        split=split,
        images=tuple(_draw(one) if one.id in kept else replace(one, thumbnail=b"") for one in shown),
        left_out=tuple(left_out),
        models=tuple(judged),
        comparisons=comparisons,
        people=judge_people(captions, nouns, metrics=metrics, corpus_idf=corpus_idf),
        trained=training is not None,
        options=dict(options or {}),
        made=datetime.now(UTC),
        examples=examples,
    )


def _open_images(
    chosen: Dataset, max_images: int | None, pictures: int, progress: Progress
) -> tuple[list[CaptionedImage], list[Pictured], list[LeftOut]]:
    images = chosen.images[:max_images]
    usable: list[CaptionedImage] = []
    shown: list[Pictured] = []
    left_out: list[LeftOut] = []
    for done, image in enumerate(images, start=1):
        if not image.captions:
            left_out.append(LeftOut(image.id, "it has no references"))
        else:
            one = Pictured(image.id, image.path, image.captions, b"", (0, 0))
            try:
                # So many at most are shown: of the others it is enough to know that they can be read.
                shown.append(_draw(one) if len(shown) < pictures else _check(one))
            except ImageError as error:
                left_out.append(LeftOut(image.id, _hide_folder(str(error), image)))
            else:
                usable.append(image)
        progress("pictures", done, len(images))
    if not usable:
        first = left_out[0]
        raise DataError(
            f"None of the {len(images):,} images of {chosen.name!r} can be scored. The first, {first.id}: "
            f"{first.reason}. A report compares captions with what people said of the same pictures; "
            "without references "
            "`showtell caption --output captions.html` shows captions."
        )
    return usable, shown, left_out


def _hide_folder(reason: str, image: CaptionedImage) -> str:
    """Returns why an image cannot be read without saying where it lies: a report is shown to others.

    Its path stands in a message as it is or, with its odd characters, as Python writes it.
    """
    path, name = str(image.path), image.path.name
    return reason.replace(path, name).replace(repr(path), repr(name))


def _draw(image: Pictured) -> Pictured:
    """Returns an image with its picture; raises ImageError."""
    if image.thumbnail:
        return image
    small = shrink_to_webp(image.path, SIDE, QUALITY)
    with Image.open(io.BytesIO(small)) as opened:
        return replace(image, thumbnail=small, size=opened.size)


def _check(image: Pictured) -> Pictured:
    """Returns an image that can be read; raises ImageError."""
    open_image(image.path, draft_size=(SIDE, SIDE))
    return image


def _list_training(dataset: Dataset) -> Counter[str] | None:
    training = Counter(
        " ".join(tokenize(text))
        for image in dataset.images
        if image.split == "train"
        for text in image.captions
    )
    return training or None


def _pick(ranked: Sequence[str], examples: int) -> list[str]:
    """Returns the first and the last ones, each once."""
    return list(dict.fromkeys([*ranked[:examples], *ranked[len(ranked) - examples :]]))


def _compare(evaluations: Mapping[str, EvaluationReport], resamples: int) -> tuple[Comparison, ...]:
    (against, first), *others = evaluations.items()
    found = []
    for label, evaluation in others:
        gains = {
            identifier: scores[RANKED_BY] - first.per_image[identifier][RANKED_BY]
            for identifier, scores in evaluation.per_image.items()
        }
        differences = {}
        if resamples:
            differences = compare_paired(evaluation.scored, first.scored, resamples=resamples)
        found.append(Comparison(label, against, differences, gains))
    return tuple(found)


def _list_examples(
    evaluations: Mapping[str, EvaluationReport], comparisons: Iterable[Comparison], examples: int
) -> list[str]:
    ranked = [
        *(rank_images(evaluation) for evaluation in evaluations.values()),
        *(one.rank() for one in comparisons),
    ]
    return [identifier for ids in ranked for identifier in _pick(ids, examples)]


def _judge(
    label: str,
    captioner: Captioner,
    evaluation: EvaluationReport,
    references: Mapping[str, Sequence[Sequence[str]]],
    captions: Mapping[str, Sequence[str]],
    nouns: Nouns,
    training: Counter[str] | None,
    examples: Mapping[str, Path],
    progress: Progress,
) -> Judged:
    best = {identifier: captions[0] for identifier, captions in evaluation.captions.items()}
    words = {identifier: tokenize(caption.text) for identifier, caption in best.items()}
    explained = {}
    for done, (identifier, path) in enumerate(examples.items(), start=1):
        if best[identifier].words:
            explained[identifier] = _explain(captioner, path, best[identifier])
        progress(f"explanations of {label}", done, len(examples))
    said = {
        identifier: Said(caption.words, caption.word_log_probs)
        for identifier, caption in best.items()
        if caption.words
    }
    texts = [captions[identifier] for identifier in said]
    ratings = [
        Rating(caption.confidence, caption.word_confidences)
        for identifier in said
        if (caption := best[identifier]).confidence is not None and caption.word_confidences is not None
    ]
    rated = bool(said) and len(ratings) == len(said)
    return Judged(
        label=label,
        evaluation=evaluation,
        mistakes={
            identifier: find_mistakes(caption, references[identifier], nouns)
            for identifier, caption in words.items()
        },
        usage=measure_usage(
            list(words.values()), list(references.values()), captioner.backend.vocabulary, training
        ),
        worth=measure_ratings(list(said.values()), ratings, texts) if rated else None,
        probabilities=measure_probabilities(list(said.values()), texts) if said else None,
        explained=explained,
    )


def _explain(captioner: Captioner, path: Path, caption: Caption) -> Explained:
    explanation = explain_caption(captioner, path, caption)
    plain, lit = explanation.light(LIT_SIDE)
    chances = explanation.probabilities or (None,) * len(lit)
    blind = explanation.blind or (None,) * len(lit)
    return Explained(
        explanation.method,
        plain.size,
        tuple(
            LitWord(word, chance, unseeing, write_webp(picture, LIT_QUALITY))
            for word, chance, unseeing, picture in zip(explanation.words, chances, blind, lit, strict=True)
        ),
    )
