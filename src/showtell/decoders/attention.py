"""The attentions over the cells of a feature grid."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class AdditiveAttention(nn.Module):
    """Additive attention: a small network scores each cell against the query.

    Bahdanau, Cho and Bengio 2015, section 3.1 and appendix A.1.2, as *Show, Attend and Tell* (2015) applies it to
    images. What depends on the image alone (`project`) is computed once, outside the recurrence.

    Args:
        feature_size: channels of a cell.
        query_size: size of the query (the hidden state).
        size: units of the scoring network.
    """

    def __init__(self, feature_size: int, query_size: int, size: int) -> None:
        super().__init__()
        self.key = nn.Linear(feature_size, size)
        self.query = nn.Linear(query_size, size)
        self.score = nn.Linear(size, 1)

    def project(self, features: Float[Tensor, "images cells channels"]) -> Float[Tensor, "images cells size"]:
        """Returns the keys."""
        keys: Tensor = self.key(features)
        return keys

    def forward(
        self,
        query: Float[Tensor, "rows hidden"],
        features: Float[Tensor, "images cells channels"],
        keys: Float[Tensor, "images cells size"],
    ) -> tuple[Float[Tensor, "rows channels"], Float[Tensor, "rows cells"]]:
        """Returns the context vector and the weights of the cells, which sum to 1.

        Rows are images x width (`Decoder`); the keys are broadcast over the width, never repeated.
        """
        weights = torch.softmax(self.compare(self.query(query), keys).float(), dim=2)
        return mix(weights, features), weights.flatten(0, 1)

    def compare(
        self, queries: Float[Tensor, "rows size"], keys: Float[Tensor, "images cells size"]
    ) -> Float[Tensor, "images width cells"]:
        """Returns the score of each cell, from queries that went through their layer already."""
        images, _, size = keys.shape
        activation = torch.tanh(keys.unsqueeze(1) + queries.view(images, -1, 1, size))
        scores: Tensor = self.score(activation)  # (images, width, cells, 1)
        return scores.squeeze(3)


class DotAttention(nn.Module):
    """Dot-product attention: the score of a cell is its dot product with the query.

    Luong, Pham and Manning 2015, section 3.1, "dot"; keys and values are the same features. It has no weights.
    """

    def forward(
        self,
        query: Float[Tensor, "images queries channels"],
        features: Float[Tensor, "images cells channels"],
    ) -> tuple[Float[Tensor, "images queries channels"], Float[Tensor, "images queries cells"]]:
        """Returns context vectors and weights of all queries of an image at once."""
        scores = torch.bmm(query, features.transpose(1, 2).to(query.dtype))  # (images, queries, cells)
        weights = torch.softmax(scores.float(), dim=2)
        return torch.bmm(weights.to(features.dtype), features), weights


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of several heads side by side.

    Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2, without biases, as there. Each head compares the
    query with the cells, and takes its values from them, in a part of the channels of its own.

    Args:
        feature_size: channels of a cell.
        query_size: size of the query.
        size: of the keys, the values and the context vector, all heads together.
        heads: how many; they share `size` equally.
    """

    def __init__(self, feature_size: int, query_size: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key = nn.Linear(feature_size, size, bias=False)
        self.value = nn.Linear(feature_size, size, bias=False)
        self.query = nn.Linear(query_size, size, bias=False)
        self.output = nn.Linear(size, size, bias=False)

    def project(
        self, features: Float[Tensor, "images cells channels"]
    ) -> tuple[Float[Tensor, "images heads cells part"], Float[Tensor, "images heads cells part"]]:
        """Returns keys and values, head by head."""
        keys, values = self._divide(self.key(features)), self._divide(self.value(features))
        return keys.contiguous(), values.contiguous()  # once here instead of before the product of every step

    def forward(
        self,
        query: Float[Tensor, "rows hidden"],
        keys: Float[Tensor, "images heads cells part"],
        values: Float[Tensor, "images heads cells part"],
    ) -> tuple[Float[Tensor, "rows size"], Float[Tensor, "rows cells"]]:
        """Returns the context vector and the mean of the heads' weights, which sum to 1.

        Rows are images x width (`Decoder`); keys and values are shared by the width, never repeated.
        """
        images, _, _, part = keys.shape
        queries = self._divide(self.query(query).view(images, -1, self.heads * part))
        scores = torch.matmul(queries * part**-0.5, keys.transpose(2, 3).to(queries.dtype))
        weights = torch.softmax(scores.float(), dim=3)  # (images, heads, width, cells)
        parts = torch.matmul(weights.to(values.dtype), values)  # (images, heads, width, part)
        context: Tensor = self.output(parts.transpose(1, 2).flatten(2).flatten(0, 1))
        return context, weights.mean(dim=1).flatten(0, 1)

    def _divide(
        self, joined: Float[Tensor, "images places size"]
    ) -> Float[Tensor, "images heads places part"]:
        return torch.unflatten(joined, 2, (self.heads, -1)).transpose(1, 2)


def mix(
    weights: Float[Tensor, "images width cells"], features: Float[Tensor, "images cells channels"]
) -> Float[Tensor, "rows channels"]:
    """Returns the mean of the cells under the weights, rows = images x width."""
    return torch.bmm(weights.to(features.dtype), features).flatten(0, 1)
