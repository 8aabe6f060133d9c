"""Where a run stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from showtell.errors import TrainingError


@dataclass
class Position:
    """Where a run stands; saved with every checkpoint."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0  # optimiser steps so far
    loss_sum: float = 0.0  # over the real tokens of the current epoch
    tokens: int = 0
    captions: int = 0
    seconds: float = 0.0  # spent in the current epoch
    best: float = -math.inf
    best_epoch: int = 0
    best_scores: dict[str, float] = field(default_factory=dict)
    stale: int = 0  # evaluations since the best one
    reinforced: int = 0  # self-critical steps so far
    averaged: int = 0  # steps that are in the average of the weights
    processes: int = 1  # that shared the last step

    def take(self, scores: Mapping[str, float], *, epoch: int) -> bool:
        """Takes note of the scores on dev after an epoch; returns whether their CIDEr is the highest so far."""
        self.stale += 1
        if not scores["CIDEr"] > self.best:
            return False
        self.best, self.best_epoch, self.best_scores, self.stale = scores["CIDEr"], epoch, dict(scores), 0
        return True

    def end_epoch(self) -> None:
        """Goes to the beginning of the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum, self.tokens, self.captions, self.seconds = 0.0, 0, 0, 0.0

    def describe_processes(self, size: int) -> str:
        """Returns what it means that another number of processes goes on with the run."""
        return (
            f"number of processes so far: {self.processes}, from here on: {size}. The batches are the same; dropout "
            "draws other numbers, and sums differ in their last digits"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {**vars(self), "best": None if self.best == -math.inf else self.best}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Position:
        """Returns the position that `to_dict` gave.

        Raises:
            TrainingError: something is missing, or there is more than is known.
        """
        try:
            return cls(**{**values, "best": -math.inf if values["best"] is None else values["best"]})
        except (KeyError, TypeError) as error:
            raise TrainingError(f"The checkpoint lacks the run's position: {error}") from None
