"""The optimiser's groups, and the learning rate as a function of the step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from showtell.config import TrainingConfig
from showtell.decoders import create_decoder
from showtell.training.optimization import create_optimizer, learning_rate_factor, set_learning_rate

schedules = st.sampled_from(["constant", "cosine", "onecycle"])


def factors(total: int, **settings: object) -> list[float]:
    config = TrainingConfig(**settings)  # type: ignore[arg-type]
    return [learning_rate_factor(step, total, config) for step in range(total)]


def test_constant_is_constant() -> None:
    assert factors(5) == [1.0] * 5


def test_warmup_rises_evenly_from_above_zero() -> None:
    found = factors(20, warmup=0.2)
    assert found[:4] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5])
    assert found[4:] == [1.0] * 16


def test_cosine_falls_to_nearly_zero() -> None:
    found = factors(101, schedule="cosine")
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5, abs=0.01)
    assert 0 < found[-1] < 0.001
    assert found == sorted(found, reverse=True)


def test_onecycle_rises_from_a_25th_and_falls() -> None:
    found = factors(100, schedule="onecycle", warmup=0.3)
    assert found[0] == pytest.approx(1 / 25)
    assert found[30] == 1.0
    assert found[:31] == sorted(found[:31])
    assert found[30:] == sorted(found[30:], reverse=True)
    assert found[-1] < 0.01


@given(schedules, st.floats(0, 1), st.integers(1, 300))
def test_the_rate_never_exceeds_its_peak_and_never_stops_learning(
    schedule: str, warmup: float, total: int
) -> None:
    found = factors(total, schedule=schedule, warmup=warmup)
    assert all(0 < factor <= 1 for factor in found)


@given(schedules, st.floats(0, 1), st.integers(1, 300), st.integers(0, 50))
def test_steps_behind_the_last_one_keep_a_rate(schedule: str, warmup: float, total: int, more: int) -> None:
    config = TrainingConfig(schedule=schedule, warmup=warmup)
    assert 0 <= learning_rate_factor(total + more, total, config) <= 1


def make_modules() -> tuple[nn.Module, nn.Module]:
    decoder = create_decoder("show-tell", {}, features="pooled", channels=6, vocab_size=20)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    encoder[0].bias.requires_grad_(False)
    return decoder, encoder


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_every_parameter_that_learns_is_in_one_group(name: str, kind: type[object]) -> None:
    decoder, encoder = make_modules()
    config = TrainingConfig(optimizer=name, weight_decay=0.1, learning_rate=0.2, encoder_learning_rate=0.01)
    optimizer = create_optimizer(decoder, encoder, config)
    assert type(optimizer) is kind
    members = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    right = [p for module in (decoder, encoder) for p in module.parameters() if p.requires_grad]
    assert sorted(members) == sorted(map(id, right))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in decoder.parameters()} == {0.2}
    assert {rates[id(p)] for p in encoder.parameters() if p.requires_grad} == {0.01}


def test_only_matrices_decay() -> None:
    decoder, encoder = make_modules()
    optimizer = create_optimizer(decoder, encoder, TrainingConfig(weight_decay=0.1))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: decays[id(p)] for name, p in decoder.named_parameters()}
    assert {name for name, decay in named.items() if decay} == {
        "image.weight",
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "output.weight",
    }
    assert named["embedding.weight"] == named["norm.weight"] == named["output.bias"] == 0.0
    assert decays[id(encoder[0].weight)] == 0.1


def test_setting_the_rate_keeps_the_ratio_of_the_groups() -> None:
    decoder, encoder = make_modules()
    config = TrainingConfig(learning_rate=0.2, encoder_learning_rate=0.01)
    optimizer = create_optimizer(decoder, encoder, config)
    for factor in (0.5, 0.1, 1.0):
        assert set_learning_rate(optimizer, factor) == pytest.approx(0.2 * factor)
        assert {group["lr"] for group in optimizer.param_groups} == {0.2 * factor, 0.01 * factor}
    assert create_optimizer(decoder, None, config).param_groups[-1]["lr"] == 0.2
