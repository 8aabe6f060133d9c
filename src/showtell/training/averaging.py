"""The average of the weights over the steps, which is what captions in the end.

Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; exponential as in Kingma and Ba 2015,
section 7.2. The average of the last thousand steps moves less from epoch to epoch than the weights do, and is mostly
better than all of them.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from showtell.training.model import CaptionModel


class AveragedModel:
    """A copy of a model whose weights follow it slowly.

    Args:
        model: that is trained.
        decay: the share of the average that a step keeps, 0 to 1; 0 keeps nothing but the last weights.

    Attributes:
        module: the average.
        anchor: the weights that the average goes away from only a part of the way, or None.
    """

    def __init__(self, model: CaptionModel, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.anchor: CaptionModel | None = None
        self._decay = decay

    def begin(self, model: CaptionModel) -> None:
        """Takes the weights of the model as the average."""
        self.module.load_state_dict(model.state_dict())

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int, *, blend: float = 1.0) -> None:
        """Takes the weights after a step into the average, and the buffers as they are.

        Args:
            model: that is trained.
            step: how many steps the average has already: a young one forgets its random beginning quickly.
            blend: where there is an anchor, how far from it towards the model the weights are that are taken in.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        weights: list[Tensor] = list(model.parameters())
        if self.anchor is not None:
            weights = list(torch._foreach_lerp(list(self.anchor.parameters()), weights, blend))
        torch._foreach_lerp_(list(self.module.parameters()), weights, 1 - decay)
        for kept, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)

    def restart(self, model: nn.Module) -> None:
        """Puts the average into the model, so that it goes on from there."""
        model.load_state_dict(self.module.state_dict())

    def modules(self) -> dict[str, nn.Module]:
        """Returns what a run that goes on needs: "average", and "anchor" where there is one."""
        anchor = {} if self.anchor is None else {"anchor": self.anchor}
        return {"average": self.module, **anchor}

    def set_anchor(self) -> None:
        """Makes the average as it is now the anchor."""
        self.anchor = copy.deepcopy(self.module)
