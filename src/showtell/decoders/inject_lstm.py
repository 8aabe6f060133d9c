"""An LSTM whose initial state is the image, squeezed through a bottleneck on both ends.

The image vector goes through a narrow dense layer and a second one whose output is both the hidden and the cell
state before the first word ("init-inject" in Tanti, Gatt and Camilleri 2018, "Where to put the image in an image
caption generator"). The output goes through a bottleneck as well, which keeps the vocabulary matrix small.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import elu

from showtell.config import check_range
from showtell.decoders.base import CaptionBatch, Decoder, Memory, State


@dataclass(frozen=True)
class InjectLstmOptions:
    """Sizes and regularisation of the bottleneck LSTM."""

    image_bottleneck: int = 120
    """units of the narrow layer behind the image"""
    embedding_size: int = 100
    """size of word embeddings"""
    hidden_size: int = 300
    """size of the LSTM's state"""
    output_bottleneck: int = 120
    """units of the narrow layer before the vocabulary"""
    dropout: float = 0.0
    """share of embedding and output units dropped in training"""

    def __post_init__(self) -> None:
        for name in ("image_bottleneck", "embedding_size", "hidden_size", "output_bottleneck"):
            check_range(f"decoder.{name}", getattr(self, name), minimum=1)
        check_range("decoder.dropout", self.dropout, minimum=0.0, maximum=0.95)


class InjectLstmDecoder(Decoder):
    """dense(elu) -> dense(elu) = h0 = c0; LSTM; dense(elu) -> vocabulary."""

    needs = "pooled"

    def __init__(self, options: InjectLstmOptions, *, channels: int, vocab_size: int) -> None:
        super().__init__()
        self.bottleneck = nn.Linear(channels, options.image_bottleneck)
        self.initial = nn.Linear(options.image_bottleneck, options.hidden_size)
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        self.lstm = nn.LSTM(options.embedding_size, options.hidden_size, batch_first=True)
        self.narrow = nn.Linear(options.hidden_size, options.output_bottleneck)
        self.output = nn.Linear(options.output_bottleneck, vocab_size)
        self.dropout = nn.Dropout(options.dropout)

    def project(self, features: Float[Tensor, "images channels"]) -> Memory:
        """Returns the initial state: (images, hidden)."""
        return (elu(self.initial(elu(self.bottleneck(features)))),)

    def start(self, memory: Memory) -> State:
        """Hidden and cell state start as the same vector."""
        return memory[0], memory[0]

    def step(
        self, tokens: Int[Tensor, " rows"], state: State, memory: Memory
    ) -> tuple[Float[Tensor, "rows hidden"], State, None]:
        """Feeds one word."""
        words = self.dropout(self.embedding(tokens)).unsqueeze(1)
        hidden, cell = (part.unsqueeze(0).to(words.dtype) for part in state)
        outputs, (hidden, cell) = self.lstm(words, (hidden, cell))
        return outputs[:, 0], (hidden[0], cell[0]), None

    def run(self, batch: CaptionBatch, memory: Memory) -> tuple[Float[Tensor, "tokens hidden"], None]:
        """The whole sequence in one call."""
        words = self.dropout(self.embedding(batch.inputs))
        initial = memory[0].unsqueeze(0).to(words.dtype)
        outputs, _ = self.lstm(words, (initial, initial))
        return batch.pack(outputs), None

    def logits(self, outputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The narrow layer and the output layer."""
        logits: Tensor = self.output(self.dropout(elu(self.narrow(outputs))))
        return logits
