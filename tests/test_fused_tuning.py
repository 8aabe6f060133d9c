"""Several backbones that learn together: each one's stages and rates, resuming, and the bundle of such a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from showtell.bundle import load_bundle
from showtell.captioner import Captioner
from showtell.config import EncoderConfig, TrainingConfig
from showtell.encoders import Encoder, build_encoder
from showtell.encoders.folding import fold_batch_norms
from showtell.errors import ConfigError, TrainingInterrupted
from showtell.recipes import Recipe
from showtell.training import SilentWatcher, train
from showtell.training.fine_tuning import FineTuning
from showtell.training.optimization import create_optimizer
from tiny_runs import POOLING, Stopper, assert_equal_checkpoints, shared_dataset, tiny_recipe

NAMES = ("test_resnet", "test_efficientnet")  # of five and seven stages
BOTH = " + ".join(NAMES)


@pytest.fixture(autouse=True)
def quick(without_plots: None) -> None:
    """No plots."""


def build(name: str = BOTH, **settings: Any) -> Encoder:
    settings = {"weights": "random", "image_size": 64, "output": "pooled", "trainable": True, **settings}
    return build_encoder(EncoderConfig(name=name, precision="float32", **settings))


def recipe_with(fine_tuning: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    training = {"batching": "image", "batch_size": 8, "encoder_learning_rate": 1e-3, "epochs": 1}
    return tiny_recipe(
        encoder={"name": BOTH, "trainable": True, **sections.pop("encoder", {})},
        decoder=POOLING,
        training={**training, **sections.pop("training", {})},
        fine_tuning={"batch_norm": "statistics", **(fine_tuning or {})},
        **sections,
    )


def moved_since_the_start(run: Path) -> set[str]:
    """Names of the weights of the bundle's encoder that are not those that the run began with."""
    kept = load_bundle(run).encoder_weights
    assert kept is not None
    start = {name: tensor.numpy() for name, tensor in build().state_dict().items()}
    assert kept.keys() == start.keys()
    return {name for name in start if not np.array_equal(kept[name], start[name])}


# What learns


def test_in_training_it_sees_what_its_members_see() -> None:
    fused, alone = build().eval(), [build(name).eval() for name in NAMES]
    raw = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    pixels = torch.from_numpy(fused.preprocessing.normalise(raw))
    seen = fused(pixels)
    assert seen.requires_grad
    torch.testing.assert_close(seen.detach(), torch.from_numpy(fused.encode(raw)), atol=1e-4, rtol=1e-4)
    first = alone[0](torch.from_numpy(alone[0].preprocessing.normalise(raw)))
    torch.testing.assert_close(seen[:, : first.shape[1]], first, atol=1e-5, rtol=1e-4)
    seen.sum().backward()
    assert all(
        any(p.grad is not None and p.grad.abs().max() > 0 for p in member.parameters())
        for member in fused.members
    )


def test_all_backbones_learn_and_are_kept(tmp_path: Path, photographs: list[Path]) -> None:
    result = train(recipe_with(training={"ema": 0.9}), shared_dataset(), tmp_path / "run")
    moved = moved_since_the_start(result.bundle)
    assert {name.split(".")[1] for name in moved} == {"0", "1"}
    assert not any("running_" in name for name in moved)
    captioner = Captioner.load(tmp_path / "run")  # which checks the fingerprint of what has been learnt
    assert load_bundle(result.bundle).encoder.fingerprint != build().fingerprint
    captions = captioner.caption(photographs[:2])
    assert all(picture.error is None for picture in captions)


def test_only_the_top_stages_ever_learn(tmp_path: Path) -> None:
    result = train(
        recipe_with({"stages": 2, "stage_epochs": 1}, training={"epochs": 3, "evaluate_every": 3}),
        shared_dataset(),
        tmp_path / "run",
    )
    moved = moved_since_the_start(result.bundle)
    places = {".".join(name.split(".")[1:4]) for name in moved}
    head = {"1.backbone.conv_head", "1.backbone.bn2"}
    assert places == {"0.backbone.layer3", "0.backbone.layer4", "1.backbone.blocks"} | head
    blocks = {name.split(".")[4] for name in moved if ".blocks." in name}
    count = len(build(NAMES[1]).backbone.get_submodule("blocks"))
    assert blocks == {str(number) for number in range(count - 2, count)}


def test_stages_join_from_the_top() -> None:
    tuning = FineTuning(build(), recipe_with({"freeze_epochs": 1, "stage_epochs": 2}, training={"epochs": 9}))
    assert [tuning.count_stages(epoch) for epoch in range(9)] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    limited = FineTuning(build(), recipe_with({"stage_epochs": 1, "stages": 2}, training={"epochs": 9}))
    assert [limited.count_stages(epoch) for epoch in range(4)] == [1, 2, 2, 2]


def test_what_never_learns_is_not_given_to_the_optimiser() -> None:
    for decay in (1.0, 0.5):
        encoder = build()
        tuning = FineTuning(encoder, recipe_with({"stages": 1}))
        groups = create_optimizer(nn.Linear(2, 2), encoder, TrainingConfig(), layer_decay=decay).param_groups
        given = {id(p) for group in groups for p in group["params"]}
        tuning.start_epoch(0, SilentWatcher())
        learning = {id(p) for p in encoder.parameters() if p.requires_grad}
        assert learning
        assert given >= learning
        assert len(given) == len(learning) + 2  # and the decoder's


def test_layers_of_each_backbone_learn_slower_downwards() -> None:
    encoder = build()
    config = TrainingConfig(encoder_learning_rate=0.01)
    groups = create_optimizer(nn.Linear(2, 2), encoder, config, layer_decay=0.5).param_groups
    rates = {id(p): group["peak"] for group in groups for p in group["params"]}
    for member in encoder.members:
        own = [rates[id(p)] for p in member.parameters()]
        assert max(own) == pytest.approx(0.01)
        assert own == sorted(own)


def test_more_stages_than_a_backbone_has() -> None:
    with pytest.raises(
        ConfigError, match=r"fine_tuning\.stages = 6: the backbone test_resnet has 5\. Set it to"
    ):
        FineTuning(build(), recipe_with({"stages": 6}))
    with pytest.raises(ConfigError, match=r"fine_tuning\.stages .*-1"):
        recipe_with({"stages": -1})


# Runs


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    recipe = recipe_with(
        {"batch_norm": "train", "freeze_epochs": 1, "stages": 3, "layer_decay": 0.8, "recompute": True},
        training={"epochs": 2, "ema": 0.9},
        augmentation={"crop": 0.7, "flip": 0.5},
        self_critical={"epochs": 1, "batch_size": 8, "samples": 2, "blend": 0.5},
    )
    train(recipe, shared_dataset(), tmp_path / "whole")
    for stop_after in (3, 2):  # in the middle of the second epoch, and of the rewarded one
        with pytest.raises(TrainingInterrupted):
            train(
                recipe,
                shared_dataset(),
                tmp_path / "cut",
                resume=stop_after == 2,
                watcher=Stopper(stop_after),
            )
    train(recipe, shared_dataset(), tmp_path / "cut", resume=True)
    assert_equal_checkpoints(tmp_path / "whole", tmp_path / "cut")


def test_it_starts_from_a_captioner_whose_backbones_were_frozen(tmp_path: Path) -> None:
    frozen = tiny_recipe(encoder={"name": BOTH}, decoder=POOLING, training={"epochs": 1})
    train(frozen, shared_dataset(), tmp_path / "frozen", features=tmp_path / "features")
    result = train(recipe_with(), shared_dataset(), tmp_path / "run", start=tmp_path / "frozen")
    assert moved_since_the_start(result.bundle)


# What is frozen runs folded


@pytest.mark.parametrize("policy", ["train", "statistics", "frozen"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_folding_what_is_frozen_changes_nothing_but_time(policy: str, epoch: int) -> None:
    settings = {"batch_norm": policy, "freeze_epochs": 1, "stage_epochs": 1}
    recipe = recipe_with(settings, training={"epochs": 4})
    plain, folded = build(), build()
    for encoder in (plain, folded):
        FineTuning(encoder, recipe).start_epoch(epoch, SilentWatcher())
    for member in plain.members:
        assert count_norms(member._taught[0]) < count_norms(member.backbone)
        member._taught.clear()
    pixels = torch.rand(4, 3, 64, 64)
    for _ in range(2):  # the second time with weights and statistics that have moved
        seen, expected = (encoder.train()(pixels) for encoder in (folded, plain))
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-3)
        assert seen.requires_grad == (epoch > 0)
        if not epoch:
            continue
        for features, encoder in ((seen, folded), (expected, plain)):
            encoder.zero_grad()
            features.square().mean().backward()
            with torch.no_grad():
                for parameter in encoder.parameters():
                    if parameter.grad is not None:
                        parameter.add_(parameter.grad, alpha=-0.1)
        ours, theirs = dict(folded.named_parameters()), dict(plain.named_parameters())
        assert {n for n in ours if ours[n].grad is not None} == {
            n for n in ours if theirs[n].grad is not None
        }
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[name], tensor, atol=1e-4, rtol=1e-3, msg=name)


def test_new_weights_are_not_read_from_the_folded_copy() -> None:
    encoder, other = build(NAMES[0]), build(NAMES[0])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    FineTuning(encoder, recipe_with({"stages": 1})).start_epoch(0, SilentWatcher())
    assert encoder._taught
    encoder.load_state_dict(other.state_dict())
    pixels = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(encoder.eval()(pixels), other.eval()(pixels))


def count_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_what_a_half_learning_module_holds_itself_learns_too() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.norm, self.above = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
            self.shift = nn.Parameter(torch.ones(4, 1, 1))

        def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.above(self.norm(self.below(pixels)) + self.shift)

    network = Half()
    copied = fold_batch_norms(
        network, torch.rand(2, 3, 8, 8), learning={network.shift, *network.above.parameters()}
    )
    assert count_norms(copied) == 0
    copied.forward_features(torch.rand(2, 3, 8, 8)).sum().backward()
    learning = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learning == {"shift", "above.weight", "above.bias"}
