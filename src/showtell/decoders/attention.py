"""The two classic attentions over the cells of a feature grid."""

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
        images, cells, size = keys.shape
        queries = self.query(query).view(images, -1, 1, size)  # (images, width, 1, size)
        activation = torch.tanh(keys.unsqueeze(1) + queries)  # (images, width, cells, size)
        weights = torch.softmax(self.score(activation).squeeze(3).float(), dim=2)  # (images, width, cells)
        return mix(weights, features), weights.view(-1, cells)


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


def mix(
    weights: Float[Tensor, "images width cells"], features: Float[Tensor, "images cells channels"]
) -> Float[Tensor, "rows channels"]:
    """Returns the mean of the cells under the weights, rows = images x width."""
    return torch.bmm(weights.to(features.dtype), features).flatten(0, 1)
