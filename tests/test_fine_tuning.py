"""A trainable encoder: what learns, at which rate, what its batch norms do, and that memory and resuming are right."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from showtell.cli.main import main
from showtell.config import EncoderConfig, TrainingConfig
from showtell.encoders import Encoder, build_encoder
from showtell.errors import ConfigError, TrainingError, TrainingInterrupted, UsageError
from showtell.recipes import Recipe
from showtell.training import SilentWatcher, train, trainer
from showtell.training.checkpoint import read_checkpoint
from showtell.training.fine_tuning import FineTuning
from showtell.training.optimization import create_optimizer
from showtell.training.sources import DecodedImages, open_augmentation
from tiny_runs import POOLING, assert_equal_checkpoints, scratch_folder, shared_dataset, tiny_recipe

Tensors = dict[str, torch.Tensor]
STAGES = ["conv1.|bn1.", "layer1.", "layer2.", "layer3.", "layer4."]  # of test_resnet, as timm has them


@pytest.fixture(autouse=True)
def quick(without_plots: None) -> None:
    """No plots."""


def recipe_with(
    fine_tuning: dict[str, Any] | None = None,
    *,
    augmentation: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    self_critical: dict[str, Any] | None = None,
    **training: Any,
) -> Recipe:
    return tiny_recipe(
        encoder={"trainable": True, "image_size": 32, **(encoder or {})},
        decoder=POOLING,
        training={"batching": "image", "batch_size": 8, "encoder_learning_rate": 1e-3, **training},
        augmentation=augmentation,
        fine_tuning=fine_tuning,
        self_critical=self_critical,
    )


def build(name: str = "test_resnet", **settings: Any) -> Encoder:
    return build_encoder(
        EncoderConfig(name=name, weights="random", image_size=64, output="pooled", trainable=True, **settings)
    )


def stage_of(name: str) -> int:
    [stage] = [n for n, prefixes in enumerate(STAGES) if name.startswith(tuple(prefixes.split("|")))]
    return stage


def of_norms(names: Iterable[str]) -> set[str]:
    """The tensors of the batch norms among these names."""
    names = set(names)
    norms = {name.removesuffix("running_mean") for name in names if name.endswith("running_mean")}
    return {name for name in names if f"{name.rpartition('.')[0]}." in norms}


class Spy(SilentWatcher):
    """Keeps the encoder's tensors after each batch, and what is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, stop_after: int = 0) -> None:
        self.encoders: list[Encoder] = []
        self.after: list[Tensors] = []
        self.gradients: list[set[str]] = []
        self.notes: list[str] = []
        self.left = stop_after

        def build_and_keep(*arguments: Any, **options: Any) -> Encoder:
            self.encoders.append(build_encoder(*arguments, **options))
            self.after.append(self.tensors())
            return self.encoders[-1]

        monkeypatch.setattr(trainer, "build_encoder", build_and_keep)

    def tensors(self) -> Tensors:
        return {name: tensor.clone() for name, tensor in self.encoders[-1].backbone.state_dict().items()}

    def advance(self, amount: int, **values: float) -> None:
        if "loss" not in values:
            return
        self.after.append(self.tensors())
        named = self.encoders[-1].backbone.named_parameters()
        self.gradients.append({name for name, parameter in named if parameter.grad is not None})
        self.left -= 1
        if self.left == 0:
            raise TrainingInterrupted("stopped by the test")

    def note(self, message: str) -> None:
        self.notes.append(message)

    def moved(self, first: int, last: int) -> set[str]:
        """Names of the tensors that the batches from `first` to before `last` changed."""
        before, after = self.after[first], self.after[last]
        return {name for name in before if not torch.equal(before[name], after[name])}


# Batch norms


@pytest.mark.parametrize("policy", ["train", "statistics", "frozen"])
def test_what_batch_norms_do(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    train(recipe_with({"batch_norm": policy}, epochs=1), shared_dataset(), tmp_path / "run", watcher=spy)
    tensors = spy.after[0]
    statistics = {name for name in tensors if "running_" in name or "num_batches" in name}
    affine = of_norms(tensors) - statistics
    others = set(tensors) - statistics - affine
    assert min(len(statistics), len(affine), len(others)) > 5
    moved = spy.moved(0, -1)
    # Where scales are frozen at the zeros that timm ends random blocks with, these blocks cannot learn.
    assert {name for name in others if policy != "frozen" or stage_of(name) == 0} <= moved
    assert statistics & moved == (statistics if policy == "train" else set())
    assert affine & moved == (set() if policy == "frozen" else affine)


@pytest.mark.parametrize("policy", ["statistics", "frozen"])
def test_fixed_statistics_are_used_in_training(policy: str) -> None:
    encoder = build()
    FineTuning(encoder, recipe_with({"batch_norm": policy})).start_epoch(0, SilentWatcher())
    pixels = torch.randn(3, 3, 64, 64)
    encoder.train()
    taught = encoder(pixels)
    assert encoder.training
    assert taught.requires_grad
    torch.testing.assert_close(taught, encoder.eval()(pixels))


def test_a_single_image_can_be_trained_on_with_fixed_statistics(tmp_path: Path) -> None:
    # One picture of 32 pixels is a single cell here, which has no statistics of its own.
    with pytest.raises(ConfigError, match="shrinks images of 32x32 to a single cell"):
        train(recipe_with(batch_size=1, epochs=1), shared_dataset(), tmp_path / "train")
    fixed = recipe_with({"batch_norm": "statistics"}, batch_size=1, epochs=1)
    assert train(fixed, shared_dataset(), tmp_path / "fixed").epochs == 1


# Rates


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "inception_v3"])
def test_each_layer_learns_slower_than_the_one_above(name: str) -> None:
    encoder = build(name) if name != "inception_v3" else build_inception()
    decoder = nn.Linear(3, 3)
    config = TrainingConfig(learning_rate=0.2, encoder_learning_rate=0.01, weight_decay=0.1)
    optimizer = create_optimizer(decoder, encoder, config, layer_decay=0.5)
    rates = {id(p): group["peak"] for group in optimizer.param_groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(encoder.backbone.named_parameters())
    assert len(rates) == len(named) + 2  # every parameter once
    assert {rates[id(p)] for p in decoder.parameters()} == {0.2}
    found = sorted({rates[id(p)] for p in named.values()}, reverse=True)
    assert found == pytest.approx([0.01 * 0.5**depth for depth in range(len(found))])
    order = [rates[id(parameter)] for parameter in named.values()]
    assert order == sorted(order)  # parameters stand in the order of their layers
    assert all(decays[id(p)] == (0.1 if p.ndim > 1 else 0.0) for p in named.values())
    assert all(group["lr"] == group["peak"] for group in optimizer.param_groups)
    if name == "test_resnet":
        assert len(found) == len(STAGES)
        assert all(rates[id(p)] == 0.01 * 0.5 ** (4 - stage_of(n)) for n, p in named.items())


def build_inception() -> Encoder:
    config = EncoderConfig(
        name="inception_v3", weights="random", image_size=75, output="pooled", trainable=True
    )
    return build_encoder(config)


def test_frozen_batch_norms_are_not_given_to_the_optimiser() -> None:
    for decay in (1.0, 0.5):
        encoder = build()
        FineTuning(encoder, recipe_with({"batch_norm": "frozen"}))
        optimizer = create_optimizer(nn.Linear(2, 2), encoder, TrainingConfig(), layer_decay=decay)
        learning = {id(p) for group in optimizer.param_groups for p in group["params"]}
        norms = of_norms(encoder.backbone.state_dict())
        for name, parameter in encoder.backbone.named_parameters():
            assert (id(parameter) in learning) == (name not in norms), name


# Unfreezing


def test_the_encoder_begins_to_learn_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    recipe = recipe_with({"freeze_epochs": 2}, epochs=3)  # of two batches each
    train(recipe, shared_dataset(), tmp_path / "run", watcher=spy)
    assert spy.moved(0, 4) == set()
    assert spy.gradients[:4] == [set()] * 4
    assert spy.moved(4, 6) == set(spy.after[0])
    said = [note for note in spy.notes if "stages" in note]
    assert said == [f"epoch {epoch}: 0 of the encoder's 5 stages learn" for epoch in (1, 2)]


def test_stages_are_unfrozen_from_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    recipe = recipe_with({"freeze_epochs": 1, "stage_epochs": 1}, epochs=7)
    train(recipe, shared_dataset(), tmp_path / "run", watcher=spy)
    expected = [set(range(len(STAGES) - count, len(STAGES))) for count in (0, 1, 2, 3, 4, 5, 5)]
    for epoch, stages in enumerate(expected):
        moved = spy.moved(2 * epoch, 2 * epoch + 2)
        assert moved == {name for name in spy.after[0] if stage_of(name) in stages}, epoch
        assert {stage_of(name) for name in spy.gradients[2 * epoch]} == stages


def test_slow_unfreezing() -> None:
    tuning = FineTuning(build(), recipe_with({"freeze_epochs": 3, "stage_epochs": 2}, epochs=14))
    assert [tuning.count_stages(epoch) for epoch in range(14)] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]


def test_an_encoder_that_could_never_learn() -> None:
    reinforced = {"epochs": 2, "trains_encoder": False}
    for settings in ({}, {"self_critical": reinforced}):
        with pytest.raises(
            ConfigError, match=r"freeze_epochs = 3 leaves the encoder no epoch to learn in: there are 3\."
        ):
            recipe_with({"freeze_epochs": 3}, epochs=3, **settings)
    recipe_with({"freeze_epochs": 3}, epochs=3, self_critical={"epochs": 1})
    tiny_recipe(fine_tuning={"freeze_epochs": 9})  # a frozen encoder never learns anyway


def test_frozen_stages_keep_no_activations() -> None:
    encoder = build()
    tuning = FineTuning(encoder, recipe_with({"stage_epochs": 1}))
    pixels = torch.randn(2, 3, 64, 64)
    kept = []
    for epoch in range(5):
        tuning.start_epoch(epoch, SilentWatcher())
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            encoder.train()(pixels)
        kept.append(sum(sizes))
    assert kept == sorted(kept)
    assert kept[0] < 0.3 * kept[-1]


def test_a_backbone_without_stages() -> None:
    encoder = build()
    encoder.backbone = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(
        ConfigError, match=r"fine_tuning\.stage_epochs = 2: timm knows no stages of .*test_resnet"
    ):
        FineTuning(encoder, recipe_with({"stage_epochs": 2}))
    assert FineTuning(encoder, recipe_with()).count_stages(0) == 1


# Memory


@pytest.mark.parametrize("policy", ["train", "frozen"])
def test_recomputed_activations_change_nothing(policy: str, tmp_path: Path) -> None:
    for name, recompute in (("kept", False), ("again", True)):
        settings = {"batch_norm": policy, "recompute": recompute}
        train(recipe_with(settings, epochs=2), shared_dataset(), tmp_path / name)
    assert_equal_checkpoints(tmp_path / "kept", tmp_path / "again")


def test_recomputing_keeps_less() -> None:
    kept = []
    for recompute in (False, True):
        encoder = build("test_efficientnet")
        FineTuning(encoder, recipe_with({"recompute": recompute})).start_epoch(0, SilentWatcher())
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            encoder.train()(torch.randn(2, 3, 64, 64)).sum().backward()
        kept.append(sum(sizes))
        encoder.encode(np.zeros((2, 64, 64, 3), np.uint8))  # also where gradients are off
    assert kept[1] < kept[0]


def test_a_backbone_that_cannot_recompute() -> None:
    recipe = recipe_with({"recompute": True}, encoder={"name": "inception_v3"})
    with pytest.raises(
        ConfigError, match=r"recompute = true: the backbone inception_v3 cannot .*training\.accumulate"
    ):
        FineTuning(build_inception(), recipe)


# Pictures


def test_pictures_change_in_training_and_not_on_dev() -> None:
    recipe = recipe_with(augmentation={"crop": 0.7, "flip": 0.5, "color": 0.2})
    encoder = build()
    dataset = shared_dataset().split("train")
    changing = DecodedImages(encoder, dataset, augmentation=open_augmentation(recipe, dataset))
    plain = DecodedImages(encoder, dataset)
    same = changing.load([3, 5], (0, 1))
    assert torch.equal(
        same,
        DecodedImages(encoder, dataset, augmentation=open_augmentation(recipe, dataset), workers=1).load(
            [3, 5], (0, 1)
        ),
    )
    assert torch.equal(same[1:], changing.load([5], (0, 1)))
    assert not torch.equal(same, changing.load([3, 5], (0, 2)))
    assert not torch.equal(same, plain.load([3, 5], (0, 1)))
    for one, other in zip(changing.feature_batches(), plain.feature_batches(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert open_augmentation(recipe_with(), dataset) is None


def test_a_cache_for_an_encoder_that_learns_is_refused(
    tmp_path: Path, features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"would be stale\. Leave out --features, or set encoder\.trainable"):
        train(recipe_with(), shared_dataset(), tmp_path / "run", features=features)
    assert not (tmp_path / "run").exists()
    words = ["train", "drawn-shapes", "--data", str(scratch_folder() / "data"), "--features", str(features)]
    assert main([*words, "--output", str(tmp_path / "run"), "--set", "encoder.trainable=true"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"those in the cache {features} would be stale" in error


# Self-critical epochs


@pytest.mark.parametrize("learns", [True, False])
def test_what_the_encoder_does_in_self_critical_epochs(
    learns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    reinforced = {"epochs": 1, "batch_size": 8, "samples": 2, "trains_encoder": learns}
    recipe = recipe_with(epochs=1, self_critical=reinforced)
    train(recipe, shared_dataset(), tmp_path / "run", watcher=spy)
    assert spy.moved(0, 2) == set(spy.after[0])
    moved = spy.moved(2, 4)
    assert moved == (
        {name for name in spy.after[0] if "running_" not in name and "num_b" not in name} if learns else set()
    )
    assert (spy.gradients[-1] == set()) == (not learns)


# Going on


EVERYTHING = {
    "batch_norm": "statistics",
    "layer_decay": 0.7,
    "freeze_epochs": 1,
    "stage_epochs": 1,
}
CHANGES = {"crop": 0.7, "flip": 0.5, "color": 0.2}


@pytest.mark.parametrize(
    "stop_after", [3, 6, 10, 13]
)  # frozen; the top stage learns; more of them; self-critical
def test_a_run_with_everything_goes_on_bit_for_bit(
    stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reinforced = {"epochs": 1, "batch_size": 8, "samples": 2}
    recipe = recipe_with(
        EVERYTHING,
        augmentation=CHANGES,
        self_critical=reinforced,
        epochs=3,
        batch_size=4,
        checkpoint_seconds=0,
        ema=0.9,
    )
    whole = scratch_folder() / "fine-tuned"
    if not whole.exists():
        train(recipe, shared_dataset(), whole)
    with pytest.raises(TrainingInterrupted):
        train(recipe, shared_dataset(), tmp_path / "cut", watcher=Spy(monkeypatch, stop_after=stop_after))
    train(recipe, shared_dataset(), tmp_path / "cut", resume=True)
    assert_equal_checkpoints(whole, tmp_path / "cut")


def test_what_may_change_on_resuming(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(recipe_with({"batch_norm": "frozen"}, epochs=1), shared_dataset(), run)
    with pytest.raises(TrainingError, match=r"fine_tuning\.batch_norm \('frozen', now 'train'\)"):
        train(recipe_with({"batch_norm": "train"}, epochs=2), shared_dataset(), run, resume=True)
    with pytest.raises(TrainingError, match=r"training\.accumulate \(1, now 2\)"):
        train(
            recipe_with({"batch_norm": "frozen"}, epochs=2, accumulate=2), shared_dataset(), run, resume=True
        )
    copy = shutil.copytree(run, tmp_path / "copy")
    plain = recipe_with({"batch_norm": "frozen"}, epochs=2)
    again = recipe_with({"batch_norm": "frozen", "recompute": True}, epochs=2)
    train(plain, shared_dataset(), run, resume=True)
    train(again, shared_dataset(), copy, resume=True)
    assert_equal_checkpoints(run, copy)


def test_the_average_takes_over_fixed_statistics(tmp_path: Path) -> None:
    recipe = recipe_with({"batch_norm": "frozen"}, epochs=1, ema=0.9)
    train(recipe, shared_dataset(), tmp_path / "run")
    tensors = read_checkpoint(tmp_path / "run/checkpoint.safetensors")[0]
    right = build_encoder(recipe.encoder, seed=recipe.training.seed).state_dict()
    norms = of_norms(right)
    assert len(norms) > 20
    for name in norms:
        assert torch.equal(tensors[f"average.encoder.{name}"], right[name]), name
        assert math.isfinite(tensors[f"model.encoder.{name}"].float().sum().item())
