"""The weights that learn, and those that caption: their average where the recipe keeps one, else themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from showtell.recipes import Recipe
from showtell.training.averaging import AveragedModel
from showtell.training.checkpoint import restore
from showtell.training.model import CaptionModel
from showtell.training.position import Position


class Weights:
    """What a run learns and what it keeps of that.

    Args:
        model: that is trained.
        recipe: says whether the weights are averaged, and how far they go from where they began.

    Attributes:
        captioning: what is evaluated and kept.
    """

    def __init__(self, model: CaptionModel, recipe: Recipe) -> None:
        self._model = model
        self._recipe = recipe
        self._average = AveragedModel(model, recipe.training.ema) if recipe.averages else None
        self.captioning = model if self._average is None else self._average.module

    def begin(self) -> None:
        """Takes the weights that the model has now, those of another captioner, as the beginning."""
        if self._average is not None:
            self._average.begin(self._model)
            if self._recipe.training.blend < 1:
                self._average.set_anchor()

    def begin_rewarded(self, position: Position) -> None:
        """Lets self-critical training go on from what has been evaluated.

        Adam's moments go on, too, which is better than new ones (docs/experiments.md).
        """
        if self._average is not None:
            self._average.restart(self._model)
            if self._recipe.self_critical.blend < 1:
                self._average.set_anchor()
                position.averaged = 0  # it is held back by the anchor already, and need not lag behind

    def follow(self, position: Position) -> None:
        """Takes a step that the model has made into the average."""
        if self._average is not None:
            rewarded = self._recipe.is_self_critical(position.epoch)
            blend = self._recipe.self_critical.blend if rewarded else self._recipe.training.blend
            self._average.follow(self._model, position.averaged, blend=blend)
            position.averaged += 1

    def modules(self) -> dict[str, nn.Module]:
        """Returns what a checkpoint holds, by name."""
        return {"model": self._model, **({} if self._average is None else self._average.modules())}

    def restore(self, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, *, rank: int) -> None:
        """Goes on from the tensors of a checkpoint; arguments and errors are those of `checkpoint.restore`."""
        has_average = any(name.startswith("average.") for name in tensors)
        if self._average is not None and any(name.startswith("anchor.") for name in tensors):
            self._average.set_anchor()
        # The epochs so far may have had no average; rewarded ones that are added may.
        restore(tensors, self.modules() if has_average else {"model": self._model}, optimizer, rank=rank)
        if self._average is not None and not has_average:
            self._average.begin(self._model)
