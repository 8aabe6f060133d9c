"""The doctor: what is in a data set, what is wrong with it, and what leaks between its splits.

A finding is an *error* when a number computed on the data would be wrong or the data cannot be used as they
are: an image that is missing or damaged, one file in two splits. It is a *warning* when a person should know
and decide. Near-duplicates across the official splits of a published data set are warnings: its scores are
only comparable with others' if the splits stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from showtell.data.duplicates import BitArray, Progress, group_hashes, hash_image, map_in_threads
from showtell.data.records import SPLITS, CaptionedImage, Dataset, Problem
from showtell.data.report import UNSPLIT, Coverage, Report, SplitSummary, Spread, VocabularySummary
from showtell.errors import ImageError, MissingExtraError, UsageError
from showtell.files import digest_file
from showtell.images import open_image
from showtell.text.tokenizer import tokenize

DEFAULT_THRESHOLDS = (1, 2, 3, 4, 5, 10)
LONGEST = 60  # tokens; longer captions are rarely one sentence about one image
SMALLEST = 32  # pixels; below that side there is little to see

_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_SPECIAL = re.compile(
    r"<\s*/?\s*(?:start|end|pad|unk|unknown|bos|eos|s|sos|go|mask)(?:of)?(?:seq|sequence)?\s*>"
    r"|\[(?:CLS|SEP|PAD|UNK|MASK|BOS|EOS)\]|<\|[^|<>]*\|>",
    re.IGNORECASE,
)


def check(
    dataset: Dataset,
    *,
    thresholds: Sequence[int] = DEFAULT_THRESHOLDS,
    decode_images: bool = True,
    near_duplicates: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Examines a data set.

    Args:
        dataset: as a reader gave it; what the reader noticed becomes part of the report.
        thresholds: counts that a word must reach, for the table of vocabulary sizes.
        decode_images: whether every image is really decoded, in several threads; otherwise it is only looked
            whether the files exist, and no duplicates are found.
        near_duplicates: whether the decoded images are compared. Needs the package imagehash; where it is not
            installed a warning says so.
        progress: called with (images done, images in all).

    Raises:
        UsageError: a threshold below 1.
    """
    for threshold in thresholds:
        if threshold < 1:
            raise UsageError(f"A vocabulary threshold must be at least 1. Received: {threshold}")
    problems = list(dataset.problems)
    tokens = {image.id: [tokenize(caption) for caption in image.captions] for image in dataset.images}
    lengths = Counter(len(words) for captions in tokens.values() for words in captions)
    problems += _check_ids(dataset)
    for image in dataset.images:
        problems += _check_captions(image, tokens[image.id])
    problems += _check_splits(dataset)

    looks = _look_at_images(dataset, decode_images, near_duplicates, progress)
    problems += [problem for look in looks for problem in look.problems]
    groups: list[tuple[str, ...]] | None = None
    if decode_images:
        problems += _check_copies(dataset, looks)
    if decode_images and near_duplicates:
        hashes = {look.id: look.bits for look in looks if look.bits is not None}
        unchecked = next((look.unhashed for look in looks if look.unhashed), None)
        if unchecked is None:
            groups = group_hashes(hashes)
            problems += _check_near_duplicates(dataset, groups, looks)
        else:
            problems.append(Problem("near-duplicates-not-checked", dataset.name, unchecked, "warning"))

    return Report(
        name=dataset.name,
        format=dataset.format,
        splits=_summarise_splits(dataset, tokens),
        captions_per_image=dict(Counter(len(image.captions) for image in dataset.images)),
        caption_lengths=dict(lengths),
        vocabulary=_summarise_vocabulary(dataset, tokens, thresholds),
        decoded=decode_images,
        image_sizes=dict(Counter(look.size for look in looks if look.size is not None)),
        duplicate_groups=None if groups is None else len(groups),
        problems=tuple(problems),
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """What one image file turned out to be."""

    id: str
    problems: tuple[Problem, ...] = ()
    digest: str | None = None  # of the file's bytes
    size: tuple[int, int] | None = None  # width, height; upright
    bits: BitArray | None = None  # the perceptual hash
    unhashed: str | None = None  # why no hash could be computed for any image


def _look_at_images(dataset: Dataset, decode: bool, hashed: bool, progress: Progress | None) -> list[_Look]:
    looks = []
    for look in map_in_threads(lambda image: _look_at(image, decode, hashed), dataset.images):
        looks.append(look)
        if progress is not None:
            progress(len(looks), len(dataset.images))
    return looks


def _look_at(image: CaptionedImage, decode: bool, hashed: bool) -> _Look:
    if not image.path.is_file():
        return _Look(image.id, (Problem("missing-image", image.id, f"There is no file {image.path}."),))
    if not decode:
        return _Look(image.id)
    try:
        digest = digest_file(image.path)
        picture = open_image(image.path)
    except (ImageError, OSError) as error:
        return _Look(image.id, (Problem("corrupt-image", image.id, str(error)),))
    problems = []
    if min(picture.size) < SMALLEST:
        message = f"The image has only {picture.width} x {picture.height} pixels."
        problems.append(Problem("tiny-image", image.id, message, "warning"))
    bits, unhashed = None, None
    if hashed:
        try:
            bits = hash_image(picture)
        except MissingExtraError as error:
            unhashed = str(error)
        else:
            if bits is None:
                message = "The image shows one even colour; it may stand for a photograph that is gone."
                problems.append(Problem("blank-image", image.id, message, "warning"))
    return _Look(image.id, tuple(problems), digest, picture.size, bits, unhashed)


def _check_ids(dataset: Dataset) -> Iterator[Problem]:
    for id, count in Counter(image.id for image in dataset.images).items():
        if count > 1:
            yield Problem("repeated-id", id, f"{count} images have this id; ids must be unique.")


def _check_captions(image: CaptionedImage, tokens: Sequence[Sequence[str]]) -> Iterator[Problem]:
    if not image.captions:
        yield Problem("no-captions", image.id, "The image has no caption.")
    for caption, words in zip(image.captions, tokens):
        if not caption.strip():
            yield Problem("empty-caption", image.id, f"A caption is empty: {_quote(caption)}.")
        elif not words:
            yield Problem("no-words", image.id, f"A caption has no words: {_quote(caption)}.", "warning")
        control = _first(caption, _is_control)
        if control is not None:
            message = f"A caption has the control character {caption[control]!a}: {_quote(caption, control)}."
            yield Problem("control-characters", image.id, message, "warning")
        undecoded = _first(caption, _is_undecoded)
        if undecoded is not None:
            message = f"A caption has a character that could not be decoded: {_quote(caption, undecoded)}."
            yield Problem("bad-encoding", image.id, message, "warning")
        special = _SPECIAL.search(caption)
        if special is not None:
            message = (
                f"A caption contains {special.group()!r}; it is read as ordinary text: "
                f"{_quote(caption, special.start())}."
            )
            yield Problem("special-token", image.id, message, "warning")
        if len(words) > LONGEST:
            message = f"A caption has {len(words)} tokens, more than {LONGEST}: {_quote(caption)}."
            yield Problem("long-caption", image.id, message, "warning")
    for caption, count in Counter(caption.strip() for caption in image.captions).items():
        if count > 1 and caption:
            message = f"The image has the same caption {count} times: {_quote(caption)}."
            yield Problem("repeated-caption", image.id, message, "warning")


def _check_splits(dataset: Dataset) -> Iterator[Problem]:
    loose = [image.id for image in dataset.images if image.split is None]
    if loose:
        yield Problem(
            "no-split",
            dataset.name,
            f"{len(loose):,} of {len(dataset.images):,} images have no split (for example {loose[0]!r}); "
            "training and evaluation will ask for --unsplit split, train, dev, test or drop.",
            "warning",
        )


def _check_copies(dataset: Dataset, looks: Iterable[_Look]) -> Iterator[Problem]:
    """Files that are equal byte by byte."""
    splits = {image.id: image.split for image in dataset.images}
    files: dict[str, list[str]] = {}
    for look in looks:
        if look.digest is not None:
            files.setdefault(look.digest, []).append(look.id)
    for ids in files.values():
        if len(ids) < 2:
            continue
        if _straddles(ids, splits):
            message = f"The same file is in several splits: {_name_all(ids, splits)}."
            yield Problem("copies-across-splits", ids[0], message)
        else:
            message = f"The same file is there {len(ids)} times: {_name_all(ids, splits)}."
            yield Problem("copies", ids[0], message, "warning")


def _check_near_duplicates(
    dataset: Dataset, groups: Iterable[tuple[str, ...]], looks: Iterable[_Look]
) -> Iterator[Problem]:
    splits = {image.id: image.split for image in dataset.images}
    digests = {look.id: look.digest for look in looks}
    for ids in groups:
        if _straddles(ids, splits) and len({digests[id] for id in ids}) > 1:
            message = f"Images in several splits are nearly the same: {_name_all(ids, splits)}."
            yield Problem("near-duplicates-across-splits", ids[0], message, "warning")


def _straddles(ids: Iterable[str], splits: dict[str, str | None]) -> bool:
    return len({splits[id] for id in ids} - {None}) > 1


def _name_all(ids: Sequence[str], splits: dict[str, str | None]) -> str:
    named = [f"{id} ({splits[id] or UNSPLIT})" for id in ids[:6]]
    return ", ".join(named) + (f" and {len(ids) - 6} more" if len(ids) > 6 else "")


def _quote(caption: str, position: int = 0) -> str:
    """Returns the part of a caption around a position, with control characters made visible."""
    start = max(0, min(position - 30, len(caption) - 60))
    shown = caption[start : start + 60]
    return repr(f"{'...' if start else ''}{shown}{'...' if start + 60 < len(caption) else ''}")


def _first(caption: str, matches: Callable[[str], bool]) -> int | None:
    """Returns the position of the first matching character."""
    return next((position for position, sign in enumerate(caption) if matches(sign)), None)


def _is_control(sign: str) -> bool:
    return unicodedata.category(sign) == "Cc" or sign in _BIDIRECTIONAL


def _is_undecoded(sign: str) -> bool:
    return sign == "\ufffd" or "\ud800" <= sign <= "\udfff"


def _summarise_splits(dataset: Dataset, tokens: dict[str, list[list[str]]]) -> dict[str, SplitSummary]:
    summaries = {}
    for split in (*SPLITS, None):
        images = [image for image in dataset.images if image.split == split]
        if images:
            summaries[split or UNSPLIT] = SplitSummary(
                images=len(images),
                captions=sum(len(image.captions) for image in images),
                captions_per_image=Spread.of(Counter(len(image.captions) for image in images)),
                tokens_per_caption=Spread.of(
                    Counter(len(words) for image in images for words in tokens[image.id])
                ),
            )
    return summaries


def _summarise_vocabulary(
    dataset: Dataset, tokens: dict[str, list[list[str]]], thresholds: Sequence[int]
) -> VocabularySummary:
    """Counts the words of the training captions, as `Vocabulary.from_captions` will."""
    counts: dict[str, Counter[str]] = {}
    for image in dataset.images:
        counter = counts.setdefault(image.split or UNSPLIT, Counter())
        for words in tokens[image.id]:
            counter.update(words)
    if "train" in counts:
        counted_on, counted = "train", counts["train"]
    else:
        counted_on, counted = "all captions", sum(counts.values(), Counter())
    rows = []
    for threshold in sorted(set(thresholds)):
        known = {word for word, count in counted.items() if count >= threshold}
        coverage = {
            split: sum(count for word, count in counts[split].items() if word in known)
            / counts[split].total()
            for split in (*SPLITS, UNSPLIT)
            if split in counts and counts[split].total()
        }
        rows.append(Coverage(threshold, len(known), coverage))
    return VocabularySummary(counted_on, len(counted), counted.total(), tuple(rows))
