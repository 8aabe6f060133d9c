"""A student that learns to see as a teacher does: what it sees, how near it comes, resuming, and its weights file."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from showtell.captioner import Captioner
from showtell.cli.main import main
from showtell.config import EncoderConfig
from showtell.distillation import DistillationResult, DistillationSettings, distill
from showtell.distillation.pictures import mix_pictures, plan_batches, read_pictures
from showtell.distillation.student import Student
from showtell.encoders import build_encoder, zoo
from showtell.errors import ConfigError, ImageError, TrainingError, TrainingInterrupted, UsageError
from showtell.images import Preprocessing
from showtell.training.watcher import SilentWatcher
from tiny_runs import POOLING, Stopper, scratch_folder, shared_dataset, tiny_recipe, trained_run

MODELS = Path(__file__).parents[1] / "models"
SMALL = DistillationSettings(
    student="test_resnet",
    epochs=3,
    full_epochs=1,
    start_size=64,
    image_size=96,
    batch_size=4,
    mix=0.5,
)
Capture = pytest.CaptureFixture[str]


def pictures(split: str = "train") -> list[Path]:
    return [image.path for image in shared_dataset().split(split).images]


def run(output: Path, settings: DistillationSettings = SMALL, **options: object) -> DistillationResult:
    return distill(trained_run(), pictures(), pictures("dev"), output, settings, **options)  # type: ignore[arg-type]


# Pictures


def test_every_picture_is_seen_once_an_epoch_in_another_order() -> None:
    first, second = (np.concatenate(plan_batches(16, SMALL, epoch)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(16))
    assert list(first) != list(second)


def test_what_is_seen_depends_on_the_epoch_and_the_picture_alone() -> None:
    preprocessing = Preprocessing(64, 64, (0.5,) * 3, (0.5,) * 3)
    plan = plan_batches(16, SMALL, 1)

    def read(epoch: int, first: int = 0, workers: int = 1) -> list[np.ndarray]:
        found = read_pictures(pictures(), plan[first:], SMALL, preprocessing, epoch, workers=workers)
        return [pixels for pixels, _ in found]

    whole = read(1)
    assert len(whole) == 4
    assert all((a == b).all() for a, b in zip(whole[2:], read(1, first=2, workers=3), strict=True))
    assert not (whole[0] == read(2)[0]).all()


def test_mixing_leaves_the_rest_as_it_is_and_stays_between_two_pictures() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8, 4, 4, 3)).astype(np.uint8)
    mixed = mix_pictures(pixels, 0.5, np.random.default_rng(1))
    other = np.roll(pixels, 1, axis=0)
    assert (mixed[4:] == pixels[4:]).all()
    assert (mixed[:4] != pixels[:4]).any()
    assert (mixed[:4] >= np.minimum(pixels, other)[:4]).all()
    assert (mixed[:4] <= np.maximum(pixels, other)[:4]).all()
    assert mix_pictures(pixels, 0.0, random) is pixels


# The student


def test_errors_are_in_variances_of_the_teacher() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(64, 4, 10, generator=random) * torch.arange(1, 11) + 7
    student = Student(
        SMALL, zoo.published_preprocessing("test_resnet", image_size=96, fit="squash"), channels=10
    )
    student.measure_teacher(features)
    nothing = torch.zeros(64, 10, 2, 2)
    cells, pooled = student.errors(nothing, *student.targets(features, (2, 2), (2, 2)))
    assert float(cells) == pytest.approx(1, abs=0.01)
    assert float(pooled) == pytest.approx(1, abs=0.03)
    perfect, _ = student.targets(features, (2, 2), (2, 2))
    assert [
        float(error) for error in student.errors(perfect, *student.targets(features, (2, 2), (2, 2)))
    ] == pytest.approx([0, 0], abs=1e-5)


def test_the_teachers_grid_is_brought_to_the_students() -> None:
    student = Student(
        SMALL, zoo.published_preprocessing("test_resnet", image_size=96, fit="squash"), channels=1
    )
    student.mean.zero_()
    ramp = torch.arange(49.0).reshape(1, 49, 1)
    cells, pooled = student.targets(ramp, (7, 7), (4, 4))
    assert cells.shape == (1, 1, 4, 4)
    assert float(cells.mean()) == pytest.approx(24, abs=0.1)
    assert (cells[0, 0, 1:] > cells[0, 0, :-1]).all()
    assert float(pooled) == pytest.approx(24)


def test_a_backbone_without_a_grid_is_refused() -> None:
    published = zoo.published_preprocessing("test_vit", image_size=160, fit="squash")
    with pytest.raises(ConfigError, match=r"student: test_vit gives no grid"):
        Student(replace(SMALL, student="test_vit", image_size=160), published, channels=3)


# The run


def test_a_student_comes_nearer_and_its_weights_make_an_encoder(tmp_path: Path) -> None:
    longer = replace(SMALL, epochs=20, full_epochs=10, learning_rate=5e-3, mix=0.0, color=0.0, crop=1.0)
    result = run(tmp_path / "student", longer)
    log = json.loads((tmp_path / "student" / "log.json").read_text())
    assert [entry["size"] for entry in log] == [64] * 10 + [96] * 10
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    assert result.explained_pooled > 0.1 > log[0]["explained_pooled"]
    encoder = build_encoder(
        EncoderConfig(name="test_resnet", weights=str(result.weights), output="grid", precision="float32")
    )
    assert encoder.preprocessing.height == 96
    assert encoder.shape[1] == build_encoder(EncoderConfig(name="test_resnet", weights="random")).channels
    features = encoder.encode(np.stack([encoder.preprocessing.read(path) for path in pictures("dev")]))
    assert np.isfinite(features).all()
    assert not (features[0] == features[1]).all()


class CtrlC(SilentWatcher):
    """Interrupts this process after so many batches."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, amount: int, **values: float) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(TrainingInterrupted, match=r"Stopped in epoch 2.*--resume"):
        run(tmp_path / "parts", watcher=CtrlC(6))
    resumed = run(tmp_path / "parts", resume=True)
    first, second = load_file(whole.weights), load_file(resumed.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.digest == whole.digest


@pytest.mark.parametrize("batches", [4, 5])
def test_the_log_of_an_interrupted_epoch_is_that_of_a_whole_one(batches: int, tmp_path: Path) -> None:
    run(tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "parts", watcher=CtrlC(batches))  # four make an epoch
    run(tmp_path / "parts", resume=True)
    first, second = (json.loads((tmp_path / name / "log.json").read_text()) for name in ("whole", "parts"))
    assert first == second


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted, match="by the test"):
        run(tmp_path / "run", watcher=Stopper(2))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert run(tmp_path / "run", resume=True).epochs == 3


def test_a_run_is_not_mixed_up_with_another(tmp_path: Path) -> None:
    run(tmp_path / "run", replace(SMALL, epochs=1))
    with pytest.raises(UsageError, match=r"holds a run already\. Add --resume"):
        run(tmp_path / "run", replace(SMALL, epochs=1))
    with pytest.raises(TrainingError, match="other values of settings"):
        run(tmp_path / "run", replace(SMALL, epochs=1, seed=1), resume=True)
    others = [*pictures()[1:], pictures()[0]]
    with pytest.raises(TrainingError, match="other values of names"):
        distill(
            trained_run(), others, pictures("dev"), tmp_path / "run", replace(SMALL, epochs=1), resume=True
        )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match="not empty and not a distillation"):
        run(tmp_path / "other")


def test_too_few_or_broken_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 pictures to learn from and 5 held out; at least 4"):
        distill(trained_run(), pictures()[:3], pictures("dev"), tmp_path / "a", SMALL)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        distill(trained_run(), [*pictures(), bad], pictures("dev"), tmp_path / "b", SMALL)


def test_a_teacher_without_a_grid_is_refused(tmp_path: Path) -> None:
    from showtell.training import train

    pooled = scratch_folder() / "run-pooled-teacher"
    if not pooled.exists():
        train(tiny_recipe(decoder=POOLING, training={"epochs": 1}), shared_dataset(), pooled)
    with pytest.raises(UsageError, match="one vector for a picture"):
        distill(pooled, pictures(), pictures("dev"), tmp_path / "run", SMALL)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"full_epochs": 99}, "full_epochs must be at least 0 and at most 60"),
        ({"start_size": 100}, "start_size must be a multiple of 32. Received: 100"),
        ({"image_size": 16}, "image_size must be at least 32"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"mix": 1.5}, "mix must be at least 0.0 and at most 1.0"),
        ({"crop": 0.0}, "augmentation.crop must be at least"),
    ],
)
def test_settings_outside_their_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistillationSettings(**values)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path, capsys: Capture) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for number in range(3):
        Image.new("RGB", (80, 70), (number * 60, 90, 30)).save(more / f"{number}.png")
    data = next(iter(shared_dataset().images)).path.parent.parent
    words = ["distill", "--teacher", str(trained_run()), "--data", str(data), "--pictures", str(more)]
    words += ["--output", str(tmp_path / "run"), "--set", "student=test_resnet", "--set", "batch_size=4"]
    words += ["--set", "epochs=1", "--set", "full_epochs=0", "--set", "start_size=64"]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["epochs"] == 1
    assert Path(printed["weights"]).name == "student.safetensors"
    assert json.loads((tmp_path / "run" / "distillation.json").read_text())["pictures"] == 19
    without = [word for word in words if word not in ("--pictures", str(more))]
    without[without.index(str(tmp_path / "run"))] = str(tmp_path / "without")
    assert main(without) == 0
    assert json.loads((tmp_path / "without" / "distillation.json").read_text())["pictures"] == 16
    capsys.readouterr()
    assert main([*words, "--set", "sise=3"]) == 2
    assert "distillation has no key 'sise'" in capsys.readouterr().err


def test_the_encoder_of_a_bundle_becomes_a_weights_file(model: str, tmp_path: Path, capsys: Capture) -> None:
    weights = tmp_path / "encoder.safetensors"
    assert main(["pack", model, "--output", str(tmp_path / "packed"), "--encoder", str(weights)]) == 0
    assert "encoder.name = 'test_resnet'" in capsys.readouterr().err
    encoder = build_encoder(
        EncoderConfig(name="test_resnet", weights=str(weights), output="grid", precision="float32")
    )
    backend = Captioner.load(model).backend
    pixels = np.stack([encoder.preprocessing.read(path) for path in pictures("dev")])
    theirs = np.asarray(backend.encode(pixels))
    assert encoder.encode(pixels) == pytest.approx(theirs, abs=0.02 * float(np.abs(theirs).max()))
    assert (
        main(["pack", str(MODELS / "flickr8k-fast"), "--output", str(tmp_path / "no"), "--encoder", "x"]) == 2
    )
    assert "does not hold the weights of one encoder" in capsys.readouterr().err
