"""The layer that turns what a decoder says into words, with a matrix of its own or with the word embeddings."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear


class WordOutput(nn.Module):
    """Logits of all words.

    Tied: the matrix is that of the word embeddings (Press and Wolf 2017; Inan et al. 2017), so that a rare word learns
    from being read, too. Where the sizes differ, a linear layer brings the output to the size of an embedding first.

    Args:
        size: of what comes in.
        embedding: of the words that the decoder reads.
        tied: whether to use its matrix.
    """

    def __init__(self, size: int, embedding: nn.Embedding, *, tied: bool) -> None:
        super().__init__()
        vocab_size, width = embedding.weight.shape
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.project = nn.Linear(size, width) if tied and size != width else nn.Identity()
        if tied:
            # As embeddings of variance 1 the first logits would be far too sure.
            nn.init.normal_(embedding.weight, std=width**-0.5)
            self.register_parameter("weight", None)
        else:
            self.weight = nn.Parameter(torch.empty(vocab_size, size))
            nn.init.uniform_(self.weight, -(size**-0.5), size**-0.5)
        self._embedding = (embedding,)  # not as a module of this one: it would be saved twice

    def forward(self, outputs: Float[Tensor, "rows size"]) -> Float[Tensor, "rows vocab"]:
        """Returns the logits."""
        weight = self._embedding[0].weight if self.weight is None else self.weight
        return linear(self.project(outputs), weight, self.bias)
