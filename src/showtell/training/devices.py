"""Where a run is computed, and losses that are read from there without waiting at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from showtell.errors import ConfigError, TrainingError
from showtell.launch import read_launch


def choose_device(name: str) -> torch.device:
    """Returns the device that `training.device` means: "cpu", "cuda", or "auto", a GPU where torch finds one.

    Of several processes on a machine each has a GPU of its own.

    Raises:
        ConfigError: "cuda" without a GPU that torch can use, or more processes than GPUs.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            'training.device = "cuda", but torch finds no GPU that it can use. Set training.device = "cpu", or '
            "install a torch that was built for the GPU's driver."
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    launch = read_launch()
    if launch.size == 1:
        return torch.device("cuda")
    if launch.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"torchrun started more processes on this machine than there are GPUs ({torch.cuda.device_count()}). "
            'Lower --nproc-per-node, or set training.device = "cpu".'
        )
    return torch.device("cuda", launch.local_rank)


@dataclass(frozen=True)
class LossEntry:
    """What one step gave."""

    step: int
    rate: float  # the learning rate
    loss: Tensor  # () mean over the real tokens, on the device
    norm: Tensor  # () of the gradients, on the device
    tokens: int


class LossLog:
    """Losses that stay on the device until they are read, all together.

    Args:
        check_every: steps between two readings. Each reading waits for the device; what went wrong is noticed then.
    """

    def __init__(self, *, check_every: int) -> None:
        self._check_every = check_every
        self._waiting: list[LossEntry] = []

    def add(self, entry: LossEntry) -> None:
        """Keeps what a step gave."""
        self._waiting.append(entry)

    def is_due(self) -> bool:
        """Returns whether it is time to read."""
        return len(self._waiting) >= self._check_every

    def read(self, *, epoch: int) -> tuple[float, int]:
        """Returns the sum of the losses over the tokens since the last reading, and the number of the tokens.

        Raises:
            TrainingError: a loss or a norm is not finite.
        """
        entries, self._waiting = self._waiting, []
        if not entries:
            return 0.0, 0
        values = torch.stack([part.double() for entry in entries for part in (entry.loss, entry.norm)])
        numbers = values.tolist()  # the one place that waits for the device
        loss_sum = 0.0
        for entry, loss, norm in zip(entries, numbers[::2], numbers[1::2], strict=True):
            for what, value in (("loss", loss), ("norm of the gradients", norm)):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"The {what} is {value} at step {entry.step} of epoch {epoch} (learning rate "
                        f"{entry.rate:.2g}). Nothing of this step was kept: a checkpoint on disk is from before. "
                        "Lower the learning_rate of this part of the run, keep training.clip_norm above 0, or set "
                        'training.precision = "float32".'
                    )
            loss_sum += loss * entry.tokens
        return loss_sum, sum(entry.tokens for entry in entries)
