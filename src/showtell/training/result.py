"""What a finished run gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run gives."""

    bundle: Path  # the best one
    epochs: int  # that were trained, over all resumptions
    best_epoch: int
    scores: dict[str, float]  # of the best bundle on dev, by the search of training.dev_beam
    seconds: float  # of training and evaluating, over all resumptions
    captions_per_second: float  # in training, median over the epochs
