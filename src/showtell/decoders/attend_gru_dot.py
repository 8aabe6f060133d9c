"""A GRU whose outputs, not inputs, attend to the picture, with dot-product attention.

Luong, Pham and Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.1:
the query is the GRU's output, and the context is added to it and normalised. The recurrence does not depend on the
attention, so the whole sequence is computed at once: one GRU call, one matrix product for all steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import relu

from showtell.config import check_range
from showtell.decoders.attention import DotAttention
from showtell.decoders.base import CaptionBatch, Decoder, Memory, State


@dataclass(frozen=True)
class AttendGruDotOptions:
    """Size and regularisation of the dot-attention GRU."""

    size: int = 512
    """size of word embeddings, of the GRU's state and of a cell after its dense(relu) layer"""
    dropout: float = 0.0
    """share of feature, embedding and output units dropped in training"""

    def __post_init__(self) -> None:
        check_range("decoder.size", self.size, minimum=1)
        check_range("decoder.dropout", self.dropout, minimum=0.0, maximum=0.95)


class AttendGruDotDecoder(Decoder):
    """Embedding; GRU; dot attention with the GRU's output as query; add; layer norm; dense to the vocabulary."""

    needs = "grid"
    attends = True

    def __init__(self, options: AttendGruDotOptions, *, channels: int, vocab_size: int) -> None:
        super().__init__()
        size = options.size
        self.size = size
        self.cell = nn.Linear(channels, size)
        self.embedding = nn.Embedding(vocab_size, size)
        self.gru = nn.GRU(size, size, batch_first=True)
        self.attention = DotAttention()
        self.norm = nn.LayerNorm(size)
        self.output = nn.Linear(size, vocab_size)
        self.dropout = nn.Dropout(options.dropout)

    def project(self, features: Float[Tensor, "images cells channels"]) -> Memory:
        """Returns the reduced cells: (images, cells, size)."""
        return (self.dropout(relu(self.cell(features))),)

    def start(self, memory: Memory) -> State:
        """The state starts at zero: (rows, size)."""
        return (memory[0].new_zeros(memory[0].shape[0], self.size),)

    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows size"], State, Float[Tensor, "rows cells"]]:
        """Feeds one word, then looks."""
        words = self.dropout(self.embedding(tokens)).unsqueeze(1)
        outputs, hidden = self.gru(words, state[0].unsqueeze(0).to(words.dtype))
        cells = memory[0]
        attended, weights = self._attend(outputs.view(cells.shape[0], -1, self.size), cells)
        return attended.flatten(0, 1), (hidden[0],), weights.flatten(0, 1)

    def run(
        self, batch: CaptionBatch, memory: Memory
    ) -> tuple[Float[Tensor, "tokens size"], Float[Tensor, "tokens cells"]]:
        """The whole sequence at once."""
        outputs, _ = self.gru(self.dropout(self.embedding(batch.inputs)))
        attended, weights = self._attend(outputs, memory[0])
        return batch.pack(attended), batch.pack(weights)

    def _attend(
        self, outputs: Float[Tensor, "images queries size"], cells: Float[Tensor, "images cells size"]
    ) -> tuple[Float[Tensor, "images queries size"], Float[Tensor, "images queries cells"]]:
        context, weights = self.attention(outputs, cells)
        return self.norm(outputs + context.to(outputs.dtype)), weights

    def logits(self, outputs: Float[Tensor, "rows size"]) -> Float[Tensor, "rows vocab"]:
        """The linear output layer."""
        logits: Tensor = self.output(self.dropout(outputs))
        return logits
