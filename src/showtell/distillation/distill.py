"""The distillation itself: epochs over pictures without captions, resumable, and how near the student has come.

It can be killed at any moment and goes on from its last checkpoint, on a CPU bit for bit as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from showtell.captioner import Captioner
from showtell.config import TrainingConfig
from showtell.distillation.pictures import Pixels, plan_batches, read_pictures, require_read
from showtell.distillation.settings import DistillationSettings
from showtell.distillation.student import Student
from showtell.encoders import zoo
from showtell.errors import TrainingError, TrainingInterrupted, UsageError
from showtell.files import digest_file, lock_folder, remove_partial_files, write_json
from showtell.images import Preprocessing, read_ahead
from showtell.interruption import interruptible
from showtell.training.checkpoint import read_checkpoint, restore, save_checkpoint
from showtell.training.optimization import learning_rate_factor
from showtell.training.watcher import SilentWatcher, Watcher

WEIGHTS = "student.safetensors"
LOCK = ".distill.lock"
_MEASURED = 1024  # pictures from which mean and deviation of the teacher's channels are computed
_CHECKED = 500  # held-out pictures, at most, that say how near the student has come
_CHECKPOINT_SECONDS = 300


@dataclass(frozen=True)
class DistillationResult:
    """What came out."""

    weights: Path  # of the student, a file for `encoder.weights`
    digest: str  # SHA-256 of it
    explained: float  # share of the variance of the teacher's cells, on held-out pictures
    explained_pooled: float  # of the mean over the cells
    epochs: int
    seconds: float  # of all epochs


@dataclass
class _Position:
    epoch: int = 0
    batch: int = 0  # in the epoch
    step: int = 0
    loss_sum: float = 0.0  # over the batches of the epoch
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per epoch


def distill(
    teacher: str | Path,
    pictures: Sequence[Path],
    held_out: Sequence[Path],
    output: Path,
    settings: DistillationSettings | None = None,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    workers: int = 2,
) -> DistillationResult:
    """Distills the encoder of a captioner into a student and writes its weights.

    Args:
        teacher: a captioner; exported with `--int8` its encoder takes the least time.
        pictures: to learn from.
        held_out: others, that say how near the student has come.
        output: the folder of the run: checkpoint, log and in the end `student.safetensors`.
        settings: of the student and of the run.
        resume: go on with the run in `output`.
        watcher: is told how it goes.
        workers: threads that decode pictures.

    Raises:
        UsageError: too few pictures, or a folder that holds something else, or a run and `resume` was not asked for.
        ConfigError: no such backbone, or one without a grid.
        BundleError: the teacher cannot be opened.
        ImageError: a picture cannot be read.
        TrainingError: the run in the folder is another one, or the loss is not finite.
        TrainingInterrupted: Ctrl-C; the run was saved.
    """
    settings = settings or DistillationSettings()
    captioner = Captioner.load(teacher)
    least = settings.batch_size
    if len(pictures) < least or len(held_out) < 2:
        raise UsageError(
            f"{len(pictures)} pictures to learn from and {len(held_out)} held out; at least {least} (batch_size) and 2 "
            "are needed."
        )
    record = {
        "settings": settings.to_dict(),
        "teacher": captioner.digest,
        "pictures": len(pictures),
        "names": hashlib.sha256(
            "\n".join(path.name for path in (*pictures, *held_out)).encode(errors="surrogateescape")
        ).hexdigest(),
        "held_out": min(len(held_out), _CHECKED),
    }
    output.mkdir(parents=True, exist_ok=True)
    with lock_folder(output, TrainingError, "another process distills in this folder", name=LOCK):
        resumed = _open_folder(output, record, resume=resume)
        run = _Run(captioner, pictures, held_out, output, settings, watcher or SilentWatcher(), workers)
        return run.run(resumed=resumed)


def _open_folder(folder: Path, record: dict[str, Any], *, resume: bool) -> bool:
    path = folder / "distillation.json"
    if not path.is_file():
        if any(entry.name != LOCK for entry in folder.iterdir()):
            raise UsageError(f"{folder}: not empty and not a distillation. Choose another --output.")
    elif not resume:
        raise UsageError(f"{folder}: holds a run already. Add --resume to go on, or choose another --output.")
    else:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in record if before.get(key) != json.loads(json.dumps(record[key]))]
        if changed:
            raise TrainingError(
                f"{folder}: the run was started with other values of {', '.join(changed)}. Give the old ones, or "
                "start a new run in another folder."
            )
        remove_partial_files(folder)
    write_json(path, record)
    return (folder / "checkpoint.safetensors").is_file()


class _Run:
    def __init__(
        self,
        captioner: Captioner,
        pictures: Sequence[Path],
        held_out: Sequence[Path],
        folder: Path,
        settings: DistillationSettings,
        watcher: Watcher,
        workers: int,
    ) -> None:
        self.teacher = captioner.backend
        self.digest = captioner.digest
        self.pictures, self.folder, self.settings, self.watcher = pictures, folder, settings, watcher
        self.workers = workers
        self.checkpoint = folder / "checkpoint.safetensors"
        self.held_out = _read_all(held_out[:_CHECKED], self.teacher.preprocessing)
        self.held_out_features = self._teach(self.held_out)
        size = settings.image_size
        published = zoo.published_preprocessing(settings.student, image_size=size, fit="squash")
        fit = self.teacher.preprocessing.fit
        channels = self.held_out_features.shape[2]
        self.student = Student(settings, replace(published, fit=fit), channels=channels)
        self.optimizer = _create_optimizer(self.student, settings)
        self.schedule = TrainingConfig(schedule="cosine", warmup=settings.warmup)
        self.position = _Position()

    def run(self, *, resumed: bool) -> DistillationResult:
        position, settings = self.position, self.settings
        if resumed:
            tensors, values = read_checkpoint(self.checkpoint)
            restore(tensors, {"student": self.student}, self.optimizer)
            self.position = position = _Position(**values)
        else:
            self._measure_teacher()
        parameters = sum(p.numel() for p in self.student.backbone.parameters())
        self.watcher.note(
            f"{len(self.pictures):,} pictures, {settings.student} with {parameters:,} parameters"
        )
        with interruptible() as interrupted:
            while position.epoch < settings.epochs:
                self._train_epoch(interrupted)
        entry = position.history[-1]
        origin = f"distilled by showtell, from random weights, from the captioner {self.digest[:16]}"
        self.student.save_weights(self.folder / WEIGHTS, source=origin)
        return DistillationResult(
            weights=self.folder / WEIGHTS,
            digest=digest_file(self.folder / WEIGHTS),
            explained=entry["explained"],
            explained_pooled=entry["explained_pooled"],
            epochs=settings.epochs,
            seconds=position.seconds,
        )

    def _train_epoch(self, interrupted: threading.Event) -> None:
        position, settings = self.position, self.settings
        plan = plan_batches(len(self.pictures), settings, position.epoch)
        size = settings.size(position.epoch)
        ahead = plan[position.batch :]
        total = settings.epochs * len(plan)
        self.watcher.stage(
            f"epoch {position.epoch + 1}/{settings.epochs} at {size} pixels",
            len(ahead) * settings.batch_size,
            "pictures",
        )
        self.student.train()
        started = saved = time.monotonic()
        before = position.seconds
        batches = read_pictures(
            self.pictures,
            ahead,
            settings,
            self.teacher.preprocessing,
            position.epoch,
            workers=self.workers,
        )
        # The teacher looks at the next batches on a thread of its own while the student learns from those before.
        teach = partial(self._teach_batch, size=size, grid=self.student.grid(size))
        taught = read_ahead(batches, teach, workers=1, ahead=2)
        with closing(batches), closing(taught):
            for images, *targets in map(require_read, taught):
                position.loss_sum += self._train_step(images, *targets, total=total)
                position.batch += 1
                position.step += 1
                position.seconds = before + time.monotonic() - started
                self.watcher.advance(len(images), loss=position.loss_sum / position.batch)
                if interrupted.is_set():
                    self._save()
                    raise TrainingInterrupted(
                        f"Stopped in epoch {position.epoch + 1}. The same command with --resume goes on."
                    )
                if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
        loss = position.loss_sum / len(plan)
        position.epoch += 1
        position.batch, position.loss_sum = 0, 0.0
        explained, pooled = self._check(size)
        entry = {"loss": loss, "explained": explained, "explained_pooled": pooled}
        position.history.append({"epoch": position.epoch, "size": size, **entry})
        self.watcher.note(
            f"epoch {position.epoch}: loss {entry['loss']:.4f}; of the teacher's variance {explained:.3f} explained, "
            f"{pooled:.3f} of the mean cell's"
        )
        self._save()
        write_json(self.folder / "log.json", position.history)

    def _train_step(self, images: Tensor, cells: Tensor, pooled: Tensor, *, total: int) -> float:
        settings = self.settings
        factor = learning_rate_factor(self.position.step, total, self.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
            seen = self.student(images)
        of_cells, of_mean = self.student.errors(seen.float(), cells, pooled)
        loss = of_cells + settings.pooled * of_mean
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"The loss is {loss.item()} at step {self.position.step}. Lower learning_rate; the last checkpoint "
                "is from before."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not say what it returns
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), settings.clip_norm)
        self.optimizer.step()
        return loss.item()

    def _measure_teacher(self) -> None:
        count = min(_MEASURED, len(self.pictures))
        chosen = np.random.default_rng([self.settings.seed, 3]).permutation(len(self.pictures))[:count]
        pixels = _read_all([self.pictures[int(index)] for index in chosen], self.teacher.preprocessing)
        self.student.measure_teacher(self._teach(pixels))

    def _teach_batch(
        self, batch: tuple[Pixels, npt.NDArray[np.int64]], *, size: int, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what the student is given, and what it is to see in it: all that does not wait for its weights."""
        pixels, _ = batch
        images = self.student.prepare(torch.from_numpy(pixels), size)
        return images, *self.student.targets(self._teach(pixels), self.teacher.grid, grid)

    def _teach(self, pixels: Pixels) -> Tensor:
        features = np.asarray(self.teacher.encode(pixels), dtype=np.float32)
        if features.ndim != 3:
            raise UsageError(
                "The teacher gives one vector for a picture; a student learns from a grid of them "
                '(encoder.output = "grid").'
            )
        return torch.from_numpy(features)

    @torch.no_grad()
    def _check(self, size: int) -> tuple[float, float]:
        """Returns the shares of variance that the student explains on held-out pictures, seen whole."""
        self.student.eval()
        sums = torch.zeros(4, dtype=torch.float64)
        for start in range(0, len(self.held_out), 50):
            pixels = torch.from_numpy(self.held_out[start : start + 50])
            features = self.held_out_features[start : start + 50]
            seen = self.student(self.student.prepare(pixels, size))
            cells, pooled = self.student.targets(features, self.teacher.grid, (seen.shape[2], seen.shape[3]))
            errors = self.student.errors(seen, cells, pooled)
            # Variance around the mean that was measured on other pictures: what a constant would leave.
            values = (*errors, cells.square().mean(), pooled.square().mean())
            sums += torch.stack([value.double() for value in values]) * len(features)
        self.student.train()
        return 1 - float(sums[0] / sums[2]), 1 - float(sums[1] / sums[3])

    def _save(self) -> None:
        save_checkpoint(self.checkpoint, {"student": self.student}, self.optimizer, asdict(self.position))


def _create_optimizer(student: Student, settings: DistillationSettings) -> torch.optim.Optimizer:
    decayed = [p for p in student.parameters() if p.ndim > 1]
    kept = [p for p in student.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def _read_all(paths: Sequence[Path], preprocessing: Preprocessing) -> Pixels:
    with closing(read_ahead(paths, preprocessing.read)) as results:
        return np.stack([require_read(result) for result in results])
