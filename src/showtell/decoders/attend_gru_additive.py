"""A GRU that looks at the picture again before every word, with additive attention.

*Show, Attend and Tell* (Xu et al. 2015) with the soft attention of its section 4.2, a GRU in the LSTM's place,
and the sizes of the widely read tutorial: the cells go through one dense(relu) layer; the context vector and the
word embedding are the GRU's input; two dense layers give the logits. The state starts at zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import relu

from showtell.config import check_range
from showtell.decoders.attention import AdditiveAttention
from showtell.decoders.base import Decoder, Memory, State


@dataclass(frozen=True)
class AttendGruAdditiveOptions:
    """Sizes and regularisation of the additive-attention GRU."""

    feature_size: int = 256
    """channels of a cell after the dense(relu) layer"""
    attention_size: int = 512
    """units of the attention's scoring network"""
    embedding_size: int = 256
    """size of word embeddings"""
    hidden_size: int = 512
    """size of the GRU's state and of the dense layer before the vocabulary"""
    dropout: float = 0.0
    """share of feature, embedding and output units dropped in training"""

    def __post_init__(self) -> None:
        for name in ("feature_size", "attention_size", "embedding_size", "hidden_size"):
            check_range(f"decoder.{name}", getattr(self, name), minimum=1)
        check_range("decoder.dropout", self.dropout, minimum=0.0, maximum=0.95)


class AttendGruAdditiveDecoder(Decoder):
    """dense(relu) on cells; additive attention; GRU on [context; embedding]; dense; dense to the vocabulary."""

    needs = "grid"
    attends = True

    def __init__(self, options: AttendGruAdditiveOptions, *, channels: int, vocab_size: int) -> None:
        super().__init__()
        self.hidden_size = options.hidden_size
        self.cell = nn.Linear(channels, options.feature_size)
        self.attention = AdditiveAttention(options.feature_size, options.hidden_size, options.attention_size)
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        self.gru = nn.GRUCell(options.feature_size + options.embedding_size, options.hidden_size)
        self.dense = nn.Linear(options.hidden_size, options.hidden_size)
        self.output = nn.Linear(options.hidden_size, vocab_size)
        self.dropout = nn.Dropout(options.dropout)

    def project(self, features: Float[Tensor, "images cells channels"]) -> Memory:
        """Returns the reduced cells (images, cells, features) and their keys (images, cells, attention)."""
        cells = self.dropout(relu(self.cell(features)))
        return cells, self.attention.project(cells)

    def start(self, memory: Memory) -> State:
        """The state starts at zero: (rows, hidden)."""
        return (torch.zeros(len(memory[0]), self.hidden_size, device=memory[0].device),)

    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows hidden"], State, Float[Tensor, "rows cells"]]:
        """Looks, then feeds one word."""
        cells, keys = memory
        context, weights = self.attention(state[0], cells, keys)
        words = self.dropout(self.embedding(tokens))
        hidden = self.gru(torch.cat([context.to(words.dtype), words], dim=1), state[0])
        return hidden, (hidden,), weights

    def logits(self, outputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The two dense layers."""
        logits: Tensor = self.output(self.dropout(self.dense(outputs)))
        return logits
