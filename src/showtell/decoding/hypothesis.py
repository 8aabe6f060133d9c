"""Captions as the search finds them, and the trellis from which they are read back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from showtell.decoding.stepper import FloatArray, IntArray

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One caption of one image."""

    tokens: tuple[int, ...]  # words only: no special token is ever among them
    log_prob: float  # natural logarithm, summed over the words and, if finished, the end token
    score: float  # log_prob / len(token_log_probs) ** length_penalty: what captions are ranked by
    finished: bool  # False: the model had not ended the caption when max_steps was reached
    token_log_probs: tuple[float, ...]  # of every word and, if finished, of the end token as the last
    # (words, cells); row i is where the model looked when it produced word i. None without attention.
    attention: FloatArray | None = field(default=None, compare=False)


def normalise_score(log_prob: DoubleArray, steps: int, length_penalty: float) -> DoubleArray:
    """Returns `log_prob / steps ** length_penalty`, the score that `DecodingSettings` documents."""
    return np.asarray(log_prob / float(steps) ** length_penalty)


@dataclass(frozen=True, slots=True)
class _Layer:
    parents: IntArray  # (entries,) of the layer before
    tokens: IntArray  # (entries,)
    log_probs: DoubleArray  # (entries,) of these tokens alone
    attention: FloatArray | None  # (entries, cells) under which these tokens were produced


class Trellis:
    """Every token that the search has kept, one layer per step, each token pointing to the one before it.

    In each layer the entries that go on come first, so entry i of a layer is row i of the next step.
    """

    def __init__(self, end: int) -> None:
        self._end = end
        self._layers: list[_Layer] = []

    def add(
        self, parents: IntArray, tokens: IntArray, log_probs: DoubleArray, attention: FloatArray | None
    ) -> None:
        """Adds the layer of one step.

        Args:
            parents: (entries,) the row of the step that produced each entry.
            tokens: (entries,) the tokens that were kept.
            log_probs: (entries,) the log-probabilities of these tokens.
            attention: (rows, cells) as the step returned it, or None.
        """
        # Indexing copies, so a stepper may reuse its output buffers.
        looked = None if attention is None else np.asarray(attention, dtype=np.float32)[parents]
        self._layers.append(_Layer(parents, tokens, log_probs, looked))

    def trace(self, depth: int, entry: int, length_penalty: float) -> Hypothesis:
        """Returns the caption that ends in `entry` of the layer of step `depth` (counted from 1)."""
        tokens: list[int] = []
        log_probs: list[float] = []
        attention: list[FloatArray] = []
        for layer in reversed(self._layers[:depth]):
            tokens.append(int(layer.tokens[entry]))
            log_probs.append(float(layer.log_probs[entry]))
            if layer.attention is not None:
                attention.append(layer.attention[entry])
            entry = int(layer.parents[entry])
        tokens.reverse()
        log_probs.reverse()
        attention.reverse()
        finished = tokens[-1] == self._end
        words = tokens[:-1] if finished else tokens
        # The order of the additions is the search's own, so the sum is too, to the last bit.
        log_prob = np.float64(0.0)
        for value in log_probs:
            log_prob += value
        return Hypothesis(
            tokens=tuple(words),
            log_prob=float(log_prob),
            score=float(normalise_score(np.asarray(log_prob), depth, length_penalty)),
            finished=finished,
            token_log_probs=tuple(log_probs),
            attention=np.stack(attention[: len(words)]) if attention else None,
        )
