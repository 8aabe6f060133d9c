"""The trainer: epochs of teacher forcing, and after each one captions of the dev split, really decoded and scored.

A run can be killed at any moment. It goes on from its last checkpoint and then gives, on a CPU in float32, bit for
bit what an uninterrupted run gives: weights, optimiser, learning rate, random generator and place in the data are
all restored.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from showtell.bundle import fingerprint_parts
from showtell.config import FROM
from showtell.data.records import Dataset
from showtell.decoders import CaptionBatch, check_decoder
from showtell.encoders import Encoder, build_encoder
from showtell.errors import TrainingError, TrainingInterrupted
from showtell.interruption import interruptible
from showtell.recipes import Recipe
from showtell.text import Vocabulary
from showtell.training.accumulation import Share, plan_shares
from showtell.training.batches import BatchPart, encode_captions
from showtell.training.checkpoint import read_checkpoint, read_random_state, save_checkpoint
from showtell.training.devices import LossEntry, LossLog, choose_device
from showtell.training.fine_tuning import FineTuning
from showtell.training.history import EpochLog, History
from showtell.training.model import CaptionModel, TorchBackend, build_decoder, make_bundle
from showtell.training.optimization import create_optimizer, set_learning_rate
from showtell.training.position import Position
from showtell.training.processes import Processes, join_processes
from showtell.training.remember import add_consensus
from showtell.training.result import TrainingResult, describe_result
from showtell.training.run_folder import RunFolder
from showtell.training.schedule import Schedule
from showtell.training.self_critical import SelfCritic
from showtell.training.sources import (
    CachedImages,
    DecodedImages,
    ImageSource,
    load_part,
    open_augmentation,
    prefetch,
)
from showtell.training.start import RunData, Start, add_rehearsed, check_needs_no_start
from showtell.training.stored_features import check_use, open_views
from showtell.training.teacher_forcing import StepLoss, TeacherForcing
from showtell.training.validation import Validation
from showtell.training.watcher import SilentWatcher, Watcher
from showtell.training.weights import Weights

_STEPS_BETWEEN_CHECKS = 50  # on a GPU: to read a loss is to wait until it is computed


def train(
    recipe: Recipe,
    dataset: Dataset,
    output: Path,
    *,
    features: Path | None = None,
    resume: bool = False,
    include_encoder: bool = False,
    tensorboard: bool = False,
    split_seed: int | None = None,
    start: Path | Start | None = None,
    old_data: Dataset | None = None,
    watcher: Watcher | None = None,
) -> TrainingResult:
    """Trains a recipe and keeps the checkpoint whose captions of dev have the best CIDEr.

    Args:
        recipe: what to train.
        dataset: with images in "train" and "dev".
        output: the run folder.
        features: a feature cache to use or to fill; by default one in the user's cache folder.
        resume: go on with the run in `output`.
        include_encoder: copy a frozen encoder's weights into the bundle instead of referencing them.
        tensorboard: also write event files.
        start: a bundle or a run whose weights a new run begins with, or one that was read already. To resume it, only
            needed where the captioner has other words than the captions, or lends its encoder.
        old_data: what `start` was trained on, of which `training.rehearsal` says how much is learnt again.
        split_seed: that the splits were made with, kept with them in the run; None if they came with the data.
        watcher: is told how it goes.

    Raises:
        UsageError, ConfigError, SplitError, VocabularyError, EncoderError, CacheError: before anything is trained.
        TrainingError: the loss is not finite, the checkpoint or `start` does not fit, or the GPU has too little memory.
        TrainingInterrupted: Ctrl-C; the run was saved.
    """
    with join_processes(choose_device(recipe.training.device)) as processes:
        beginning = start if start is None or isinstance(start, Start) else Start.open(start)
        run = _Run(
            recipe,
            add_rehearsed(dataset, old_data, recipe.training),
            output,
            features,
            include_encoder,
            watcher or SilentWatcher(),
            processes,
            beginning,
        )
        try:
            return run.train(resume=resume, tensorboard=tensorboard, split_seed=split_seed)
        except torch.OutOfMemoryError:
            key = "self_critical" if recipe.is_self_critical(run.position.epoch) else "training"
            size = getattr(recipe, key).batch_size
            raise TrainingError(
                f"The GPU's memory is too small for batches of {size}. Lower {key}.batch_size, or set "
                'training.device = "cpu". The last checkpoint is whole.'
            ) from None
        finally:
            run.folder.close()


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        data: RunData,
        output: Path,
        features: Path | None,
        include_encoder: bool,
        watcher: Watcher,
        processes: Processes,
        start: Start | None,
    ) -> None:
        self.recipe, self.dataset, self.watcher, self.processes = recipe, data.dataset, watcher, processes
        self.config = recipe.training
        self.data = data
        self.include_encoder = include_encoder or recipe.encoder.weights == FROM
        self.start = start
        self.folder = RunFolder(output)
        check_use(recipe, features)
        check_decoder(recipe.decoder, recipe.decoder_options, features=recipe.encoder.output)
        self.training_set = self.dataset.split("train")
        self.validation = Validation(recipe, self.dataset, processes, watcher)
        self.vocabulary = Vocabulary.from_captions(
            (caption for image in self.training_set.images[: data.new_images] for caption in image.captions),
            min_count=recipe.text.min_count,
            max_words=recipe.text.max_words or None,
            base=None if start is None else start.bundle.vocabulary,
        )
        self.captions = encode_captions(self.training_set, self.vocabulary, recipe.text.max_length)
        build = build_encoder if start is None else start.build_encoder
        self.encoder = build(recipe.encoder, seed=self.config.seed)
        decoder = build_decoder(recipe, channels=self.encoder.channels, vocab_size=len(self.vocabulary))
        self.device = choose_device(self.config.device)
        self.encoder.to(self.device)
        self.model = CaptionModel(decoder, self.encoder if recipe.encoder.trainable else None).to(self.device)
        self.losses = LossLog(check_every=1 if self.device.type == "cpu" else _STEPS_BETWEEN_CHECKS)
        self.fine_tuning = FineTuning(self.model.encoder, recipe)
        self.optimizer = create_optimizer(
            decoder, self.model.encoder, self.config, layer_decay=recipe.fine_tuning.layer_decay
        )
        self.features = features
        self.position = Position()
        self.schedule = Schedule(recipe, self.captions, new=data.new_images)
        self.teacher = TeacherForcing(self.config, decoder, steps=self.schedule.taught_steps)
        self.weights = Weights(self.model, recipe)
        self.critic: SelfCritic | None = None
        if recipe.self_critical.epochs:
            self.critic = SelfCritic(
                self.training_set,
                self.vocabulary,
                recipe.self_critical,
                max_steps=recipe.decoding.max_steps,
            )

    def train(self, *, resume: bool, tensorboard: bool, split_seed: int | None) -> TrainingResult:
        fingerprints = {
            **self.data.fingerprints,
            "vocabulary": self.vocabulary.fingerprint(),
            "encoder": self.encoder.fingerprint,  # where it is trained: of the weights that it starts from
        }
        if self.start is not None:
            fingerprints["start"] = fingerprint_parts(self.start.folder)
            self._begin(self.start)
        elif not self.folder.checkpoint.is_file():
            check_needs_no_start(self.recipe)
        self.processes.check_same(fingerprints, "other data or another encoder")
        begin = partial(self.folder.open, resume=resume, split_seed=split_seed)
        resumed = self.processes.first(lambda: begin(self.recipe, self.data.given, fingerprints))
        torch.manual_seed(self.processes.seed(self.config.seed))
        if resumed:
            self._restore()
        self.processes.align(self.weights.modules())
        source, dev_source = self._open_images()
        history = History(
            self.folder.path,
            epochs=self.position.epoch,
            tensorboard=tensorboard,
            writes=self.processes.is_first,
        )
        parameters = sum(p.numel() for p in self.model.parameters())
        self.watcher.note(
            f"{len(self.captions):,} captions of {len(self.training_set.images):,} images, "
            f"{len(self.vocabulary):,} words, {parameters:,} parameters"
        )
        try:
            with interruptible(second_is_final=self.processes.size == 1) as interrupted:
                while self.position.epoch < self.schedule.epochs and not self._is_done():
                    if self.processes.any(interrupted.is_set())[0]:
                        self._stop()
                    self._train_epoch(source, interrupted)
                    self._finish_epoch(dev_source, history)
                    self._save()
        finally:
            history.close()
        add = partial(add_consensus, self.folder.path, self.recipe, self.training_set, source, self.watcher)
        self.processes.first(add)
        return describe_result(self.folder.path, self.position, history)

    def _begin(self, start: Start) -> None:
        start.load_into(self.model, self.recipe, self.vocabulary, self.encoder)
        self.weights.begin()
        known = len(start.bundle.vocabulary)
        self.watcher.note(
            f"starts from {start.folder}: {known:,} words, and {len(self.vocabulary) - known:,} new ones"
        )

    def _open_images(self) -> tuple[ImageSource, ImageSource]:
        changes = open_augmentation(self.recipe, self.training_set)
        if self.recipe.encoder.trainable:
            return DecodedImages(self.encoder, self.training_set, augmentation=changes), DecodedImages(
                self._encoder_of(self.weights.captioning), self.validation.own
            )
        with self.processes.first_before_others():
            caches = open_views(self.dataset, self.encoder, self.features, self.watcher, changes)
        return CachedImages(caches, self.training_set, changes), CachedImages(caches, self.validation.own)

    def _is_done(self) -> bool:
        return bool(self.config.patience) and self.position.stale >= self.config.patience

    def _train_epoch(self, source: ImageSource, interrupted: threading.Event) -> None:
        position = self.position
        plan = self.schedule.plan(position.epoch)
        ahead = plan[position.batch :]
        shares = plan_shares(plan, self.captions, self.schedule.batches_per_step(position.epoch))
        if position.epoch == self.config.epochs and position.batch == 0:
            self.weights.begin_rewarded(position)
        self.fine_tuning.start_epoch(position.epoch, self.watcher)
        self.watcher.stage(
            f"epoch {position.epoch + 1}/{self.schedule.epochs}",
            sum(len(batch) for batch in ahead),
            "captions",
        )
        started = saved = time.monotonic()
        before = position.seconds
        pinned = self.device.type == "cuda"
        parts = [self.processes.share_batch([self.captions[index] for index in batch]) for batch in ahead]
        tasks = [
            partial(load_part, source, part, (position.epoch, number), self.device, pinned=pinned)
            for number, part in enumerate(parts, position.batch)
        ]
        with closing(prefetch(tasks)) as loaded:
            for (images, inputs, batch), share, part in zip(loaded, shares[position.batch :], parts):
                position.captions += self._train_step(
                    inputs.to(self.device, non_blocking=True), batch.to(self.device), images, share, part
                )
                position.batch += 1
                position.step += share.ends
                position.seconds = before + time.monotonic() - started
                mean = {"loss": position.loss_sum / position.tokens} if position.tokens else {}
                self.watcher.advance(part.planned, **mean)
                if not share.ends:
                    continue  # half a step cannot be saved
                due = time.monotonic() - saved > self.config.checkpoint_seconds
                stopped, due = self.processes.any(interrupted.is_set(), due)
                if stopped:
                    self._stop()
                if due:
                    self._save()
                    saved = time.monotonic()
        self._read_losses()

    def _train_step(
        self, inputs: Tensor, batch: CaptionBatch, images: Sequence[int], share: Share, part: BatchPart
    ) -> int:
        """Makes one optimiser step, or a part of it; returns how many captions it learnt from."""
        position = self.position
        rate = set_learning_rate(self.optimizer, self.schedule.learning_rate_factor(position.step))
        with self.processes.join_batch_norms(self.model, counts=part.counts):
            found = self._compute_loss(inputs, batch, images, share)
            found = self.processes.weigh(found, counts=part.counts)
            if share.begins:
                self.optimizer.zero_grad(set_to_none=True)
            self.fine_tuning.backward(found.loss)
        norm = torch.zeros_like(found.shown)
        if share.ends:
            self.processes.add_gradients(self.model)
            # A finite loss can have gradients that are not, and one step with these would spoil every weight.
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        self.losses.add(LossEntry(position.step, rate, found.shown, norm, found.counted))
        if self.losses.is_due():
            self._read_losses()
        if not share.ends:
            return found.captions
        self.optimizer.step()
        self.weights.follow(position)
        return found.captions

    def _compute_loss(
        self, inputs: Tensor, batch: CaptionBatch, images: Sequence[int], share: Share
    ) -> StepLoss:
        position = self.position
        if self.critic is not None and self.recipe.is_self_critical(position.epoch):
            position.reinforced += 1
            seed = (self.config.seed << 32) + position.step
            return self.critic.compute_loss(self.model, self._backend(self.model), inputs, images, seed=seed)
        self.model.train()
        return self.teacher.compute_loss(
            self.model, inputs, batch, step=position.step, bf16=self._uses_bf16(), share=share
        )

    def _read_losses(self) -> None:
        """Counts the losses of the steps since the last time, and raises TrainingError if one is not finite."""
        loss_sum, tokens = self.losses.read(epoch=self.position.epoch + 1)
        self.position.loss_sum += loss_sum
        self.position.tokens += tokens

    def _uses_bf16(self) -> bool:
        # Measured (docs/experiments.md): casting costs a recurrent decoder on a CPU more than bf16 products save.
        if self.config.precision == "auto":
            on_gpu = self.device.type == "cuda"
            return (on_gpu or self.recipe.encoder.trainable) and self.encoder.precision == "bf16"
        return self.config.precision == "bf16"

    def _finish_epoch(self, dev_source: ImageSource, history: History) -> None:
        position = self.position
        started = time.monotonic()
        number = position.epoch + 1
        scores: dict[str, float] | None = None
        if number % self.config.evaluate_every == 0 or number in (self.config.epochs, self.schedule.epochs):
            self.weights.captioning.eval()
            scores = self.validation.score(self._backend(self.weights.captioning), dev_source)
            if position.take(scores, epoch=number):
                self._save_best(number, scores)
        entry = EpochLog(
            epoch=number,
            step=position.step,
            loss=position.loss_sum / position.tokens,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            captions_per_second=position.captions / max(position.seconds, 1e-9),
            seconds=position.seconds + time.monotonic() - started,
            dev=scores,
        )
        history.add(entry)
        history.plot(self.folder.path / "plot.png")
        self.watcher.note(entry.describe())
        position.end_epoch()

    def _backend(self, model: CaptionModel) -> TorchBackend:
        return TorchBackend(
            self._encoder_of(model),
            model.decoder,
            preprocessing=self.encoder.preprocessing,
            vocabulary=self.vocabulary,
            grid=self.encoder.grid,
        )

    def _encoder_of(self, model: CaptionModel) -> Encoder:
        return self.encoder if model.encoder is None else model.encoder

    def _save_best(self, epoch: int, scores: dict[str, float]) -> None:
        record = {"epoch": epoch, **self.validation.describe(), **scores}
        bundle = make_bundle(
            self.recipe,
            self.weights.captioning,
            self._encoder_of(self.weights.captioning),
            self.vocabulary,
            split_fingerprint=self.data.given.fingerprint(),
            scores={"dev": record},
            include_encoder=self.include_encoder,
        )
        if self.processes.is_first:
            self.folder.save_best(bundle, epoch)

    def _save(self) -> None:
        self._read_losses()  # a step that went wrong must not get into the checkpoint
        states = self.processes.gather(read_random_state())
        self.position.processes = self.processes.size
        if self.processes.is_first:
            values = self.position.to_dict()
            save_checkpoint(
                self.folder.checkpoint, self.weights.modules(), self.optimizer, values, random_states=states
            )

    def _restore(self) -> None:
        tensors, values = read_checkpoint(self.folder.checkpoint)
        self.position = Position.from_dict(values)
        self.weights.restore(tensors, self.optimizer, rank=self.processes.rank)
        # For the log, should no batch of the epoch be left to set it.
        step = max(0, self.position.step - 1)
        set_learning_rate(self.optimizer, self.schedule.learning_rate_factor(step))
        self.watcher.note(f"resumed after epoch {self.position.epoch}, batch {self.position.batch}")
        if self.position.processes != self.processes.size:
            self.watcher.note(self.position.describe_processes(self.processes.size))

    def _stop(self) -> None:
        self._save()
        raise TrainingInterrupted(
            f"stopped and saved after epoch {self.position.epoch}, batch {self.position.batch}. "
            f"Go on with the same command and --resume."
        )
