"""Two LSTMs: one looks at the picture, the other writes.

Anderson et al. 2018, "Bottom-Up and Top-Down Attention for Image Captioning and VQA", section 3.2, on the cells of a
grid in place of detected regions. The attention LSTM reads what the language LSTM said last, the mean of the cells and
the word; its state asks for the cells (additive attention); the language LSTM reads their mixture and that state.

What the mean of the cells and the words give to the gates does not depend on the recurrence and is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from showtell.config import check_range
from showtell.decoders.attention import AdditiveAttention
from showtell.decoders.base import CaptionBatch, Decoder, Memory, State
from showtell.decoders.lstm import advance_lstm
from showtell.decoders.output import WordOutput


@dataclass(frozen=True)
class TopDownLstmOptions:
    """Sizes and regularisation of the two LSTMs."""

    feature_size: int = 512
    """channels of a cell after the dense(relu) layer"""
    attention_size: int = 512
    """units of the attention's scoring network"""
    embedding_size: int = 512
    """size of word embeddings"""
    hidden_size: int = 512
    """size of the states of both LSTMs; the paper has 1000"""
    tied: bool = False
    """whether the output layer has the word embeddings as its matrix (Press and Wolf 2017)"""
    dropout: float = 0.0
    """share of feature, embedding and output units dropped in training"""

    def __post_init__(self) -> None:
        for name in ("feature_size", "attention_size", "embedding_size", "hidden_size"):
            check_range(f"decoder.{name}", getattr(self, name), minimum=1)
        check_range("decoder.dropout", self.dropout, minimum=0.0, maximum=0.95)


class TopDownLstmDecoder(Decoder):
    """dense(relu) on cells; attention LSTM; additive attention; language LSTM; linear to the vocabulary."""

    needs = "grid"
    attends = True

    def __init__(self, options: TopDownLstmOptions, *, channels: int, vocab_size: int) -> None:
        super().__init__()
        size, features = options.hidden_size, options.feature_size
        self.sizes = [size, features, options.embedding_size]  # of what the attention LSTM reads
        self.cell = nn.Linear(channels, features)
        self.attention = AdditiveAttention(features, size, options.attention_size)
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        self.looking = nn.LSTMCell(sum(self.sizes), size)
        self.writing = nn.LSTMCell(features + size, size)
        self.output = WordOutput(size, self.embedding, tied=options.tied)
        self.dropout = nn.Dropout(options.dropout)

    def project(self, features: Float[Tensor, "images cells channels"]) -> Memory:
        """Returns the reduced cells, their keys, and what their mean gives to the attention LSTM's gates."""
        cells = self.dropout(relu(self.cell(features)))
        from_mean = self._split(self.looking.weight_ih)[1]
        return (
            cells,
            self.attention.project(cells),
            linear(cells.mean(dim=1), from_mean, self.looking.bias_ih),
        )

    def start(self, memory: Memory) -> State:
        """Hidden and cell states of both LSTMs are zero: four of (rows, hidden)."""
        # float32 also under autocast: a cell state adds up over the steps.
        shape = (memory[0].shape[0], self.sizes[0])
        return tuple(memory[0].new_zeros(shape, dtype=torch.float32) for _ in range(4))

    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows hidden"], State, Float[Tensor, "rows cells"]]:
        """Looks, then writes one word."""
        from_words = self._split(self.looking.weight_ih)[2]
        gates = linear(self.dropout(self.embedding(tokens)), from_words)
        after, weights = self._advance(gates, state, memory)
        return after[2], after, weights

    def run(
        self, batch: CaptionBatch, memory: Memory
    ) -> tuple[Float[Tensor, "tokens hidden"], Float[Tensor, "tokens cells"]]:
        """As `step` after `step`, but what the words give to the gates is one product for all of them."""
        state, counts = self.start(memory), batch.counts()
        from_words = self._split(self.looking.weight_ih)[2]
        words = self.dropout(self.embedding(batch.pack(batch.inputs)))
        outputs, looks = [], []
        for count, gates in zip(counts, torch.split(linear(words, from_words), counts)):
            if count < len(state[0]):
                state, memory = (tuple(part[:count] for part in parts) for parts in (state, memory))
            state, weights = self._advance(gates, state, memory)
            outputs.append(state[2])
            looks.append(weights)
        return torch.cat(outputs), torch.cat(looks)

    def _split(self, weight: Float[Tensor, "gates inputs"]) -> tuple[Tensor, ...]:
        return torch.split(weight, self.sizes, dim=1)  # from the language LSTM, the mean, and the word

    def _advance(
        self, given: Float[Tensor, "rows gates"], state: State, memory: Memory
    ) -> tuple[State, Float[Tensor, "rows cells"]]:
        """One step of both LSTMs, from what the word gives to the first one's gates."""
        cells, keys, from_mean = memory
        looking, looking_cell, writing, writing_cell = state
        from_writing = self._split(self.looking.weight_ih)[0]
        # Rows are images x width: what belongs to an image is broadcast over its rows, never repeated.
        blocks = given.view(from_mean.shape[0], -1, given.shape[1]) + from_mean.unsqueeze(1)
        gates = blocks.flatten(0, 1) + linear(writing, from_writing)
        gates = gates + linear(looking, self.looking.weight_hh, self.looking.bias_hh)
        looking, looking_cell = advance_lstm(gates, looking_cell)
        context, weights = self.attention(looking, cells, keys)
        mixed = torch.cat([context.to(looking.dtype), looking], dim=1)
        gates = linear(mixed, self.writing.weight_ih, self.writing.bias_ih)
        gates = gates + linear(writing, self.writing.weight_hh, self.writing.bias_hh)
        writing, writing_cell = advance_lstm(gates, writing_cell)
        return (looking, looking_cell, writing, writing_cell), weights

    def logits(self, outputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The output layer."""
        logits: Tensor = self.output(self.dropout(outputs))
        return logits
