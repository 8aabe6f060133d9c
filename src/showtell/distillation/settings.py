"""How a student is distilled: its shape, the pictures that it sees, and for how long."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from showtell.config import AugmentationConfig, check_choice, check_range
from showtell.errors import ConfigError


@dataclass(frozen=True)
class DistillationSettings:
    """Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent".

    Teacher and student see the same part of a picture, mirrored, coloured and mixed with another in the same way, and
    a new one each time; and it goes on for long. The first epochs are seen small, which takes a fraction of the time
    (Tan and Le 2021, "EfficientNetV2", section 4, progressive learning).

    Raises:
        ConfigError: a number outside its range.
    """

    student: str = "resnet10t"
    """any timm backbone; it starts from random weights"""
    epochs: int = 60
    """passes over the pictures"""
    full_epochs: int = 12
    """the last so many of them see pictures at `image_size`; those before at `start_size`"""
    start_size: int = 128
    """pixels, a multiple of 32"""
    image_size: int = 192
    """pixels, a multiple of 32; what the student is used with"""
    batch_size: int = 32
    """pictures per step"""
    learning_rate: float = 2e-3
    """the peak; it falls to zero along a cosine"""
    weight_decay: float = 0.05
    """of AdamW; biases and normalisation are not decayed"""
    warmup: float = 0.03
    """the share of the steps in which the learning rate rises, 0 to 1"""
    clip_norm: float = 5.0
    """the most that the norm of the gradients may be; 0 does not clip"""
    pooled: float = 0.5
    """weight of the error of the mean over the cells, beside that of each cell"""
    crop: float = 0.35
    """the least share of a picture's area that is seen, stretched by up to 4/3"""
    flip: float = 0.5
    """the chance that a picture is mirrored; no caption is there to contradict"""
    color: float = 0.2
    """brightness, contrast and saturation change by up to this share"""
    mix: float = 0.25
    """the share of the pictures that are mixed with another one (Zhang et al. 2018, "mixup")"""
    precision: str = "float32"
    """"float32" or "bf16"; which is faster for a student depends on the processor (docs/experiments.md)"""
    seed: int = 0
    """of the weights, the order and the views"""

    def __post_init__(self) -> None:
        self.views()
        check_range("epochs", self.epochs, minimum=1)
        check_range("full_epochs", self.full_epochs, minimum=0, maximum=self.epochs)
        for name in ("start_size", "image_size"):
            check_range(name, getattr(self, name), minimum=32, maximum=1024)
            if getattr(self, name) % 32:
                raise ConfigError(f"{name} must be a multiple of 32. Received: {getattr(self, name)}")
        check_range("batch_size", self.batch_size, minimum=2)
        check_range("learning_rate", self.learning_rate, minimum=1e-8, maximum=10)
        check_range("weight_decay", self.weight_decay, minimum=0.0, maximum=10)
        check_range("warmup", self.warmup, minimum=0.0, maximum=1.0)
        check_range("clip_norm", self.clip_norm, minimum=0.0)
        check_range("pooled", self.pooled, minimum=0.0, maximum=100)
        check_range("mix", self.mix, minimum=0.0, maximum=1.0)
        check_choice("precision", self.precision, ("float32", "bf16"))
        check_range("seed", self.seed, minimum=0)

    def views(self) -> AugmentationConfig:
        """Returns how a picture is changed before both see it."""
        return AugmentationConfig(crop=self.crop, flip=self.flip, color=self.color)

    def size(self, epoch: int) -> int:
        """Returns how large the student sees pictures in an epoch, from 0."""
        return self.image_size if epoch >= self.epochs - self.full_epochs else self.start_size

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return asdict(self)
