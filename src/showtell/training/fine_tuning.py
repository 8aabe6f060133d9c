"""How a trainable encoder learns: which of its stages, what its batch norms do, and with how much memory.

A stage is what timm takes for one: the stem, then the blocks of one resolution. What is frozen gets no gradients, its
batch norms do not move, and nothing below the lowest stage that learns keeps activations. Everything is a function of
the epoch, so that a resumed run finds it as it was.
"""

from __future__ import annotations

from itertools import chain, zip_longest

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from showtell.config import FineTuningConfig
from showtell.encoders import Encoder, zoo
from showtell.errors import ConfigError
from showtell.recipes import Recipe
from showtell.training.watcher import Watcher


class FineTuning:
    """The encoder's part of a run; it does nothing where the encoder is frozen.

    Must be made before the optimiser, which takes what may learn at any time.

    Args:
        encoder: a trainable encoder, or None.
        recipe: `fine_tuning`, `training.epochs` and `self_critical`.

    Raises:
        ConfigError: the backbone cannot do what the recipe asks for.
    """

    def __init__(self, encoder: Encoder | None, recipe: Recipe) -> None:
        self._encoder = encoder
        self._recipe = recipe
        self._config = recipe.fine_tuning
        if encoder is None:
            return
        stages = [zoo.group_into_stages(member.backbone) for member in encoder.members]
        for member, own in zip(encoder.members, stages):
            _check_stages(self._config, member, len(own))
        # From the top down: where backbones have different numbers of stages, the top ones learn together.
        levels = zip_longest(*(reversed(own) for own in stages), fillvalue=[])
        self._stages = [[parameter for stage in level for parameter in stage] for level in levels]
        if self._config.recompute:
            for member in encoder.members:
                zoo.recompute_activations(member.backbone, member.config.name)
        self._norms: list[nn.Module] = [
            module for module in encoder.modules() if isinstance(module, _BatchNorm)
        ]
        if self._config.batch_norm == "frozen":
            for norm in self._norms:
                norm.requires_grad_(False)
        self._most = self._config.stages or len(self._stages)
        for parameter in chain.from_iterable(self._stages[self._most :]):
            parameter.requires_grad_(False)
        self._learnable = [parameter for parameter in encoder.parameters() if parameter.requires_grad]

    def count_stages(self, epoch: int) -> int:
        """Returns how many stages learn in an epoch (from 0), counted from the top."""
        rewarded = self._recipe.is_self_critical(epoch)
        if epoch < self._config.freeze_epochs or (rewarded and not self._recipe.self_critical.trains_encoder):
            return 0
        if not self._config.stage_epochs:
            return self._most
        since = epoch - self._config.freeze_epochs
        return min(self._most, 1 + since // self._config.stage_epochs)

    def start_epoch(self, epoch: int, watcher: Watcher) -> None:
        """Freezes and unfreezes stages for an epoch (from 0)."""
        if self._encoder is None:
            return
        count = self.count_stages(epoch)
        learning = set(chain.from_iterable(self._stages[:count]))
        for parameter in self._learnable:
            parameter.requires_grad_(parameter in learning)
        frozen = [
            module
            for member in self._encoder.members
            for module in member.backbone.modules()
            if (own := set(module.parameters())) and learning.isdisjoint(own)
        ]
        norms = [] if self._config.batch_norm == "train" else self._norms
        self._encoder.freeze(frozen + norms, learning)
        if count < len(self._stages):
            watcher.note(f"epoch {epoch + 1}: {count} of the encoder's {len(self._stages)} stages learn")

    def backward(self, loss: Tensor) -> None:
        """Computes gradients.

        Activations that are computed again for them go through batch norms a second time; their statistics move once.
        """
        recomputed = self._encoder is not None and self._config.recompute
        buffers = list(self._encoder.buffers()) if self._encoder is not None and recomputed else []
        kept = [buffer.clone() for buffer in buffers]
        loss.backward()  # type: ignore[no-untyped-call]
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)


def _check_stages(config: FineTuningConfig, encoder: Encoder, count: int) -> None:
    if config.stage_epochs and count == 1:
        raise ConfigError(
            f"fine_tuning.stage_epochs = {config.stage_epochs}: timm knows no stages of the backbone "
            f"{encoder.config.name}. Set it to 0."
        )
    if config.stages > count:
        raise ConfigError(
            f"fine_tuning.stages = {config.stages}: the backbone {encoder.config.name} has {count}. Set it to that or "
            "fewer, or to 0 for all of them."
        )
