"""What the search asks of a model: one decoder bound to the features of a batch of images.

The search is written once, over NumPy arrays, so that a decoder in torch and an exported one are driven by
the same code. A *row* is one unfinished caption; several rows may belong to one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one decoder step gives for every row."""

    logits: FloatArray  # (rows, vocab), unnormalised
    state: Any  # opaque to the search: handed back to `select` and `step`
    attention: FloatArray | None  # (rows, cells), each row sums to 1; None for decoders without attention


class Stepper(Protocol):
    """One decoder bound to a batch of images."""

    images: int  # how many images are bound
    vocab_size: int  # the width of the logits, special tokens included

    def start(self, owners: IntArray) -> Any:
        """Returns the state before the first step of `len(owners)` rows; row i captions image `owners[i]`."""
        ...

    def step(self, tokens: IntArray, state: Any) -> StepResult:
        """Feeds one token to every row. `tokens`: (rows,), the first of each caption is the start token."""
        ...

    def select(self, state: Any, rows: IntArray) -> Any:
        """Returns the state of the given rows, in the given order; a row may be repeated or left out."""
        ...
