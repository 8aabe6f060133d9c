"""One step of an LSTM from its summed gates, for decoders that compute parts of the gates outside the recurrence."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


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
