"""The student: a backbone from random weights, and a projection from what it sees to what the teacher sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from showtell.distillation.settings import DistillationSettings
from showtell.encoders import write_weights, zoo
from showtell.encoders.layouts import find_layout
from showtell.errors import ConfigError
from showtell.images import Preprocessing

_LEAST_DEVIATION = 1e-3  # channels that are nearly always zero would drown all others


class Student(nn.Module):
    """Sees pictures as the teacher does, as far as it can.

    The teacher's features are compared channel by channel, each with mean 0 and variance 1 over the pictures, so that
    none counts more than others. The projection is thrown away in the end.

    Args:
        settings: of the run.
        preprocessing: how the student's pixels are normalised, at `settings.image_size`.
        channels: of the teacher.

    Raises:
        ConfigError: no such backbone, or one that gives no grid.
        EncoderError: it cannot take pictures of that size.
    """

    mean: Tensor  # (channels,) of the teacher's features
    deviation: Tensor  # (channels,)
    pooled_deviation: Tensor  # (channels,) of their means over the cells

    def __init__(
        self, settings: DistillationSettings, preprocessing: Preprocessing, *, channels: int
    ) -> None:
        super().__init__()
        self.settings = settings
        self.preprocessing = preprocessing
        torch.manual_seed(settings.seed)
        self.backbone = zoo.create_backbone(settings.student, {})
        self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        layout, grid, own = find_layout(self.backbone, preprocessing, settings.student)
        if layout != "nchw" or grid[0] < 2:
            raise ConfigError(
                f"student: {settings.student} gives no grid (channels, rows, columns) at {settings.image_size} pixels. "
                "Choose a convolutional backbone, as resnet10t."
            )
        self.projection = nn.Conv2d(own, channels, 1)
        nn.init.normal_(self.projection.weight, std=0.01)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]  # there is one
        for name in ("mean", "deviation", "pooled_deviation"):
            self.register_buffer(name, torch.ones(channels))

    def measure_teacher(self, features: Tensor) -> None:
        """Sets mean and deviation of the teacher's channels from features of many pictures.

        Args:
            features: (batch, cells, channels).
        """
        self.mean.copy_(features.mean((0, 1)))
        self.deviation.copy_(features.std((0, 1)) + _LEAST_DEVIATION)
        self.pooled_deviation.copy_(features.mean(1).std(0) + _LEAST_DEVIATION)

    def prepare(self, pixels: Tensor, size: int) -> Tensor:
        """Returns pixels normalised and at the size that the student sees.

        Args:
            pixels: uint8 (batch, height, width, 3).
            size: of a side in the result, (batch, 3, size, size).
        """
        mean, std = (torch.tensor(part) * 255 for part in (self.preprocessing.mean, self.preprocessing.std))
        images = ((pixels.float() - mean) / std).permute(0, 3, 1, 2)
        return _resize(images, (size, size)).contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Returns what the teacher may see, standardised.

        Shapes:
            images: (batch, 3, height, width), prepared.
            result: (batch, channels of the teacher, rows, columns).
        """
        # timm's backbones have `forward_features`, nn.Module does not.
        seen: Tensor = self.projection(self.backbone.forward_features(images))  # type: ignore[operator]
        return seen

    def errors(self, seen: Tensor, cells: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean squared errors of the cells and of their mean, in variances of the teacher's.

        Args:
            seen: from `forward`.
            cells: what was to be seen, from `targets`.
            pooled: the same of their mean.
        """
        scaled = seen.mean((2, 3)) * (self.deviation / self.pooled_deviation)
        return functional.mse_loss(seen, cells), functional.mse_loss(scaled, pooled)

    def grid(self, size: int) -> tuple[int, int]:
        """Returns the rows and columns of what is seen in pictures of a size.

        Raises:
            EncoderError: the backbone cannot take pictures of that size.
        """
        sized = replace(self.preprocessing, height=size, width=size)
        _, grid, _ = find_layout(self.backbone, sized, self.settings.student)
        return grid

    def targets(
        self, features: Tensor, grid: tuple[int, int], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Returns what is to be seen: (batch, channels, *size) and the mean over all cells, (batch, channels).

        Args:
            features: of the teacher, (batch, cells, channels).
            grid: rows and columns of its cells.
            size: rows and columns of the student's.
        """
        cells = ((features - self.mean) / self.deviation).transpose(1, 2).reshape(len(features), -1, *grid)
        return _resize(cells, size), (features.mean(1) - self.mean) / self.pooled_deviation

    def save_weights(self, path: Path, *, source: str) -> None:
        """Writes the backbone as a weights file that says how to build and feed it, in float16.

        Raises:
            OSError: the disk is full.
        """
        weights = {name: tensor.numpy() for name, tensor in self.backbone.state_dict().items()}
        write_weights(path, weights, self.settings.student, self.preprocessing, source=source)


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
