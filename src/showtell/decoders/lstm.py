"""The start and one step of an LSTM, for decoders that compute parts of its gates outside the recurrence."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def advance_lstm(
    gates: Float[Tensor, "rows gates"], cell: Float[Tensor, "rows hidden"]
) -> tuple[Float[Tensor, "rows hidden"], Float[Tensor, "rows hidden"]]:
    """Returns hidden and cell state after one step (Hochreiter and Schmidhuber 1997, in the form of torch.nn.LSTM).

    Args:
        gates: input, forget, candidate and output gate before their activations, 4 x hidden.
        cell: before the step.
    """
    admit, keep, candidate, emit = gates.chunk(4, dim=1)
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(admit) * torch.tanh(candidate)
    return torch.sigmoid(emit) * torch.tanh(cell), cell


class LstmStart(nn.Module):
    """Hidden and cell state before the first word: zero, or from the mean of the cells.

    Xu et al. 2015, *Show, Attend and Tell*, section 3.1.2, with a dense(tanh) layer for each.

    Args:
        feature_size: channels of a cell.
        hidden_size: of the LSTM.
        kind: "zero" or "mean".
    """

    def __init__(self, feature_size: int, hidden_size: int, kind: str) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.dense = nn.Linear(feature_size, 2 * hidden_size) if kind == "mean" else None

    def forward(
        self, mean: Float[Tensor, "images channels"]
    ) -> tuple[Float[Tensor, "images hidden"], Float[Tensor, "images hidden"]]:
        """Returns both in float32, also under autocast: a cell state adds up over the steps."""
        if self.dense is None:
            state = mean.new_zeros(mean.shape[0], 2 * self.hidden_size, dtype=torch.float32)
        else:
            state = torch.tanh(self.dense(mean)).float()
        hidden, cell = state.chunk(2, dim=1)
        return hidden, cell
