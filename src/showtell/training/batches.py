"""Batches: which captions go together, in which order, and what the network gets.

The order of an epoch is a function of the seed and the epoch's number alone, so a resumed run continues at the
same place in the same order. Every caption appears exactly once per epoch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from showtell.data.records import Dataset
from showtell.decoders import CaptionBatch
from showtell.errors import TrainingError
from showtell.text import SPECIAL, Vocabulary


@dataclass(frozen=True)
class EncodedCaption:
    """One training caption as ids."""

    image: int  # index of its image in the training split
    inputs: tuple[int, ...]  # start token, words
    targets: tuple[int, ...]  # words, end token; the end token is absent where the caption was cut


def encode_captions(dataset: Dataset, vocabulary: Vocabulary, max_length: int) -> list[EncodedCaption]:
    """Returns every caption of the data set as ids; a caption that holds no word is left out.

    A caption longer than `max_length` words is cut and gets no end token: otherwise the decoder would be taught
    that sentences stop in the middle. Words outside the vocabulary become `unknown`; no caption is dropped for them.
    """
    encoded = []
    for index, image in enumerate(dataset.images):
        for caption in image.captions:
            words = vocabulary.encode(caption)
            if not words:
                continue
            if len(words) > max_length:
                words = words[:max_length]
                inputs, targets = [SPECIAL.start, *words[:-1]], words
            else:
                inputs, targets = [SPECIAL.start, *words], [*words, SPECIAL.end]
            encoded.append(EncodedCaption(index, tuple(inputs), tuple(targets)))
    if not encoded:
        raise TrainingError(
            f"No caption of data set {dataset.name!r} holds a word, so there is nothing to train on."
        )
    return encoded


def plan_epoch(
    captions: Sequence[EncodedCaption], *, batching: str, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Returns the batches of one epoch as lists of caption indices, each caption exactly once.

    Args:
        captions: all training captions.
        batching: "length" (captions of equal length; what is left over in the buckets is joined with its neighbours
            in length) or "image" (all captions of an image in the same batch).
        batch_size: captions per batch, or images per batch.
        seed: of the run.
        epoch: number of the epoch, from 0.
    """
    generator = np.random.default_rng([seed, epoch])
    groups: dict[int, list[int]] = defaultdict(list)
    if batching == "image":
        for index, caption in enumerate(captions):
            groups[caption.image].append(index)
        images = list(groups)
        generator.shuffle(images)
        parts = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2].extend(parts.pop())  # one image alone has no batch statistics
        return [[index for image in part for index in groups[image]] for part in parts]
    for index in generator.permutation(len(captions)):
        groups[len(captions[index].targets)].append(int(index))
    batches: list[list[int]] = []
    left_over: list[int] = []
    for length in sorted(groups):
        members = groups[length]
        whole = len(members) - len(members) % batch_size
        batches.extend(members[start : start + batch_size] for start in range(0, whole, batch_size))
        left_over.extend(members[whole:])
    rest = [left_over[start : start + batch_size] for start in range(0, len(left_over), batch_size)]
    if rest and (len(rest) > 1 or batches) and len(rest[-1]) < max(2, batch_size // 4):
        small = rest.pop()  # a handful of captions would be a noisy step of its own
        (rest or batches)[-1].extend(small)
    batches.extend(rest)
    generator.shuffle(batches)
    return batches


@dataclass(frozen=True)
class BatchPart:
    """What one of several processes works on."""

    captions: list[EncodedCaption]
    counts: bool  # False: another process has the same captions, and its work is the one that counts
    planned: int  # captions of the whole batch


def share_batch(captions: Sequence[EncodedCaption], *, rank: int, size: int) -> BatchPart:
    """Returns the part of a batch that one of several processes works on.

    Together the parts that count hold every caption once. Captions of an image stay together, and each part has two
    images at least, or the only one, so that all processes compute the same layers. Those who would get none repeat the
    work of another, which does not count: then nobody waits for a process that has nothing to say.

    Args:
        captions: of the whole batch.
        rank: of the process.
        size: how many processes there are.
    """
    images = list(dict.fromkeys(caption.image for caption in captions))
    sharing = max(1, min(size, len(images) // 2))
    own = set(images[rank % sharing :: sharing])
    part = [caption for caption in captions if caption.image in own]
    return BatchPart(part, rank < sharing, len(captions))


def collate(captions: Sequence[EncodedCaption]) -> tuple[list[int], CaptionBatch]:
    """Returns the distinct images of a batch, and its captions padded, longest first.

    Returns:
        Indices of the images, each once, and the captions whose `owners` count in that list.
    """
    ordered = sorted(captions, key=lambda caption: -len(caption.targets))
    images = sorted({caption.image for caption in ordered})
    place = {image: index for index, image in enumerate(images)}
    steps = len(ordered[0].targets)
    inputs = torch.full((len(ordered), steps), SPECIAL.pad, dtype=torch.int64)
    targets = torch.full((len(ordered), steps), SPECIAL.pad, dtype=torch.int64)
    for row, caption in enumerate(ordered):
        inputs[row, : len(caption.inputs)] = torch.tensor(caption.inputs)
        targets[row, : len(caption.targets)] = torch.tensor(caption.targets)
    owners = torch.tensor([place[caption.image] for caption in ordered])
    return images, CaptionBatch(inputs, targets, [len(caption.targets) for caption in ordered], owners)
