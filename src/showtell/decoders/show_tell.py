"""Show and Tell: the image is the first input of an LSTM that then reads the words.

Vinyals, Toshev, Bengio and Erhan 2015, "Show and Tell: A Neural Image Caption Generator", section 3 (equations
10 to 12): x_{-1} = CNN(I), x_t = W_e S_t, p_{t+1} = LSTM(x_t). The image is seen once, so the whole sequence is one
call of the LSTM. The tutorials that follow the paper differ in batch normalisation and sizes, which are options.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from showtell.config import check_range
from showtell.decoders.base import CaptionBatch, Decoder, Memory, State


@dataclass(frozen=True)
class ShowTellOptions:
    """Sizes and regularisation of Show and Tell."""

    embedding_size: int = 256
    """size of word embeddings and of the embedded image"""
    hidden_size: int = 512
    """size of the LSTM's state"""
    batch_norm: bool = True
    """batch normalisation of the embedded image"""
    dropout: float = 0.0
    """share of embedding and output units dropped in training"""

    def __post_init__(self) -> None:
        check_range("decoder.embedding_size", self.embedding_size, minimum=1)
        check_range("decoder.hidden_size", self.hidden_size, minimum=1)
        check_range("decoder.dropout", self.dropout, minimum=0.0, maximum=0.95)


class ShowTellDecoder(Decoder):
    """Linear image embedding, LSTM, linear layer to the vocabulary."""

    needs = "pooled"

    def __init__(self, options: ShowTellOptions, *, channels: int, vocab_size: int) -> None:
        super().__init__()
        size = options.embedding_size
        self.image = nn.Linear(channels, size)
        self.norm = nn.BatchNorm1d(size, momentum=0.01) if options.batch_norm else nn.Identity()
        self.embedding = nn.Embedding(vocab_size, size)
        self.lstm = nn.LSTM(size, options.hidden_size, batch_first=True)
        self.output = nn.Linear(options.hidden_size, vocab_size)
        self.dropout = nn.Dropout(options.dropout)

    def project(self, features: Float[Tensor, "images channels"]) -> Memory:
        """Returns the embedded image: (images, embedding)."""
        image = self.image(features)
        if self.training and len(image) == 1 and isinstance(self.norm, nn.BatchNorm1d):
            # One image has no batch statistics; the running ones serve.
            norm = self.norm
            return (
                batch_norm(image, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps),
            )
        return (self.norm(image),)

    def start(self, memory: Memory) -> State:
        """Feeds the image; returns hidden and cell state, each (rows, hidden)."""
        _, (hidden, cell) = self.lstm(self.dropout(memory[0]).unsqueeze(1))
        return hidden[0], cell[0]

    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows hidden"], State, None]:
        """Feeds one word."""
        words = self.dropout(self.embedding(tokens)).unsqueeze(1)
        outputs, (hidden, cell) = self.lstm(words, (state[0].unsqueeze(0), state[1].unsqueeze(0)))
        return outputs[:, 0], (hidden[0], cell[0]), None

    def run(self, batch: CaptionBatch, memory: Memory) -> tuple[Float[Tensor, "tokens hidden"], None]:
        """The whole sequence in one call: image, start token, words."""
        words = self.embedding(batch.inputs)
        sequence = torch.cat([memory[0].unsqueeze(1).to(words.dtype), words], dim=1)
        outputs, _ = self.lstm(self.dropout(sequence))
        return batch.pack(outputs[:, 1:]), None

    def logits(self, outputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The linear output layer."""
        logits: Tensor = self.output(self.dropout(outputs))
        return logits
