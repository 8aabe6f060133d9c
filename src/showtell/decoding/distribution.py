"""From the logits of a step to the distribution over the tokens that may come out."""

from __future__ import annotations

import numpy as np

from showtell.decoding.hypothesis import DoubleArray
from showtell.decoding.stepper import FloatArray, IntArray, StepResult
from showtell.errors import ConfigError, ShowtellError
from showtell.text.vocabulary import SpecialTokens

_FEW = 16  # tokens of a row that are found one by one


class Emission:
    """Which tokens may come out: every word, and the end token except as the first.

    Padding, start and unknown never do, and as no caption starts with its end none is empty. What is
    forbidden is taken away before the softmax, so that the probabilities of the rest sum to 1.

    Raises:
        ConfigError: the special tokens do not fit the width of the logits, or leave no word.
    """

    def __init__(self, vocab_size: int, special: SpecialTokens) -> None:
        ids = (special.pad, special.start, special.end, special.unknown)
        if len(set(ids)) < len(ids) or min(ids) < 0 or max(ids) >= vocab_size:
            raise ConfigError(
                f"The special tokens {special} must be four different ids below the decoder's vocabulary "
                f"size {vocab_size}: decoder and vocabulary do not belong together."
            )
        if vocab_size == len(ids):
            raise ConfigError(
                f"The decoder's vocabulary of {vocab_size} tokens has no words, only special ones."
            )
        self.words = vocab_size - len(ids)
        self._vocab_size = vocab_size
        self._never = [special.pad, special.start, special.unknown]
        self._end = special.end

    def choices(self, *, depth: int) -> int:
        """Returns how many tokens may come out at step `depth`, counted from 1."""
        return self.words if depth == 1 else self.words + 1

    def admit(self, result: StepResult, owners: IntArray, *, depth: int) -> FloatArray:
        """Returns a copy of the logits, (rows, vocab), that is -inf where a token may not come out.

        Args:
            result: of the step; its logits are left as they are.
            owners: (rows,) the image of each row, for the message.
            depth: the number of the step, counted from 1.

        Raises:
            ShowtellError: the logits have the wrong shape, or are NaN or infinite somewhere.
        """
        logits = np.array(result.logits, dtype=np.float32, order="C")
        if logits.shape != (len(owners), self._vocab_size):
            raise ShowtellError(
                f"The decoder returned logits of shape {logits.shape} at step {depth}, "
                f"but {len(owners)} rows of {self._vocab_size} tokens were asked for."
            )
        finite = np.isfinite(logits)
        if not finite.all():
            row = int(np.flatnonzero(~finite.all(axis=1))[0])
            raise ShowtellError(
                f"The decoder produced non-finite logits at step {depth} for image {int(owners[row])} of the "
                f"batch (the first is {float(logits[row][~finite[row]][0])}). "
                "Its weights or the image's features are damaged, or overflowed in low precision."
            )
        logits[:, self._never] = -np.inf
        if depth == 1:
            logits[:, self._end] = -np.inf
        return logits


def _take_largest(logits: FloatArray, count: int) -> IntArray | None:
    # A beam's few tokens: the largest, again and again, is ten times quicker than partitioning the vocabulary.
    rest = logits.copy()
    rows = np.arange(len(logits))
    best = np.empty((len(logits), count), dtype=np.int64)
    for place in range(count):
        if place:
            rest[rows, best[:, place - 1]] = -np.inf
        best[:, place] = rest.argmax(axis=1)  # of equals the first, which has the lowest id
    # Where fewer tokens are possible than were asked for, nothing but impossible ones is left for the last place.
    return None if np.isneginf(rest[rows, best[:, -1]]).any() else best


def log_normaliser(logits: FloatArray) -> DoubleArray:
    """Returns the logarithm, (rows,), of the sum of exponentials; logit minus this is a log-probability."""
    peaks = logits.max(axis=1)
    with np.errstate(over="ignore"):  # logits 1e38 apart: the smaller one is impossible, not an error
        shifted = logits - peaks[:, None]
    np.exp(shifted, out=shifted)
    return np.asarray(peaks.astype(np.float64) + np.log(shifted.sum(axis=1).astype(np.float64)))


def gather_log_probs(logits: FloatArray, tokens: IntArray) -> DoubleArray:
    """Returns the log-probabilities, (rows, chosen), of some tokens of each row.

    Args:
        logits: (rows, vocab), -inf where a token may not come out.
        tokens: (rows, chosen).
    """
    picked = np.take_along_axis(logits, tokens, axis=1).astype(np.float64)
    return np.asarray(picked - log_normaliser(logits)[:, None])


def top_tokens(logits: FloatArray, count: int) -> IntArray:
    """Returns the `count` tokens, (rows, count), with the highest logits of each row, highest first.

    Of equal logits the lowest id comes first, also where the last place is contested.
    """
    vocab = logits.shape[1]
    if count >= vocab:
        return np.argsort(-logits, axis=1, kind="stable")
    if count <= _FEW:
        best = _take_largest(logits, count)
        if best is not None:
            return best
    chosen = np.argpartition(logits, vocab - count, axis=1)[:, vocab - count :]
    chosen.sort(axis=1)
    values = np.take_along_axis(logits, chosen, axis=1)
    best = np.take_along_axis(chosen, np.argsort(-values, axis=1, kind="stable"), axis=1)
    # Which of several equal tokens a partition keeps depends on its implementation: where that matters, sort.
    contested = np.count_nonzero(logits >= values.min(axis=1)[:, None], axis=1) > count
    if contested.any():
        best[contested] = np.argsort(-logits[contested], axis=1, kind="stable")[:, :count]
    return best
