"""Several models that write one caption together: the mean of their log-probabilities, word by word.

The mean is normalised again, so that it is a distribution: the geometric mean of the members', which Hinton (2002)
calls a product of experts. Each member keeps its own state, and is fed what the ensemble has chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from showtell.decoding.stepper import FloatArray, IntArray, Stepper, StepResult
from showtell.errors import ShowtellError


@dataclass(frozen=True, slots=True)
class Voice:
    """One member of an ensemble."""

    stepper: Stepper
    ids: IntArray | None = (
        None  # (vocab,) the member's id of each of the ensemble's tokens; None: the same ids
    )
    looks: bool = False  # whether its attention counts


class EnsembleStepper:
    """Implements `Stepper` over others, whatever runs them.

    Args:
        voices: at least one, each bound to the same images.

    Raises:
        ShowtellError: they are bound to different numbers of images, or their vocabularies differ in size.
    """

    def __init__(self, voices: Sequence[Voice]) -> None:
        images = {voice.stepper.images for voice in voices}
        sizes = {voice.stepper.vocab_size for voice in voices}
        if len(images) != 1 or len(sizes) != 1:
            raise ShowtellError(
                "The members of an ensemble must be bound to the same images and have vocabularies of one size. "
                f"Received: images {sorted(images)}, sizes {sorted(sizes)}."
            )
        self.images = images.pop()
        self.vocab_size = sizes.pop()
        self._voices = tuple(voices)

    def start(self, owners: IntArray) -> tuple[Any, ...]:
        """Returns the states of all members before the first step."""
        return tuple(voice.stepper.start(owners) for voice in self._voices)

    def step(self, tokens: IntArray, state: tuple[Any, ...]) -> StepResult:
        """Feeds one token to every row of every member."""
        logits = np.zeros((len(tokens), self.vocab_size), dtype=np.float32)
        attention: list[FloatArray] = []
        states = []
        for voice, before in zip(self._voices, state, strict=True):
            result = voice.stepper.step(tokens if voice.ids is None else voice.ids[tokens], before)
            states.append(result.state)
            # The search normalises what it gets. So the mean of logits does: it differs from that of log-probabilities
            # by one number for the whole row.
            with np.errstate(
                invalid="ignore"
            ):  # infinities of two signs; the search refuses what comes of them
                logits += result.logits if voice.ids is None else np.asarray(result.logits)[:, voice.ids]
            if voice.looks and result.attention is not None:
                attention.append(np.array(result.attention, dtype=np.float32))
        logits /= len(self._voices)
        looked = np.stack(attention).mean(axis=0) if attention else None
        return StepResult(logits, tuple(states), looked)

    def select(self, state: tuple[Any, ...], rows: IntArray) -> tuple[Any, ...]:
        """Returns the states of the given rows, in the given order."""
        return tuple(
            voice.stepper.select(before, rows) for voice, before in zip(self._voices, state, strict=True)
        )
