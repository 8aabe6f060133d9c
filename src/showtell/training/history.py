"""What a run writes down: one JSON line per epoch, a plot of it, and TensorBoard on request."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from showtell.errors import MissingExtraError, TrainingError
from showtell.files import write_atomically

LOG = "log.jsonl"


@dataclass(frozen=True)
class EpochLog:
    """What a run wrote down of one epoch."""

    epoch: int  # from 1
    step: int  # of the optimiser, at its end, since the run began
    loss: float  # mean in nats per token; of self-critical epochs the negative mean reward
    learning_rate: float  # of its last step
    captions_per_second: float  # in training
    seconds: float  # of training and evaluating
    dev: dict[str, float] | None  # scores, by key; None where dev was not captioned

    def describe(self) -> str:
        """Returns a line for people."""
        dev = (
            ""
            if self.dev is None
            else f", dev CIDEr {self.dev['CIDEr']:.3f}, Bleu_4 {self.dev['Bleu_4']:.3f}"
        )
        speed = f"{self.captions_per_second:.0f} captions/s, {self.seconds:.0f} s"
        return f"epoch {self.epoch}: loss {self.loss:.3f}{dev}, {speed}"


def read_log(run: Path) -> list[EpochLog]:
    """Returns what a run has written down of its finished epochs.

    Args:
        run: its folder; it may still be training.

    Raises:
        TrainingError: no such run, or its log is damaged.
    """
    path = run / LOG
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [EpochLog(**entry) for entry in map(_parse, lines) if entry]
    except OSError as error:
        raise TrainingError(
            f"{path}: the log cannot be read: {error.strerror}. Give the folder of a run."
        ) from None
    except (TypeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: not the log of a run, or damaged: {error}") from None


class History:
    """The log of a run, in memory and in `log.jsonl`.

    Args:
        folder: of the run.
        epochs: how many finished epochs to keep of an earlier log; lines behind the checkpoint are written again.
        tensorboard: whether to write event files, too (extra `tensorboard`).
        writes: whether to write at all; of several processes one does.

    Raises:
        MissingExtraError: TensorBoard was asked for and is not installed.
    """

    def __init__(
        self, folder: Path, *, epochs: int = 0, tensorboard: bool = False, writes: bool = True
    ) -> None:
        self._writes = writes
        self.path = folder / LOG
        self.entries: list[dict[str, Any]] = []
        if epochs and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            self.entries = [entry for entry in map(_parse, lines) if entry and entry["epoch"] <= epochs]
        self._write()
        self._events = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise MissingExtraError("tensorboard", "tensorboard", "Logging for TensorBoard") from None
            if writes:
                self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs + 1)

    def add(self, log: EpochLog) -> None:
        """Appends what one epoch gave."""
        entry = asdict(log)
        self.entries.append(entry)
        self._write()
        if self._events is not None:
            flat = {**{k: v for k, v in entry.items() if k != "dev"}, **(entry.get("dev") or {})}
            for name, value in flat.items():
                if isinstance(value, (int, float)) and name != "epoch":
                    self._events.add_scalar(name, value, entry["epoch"])
            self._events.flush()

    def seconds(self) -> float:
        """Returns the time that all epochs in the log took."""
        return float(sum(entry["seconds"] for entry in self.entries))

    def plot(self, path: Path) -> None:
        """Draws loss and dev scores over the epochs as a PNG."""
        if not self._writes:
            return
        import io

        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(8, 4.5))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.09, 0.12, 0.82, 0.84))  # fixed: finding out the margins takes half a second
        epochs = [entry["epoch"] for entry in self.entries]
        lines = axes.plot(
            epochs, [entry["loss"] for entry in self.entries], "o-", color="C0", label="training loss"
        )
        # Self-critical epochs log the negative mean reward.
        axes.set(xlabel="epoch", ylabel="loss (nats per token; below zero: minus the reward)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        scored = [entry for entry in self.entries if entry.get("dev")]
        if scored:
            right = axes.twinx()
            right.set_ylabel("score on dev")
            for color, name in (("C1", "CIDEr"), ("C2", "Bleu_4")):
                values = [entry["dev"][name] for entry in scored]
                lines += right.plot(
                    [entry["epoch"] for entry in scored], values, "s--", color=color, label=name
                )
            right.set_ylim(bottom=0)
        axes.legend(handles=lines, loc="best")
        axes.grid(alpha=0.3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        write_atomically(path, buffer.getvalue())

    def close(self) -> None:
        """Closes the event files."""
        if self._events is not None:
            self._events.close()

    def _write(self) -> None:
        if not self._writes:
            return
        text = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in self.entries)
        write_atomically(self.path, text.encode())


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None  # a line that a kill cut short
    return entry
