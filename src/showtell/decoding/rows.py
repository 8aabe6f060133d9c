"""How rows become the input of a network that shares an image's features among its rows.

The search thinks in rows: unfinished captions, ascending by image, of some images three and of others one. A
network computes a block of `images x width` slots, so that the rows of an image see one copy of its features
(broadcast, never repeated). Images that have no row left leave the block; images with fewer rows than the widest
one fill their slots with a repeated row, whose results nobody reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from showtell.decoding.stepper import FloatArray, IntArray, StepResult
from showtell.errors import ShowtellError

Parts = tuple[Any, ...]  # arrays of a network: each (images, ...) in a memory, (slots, ...) in a state


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where each row lies in the block of `images x width` slots."""

    owners: IntArray  # (rows,) the image of each row, ascending
    images: IntArray  # (images,) those that have rows, ascending
    width: int  # slots per image
    slots: IntArray  # (rows,) the slot of each row
    rows: IntArray  # (slots,) the row in each slot; in spare slots the image's first row

    @classmethod
    def arrange(cls, owners: IntArray) -> RowLayout:
        """Lays out rows.

        Raises:
            ShowtellError: the owners are not ascending: a mistake of the search, not of the user.
        """
        steps = np.diff(owners, prepend=-1)
        if len(owners) == 0 or (steps < 0).any():
            raise ShowtellError(
                f"Rows must be given by ascending image, at least one. Received the images: {owners}"
            )
        first = np.flatnonzero(steps)
        images, counts = owners[first], np.diff(first, append=len(owners))
        width = int(counts.max())
        ranks = np.arange(len(owners)) - np.repeat(first, counts)
        slots = np.repeat(np.arange(len(images)), counts) * width + ranks
        rows = np.repeat(first, width)
        rows[slots] = np.arange(len(owners))
        return cls(owners, images, width, slots, rows)

    @property
    def full(self) -> bool:
        """Whether no slot is spare, so that rows and slots are the same."""
        return len(self.rows) == len(self.owners)


@dataclass(frozen=True, slots=True)
class _Bound:
    """The state of a set of rows, and the memory of their images."""

    layout: RowLayout
    memory: Parts
    state: Parts


class BlockStepper(ABC):
    """Turns a network that steps a block into a `Stepper`.

    Args:
        memory: what was computed once per image, each (images, ...).
        state: of the recurrence before the first word, each (images, ...).
        images: how many are bound.
        vocab_size: the width of the logits.
    """

    def __init__(self, memory: Parts, state: Parts, *, images: int, vocab_size: int) -> None:
        self.images = images
        self.vocab_size = vocab_size
        self._memory = memory
        self._state = state

    @abstractmethod
    def gather(self, parts: Parts, places: IntArray) -> Parts:
        """Returns the given places of the first axis of every part; a place may be repeated."""

    @abstractmethod
    def run(
        self, tokens: IntArray, state: Parts, memory: Parts
    ) -> tuple[FloatArray, Parts, FloatArray | None]:
        """Feeds one token to every slot.

        Args:
            tokens: (slots,), where slots = images x width; slot s belongs to image s // width.
            state: each (slots, ...).
            memory: each (images, ...).

        Returns:
            Logits (slots, vocab), the new state, and attention (slots, cells) or None.
        """

    def start(self, owners: IntArray) -> _Bound:
        """Returns the state of new rows, row i for image `owners[i]`."""
        layout = RowLayout.arrange(owners)
        everyone = len(layout.images) == self.images
        memory = self._memory if everyone else self.gather(self._memory, layout.images)
        same = everyone and layout.width == 1
        state = self._state if same else self.gather(self._state, owners[layout.rows])
        return _Bound(layout, memory, state)

    def step(self, tokens: IntArray, state: _Bound) -> StepResult:
        """Feeds one token to every row."""
        layout = state.layout
        fed = tokens if layout.full else tokens[layout.rows]
        logits, after, attention = self.run(fed, state.state, state.memory)
        if not layout.full:
            logits = logits[layout.slots]
            attention = None if attention is None else attention[layout.slots]
        return StepResult(logits, _Bound(layout, state.memory, after), attention)

    def select(self, state: _Bound, rows: IntArray) -> _Bound:
        """Returns the given rows. The memory is touched only where images leave."""
        before = state.layout
        layout = RowLayout.arrange(before.owners[rows])
        stays = len(layout.images) == len(before.images)
        memory = (
            state.memory
            if stays
            else self.gather(state.memory, np.searchsorted(before.images, layout.images))
        )
        return _Bound(layout, memory, self.gather(state.state, before.slots[rows][layout.rows]))
