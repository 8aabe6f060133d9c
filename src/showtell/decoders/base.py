"""What every decoder is: a projection of the image, a start, one step, and an output layer.

A decoder never sees padding. Its training path gives the outputs of the real tokens alone, in *packed order*:
all first words of the batch (longest caption first), then all second words of the captions that have one, and so
on. The loss is the mean over these rows, so padding can enter neither the loss nor its divisor nor a gradient.

The default training path repeats `step`; a decoder whose mathematics allows the whole sequence at once overrides
`run`, and a test holds that both paths give the same logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Memory = tuple[Tensor, ...]  # what `project` computes once per image; each (images, ...)
State = tuple[Tensor, ...]  # what the recurrence carries from step to step; each (rows, ...)


class Taught(NamedTuple):
    """What teacher forcing gives for all real tokens of a batch, in packed order."""

    logits: Tensor  # (tokens, vocab)
    attention: Tensor | None  # (tokens, cells), each row sums to 1; None for decoders without attention


@dataclass(frozen=True)
class CaptionBatch:
    """Captions of a batch of images, longest first."""

    inputs: Tensor  # (captions, steps) start token, then words; padded at the end
    targets: Tensor  # (captions, steps) words, then the end token; padded at the end
    lengths: Sequence[int]  # (captions) real steps, descending
    owners: Tensor  # (captions) the index of each caption's image in the features of the batch

    def to(self, device: torch.device) -> CaptionBatch:
        """Returns the batch with its tensors on a device; from pinned memory without waiting for the copy."""
        moved = [part.to(device, non_blocking=True) for part in (self.inputs, self.targets, self.owners)]
        return CaptionBatch(moved[0], moved[1], self.lengths, moved[2])

    def pin_memory(self) -> CaptionBatch:
        """Returns the batch in memory that a GPU can copy from by itself."""
        pinned = [part.pin_memory() for part in (self.inputs, self.targets, self.owners)]
        return CaptionBatch(pinned[0], pinned[1], self.lengths, pinned[2])

    def counts(self) -> list[int]:
        """Returns, for each step, how many captions are that long; because they are sorted, these come first."""
        steps = max(self.lengths)
        counts = [0] * steps
        for length in self.lengths:
            for step in range(length):
                counts[step] += 1
        return counts

    def pack(self, padded: Tensor) -> Tensor:
        """Returns the real rows of a (captions, steps, ...) tensor in packed order: (tokens, ...)."""
        return torch.cat([padded[:count, step] for step, count in enumerate(self.counts())])


class Decoder(nn.Module, ABC):
    """A recurrent decoder; subclasses say in `needs` whether they look at a grid or a pooled vector.

    A row is one caption; rows = images x width, those of an image together, so that they share its memory without
    a copy. In training every caption has a memory entry of its own: the width is 1.

    Shapes:
        features: (images, cells, channels) for "grid", (images, channels) for "pooled".
        tokens: (rows,) ids; logits: (rows, vocab); attention: (rows, cells), each row sums to 1.
    """

    needs: ClassVar[str]  # "grid" or "pooled"
    attends: ClassVar[bool] = False  # whether `step` returns attention

    @abstractmethod
    def project(self, features: Tensor) -> Memory:
        """Computes what depends on the image alone, once per image."""

    @abstractmethod
    def start(self, memory: Memory) -> State:
        """Returns the state before the first step, one entry per entry of the memory."""

    @abstractmethod
    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows output"], State, Float[Tensor, "rows cells"] | None]:
        """Feeds one token to every row; returns what the output layer reads, the new state, and attention.

        Row r belongs to entry r // width of the memory, with width = rows / entries.
        """

    @abstractmethod
    def logits(self, outputs: Float[Tensor, "rows output"]) -> Float[Tensor, "rows vocab"]:
        """The output layer."""

    def run(
        self, batch: CaptionBatch, memory: Memory
    ) -> tuple[Float[Tensor, "tokens output"], Float[Tensor, "tokens cells"] | None]:
        """Returns outputs and attention of all real tokens in packed order; the memory has one entry per caption."""
        return self.run_stepwise(batch, memory)

    def run_stepwise(
        self, batch: CaptionBatch, memory: Memory
    ) -> tuple[Float[Tensor, "tokens output"], Float[Tensor, "tokens cells"] | None]:
        """`run` by repeated `step`; captions leave the batch when they end."""
        state = self.start(memory)
        outputs, looks = [], []
        for step, count in enumerate(batch.counts()):
            if count < len(memory[0]):
                memory = tuple(part[:count] for part in memory)
                state = tuple(part[:count] for part in state)
            output, state, attention = self.step(batch.inputs[:count, step], state, memory)
            outputs.append(output)
            if attention is not None:
                looks.append(attention)
        return torch.cat(outputs), torch.cat(looks) if looks else None

    def forward(self, features: Tensor, batch: CaptionBatch) -> Taught:
        """Teacher forcing."""
        outputs, attention = self.run(batch, select(self.project(features), batch.owners))
        return Taught(self.logits(outputs), attention)


def select(parts: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
    """Returns the given rows of every tensor of a memory or a state; rows may repeat."""
    return tuple(part.index_select(0, rows) for part in parts)
