"""What a finished run gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from showtell.bundle import find_bundle
from showtell.training.history import History
from showtell.training.position import Position


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run gives."""

    bundle: Path  # the best one
    epochs: int  # that were trained, over all resumptions
    best_epoch: int
    scores: dict[str, float]  # of the best bundle on dev, by the search of training.dev_beam
    seconds: float  # of training and evaluating, over all resumptions
    captions_per_second: float  # in training, median over the epochs


def describe_result(run: Path, position: Position, history: History) -> TrainingResult:
    """Returns what a run has given so far.

    Args:
        run: its folder, with a best bundle.
        position: where it is.
        history: of its epochs.
    """
    rates = sorted(entry["captions_per_second"] for entry in history.entries)
    return TrainingResult(
        bundle=find_bundle(run),
        epochs=position.epoch,
        best_epoch=position.best_epoch,
        scores=position.best_scores,
        seconds=history.seconds(),
        captions_per_second=rates[len(rates) // 2] if rates else 0.0,
    )
