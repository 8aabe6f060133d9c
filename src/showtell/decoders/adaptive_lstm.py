"""An LSTM that decides before every word whether to look at the picture or at what it knows.

Lu, Xiong, Parikh and Socher 2017, "Knowing When to Look: Adaptive Attention via A Visual Sentinel for Image
Captioning", sections 2.2 to 2.4. The LSTM reads the word and a vector of the whole picture; then its state asks for the
cells, and among them for a sentinel: a gated part of the LSTM's own memory. The share that the sentinel takes, beta, is
the part of the word that needs no picture.

The recurrence does not depend on the attention, so only the LSTM itself goes word by word: what words and pictures give
to its gates comes before, attention and output after, for many words at once. (torch.nn.LSTM would keep the memory, of
which the sentinel is made, to itself.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import relu

from showtell.config import check_choice, check_range
from showtell.decoders.attention import AdditiveAttention, mix
from showtell.decoders.base import CaptionBatch, Decoder, Memory, State
from showtell.decoders.lstm import LstmStart, advance_lstm
from showtell.decoders.output import WordOutput


@dataclass(frozen=True)
class AdaptiveLstmOptions:
    """Sizes and regularisation of the LSTM with a visual sentinel."""

    size: int = 512
    """size of the LSTM's state and of a cell after its dense(relu) layer, which are added to each other"""
    attention_size: int = 512
    """units of the attention's scoring network; the paper has as many as there are cells"""
    embedding_size: int = 512
    """size of word embeddings"""
    initial_state: str = "zero"
    """"mean" (dense(tanh) layers on the mean of the cells; Xu et al. 2015, section 3.1.2) or "zero" """
    tied: bool = False
    """whether the output layer has the word embeddings as its matrix (Press and Wolf 2017)"""
    dropout: float = 0.0
    """share of feature, embedding and output units dropped in training"""

    def __post_init__(self) -> None:
        for name in ("size", "attention_size", "embedding_size"):
            check_range(f"decoder.{name}", getattr(self, name), minimum=1)
        check_choice("decoder.initial_state", self.initial_state, ("mean", "zero"))
        check_range("decoder.dropout", self.dropout, minimum=0.0, maximum=0.95)


class AdaptiveLstmDecoder(Decoder):
    """dense(relu) on cells and on their mean; LSTM; additive attention over cells and sentinel; add; linear."""

    needs = "grid"
    attends = True

    def __init__(self, options: AdaptiveLstmOptions, *, channels: int, vocab_size: int) -> None:
        super().__init__()
        size = options.size
        self.cell = nn.Linear(channels, size)
        self.whole = nn.Linear(channels, size)
        self.attention = AdditiveAttention(size, size, options.attention_size)
        self.sentinel = nn.Linear(size, options.attention_size)
        self.initial = LstmStart(size, size, options.initial_state)
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        # The LSTM's four gates and the sentinel's: the same three inputs, hence one product each.
        self.from_whole = nn.Linear(size, 5 * size)
        self.from_words = nn.Linear(options.embedding_size, 5 * size, bias=False)
        self.from_state = nn.Linear(size, 5 * size, bias=False)
        self.output = WordOutput(size, self.embedding, tied=options.tied)
        self.dropout = nn.Dropout(options.dropout)

    def project(self, features: Float[Tensor, "images cells channels"]) -> Memory:
        """Returns the reduced cells, their keys, and what the whole picture gives to the gates."""
        cells = self.dropout(relu(self.cell(features)))
        whole = self.dropout(relu(self.whole(features.mean(dim=1))))
        return cells, self.attention.project(cells), self.from_whole(whole)

    def start(self, memory: Memory) -> State:
        """Hidden and cell state, from the mean of the cells or zero: two of (rows, size)."""
        hidden, cell = self.initial(memory[0].mean(dim=1))
        return hidden, cell

    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows size"], State, Float[Tensor, "rows cells"]]:
        """Feeds one word, then looks.

        The attention returned is that over the cells alone, alpha, as if the sentinel had no share in the word: it says
        where the decoder looked, however little it needed to.
        """
        cells, keys, from_whole = memory
        given = self.from_words(self.dropout(self.embedding(tokens)))
        # Rows are images x width: what belongs to an image is broadcast over its rows, never repeated.
        blocks = given.view(from_whole.shape[0], -1, given.shape[1]) + from_whole.unsqueeze(1)
        hidden, cell, gate = self._advance(blocks.flatten(0, 1), state)
        attended, weights, _ = self._attend(hidden, make_sentinel(gate, cell), cells, keys)
        return attended, (hidden, cell), weights

    def run(
        self, batch: CaptionBatch, memory: Memory
    ) -> tuple[Float[Tensor, "tokens size"], Float[Tensor, "tokens cells"]]:
        """As `step` after `step`, but only the LSTM goes word by word."""
        cells, keys, from_whole = memory
        state, counts = self.start(memory), batch.counts()
        captions = torch.arange(counts[0], device=cells.device).unsqueeze(1)
        given = self.from_words(self.dropout(self.embedding(batch.pack(batch.inputs))))
        given = given + from_whole.index_select(0, batch.pack(captions.expand(-1, len(counts))))
        steps = []
        for count, gates in zip(counts, torch.split(given, counts)):
            if count < len(state[0]):
                state = tuple(part[:count] for part in state)
            hidden, cell, gate = self._advance(gates, state)
            state = (hidden, cell)
            steps.append((hidden, make_sentinel(gate, cell)))
        hiddens, sentinels = (torch.cat(parts) for parts in zip(*steps))
        # Steps of equally many captions are a full block of captions x steps, and are attended to at once.
        blocks = [(count, len(list(group))) for count, group in groupby(counts)]
        sizes = [count * length for count, length in blocks]
        outputs, looks = [], []
        for (count, length), *parts in zip(
            blocks, torch.split(hiddens, sizes), torch.split(sentinels, sizes)
        ):
            if count < len(cells):
                cells, keys = cells[:count], keys[:count]
            asking, offered = (_swap(part, length, count) for part in parts)
            attended, weights, _ = self._attend(asking, offered, cells, keys)
            outputs.append(_swap(attended, count, length))
            looks.append(_swap(weights, count, length))
        return torch.cat(outputs), torch.cat(looks)

    def _advance(self, given: Float[Tensor, "rows gates"], state: State) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the LSTM: hidden state, cell state, and the sentinel's gate before its activation."""
        hidden, cell = state
        size = hidden.shape[1]
        gates, gate = torch.split(given + self.from_state(hidden), [4 * size, size], dim=1)
        hidden, cell = advance_lstm(gates, cell)
        return hidden, cell, gate

    def _attend(
        self,
        hidden: Float[Tensor, "rows size"],
        sentinel: Float[Tensor, "rows size"],
        cells: Float[Tensor, "images cells size"],
        keys: Float[Tensor, "images cells attention"],
    ) -> tuple[Float[Tensor, "rows size"], Float[Tensor, "rows cells"], Float[Tensor, "rows 1"]]:
        """What the output layer reads, the weights of the cells (alpha), and the sentinel's share (beta)."""
        queries = self.attention.query(hidden)
        scores = self.attention.compare(queries, keys).flatten(0, 1)
        own = self.attention.score(torch.tanh(self.sentinel(sentinel) + queries))
        weights = torch.softmax(scores.float(), dim=1)
        share = torch.softmax(torch.cat([scores, own], dim=1).float(), dim=1)[:, -1:]
        context = mix(weights.view(cells.shape[0], -1, cells.shape[1]), cells)
        return hidden + torch.lerp(context.to(hidden.dtype), sentinel, share), weights, share

    def logits(self, outputs: Float[Tensor, "rows size"]) -> Float[Tensor, "rows vocab"]:
        """The output layer."""
        logits: Tensor = self.output(self.dropout(outputs))
        return logits


def make_sentinel(
    gate: Float[Tensor, "rows size"], cell: Float[Tensor, "rows size"]
) -> Float[Tensor, "rows size"]:
    """Returns what the LSTM's memory offers in the picture's place (equation 10)."""
    return torch.sigmoid(gate) * torch.tanh(cell)


def _swap(rows: Tensor, outer: int, inner: int) -> Tensor:
    """Returns rows that lay as (outer, inner) as (inner, outer)."""
    return torch.unflatten(rows, 0, (outer, inner)).transpose(0, 1).flatten(0, 1)
