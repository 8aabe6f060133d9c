"""The bridge from a torch decoder to the search, which knows only NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from showtell.decoders.base import Decoder, Memory, State, select
from showtell.decoding.stepper import IntArray, StepResult


@dataclass(frozen=True)
class _Rows:
    """The state of a set of rows, with the part of the memory that they look at."""

    owners: IntArray
    memory: Memory
    state: State


class TorchStepper:
    """Binds a decoder to the features of a batch of images; implements `showtell.decoding.Stepper`.

    Args:
        decoder: in evaluation mode.
        features: (images, cells, channels) or (images, channels).
        vocab_size: the width of the logits.
    """

    def __init__(self, decoder: Decoder, features: Tensor, *, vocab_size: int) -> None:
        self.decoder = decoder
        self.images = len(features)
        self.vocab_size = vocab_size
        with torch.inference_mode():
            self._memory = decoder.project(features)

    def start(self, owners: IntArray) -> _Rows:
        """Returns the state of new rows, row i for image `owners[i]`."""
        with torch.inference_mode():
            memory = select(self._memory, torch.from_numpy(owners))
            return _Rows(owners, memory, self.decoder.start(memory))

    def step(self, tokens: IntArray, state: _Rows) -> StepResult:
        """Feeds one token to every row."""
        with torch.inference_mode():
            outputs, after, attention = self.decoder.step(torch.from_numpy(tokens), state.state, state.memory)
            logits = self.decoder.logits(outputs).float().numpy()
        return StepResult(
            logits,
            _Rows(state.owners, state.memory, after),
            None if attention is None else attention.float().numpy(),
        )

    def select(self, state: _Rows, rows: IntArray) -> _Rows:
        """Returns the given rows. Beams that only change places inside their image keep the gathered memory."""
        owners = state.owners[rows]
        chosen = torch.from_numpy(rows)
        with torch.inference_mode():
            same = np.array_equal(owners, state.owners)
            memory = state.memory if same else select(state.memory, chosen)
            return _Rows(owners, memory, select(state.state, chosen))
