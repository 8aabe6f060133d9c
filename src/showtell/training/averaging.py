"""The average of the weights over the steps, which is what captions in the end.

Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; exponential as in Kingma and Ba 2015,
section 7.2. The average of the last thousand steps moves less from epoch to epoch than the weights do, and is mostly
better than all of them.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from showtell.training.model import CaptionModel


class AveragedModel:
    """A copy of a model whose weights follow it slowly.

    Args:
        model: that is trained.
        decay: the share of the average that a step keeps, 0 to 1; 0 keeps nothing but the last weights.
    """

    def __init__(self, model: CaptionModel, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    def begin(self, model: CaptionModel) -> None:
        """Takes the weights of the model as the average."""
        self.module.load_state_dict(model.state_dict())

    def follow(self, model: nn.Module, step: int) -> None:
        """Takes the weights after a step into the average, and the buffers as they are.

        Args:
            model: that is trained.
            step: how many steps the average has already: a young one forgets its random beginning quickly.
        """
        self._move(model, min(self._decay, (1 + step) / (10 + step)))

    def follow_evenly(self, model: nn.Module, step: int) -> None:
        """Takes the weights after a step into the mean of all steps since `restart`, and of the weights before them.

        Args:
            model: that is trained.
            step: which one it is since then, from 1.
        """
        self._move(model, step / (step + 1))

    @torch.no_grad()
    def _move(self, model: nn.Module, decay: float) -> None:
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), 1 - decay)
        for kept, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)

    def restart(self, model: nn.Module) -> None:
        """Puts the average into the model, so that it goes on from there."""
        model.load_state_dict(self.module.state_dict())
