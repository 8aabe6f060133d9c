"""How a trainable encoder learns: which of its stages, what its batch norms do, and with how much memory.

A stage is what timm takes for one: the stem, then the blocks of one resolution. What is frozen gets no gradients, its
batch norms do not move, and nothing below the lowest stage that learns keeps activations. Everything is a function of
the epoch, so that a resumed run finds it as it was.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
        self._stages = zoo.group_into_stages(encoder.backbone)
        if self._config.stage_epochs and len(self._stages) == 1:
            raise ConfigError(
                f"fine_tuning.stage_epochs = {self._config.stage_epochs}: timm knows no stages of the backbone "
                f"{recipe.encoder.name}. Set it to 0."
            )
        if self._config.recompute:
            zoo.recompute_activations(encoder.backbone, recipe.encoder.name)
        self._norms = [module for module in encoder.modules() if isinstance(module, _BatchNorm)]
        if self._config.batch_norm == "frozen":
            for norm in self._norms:
                norm.requires_grad_(False)
        self._learnable = [name for name, p in encoder.backbone.named_parameters() if p.requires_grad]

    def count_stages(self, epoch: int) -> int:
        """Returns how many stages learn in an epoch (from 0), counted from the top."""
        rewarded = self._recipe.is_self_critical(epoch)
        if epoch < self._config.freeze_epochs or (rewarded and not self._recipe.self_critical.trains_encoder):
            return 0
        if not self._config.stage_epochs:
            return len(self._stages)
        since = epoch - self._config.freeze_epochs
        return min(len(self._stages), 1 + since // self._config.stage_epochs)

    def start_epoch(self, epoch: int, watcher: Watcher) -> None:
        """Freezes and unfreezes stages for an epoch (from 0)."""
        if self._encoder is None:
            return
        count = self.count_stages(epoch)
        learning = {name for stage in self._stages[len(self._stages) - count :] for name in stage}
        backbone = self._encoder.backbone
        for name in self._learnable:
            backbone.get_parameter(name).requires_grad_(name in learning)
        frozen = [
            module
            for prefix, module in backbone.named_modules()
            if (names := _parameter_names(prefix, module)) and learning.isdisjoint(names)
        ]
        self._encoder.fixed = frozen + ([] if self._config.batch_norm == "train" else self._norms)
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


def _parameter_names(prefix: str, module: nn.Module) -> list[str]:
    dot = "." if prefix else ""
    return [f"{prefix}{dot}{name}" for name, _ in module.named_parameters()]
