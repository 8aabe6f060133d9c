"""Our training, step by step: the real trainer, which waits at a turnstile after every step."""

from __future__ import annotations

import queue
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks.sides import Round
from benchmarks.synthetic import load_training_recipe, read_training_data


class Turnstile:
    """Watches a run (`showtell.training.trainer.Watcher`) and lets it make one step at a time."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)
        self._steps: queue.Queue[tuple[int, float] | BaseException] = queue.Queue()

    def stage(self, description: str, total: int, unit: str) -> None:
        """Nothing is shown."""

    def note(self, message: str) -> None:
        """Nothing is shown."""

    def advance(self, amount: int, **values: float) -> None:
        """Called by the trainer: a step with so many captions is done. Waits for the next permit."""
        if "loss" in values:
            self._steps.put((amount, values["loss"]))
            self._permits.acquire()

    def fail(self, error: BaseException) -> None:
        """Called by the trainer's thread: there will be no further step."""
        self._steps.put(error)

    def permit(self) -> None:
        """Lets one step pass."""
        self._permits.release()

    def wait(self) -> tuple[int, float]:
        """Waits for the end of a step; returns its captions and the mean loss so far."""
        step = self._steps.get()
        if isinstance(step, BaseException):
            raise step
        return step


def train(folder: str, *, encoder: str, overrides: list[str], steps: int) -> Round:
    """A side: `steps` steps of a real run, with its checkpoints, prefetching and checks.

    The run prepares two batches ahead, also while it waits. That takes their reading, a hundredth of a step's
    time, out of what is measured.
    """
    from showtell.training import train

    recipe = load_training_recipe(encoder, overrides)
    turnstile = Turnstile()

    def run() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="showtell-benchmark-run-") as output:
                dataset = read_training_data(Path(folder))
                train(
                    recipe, dataset, Path(output, "run"), features=Path(folder, "features"), watcher=turnstile
                )
            raise SystemExit("benchmarks: the run ended before its measurement did; give it more images")
        except BaseException as error:
            turnstile.fail(error)

    threading.Thread(target=run, daemon=True).start()
    turnstile.wait()

    def one_round() -> dict[str, Any]:
        captions, loss = 0, 0.0
        for _ in range(steps):
            turnstile.permit()
            amount, loss = turnstile.wait()
            captions += amount
        return {"units": captions, "loss": loss}

    return one_round
