"""The bridge from a torch decoder to the search, which knows only NumPy arrays."""

from __future__ import annotations

import torch
from torch import Tensor

from showtell.decoders.base import Decoder, select
from showtell.decoding import BlockStepper
from showtell.decoding.rows import Parts
from showtell.decoding.stepper import FloatArray, IntArray


class TorchStepper(BlockStepper):
    """Binds a decoder to the features of a batch of images; implements `showtell.decoding.Stepper`.

    Args:
        decoder: in evaluation mode.
        features: (images, cells, channels) or (images, channels).
        vocab_size: the width of the logits.
    """

    def __init__(self, decoder: Decoder, features: Tensor, *, vocab_size: int) -> None:
        self.decoder = decoder
        self._device = features.device
        with torch.inference_mode():
            memory = decoder.project(features)
            state = decoder.start(memory)
        super().__init__(memory, state, images=len(features), vocab_size=vocab_size)

    @torch.inference_mode()
    def gather(self, parts: Parts, places: IntArray) -> Parts:
        """Returns the given places of every part."""
        return select(parts, torch.from_numpy(places).to(self._device))

    @torch.inference_mode()
    def run(
        self, tokens: IntArray, state: Parts, memory: Parts
    ) -> tuple[FloatArray, Parts, FloatArray | None]:
        """Feeds one token to every slot."""
        outputs, after, attention = self.decoder.step(
            torch.from_numpy(tokens).to(self._device), state, memory
        )
        logits = self.decoder.logits(outputs).float().cpu().numpy()
        return logits, after, None if attention is None else attention.float().cpu().numpy()
