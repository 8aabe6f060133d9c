"""An LSTM that looks at several things at once before every word, with multi-head attention.

*Show, Attend and Tell* (Xu et al. 2015) with the attention of Vaswani et al. 2017, section 3.2.2, in place of its own.
As there, the state before the word asks, and the context vector goes into the LSTM beside the word: what was seen
becomes part of the state, which therefore knows what has been said of the picture and what has not. (Attention behind
the recurrence would train faster, but then nothing carries what was looked at to the next word.)

Keys and values are computed once for each picture, and what the words give to the gates once for all words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import relu

from showtell.config import check_choice, check_range
from showtell.decoders.attention import MultiHeadAttention
from showtell.decoders.base import CaptionBatch, Decoder, Memory, State
from showtell.decoders.lstm import LstmStart, advance_lstm
from showtell.decoders.output import WordOutput
from showtell.errors import ConfigError


@dataclass(frozen=True)
class MultiHeadLstmOptions:
    """Sizes and regularisation of the LSTM with multi-head attention."""

    feature_size: int = 512
    """channels of a cell after the dense(relu) layer"""
    embedding_size: int = 512
    """size of word embeddings"""
    hidden_size: int = 512
    """size of the LSTM's state, and of keys, values and context of all heads together"""
    heads: int = 8
    """heads of the attention, which share `hidden_size` equally (Vaswani et al. 2017, section 3.2.2)"""
    initial_state: str = "mean"
    """"mean" (dense(tanh) layers on the mean of the cells; Xu et al. 2015, section 3.1.2) or "zero" """
    tied: bool = False
    """whether the output layer has the word embeddings as its matrix (Press and Wolf 2017)"""
    dropout: float = 0.0
    """share of feature, embedding and output units dropped in training"""

    def __post_init__(self) -> None:
        for name in ("feature_size", "embedding_size", "hidden_size", "heads"):
            check_range(f"decoder.{name}", getattr(self, name), minimum=1)
        if self.hidden_size % self.heads:
            raise ConfigError(
                f"decoder.heads must divide decoder.hidden_size. Received: {self.heads} heads for a hidden_size of "
                f"{self.hidden_size}. Heads share it equally: 64 channels for each are usual."
            )
        check_choice("decoder.initial_state", self.initial_state, ("mean", "zero"))
        check_range("decoder.dropout", self.dropout, minimum=0.0, maximum=0.95)


class MultiHeadLstmDecoder(Decoder):
    """dense(relu) on cells; multi-head attention; LSTM on [context; embedding]; linear to the vocabulary."""

    needs = "grid"
    attends = True

    def __init__(self, options: MultiHeadLstmOptions, *, channels: int, vocab_size: int) -> None:
        super().__init__()
        features, size = options.feature_size, options.hidden_size
        self.cell = nn.Linear(channels, features)
        self.attention = MultiHeadAttention(features, size, size, options.heads)
        self.initial = LstmStart(features, size, options.initial_state)
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        self.from_words = nn.Linear(options.embedding_size, 4 * size)
        self.from_seen = nn.Linear(2 * size, 4 * size, bias=False)  # the context vector and the state before
        self.output = WordOutput(size, self.embedding, tied=options.tied)
        self.dropout = nn.Dropout(options.dropout)

    def project(self, features: Float[Tensor, "images cells channels"]) -> Memory:
        """Returns keys and values of all heads, each (images, heads, cells, part), and the mean of the cells."""
        cells = self.dropout(relu(self.cell(features)))
        return *self.attention.project(cells), cells.mean(dim=1)

    def start(self, memory: Memory) -> State:
        """Hidden and cell state, from the mean of the cells or zero: two of (rows, hidden)."""
        hidden, cell = self.initial(memory[2])
        return hidden, cell

    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows hidden"], State, Float[Tensor, "rows cells"]]:
        """Looks, then feeds one word."""
        given = self.from_words(self.dropout(self.embedding(tokens)))
        after, weights = self._advance(given, state, memory)
        return after[0], after, weights

    def run(
        self, batch: CaptionBatch, memory: Memory
    ) -> tuple[Float[Tensor, "tokens hidden"], Float[Tensor, "tokens cells"]]:
        """As `step` after `step`, but what the words give to the gates is one product for all of them."""
        state, counts = self.start(memory), batch.counts()
        words = self.from_words(self.dropout(self.embedding(batch.pack(batch.inputs))))
        outputs, looks = [], []
        for count, given in zip(counts, torch.split(words, counts)):
            if count < len(state[0]):
                state, memory = (tuple(part[:count] for part in parts) for parts in (state, memory))
            state, weights = self._advance(given, state, memory)
            outputs.append(state[0])
            looks.append(weights)
        return torch.cat(outputs), torch.cat(looks)

    def _advance(
        self, given: Float[Tensor, "rows gates"], state: State, memory: Memory
    ) -> tuple[State, Float[Tensor, "rows cells"]]:
        """Looks, then one step of the LSTM, from what the word gives to its gates."""
        hidden, cell = state
        context, weights = self.attention(hidden, memory[0], memory[1])
        seen = torch.cat([context.to(hidden.dtype), hidden], dim=1)
        return advance_lstm(given + self.from_seen(seen), cell), weights

    def logits(self, outputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The output layer."""
        logits: Tensor = self.output(self.dropout(outputs))
        return logits
