"""A run that was stopped, killed or starved goes on and gives, bit for bit, what an undisturbed one gives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from showtell.cli.main import describe_os_error, main
from showtell.data.records import Dataset
from showtell.errors import CacheError, TrainingError, TrainingInterrupted, UsageError
from showtell.files import digest_file, remove_partial_files, write_atomically, write_json
from showtell.recipes import Recipe
from showtell.training import SilentWatcher, train
from showtell.training.checkpoint import read_checkpoint, read_values, restore, save_checkpoint
from tiny_runs import POOLING, assert_equal_checkpoints, draw_dataset, tiny_recipe

EPOCHS = 4
SHOWTELL = [sys.executable, "-m", "showtell"]
KILLED = -signal.SIGKILL

# Trains in a process of its own, which kills itself in the middle of an epoch: a real SIGKILL, at a known place.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
from showtell.data.source import read_dataset
from showtell.recipes import Recipe
from showtell.training import SilentWatcher, train
from showtell.training.history import History

class Killer(SilentWatcher):
    left = int(sys.argv[5])
    def advance(self, amount, **values):
        if "loss" in values:
            Killer.left -= 1
            if Killer.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

History.plot = lambda self, path: None
recipe = Recipe.from_dict(json.loads(Path(sys.argv[1]).read_text()))
train(recipe, read_dataset(sys.argv[2]), Path(sys.argv[3]), features=Path(sys.argv[4]), watcher=Killer())
"""


pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return draw_dataset(folder / "data")


@pytest.fixture(scope="module")
def features(folder: Path) -> Path:
    return folder / "features"


@pytest.fixture(scope="module")
def whole(folder: Path, dataset: Dataset, features: Path) -> Path:
    """The run that nothing disturbed."""
    train(resumable(), dataset, folder / "whole", features=features)
    return folder / "whole"


def resumable(**training: Any) -> Recipe:
    return tiny_recipe(training={"epochs": EPOCHS, "learning_rate": 0.01, **training})


def assert_same_run(run: Path, expected: Path) -> None:
    """Weights, optimiser, random generator, position, log and best bundle are equal in every bit."""
    tensors = assert_equal_checkpoints(run, expected)
    assert any(name.startswith("optimizer.") for name in tensors)
    values, right_values = (read_values(folder / "checkpoint.safetensors") for folder in (run, expected))
    for timed in (values, right_values):
        timed.pop("seconds")
    assert values == right_values
    assert read_log(run) == read_log(expected)
    bundle, right_bundle = best_bundle(run), best_bundle(expected)
    for file in ("decoder.safetensors", "vocabulary.json"):
        assert digest_file(bundle / file) == digest_file(right_bundle / file), file
    assert read_manifest(bundle) == read_manifest(right_bundle)


def read_log(run: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for entry in entries:  # what depends on the clock
        del entry["seconds"], entry["captions_per_second"]
    return entries


def best_bundle(run: Path) -> Path:
    return run / json.loads((run / "best.json").read_text())["bundle"]


def read_manifest(bundle: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((bundle / "bundle.json").read_text())
    for key in ("epochs", "checkpoint_seconds"):  # may differ between a run and its continuation
        del manifest["recipe"]["training"][key]
    return manifest


class Stopper(SilentWatcher):
    """Sends this process a signal after so many batches."""

    def __init__(self, batches: int, number: int = signal.SIGINT) -> None:
        self.left = batches
        self.number = number
        self.notes: list[str] = []

    def advance(self, amount: int, **values: float) -> None:
        if "loss" in values:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)

    def note(self, message: str) -> None:
        self.notes.append(message)


# Going on


def test_two_epochs_and_then_two_more_are_four(
    tmp_path: Path, dataset: Dataset, features: Path, whole: Path
) -> None:
    assert train(resumable(epochs=2), dataset, tmp_path / "run", features=features).epochs == 2
    result = train(resumable(), dataset, tmp_path / "run", features=features, resume=True)
    assert result.epochs == EPOCHS
    assert_same_run(tmp_path / "run", whole)


def test_a_run_that_was_killed_in_an_epoch(
    tmp_path: Path, folder: Path, dataset: Dataset, features: Path, whole: Path
) -> None:
    write_json(tmp_path / "recipe.json", resumable(checkpoint_seconds=0).to_dict())
    run = tmp_path / "run"
    words = [tmp_path / "recipe.json", folder / "data", run, features, 8]
    done = subprocess.run([sys.executable, "-c", DRIVER, *map(str, words)], capture_output=True, timeout=100)
    assert done.returncode == KILLED, done.stderr
    _, values = read_checkpoint(run / "checkpoint.safetensors")
    assert (values["epoch"], values["step"]) == (1, 7)  # the eighth step was made and not saved
    assert values["batch"] > 0
    (run / ".checkpoint.safetensors.abc.part").write_bytes(b"what a killed writer leaves")
    watcher = Stopper(0)
    train(resumable(), dataset, run, features=features, resume=True, watcher=watcher)
    assert watcher.notes[0] == f"resumed after epoch 1, batch {values['batch']}"
    assert_same_run(run, whole)
    assert not list(run.glob(".*.part"))


def test_a_run_that_died_long_after_its_last_checkpoint(
    tmp_path: Path, dataset: Dataset, features: Path, whole: Path
) -> None:
    class PowerCut(SilentWatcher):
        def note(self, message: str) -> None:
            if message.startswith("epoch 3:"):  # its best bundle and its line in the log are written already
                raise RuntimeError("power cut")

    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        train(resumable(), dataset, run, features=features, watcher=PowerCut())
    assert read_checkpoint(run / "checkpoint.safetensors")[1]["epoch"] == 2
    assert len(read_log(run)) == 3
    train(resumable(), dataset, run, features=features, resume=True)
    assert_same_run(run, whole)
    assert [best_bundle(run)] == list((run / "bundles").iterdir())


@pytest.mark.parametrize("batches", [1, 5, 7])  # the first one, the last one of an epoch, within the second
def test_ctrl_c_in_an_epoch_saves_where_it_stopped(
    batches: int, tmp_path: Path, dataset: Dataset, features: Path, whole: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match=r"stopped and saved after epoch \d, batch \d.*--resume"):
        train(resumable(), dataset, run, features=features, watcher=Stopper(batches))
    assert signal.getsignal(signal.SIGINT) is before
    assert read_checkpoint(run / "checkpoint.safetensors")[1]["step"] == batches
    train(resumable(), dataset, run, features=features, resume=True)
    assert_same_run(run, whole)


def test_sigterm_is_like_ctrl_c(tmp_path: Path, dataset: Dataset, features: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        train(resumable(), dataset, tmp_path / "run", features=features, watcher=Stopper(2, signal.SIGTERM))


def test_ctrl_c_when_everything_is_done_loses_nothing(
    tmp_path: Path, dataset: Dataset, features: Path
) -> None:
    class LateStopper(SilentWatcher):
        def note(self, message: str) -> None:
            if message.startswith("epoch 1:"):
                os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    result = train(resumable(epochs=1), dataset, run, features=features, watcher=LateStopper())
    assert result.epochs == 1


def test_schedule_moments_and_a_trained_encoder_are_restored(tmp_path: Path, dataset: Dataset) -> None:
    recipe = tiny_recipe(
        encoder={"trainable": True, "image_size": 32},
        decoder=POOLING,
        training={
            "batching": "image",
            "batch_size": 6,
            "optimizer": "adamw",
            "weight_decay": 0.1,
            "schedule": "onecycle",
            "warmup": 0.3,
            "label_smoothing": 0.1,
            "encoder_learning_rate": 1e-3,
        },
    )
    train(recipe, dataset, tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        train(recipe, dataset, tmp_path / "run", watcher=Stopper(3))  # the last batch of the first epoch
    train(recipe, dataset, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_can_be_resumed_and_does_nothing(
    dataset: Dataset, features: Path, whole: Path
) -> None:
    files = {
        path: path.read_bytes() for path in whole.rglob("*") if path.suffix in (".safetensors", ".jsonl")
    }
    result = train(resumable(), dataset, whole, features=features, resume=True)
    assert (result.epochs, result.bundle) == (EPOCHS, best_bundle(whole))
    assert all(path.read_bytes() == content for path, content in files.items())


# On the command line


def test_ctrl_c_on_the_command_line(
    tmp_path: Path,
    folder: Path,
    dataset: Dataset,
    clean_environment: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    toml = tmp_path / "tiny.toml"
    assert main(["recipes", "attend-gru-additive"]) == 0
    toml.write_text(capsys.readouterr().out)
    run = tmp_path / "run"
    settings = {
        **{"encoder.name": "test_resnet", "encoder.weights": "random", "encoder.image_size": 64},
        **{"encoder.precision": "float32", "training.precision": "float32", "training.batch_size": 8},
        **{"training.epochs": 2, "text.max_words": 30},
        **{f"decoder.{name}_size": 16 for name in ("feature", "attention", "embedding", "hidden")},
    }
    words = ["train", str(toml), "--data", str(folder / "data"), "--output", str(run)]
    words += ["--features", str(tmp_path / "features")]
    words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with subprocess.Popen(
        [*SHOWTELL, *words, "--set", "training.checkpoint_seconds=0"],
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment,
    ) as process:
        wait_for(run / "checkpoint.safetensors", process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert last.startswith("showtell: stopped and saved after epoch ")
    assert last.endswith("Go on with the same command and --resume.")
    assert read_checkpoint(run / "checkpoint.safetensors")[1]["epoch"] < 2

    assert main(words) == 2  # not without --resume
    assert "holds a run already. Add --resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    other = [str(tmp_path / "other") if word == str(run) else word for word in words]
    assert main(other) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == scores
    assert_same_run(run, tmp_path / "other")


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


# Refusals


def test_a_run_is_not_overwritten(dataset: Dataset, features: Path, whole: Path, tmp_path: Path) -> None:
    before = digest_file(whole / "checkpoint.safetensors")
    with pytest.raises(UsageError, match=r"holds a run already. Add --resume"):
        train(resumable(), dataset, whole, features=features)
    assert digest_file(whole / "checkpoint.safetensors") == before
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UsageError, match="not empty and not a run"):
        train(resumable(), dataset, tmp_path, features=features, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_run_that_failed_before_its_first_checkpoint_can_be_started_again(
    tmp_path: Path, dataset: Dataset, whole: Path
) -> None:
    data = Path(shutil.copytree(dataset.images[0].path.parent, tmp_path / "images"))
    moved = replace(
        dataset,
        images=tuple(replace(image, path=data / image.path.name) for image in dataset.images),
    )
    broken = moved.split("train").images[3].path
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    run = tmp_path / "run"
    with pytest.raises(CacheError, match="1 of 21 images cannot be read"):
        train(resumable(), moved, run, features=tmp_path / "features")
    assert (run / "recipe.json").exists()
    broken.write_bytes(content)
    # Another run may begin there, too, since nothing is lost.
    other = Path(shutil.copytree(run, tmp_path / "other"))
    train(resumable(seed=3), moved, other, features=tmp_path / "others")
    assert json.loads((other / "recipe.json").read_text())["recipe"]["training"]["seed"] == 3
    train(resumable(), moved, run, features=tmp_path / "features")
    assert_same_run(run, whole)
    with pytest.raises(UsageError, match="holds a run already"):
        train(resumable(), moved, run, features=tmp_path / "features")


def change(recipe: Recipe, section: str, **values: Any) -> Recipe:
    tables = recipe.to_dict()
    return Recipe.from_dict({**tables, section: {**tables[section], **values}})


def drop_option(recipe: Recipe, name: str) -> Recipe:
    return replace(recipe, decoder_options={k: v for k, v in recipe.decoder_options.items() if k != name})


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (resumable(learning_rate=0.02), ["training.learning_rate (0.01, now 0.02)"]),
        (resumable(seed=5, batch_size=8), ["training.batch_size (16, now 8)", "training.seed (0, now 5)"]),
        (
            change(resumable(), "text", max_words=20),
            ["text.max_words (0, now 20)", "the vocabulary (fingerprint "],
        ),
        (change(resumable(), "decoder", hidden_size=8), ["decoder.hidden_size (24, now 8)"]),
        (drop_option(resumable(), "dropout"), ["decoder.dropout (0.3, now None)"]),
        (
            change(resumable(), "encoder", image_size=96),
            ["encoder.image_size (64, now 96)", "the encoder (fing"],
        ),
    ],
    ids=["learning-rate", "seed-and-batch", "vocabulary", "decoder", "dropped-option", "encoder"],
)
def test_another_recipe_is_refused_and_named(
    other: Recipe, named: Sequence[str], dataset: Dataset, features: Path, whole: Path
) -> None:
    record = (whole / "recipe.json").read_bytes()
    with pytest.raises(TrainingError, match="was started with other settings") as error:
        train(other, dataset, whole, features=features, resume=True)
    for difference in named:
        assert difference in str(error.value)
    assert (whole / "recipe.json").read_bytes() == record


def test_other_data_are_refused(dataset: Dataset, features: Path, whole: Path) -> None:
    first = dataset.images[0]
    images = (replace(first, captions=first.captions[1:]), *dataset.images[1:])
    with pytest.raises(TrainingError, match=r"Different: the data \(fingerprint \w{12}, now \w{12}\)"):
        train(resumable(), replace(dataset, images=images), whole, features=features, resume=True)


def test_other_weights_of_a_trainable_encoder_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    from safetensors.torch import save_file

    from showtell.encoders import build_encoder

    recipe = tiny_recipe(encoder={"trainable": True, "image_size": 32}, training={"epochs": 1})
    train(recipe, dataset, tmp_path / "run")
    other = build_encoder(recipe.encoder, seed=99).backbone.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in other.items()}, tmp_path / "other.safetensors")
    changed = change(recipe, "encoder", weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(TrainingError, match=r"Different: the encoder \(fingerprint"):
        train(changed, dataset, tmp_path / "run", resume=True)


def test_a_run_that_is_older_than_a_key_can_be_resumed(
    tmp_path: Path, dataset: Dataset, features: Path
) -> None:
    run = tmp_path / "run"
    train(resumable(epochs=1), dataset, run, features=features)
    record = json.loads((run / "recipe.json").read_text())
    del record["recipe"]["training"]["label_smoothing"]  # as if that key had come later
    (run / "recipe.json").write_text(json.dumps(record))
    assert train(resumable(epochs=2), dataset, run, features=features, resume=True).epochs == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"recipe": {"decoder": 3}, "fingerprints": {}}'])
def test_a_damaged_record(content: str, tmp_path: Path, dataset: Dataset, features: Path) -> None:
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(TrainingError, match=r"recipe\.json: damaged, so the run cannot be resumed"):
        train(resumable(), dataset, tmp_path, features=features, resume=True)


def test_a_damaged_checkpoint(tmp_path: Path, dataset: Dataset, features: Path, whole: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    content = (run / "checkpoint.safetensors").read_bytes()
    (run / "checkpoint.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: the checkpoint cannot be read"):
        train(resumable(), dataset, run, features=features, resume=True)


def test_a_checkpoint_of_another_model_or_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    save_checkpoint(path, {"model": model}, optimizer, {"epoch": 1})
    tensors, values = read_checkpoint(path)
    assert values == {"epoch": 1}
    other = torch.nn.Linear(3, 4)
    with pytest.raises(TrainingError, match="The checkpoint is of another model"):
        restore(tensors, {"model": other}, torch.optim.Adam(other.parameters()))
    path.write_bytes(path.read_bytes().replace(b'"format_version":"1"', b'"format_version":"7"'))
    with pytest.raises(TrainingError, match="checkpoint format 7; this Showtell reads up to 1"):
        read_checkpoint(path)


# Full disks


@pytest.mark.parametrize("small_disk", ["512k"], indirect=True)
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    small_disk: Path, dataset: Dataset, features: Path, whole: Path
) -> None:
    class Filler(SilentWatcher):
        """Fills the disk after the first epoch."""

        def stage(self, description: str, total: int, unit: str) -> None:
            if description.startswith("epoch 2/"):
                try:
                    with (small_disk / "filler").open("wb", buffering=0) as file:
                        while True:
                            file.write(bytes(4096))
                except OSError:
                    pass

    run = small_disk / "run"
    recipe = resumable(checkpoint_seconds=0)
    with pytest.raises(OSError, match="No space left on device") as error:
        train(recipe, dataset, run, features=features, watcher=Filler())
    line = describe_os_error(error.value)
    assert line == f"the disk is full: '{run / 'checkpoint.safetensors'}'. " + (
        "Free some space and run the same command again"
    )
    assert read_checkpoint(run / "checkpoint.safetensors")[1]["epoch"] == 1
    assert not list(run.glob(".*.part"))
    (small_disk / "filler").unlink()
    train(resumable(), dataset, run, features=features, resume=True)
    assert_same_run(run, whole)


def test_a_file_that_cannot_be_replaced_keeps_what_it_held(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, b"old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"score": float("nan")})
    assert path.read_bytes() == b"old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_atomically(tmp_path / "folder", b"new")
    assert error.value.filename == str(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.json", "folder"]
    (tmp_path / ".file.json.x.part").touch()
    remove_partial_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.json", "folder"]


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
