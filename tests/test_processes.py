"""Several processes share a run: real ones, that torchrun starts, interrupts and sees die."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import batch_norm

from showtell.cli.recipes import as_toml
from showtell.data.records import Dataset
from showtell.errors import ConfigError, TrainingError
from showtell.files import lock_folder
from showtell.launch import Launch, read_launch
from showtell.recipes import Recipe
from showtell.text import Vocabulary
from showtell.training import SilentWatcher, train
from showtell.training.batches import EncodedCaption, encode_captions, plan_epoch, share_batch
from showtell.training.checkpoint import read_checkpoint
from showtell.training.devices import choose_device
from showtell.training.joint_norms import JointBatchNorms
from showtell.training.processes import Processes
from showtell.training.run_folder import LOCK
from test_resume import assert_same_run, best_bundle, read_log
from tiny_runs import ATTENDING, POOLING, draw_dataset, tiny_recipe

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TIMEOUT = 300  # seconds
KILLED_AT = 7  # the step whose loss is known and which nobody makes any more

# Runs commands of the command line one after another, and keeps what this process saw, wrote and returned.
DRIVER = """
import json, os, signal, sys, time
from pathlib import Path
from showtell.cli.main import main
from showtell.training import trainer
from showtell.training.devices import LossLog
from showtell.training.history import History

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
job = json.loads((folder / "job.json").read_text())
parts, written, codes = [], [], []

def listen(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(arguments[0])
    elif event in ("os.rename", "os.remove", "os.mkdir"):
        written.append(str(arguments[0]))

def load(source, part, *others, before=trainer.load_part, **options):
    parts.append([part.counts, [[caption.image, caption.targets] for caption in part.captions]])
    return before(source, part, *others, **options)

def add(self, entry, before=LossLog.add):
    before(self, entry)
    if entry.step == job.get("kill", {}).get(rank):
        (folder / "killed-at").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(listen)
trainer.load_part, LossLog.add, History.plot = load, add, lambda self, path: None
for words in job["commands"]:
    parts.append([])  # begins another run
    codes.append(main(words))
mine = [path for path in written if path.startswith(job["root"]) and path != str(folder / "killed-at")]
(folder / f"seen-{rank}.json").write_text(json.dumps({"parts": parts, "written": mine, "codes": codes}))
sys.exit(codes[-1])
"""


@dataclass(frozen=True)
class Ended:
    """What a launch with the driver left."""

    code: int
    output: str
    errors: str
    seconds: float  # from the kill of a process to the end of torchrun
    seen: list[dict[str, Any]]  # by rank


Start = Callable[..., Ended]


def even(*, reinforced: int = 2, **training: Any) -> Recipe:
    """Without random numbers, with every term of the loss, and with self-critical epochs in the end."""
    return tiny_recipe(
        decoder={**ATTENDING, "dropout": 0.0},
        training={"learning_rate": 0.01, "doubly_stochastic": 1.0, "ema": 0.9, "clip_norm": 0.5, **training},
        self_critical={"epochs": reinforced, "batch_size": 5, "samples": 3, "learning_rate": 0.01},
    )


def norms() -> Recipe:
    """Batch norms in encoder and decoder, and batches of which a process would get one image, or none."""
    return tiny_recipe(
        encoder={"trainable": True, "image_size": 32},
        decoder={**POOLING, "dropout": 0.0, "batch_norm": True},
        training={"batching": "image", "batch_size": 3, "encoder_learning_rate": 1e-3, "optimizer": "adamw"},
    )


def drawing(**training: Any) -> Recipe:
    """With every use of random numbers."""
    settings = {
        "epochs": 3,
        "learning_rate": 0.01,
        "word_dropout": 0.2,
        "scheduled_sampling": 0.5,
        "ema": 0.9,
    }
    return tiny_recipe(training={**settings, **training})


RECIPES = {"even": even, "norms": norms, "drawing": drawing}


pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return draw_dataset(folder / "data")


@pytest.fixture(scope="module")
def start(folder: Path, dataset: Dataset) -> Start:
    def launch(name: str, *commands: Sequence[str], kill: Mapping[int, int] | None = None) -> Ended:
        place = folder / name
        place.mkdir()
        job = {"commands": commands, "root": str(folder), "kill": kill or {}}
        (place / "job.json").write_text(json.dumps(job))
        (place / "driver.py").write_text(DRIVER)
        code, output, errors = torchrun([str(place / "driver.py"), str(place)])
        killed = place / "killed-at"
        seconds = time.time() - float(killed.read_text()) if killed.exists() else 0.0
        seen = [json.loads(path.read_text()) for path in sorted(place.glob("seen-*.json"))]
        return Ended(code, output, errors, seconds, seen)

    return launch


def torchrun(words: Sequence[str], act: Callable[[int], None] | None = None) -> tuple[int, str, str]:
    """Runs two processes to their end; returns torchrun's exit code and what they all printed.

    Args:
        words: after torchrun's own.
        act: is called with the number of the process group, in which all of them are.
    """
    with subprocess.Popen(
        [*TORCHRUN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            if act is not None:
                act(process.pid)
            output, errors = process.communicate(timeout=TIMEOUT)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # torchrun's end alone would leave the others
            raise
    return process.returncode, output, errors


def command(folder: Path, recipe: Recipe, run: str, *options: str) -> list[str]:
    """The words of `showtell train`."""
    path = folder / f"{run}-{len(list(folder.glob('*.toml')))}.toml"
    path.write_text(as_toml(recipe.to_dict()))
    words = ["train", str(path), "--data", str(folder / "data"), "--output", str(folder / run), *options]
    # Several recipes share one cache, and nobody has filled it.
    return words if recipe.encoder.trainable else [*words, "--features", str(folder / "features")]


@pytest.fixture(scope="module")
def shared_runs(folder: Path, start: Start) -> Ended:
    """One run of each recipe, shared by two processes from the beginning to the end."""
    ended = start("whole", *(command(folder, recipe(), f"two-{name}") for name, recipe in RECIPES.items()))
    assert ended.code == 0, ended.errors
    return ended


def train_alone(folder: Path, dataset: Dataset, recipe: Recipe, name: str, **options: Any) -> Path:
    features = None if recipe.encoder.trainable else folder / "alone-features"
    train(recipe, dataset, folder / name, features=features, **options)
    return folder / name


def assert_near(entries: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(entries) == len(expected)
    for entry, right in zip(entries, expected):
        assert entry["loss"] == pytest.approx(right["loss"], rel=1e-5)
        assert entry["dev"] == pytest.approx(right["dev"], rel=1e-6)
        assert {**entry, "loss": 0, "dev": 0} == {**right, "loss": 0, "dev": 0}


# The same training


@pytest.mark.parametrize("name", ["even", "norms"])
def test_two_processes_learn_what_one_does(
    name: str, folder: Path, dataset: Dataset, shared_runs: Ended
) -> None:
    alone = train_alone(folder, dataset, RECIPES[name](), f"one-{name}")
    assert_near(read_log(folder / f"two-{name}"), read_log(alone))
    tensors, values = read_checkpoint(folder / f"two-{name}" / "checkpoint.safetensors")
    right, right_values = read_checkpoint(alone / "checkpoint.safetensors")
    weights = [key for key in right if key.startswith(("model.", "average."))]
    # Adam makes steps of full length out of gradients that are nothing but rounding, as those of a bias before a batch
    # norm or a softmax, and of what attention asks before the state says anything. A step is 1e-3 and longer.
    for asking, bound in ((False, 2e-5), (True, 2e-3)):
        differences = [
            (tensors[key] - right[key]).double().flatten()
            for key in weights
            if (".attention." in key) is asking
        ]
        if differences:
            assert torch.cat(differences).square().mean().sqrt() < bound
    assert (values["processes"], right_values["processes"]) == (2, 1)
    for key in ("tokens", "captions", "step", "reinforced", "averaged", "best_epoch"):
        assert values[key] == right_values[key], key


def test_each_caption_is_learnt_once_per_epoch(folder: Path, dataset: Dataset, shared_runs: Ended) -> None:
    recipe = even()
    images = dataset.split("train")
    vocabulary = Vocabulary.from_captions(
        (caption for image in images.images for caption in image.captions), min_count=1
    )
    captions = encode_captions(images, vocabulary, recipe.text.max_length)
    expected = Counter((caption.image, caption.targets) for caption in captions)
    by_rank = []
    for seen in shared_runs.seen:
        second = seen["parts"].index([], 1)
        by_rank.append(seen["parts"][1:second])
    steps = [len(plan_epoch(captions, batching="length", batch_size=16, seed=0, epoch=n)) for n in (0, 1)]
    steps += [len(plan_epoch(captions, batching="image", batch_size=5, seed=0, epoch=n)) for n in (2, 3)]
    assert [len(parts) for parts in by_rank] == [sum(steps)] * 2
    for number, count in enumerate(steps):
        begin = sum(steps[:number])
        learnt = [
            Counter(
                (image, tuple(targets))
                for counts, part in parts[begin : begin + count]
                if counts
                for image, targets in part
            )
            for parts in by_rank
        ]
        assert learnt[0] + learnt[1] == expected
        assert min(sum(part.values()) for part in learnt) > 0.3 * len(captions)


def test_one_process_writes_and_prints(folder: Path, shared_runs: Ended) -> None:
    assert shared_runs.seen[1]["written"] == []
    files = {Path(path).name for path in shared_runs.seen[0]["written"]}
    assert {LOCK, "bundles", "features.npy"} <= files
    assert len(shared_runs.output.splitlines()) == len(RECIPES)  # the scores, once for each run
    for epoch in (1, 2, 3):
        runs = 2 if epoch == 3 else 3
        assert len(re.findall(rf"showtell: epoch {epoch}: loss ", shared_runs.errors)) == runs
    assert shared_runs.errors.count("features of 21 images") == 1


# Going on


@pytest.fixture(scope="module")
def killed(folder: Path, start: Start, shared_runs: Ended) -> Ended:
    """A run whose second process was killed in the middle of an epoch."""
    words = command(folder, drawing(checkpoint_seconds=0), "killed")
    return start("kill", words, kill={1: KILLED_AT})


def test_a_killed_process_ends_the_run_cleanly(folder: Path, killed: Ended) -> None:
    assert killed.code != 0
    assert killed.seconds < 20
    # The other process says so, unless torchrun ends it first; torchrun says in any case who died of what.
    assert killed.errors.count("showtell: error: Another process of this run has ended") <= 1
    assert "Signal 9 (SIGKILL)" in killed.errors
    assert "showtell/training" not in killed.errors  # no traceback of ours
    run = folder / "killed"
    assert read_checkpoint(run / "checkpoint.safetensors")[1]["step"] == KILLED_AT
    assert not list(run.glob(".*.part"))
    with lock_folder(run, TrainingError, "locked", name=LOCK):
        pass


@pytest.fixture(scope="module")
def resumed(folder: Path, dataset: Dataset, start: Start, killed: Ended) -> Ended:
    """What was killed goes on; so does what one process began; and mistakes, that all processes make."""
    train_alone(folder, dataset, even(epochs=1, reinforced=0), "grown")
    commands = [
        command(folder, drawing(), "killed", "--resume"),
        command(folder, even(), "grown", "--resume"),
        command(folder, even(), "grown"),
        command(folder, even(learning_rate=0.5), "grown", "--resume"),
        ["recipes"],
        command(folder, drawing(), "killed", "--resume"),
    ]
    ended = start("resume", *commands)
    assert [seen["codes"] for seen in ended.seen] == [[0, 0, 2, 1, 2, 0]] * 2, ended.errors
    return ended


def test_a_killed_run_goes_on_bit_for_bit(folder: Path, resumed: Ended) -> None:
    assert_same_run(folder / "killed", folder / "two-drawing")
    tensors, _ = read_checkpoint(folder / "killed" / "checkpoint.safetensors")
    assert not torch.equal(tensors["random.cpu"], tensors["random.cpu.1"])  # each draws its own


def test_mistakes_of_all_processes_are_told_once(resumed: Ended) -> None:
    for message in (
        "holds a run already. Add --resume",
        "was started with other settings",
        "torchrun started 2 processes, and only `showtell train` shares its work among them",
    ):
        assert resumed.errors.count(message) == 1
    assert "Traceback" not in resumed.errors


def test_one_process_more_goes_on_with_a_run(folder: Path, resumed: Ended) -> None:
    assert_near(read_log(folder / "grown"), read_log(folder / "two-even"))
    assert (
        "showtell: number of processes so far: 1, from here on: 2. The batches are the same" in resumed.errors
    )


class Notes(SilentWatcher):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def note(self, message: str) -> None:
        self.kept.append(message)


def test_ctrl_c_stops_all_processes_at_one_step(
    tmp_path: Path, folder: Path, dataset: Dataset, shared_runs: Ended
) -> None:
    run = folder / "stopped"
    words = command(folder, drawing(epochs=400, checkpoint_seconds=0), "stopped")

    def press(group: int) -> None:
        until = time.monotonic() + TIMEOUT
        while not (run / "checkpoint.safetensors").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        # As a terminal does: to torchrun, which sends it on, and to the processes themselves.
        os.killpg(group, signal.SIGINT)

    code, _, errors = torchrun(["-m", "showtell", *words], press)
    assert code != 0
    stops = re.findall(r"^showtell: stopped and saved after epoch (\d+), batch (\d+)\..*$", errors, re.M)
    assert len(stops) == 1, errors
    assert "showtell/training" not in errors
    _, values = read_checkpoint(run / "checkpoint.safetensors")
    assert (values["epoch"], values["batch"]) == tuple(map(int, stops[0]))
    watcher = Notes()
    result = train(
        drawing(epochs=values["epoch"] + 1),
        dataset,
        run,
        features=folder / "features",
        resume=True,
        watcher=watcher,
    )
    assert result.epochs == values["epoch"] + 1
    assert watcher.kept[1].startswith("number of processes so far: 2, from here on: 1. ")
    assert best_bundle(run).is_dir()


def test_a_mistake_in_the_command_is_told_once(folder: Path, dataset: Dataset) -> None:
    words = command(folder, even(), "refused", "--set", "training.batch_sise=3")
    code, output, errors = torchrun(["-m", "showtell", *words])
    assert (code, output) == (1, "")  # torchrun's own code; its report names that of the process
    assert errors.count("showtell: error: training has no key 'batch_sise'. Did you mean") == 1
    assert re.search(r"exitcode\s*: 2 ", errors)
    assert "showtell/cli" not in errors
    assert not (folder / "refused").exists()


# Parts


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("images", [1, 2, 3, 5, 20])
def test_parts_hold_every_caption_once_and_two_images_at_least(images: int, size: int) -> None:
    captions = [EncodedCaption(image, (1, 4), (4, number)) for number in range(3) for image in range(images)]
    parts = [share_batch(captions, rank=rank, size=size) for rank in range(size)]
    counted = [caption for part in parts if part.counts for caption in part.captions]
    assert Counter(counted) == Counter(captions)
    for part in parts:
        assert len({caption.image for caption in part.captions}) >= min(2, images)
        assert part.planned == len(captions)
    assert parts[0].counts
    if size == 1:
        assert parts[0].captions == captions


def test_batch_norms_give_what_torch_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    values = 50 + torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64)
    results = []
    for joint in (False, True):
        inputs = values.clone().requires_grad_(True)
        norm = torch.nn.BatchNorm2d(3, dtype=torch.float64)
        with JointBatchNorms(lambda tensor: None, counts=True) if joint else torch.enable_grad():
            outputs = norm(inputs)
        (outputs * values.square()).sum().backward()
        results.append([outputs, inputs.grad, norm.weight.grad, norm.running_mean, norm.running_var])
    for ours, right in zip(results[1], results[0], strict=True):
        assert torch.allclose(ours, right, rtol=1e-9, atol=1e-9)


def test_a_part_that_does_not_count_is_not_in_the_statistics() -> None:
    sums: list[torch.Tensor] = []

    def add(tensor: torch.Tensor) -> None:
        sums.append(tensor.clone())
        tensor += torch.tensor([2.0, 4.0]) if len(sums) == 1 else torch.tensor([1.0])  # of another process

    with JointBatchNorms(add, counts=False):
        outputs = batch_norm(torch.full((5, 1), 9.0), None, None, training=True, eps=0.0)
    assert [tensor.tolist() for tensor in sums] == [[0.0, 0.0], [0.0]]
    assert outputs.flatten().tolist() == pytest.approx([(9 - 0.5) / math.sqrt(1 / 4)] * 5)


def test_one_value_has_no_statistics() -> None:
    with (
        JointBatchNorms(lambda tensor: None, counts=True),
        pytest.raises(ValueError, match="Expected more than 1 value per channel when training"),
    ):
        batch_norm(torch.zeros(1, 3), None, None, training=True)


def test_what_torchrun_says() -> None:
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert read_launch(environment) == Launch()  # a job scheduler's
    assert read_launch({**environment, "TORCHELASTIC_RUN_ID": "x"}) == Launch(rank=5, size=8, local_rank=1)
    assert read_launch() == Launch()


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"more processes on this machine than there are GPUs \(2\)"):
        choose_device("cuda")


def test_processes_draw_other_numbers() -> None:
    seeds = []
    for rank in range(3):
        processes = Processes()
        processes.rank = rank
        seeds += [processes.seed(0), processes.seed(2**63 - 1)]
    assert len(set(seeds)) == 6
    assert seeds[:2] == [0, 2**63 - 1]
    assert max(seeds) < 2**63
