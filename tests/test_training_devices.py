"""Where training computes, and losses that are read late."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from showtell.decoders import CaptionBatch
from showtell.errors import ConfigError, TrainingError
from showtell.training import train, trainer
from showtell.training.checkpoint import read_checkpoint
from showtell.training.devices import LossEntry, LossLog, choose_device
from tiny_runs import shared_dataset, tiny_recipe


def entry(step: int, loss: float, *, norm: float = 1.0, tokens: int = 2) -> LossEntry:
    return LossEntry(step, 1e-3, torch.tensor(loss), torch.tensor(norm), tokens)


def test_losses_wait_until_they_are_due() -> None:
    log = LossLog(check_every=3)
    for step in range(2):
        log.add(entry(step, 1.5))
        assert not log.is_due()
    log.add(entry(2, 0.5, tokens=4))
    assert log.is_due()
    assert log.read(epoch=1) == (2 * 1.5 + 2 * 1.5 + 4 * 0.5, 8)
    assert not log.is_due()
    assert log.read(epoch=1) == (0.0, 0)


@pytest.mark.parametrize(
    ("loss", "norm", "message"),
    [
        (math.nan, 1.0, "The loss is nan at step 1 of epoch 4"),
        (1.0, math.inf, "norm of the gradients is inf"),
    ],
)
def test_a_step_that_went_wrong_is_named_though_it_is_read_late(
    loss: float, norm: float, message: str
) -> None:
    log = LossLog(check_every=5)
    for number in (entry(0, 1.0), entry(1, loss, norm=norm), entry(2, 1.0)):
        log.add(number)
    with pytest.raises(TrainingError, match=message):
        log.read(epoch=4)


def test_reading_late_changes_nothing(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    for name, steps in (("often", 1), ("seldom", 3)):
        monkeypatch.setattr(
            trainer, "LossLog", lambda *, check_every, steps=steps: LossLog(check_every=steps)
        )
        train(tiny_recipe(), shared_dataset(), tmp_path / name, features=features)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("often", "seldom")]
    for mine, theirs in zip(*(map(json.loads, lines) for lines in logs), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-12)
        assert mine["dev"] == theirs["dev"]
    first, second = (
        read_checkpoint(tmp_path / name / "checkpoint.safetensors")[0] for name in ("often", "seldom")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_loss_read_late_does_not_get_into_a_checkpoint(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    load, calls = trainer.CachedImages.load, iter(range(99))

    def spoil(self: trainer.CachedImages, indices: list[int], when: tuple[int, int]) -> torch.Tensor:
        return load(self, indices, when) * (math.nan if next(calls) == 3 else 1)

    monkeypatch.setattr(trainer.CachedImages, "load", spoil)
    monkeypatch.setattr(trainer, "LossLog", lambda *, check_every: LossLog(check_every=1000))
    recipe = tiny_recipe(training={"checkpoint_seconds": 0})
    with pytest.raises(TrainingError, match="The loss is nan at step 3 of epoch 1"):
        train(recipe, shared_dataset(), tmp_path / "run", features=features)
    tensors, values = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert values["step"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    found = torch.cuda.is_available()
    assert choose_device("auto").type == ("cuda" if found else "cpu")
    if not found:
        with pytest.raises(ConfigError, match=r'training\.device = "cuda", but torch finds no GPU'):
            choose_device("cuda")


def test_a_batch_moves_with_all_its_tensors() -> None:
    batch = CaptionBatch(torch.ones(2, 3), torch.ones(2, 3), [3, 2], torch.zeros(2))
    moved = batch.to(torch.device("meta"))
    assert {part.device.type for part in (moved.inputs, moved.targets, moved.owners)} == {"meta"}
    assert moved.lengths == [3, 2]


def test_a_gpu_that_is_too_small(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(trainer._Run, "_train_step", fail)
    with pytest.raises(TrainingError, match=r"too small for batches of 16\. Lower training\.batch_size"):
        train(tiny_recipe(), shared_dataset(), tmp_path / "run", features=features)
