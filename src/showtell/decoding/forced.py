"""What a decoder thinks of captions that are already written: their words are fed to it, whatever it would say itself.

The probabilities are those that the search gives: over the tokens that may come out, each after the words before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from showtell.decoding.distribution import Emission, gather_log_probs
from showtell.decoding.hypothesis import DoubleArray
from showtell.decoding.stepper import FloatArray, IntArray, Stepper
from showtell.errors import UsageError
from showtell.text.vocabulary import SpecialTokens


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a decoder thinks of one caption of one image."""

    token_log_probs: DoubleArray  # (words + 1,) natural logarithms; the last is the end token's
    attention: (
        FloatArray | None
    )  # (words, cells); row i is where it looked for word i. None without attention.


def judge_captions(
    stepper: Stepper,
    captions: Sequence[Sequence[int]],
    special: SpecialTokens,
    *,
    owners: IntArray | None = None,
) -> list[Judgement]:
    """Returns what the decoder thinks of given captions, all of them at once.

    For a caption that the search has found, the log-probabilities are the search's own.

    Args:
        stepper: a decoder and its images.
        captions: the ids of each caption's words, without start and end; they may differ in length.
        special: the ids of padding, start, end and unknown.
        owners: (captions,) the image of each caption, ascending; by default there is one caption per image.

    Raises:
        UsageError: an empty caption, an id that can never come out, or captions that do not fit the images.
        ConfigError: the special tokens do not fit the decoder.
        ShowtellError: the decoder returned logits that are not finite or have the wrong shape.
    """
    if owners is None:
        owners = np.arange(stepper.images, dtype=np.int64)
    if len(owners) != len(captions):
        raise UsageError(f"There are {len(captions)} captions for {len(owners)} places: give one for each.")
    if not captions:
        return []
    lengths = np.array([len(caption) for caption in captions])
    targets = np.full((len(captions), lengths.max() + 1), special.end, dtype=np.int64)
    for row, caption in enumerate(captions):
        targets[row, : len(caption)] = _check(caption, stepper.vocab_size, special)
    emission = Emission(stepper.vocab_size, special)
    log_probs = np.zeros(targets.shape)
    looks: list[list[FloatArray]] = [[] for _ in captions]
    rows = np.arange(len(captions))  # of the captions that go on
    tokens = np.full(len(captions), special.start, dtype=np.int64)
    state = stepper.start(owners)
    for place in range(targets.shape[1]):
        result = stepper.step(tokens, state)
        logits = emission.admit(result, owners[rows], depth=place + 1)
        tokens = targets[rows, place]
        log_probs[rows, place] = gather_log_probs(logits, tokens[:, None])[:, 0]
        going_on = np.flatnonzero(lengths[rows] > place)
        if result.attention is not None:
            for one in going_on:  # indexing copies: a stepper may use its output buffers again
                looks[rows[one]].append(np.array(result.attention[one], dtype=np.float32))
        if len(going_on) == 0:
            break
        state = stepper.select(result.state, going_on) if len(going_on) < len(rows) else result.state
        rows, tokens = rows[going_on], tokens[going_on]
    return [
        Judgement(log_probs[row, : length + 1], np.stack(look) if look else None)
        for row, (length, look) in enumerate(zip(lengths.tolist(), looks, strict=True))
    ]


def _check(caption: Sequence[int], vocab_size: int, special: SpecialTokens) -> Sequence[int]:
    if not caption:
        raise UsageError("An empty caption has no words to judge.")
    never = {special.pad, special.start, special.end, special.unknown}
    for token in caption:
        if token in never or not 0 <= token < vocab_size:
            raise UsageError(
                f"A caption to judge must be of words that the decoder can say: ids below {vocab_size} and none of "
                f"the special ones {sorted(never)}. Received: {token}."
            )
    return caption
