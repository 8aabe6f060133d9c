"""A GRU that looks at the picture again before every word, with additive attention.

*Show, Attend and Tell* (Xu et al. 2015) with the soft attention of its section 4.2, a GRU in the LSTM's place,
and the sizes of the widely read tutorial: the cells go through one dense(relu) layer; the context vector and the
word embedding are the GRU's input; two dense layers give the logits.

Two options come from the paper and are missing in the tutorial: the state starts from the mean of the cells (here after
the dense layer), and a gate decides before each word how much of the context counts (here channel by channel, as most
implementations have it; the paper has one number).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from showtell.config import check_choice, check_range
from showtell.decoders.attention import AdditiveAttention
from showtell.decoders.base import CaptionBatch, Decoder, Memory, State


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
    initial_state: str = "zero"
    """"mean" (a dense(tanh) layer on the mean of the cells; Xu et al. 2015, section 3.1.2) or "zero" """
    gate: bool = False
    """whether a gate from the state scales each channel of the context vector (Xu et al. 2015, section 4.2.1)"""
    dropout: float = 0.0
    """share of embedding and output units dropped in training"""

    def __post_init__(self) -> None:
        for name in ("feature_size", "attention_size", "embedding_size", "hidden_size"):
            check_range(f"decoder.{name}", getattr(self, name), minimum=1)
        check_choice("decoder.initial_state", self.initial_state, ("mean", "zero"))
        check_range("decoder.dropout", self.dropout, minimum=0.0, maximum=0.95)


class AttendGruAdditiveDecoder(Decoder):
    """dense(relu) on cells; additive attention; GRU on [context; embedding]; dense; dense to the vocabulary."""

    needs = "grid"
    attends = True

    def __init__(self, options: AttendGruAdditiveOptions, *, channels: int, vocab_size: int) -> None:
        super().__init__()
        self.hidden_size = options.hidden_size
        self.feature_size = options.feature_size
        self.cell = nn.Linear(channels, options.feature_size)
        self.attention = AdditiveAttention(options.feature_size, options.hidden_size, options.attention_size)
        self.initial = (
            nn.Linear(options.feature_size, options.hidden_size) if options.initial_state == "mean" else None
        )
        self.gate = nn.Linear(options.hidden_size, options.feature_size) if options.gate else None
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        self.gru = nn.GRUCell(options.feature_size + options.embedding_size, options.hidden_size)
        self.dense = nn.Linear(options.hidden_size, options.hidden_size)
        self.output = nn.Linear(options.hidden_size, vocab_size)
        self.dropout = nn.Dropout(options.dropout)

    def project(self, features: Float[Tensor, "images cells channels"]) -> Memory:
        """Returns the reduced cells (images, cells, features) and their keys (images, cells, attention)."""
        cells = relu(self.cell(features))
        return cells, self.attention.project(cells)

    def start(self, memory: Memory) -> State:
        """The state from the mean of the cells, or zero: (rows, hidden)."""
        cells = memory[0]
        if self.initial is None:
            return (cells.new_zeros(cells.shape[0], self.hidden_size),)
        return (torch.tanh(self.initial(cells.mean(dim=1))),)

    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows hidden"], State, Float[Tensor, "rows cells"]]:
        """Looks, then feeds one word."""
        cells, keys = memory
        context, weights = self._look(state[0], cells, keys)
        words = self.dropout(self.embedding(tokens))
        hidden = self.gru(torch.cat([context.to(words.dtype), words], dim=1), state[0])
        return hidden, (hidden,), weights

    def run(
        self, batch: CaptionBatch, memory: Memory
    ) -> tuple[Float[Tensor, "tokens hidden"], Float[Tensor, "tokens cells"]]:
        """As `step` after `step`, but what the words give to the GRU's gates is one product for all of them."""
        (hidden,), (cells, keys) = self.start(memory), memory
        counts = batch.counts()
        weight = self.gru.weight_ih
        from_context, from_words = weight[:, : self.feature_size], weight[:, self.feature_size :]
        words = self.dropout(self.embedding(batch.pack(batch.inputs)))
        word_gates = torch.split(
            linear(words, from_words, self.gru.bias_ih), counts
        )  # each (count, 3 x hidden)
        outputs, looks = [], []
        for count, given in zip(counts, word_gates):
            if count < len(hidden):
                hidden, cells, keys = hidden[:count], cells[:count], keys[:count]
            context, weights = self._look(hidden, cells, keys)
            gates = given + linear(context.to(given.dtype), from_context)
            hidden = _advance(gates, linear(hidden, self.gru.weight_hh, self.gru.bias_hh), hidden)
            outputs.append(hidden)
            looks.append(weights)
        return torch.cat(outputs), torch.cat(looks)

    def _look(
        self,
        hidden: Float[Tensor, "rows hidden"],
        cells: Float[Tensor, "images cells features"],
        keys: Float[Tensor, "images cells attention"],
    ) -> tuple[Float[Tensor, "rows features"], Float[Tensor, "rows cells"]]:
        context, weights = self.attention(hidden, cells, keys)
        if self.gate is not None:
            context = torch.sigmoid(self.gate(hidden)) * context
        return context, weights

    def logits(self, outputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The two dense layers."""
        logits: Tensor = self.output(self.dropout(self.dense(outputs)))
        return logits


def _advance(
    given: Float[Tensor, "rows gates"],
    recurrent: Float[Tensor, "rows gates"],
    hidden: Float[Tensor, "rows hidden"],
) -> Float[Tensor, "rows hidden"]:
    """One GRU step (Cho et al. 2014, in the form of torch.nn.GRU) from its inputs' and its state's gates."""
    reset_given, update_given, new_given = given.chunk(3, dim=1)
    reset_recurrent, update_recurrent, new_recurrent = recurrent.chunk(3, dim=1)
    reset = torch.sigmoid(reset_given + reset_recurrent)
    update = torch.sigmoid(update_given + update_recurrent)
    new = torch.tanh(new_given + reset * new_recurrent)
    return torch.lerp(new, hidden, update)
