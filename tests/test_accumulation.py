"""Several batches for one step: the gradient is that of one large batch, and a run with them resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from showtell.errors import TrainingInterrupted
from showtell.training import train
from showtell.training.accumulation import Share, count_steps, plan_shares
from showtell.training.batches import EncodedCaption
from showtell.training.checkpoint import read_checkpoint
from tiny_runs import ATTENDING, Stopper, assert_equal_checkpoints, shared_dataset, tiny_recipe


@pytest.fixture(autouse=True)
def quick(without_plots: None) -> None:
    """No plots."""


def test_shares_count_tokens_and_captions_of_their_step() -> None:
    captions = [EncodedCaption(0, (1,) * length, (5,) * length) for length in (3, 1, 4, 1, 5)]
    shares = plan_shares([[0], [1, 2], [3, 4]], captions, 2)
    assert shares == [Share(8, 3, True, False), Share(8, 3, False, True), Share(6, 2, True, True)]
    assert plan_shares([[0], [1, 2]], captions, 1) == [Share(3, 1), Share(5, 2)]
    assert [count_steps(batches, 3) for batches in (1, 3, 4)] == [1, 1, 2]


@pytest.mark.parametrize("term", [0.0, 1.0])
@pytest.mark.parametrize("trainable", [False, True])
def test_two_batches_are_one_of_twice_the_size(
    term: float, trainable: bool, tmp_path: Path, features: Path
) -> None:
    moments = []
    for name, size, accumulate in (("one", 16, 1), ("two", 8, 2), ("four", 4, 4)):
        recipe = tiny_recipe(
            encoder={"trainable": trainable, "image_size": 64},
            decoder={**ATTENDING, "dropout": 0.0},
            training={
                "epochs": 1,
                "batching": "image",
                "batch_size": size,
                "accumulate": accumulate,
                "clip_norm": 0.0,
                "label_smoothing": 0.1,
                "doubly_stochastic": term,
                "encoder_learning_rate": 1e-3,
            },
            fine_tuning={"batch_norm": "frozen"},
        )
        train(recipe, shared_dataset(), tmp_path / name, features=None if trainable else features)
        tensors, values = read_checkpoint(tmp_path / name / "checkpoint.safetensors")
        assert values["step"] == 1
        # After one step Adam's first moment is a tenth of the gradient.
        moments.append({name: t for name, t in tensors.items() if name.endswith("exp_avg")})
    assert len(moments[0]) > (30 if trainable else 10)
    for other in moments[1:]:
        assert other.keys() == moments[0].keys()
        for name, tensor in other.items():
            scale = moments[0][name].abs().max().item()
            torch.testing.assert_close(tensor, moments[0][name], rtol=1e-3, atol=1e-4 * scale + 1e-9)


@pytest.mark.parametrize("after", [2, 4, 7])  # between the halves of a step, and after whole ones
def test_a_run_that_stops_within_a_step_goes_on_from_the_one_before(
    after: int, tmp_path: Path, features: Path
) -> None:
    recipe = tiny_recipe(
        training={
            "batch_size": 16,
            "accumulate": 2,
            "checkpoint_seconds": 0,
            "schedule": "cosine",
            "epochs": 2,
        }
    )
    train(recipe, shared_dataset(), tmp_path / "whole", features=features)
    with pytest.raises(TrainingInterrupted):
        train(recipe, shared_dataset(), tmp_path / "cut", features=features, watcher=Stopper(after))
    if after == 2:
        assert not (tmp_path / "cut/checkpoint.safetensors").exists()
    else:
        # An epoch has five batches, which are three steps; the stop comes before that batch's own checkpoint.
        values = read_checkpoint(tmp_path / "cut/checkpoint.safetensors")[1]
        assert (values["epoch"], values["batch"], values["step"]) == {4: (0, 2, 1), 7: (1, 0, 3)}[after]
    train(recipe, shared_dataset(), tmp_path / "cut", features=features, resume=True)
    assert_equal_checkpoints(tmp_path / "whole", tmp_path / "cut")
