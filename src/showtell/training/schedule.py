"""What a run does when: its epochs of teacher forcing and self-critical ones, their batches, and the learning rate.

Everything is a function of the recipe, the epoch and the step, so that a resumed run needs no record of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from showtell.config import TrainingConfig
from showtell.recipes import Recipe
from showtell.training.accumulation import count_steps
from showtell.training.batches import EncodedCaption, plan_epoch
from showtell.training.optimization import learning_rate_factor


def count_rehearsed(config: TrainingConfig, images: int) -> int:
    """Returns how many images of the old data go with so many new ones."""
    return round(config.rehearsal * images)


class Schedule:
    """The epochs of one run.

    Args:
        recipe: `training` and `self_critical`.
        captions: all training captions.
        new: how many images are new; those behind them are of the data that a captioner comes from. An epoch has
            `training.rehearsal` of these for each new one, and all take turns: so none is learnt by heart. None: all.
    """

    def __init__(self, recipe: Recipe, captions: Sequence[EncodedCaption], *, new: int | None = None) -> None:
        self._training, self._self_critical = recipe.training, recipe.self_critical
        self._recipe, self._captions = recipe, captions
        images = {caption.image for caption in captions} if new is not None else ()
        self._rehearsed = sorted(image for image in images if new is not None and image >= new)
        self._share = count_rehearsed(self._training, new or 0)
        self.epochs = self._training.epochs + self._self_critical.epochs
        self.taught_steps = self._count_taught_steps()
        reinforced = len(self.plan(self._training.epochs)) if self._self_critical.epochs else 0
        self._reinforced_steps = reinforced * self._self_critical.epochs

    def _count_taught_steps(self) -> int:
        def count(epoch: int) -> int:
            return count_steps(len(self.plan(epoch)), self._training.accumulate)

        if self._rehearsed:  # other captions in each epoch, so maybe other batches
            return sum(map(count, range(self._training.epochs)))
        return count(0) * self._training.epochs

    def batches_per_step(self, epoch: int) -> int:
        """Returns how many batches one step of the optimiser takes in an epoch."""
        return 1 if self._recipe.is_self_critical(epoch) else self._training.accumulate

    def plan(self, epoch: int) -> list[list[int]]:
        """Returns the batches of an epoch, from 0, as lists of caption indices."""
        reinforced = self._recipe.is_self_critical(epoch)
        waiting = set(self._rehearsed) - self._take_turns(epoch)
        chosen = [index for index, caption in enumerate(self._captions) if caption.image not in waiting]
        plan = plan_epoch(
            [self._captions[index] for index in chosen],
            batching="image" if reinforced else self._training.batching,
            batch_size=self._self_critical.batch_size if reinforced else self._training.batch_size,
            seed=self._training.seed,
            epoch=epoch,
        )
        return [[chosen[index] for index in batch] for batch in plan]

    def _take_turns(self, epoch: int) -> set[int]:
        """Returns the rehearsed images of an epoch: each comes once before one comes again."""
        if not self._rehearsed:
            return set()
        first = epoch * self._share
        turns = range(first, first + min(self._share, len(self._rehearsed)))
        return {self._rehearsed[turn % len(self._rehearsed)] for turn in turns}

    def learning_rate_factor(self, step: int) -> float:
        """Returns what the peak learning rates are multiplied with at a step of the whole run, from 0."""
        if step < self.taught_steps:
            return learning_rate_factor(step, self.taught_steps, self._training)
        falling = replace(self._training, schedule="cosine", warmup=self._self_critical.warmup)
        share = self._self_critical.learning_rate / self._training.learning_rate
        return share * learning_rate_factor(step - self.taught_steps, self._reinforced_steps, falling)
