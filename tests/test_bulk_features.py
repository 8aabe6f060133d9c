"""Features from other processes: the same as those of this one, whoever computes them and whatever is killed."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import safetensors.torch
from PIL import Image

from bulked import workers_of
from showtell.bulk.features import EncodeJob, EncodeWorker
from showtell.cli.main import main
from showtell.config import EncoderConfig
from showtell.data.records import CaptionedImage, Dataset
from showtell.encoders import Encoder, FeatureCache, build_encoder, extract_features
from showtell.encoders.batches import Batch, Wanted, compute_batches
from showtell.encoders.elsewhere import EncoderRecord
from showtell.errors import CacheError, EncoderError

TINY = EncoderConfig(name="test_resnet", weights="random", image_size=64, precision="float32")
PATIENCE = 280  # seconds that a run may take on a machine that is busy with other things
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty small pictures, two of them bad, and a table of them."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = ["image,caption,split"]
    for number in range(50):
        with Image.open(photographs[number % len(photographs)]) as image:
            image.rotate(number).resize((96, 72)).save(folder / f"{number:03d}.jpg")
        lines.append(f"{number:03d}.jpg,a picture,train")
    (folder / "017.jpg").write_bytes(b"")
    (folder / "030.jpg").write_bytes(b"no image")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    paths = sorted(folder.glob("*.jpg"))
    return Dataset(
        "drawn", "folder", tuple(CaptionedImage(path.name, path, ("a",), "train") for path in paths)
    )


def words(folder: Path, cache: Path, *more: str) -> list[str]:
    encoder = ("--encoder", "test_resnet", "--weights", "random", "--image-size", "64")
    sizes = ("--batch-size", "4", "--threads", "1")
    return ["features", str(folder / "table.csv"), "--output", str(cache), *encoder, *sizes, *more]


def same_features(first: Path, second: Path) -> None:
    """Both caches hold the same images, each once, with the same bits, and end as they would be listed."""
    with FeatureCache.open(first) as one, FeatureCache.open(second) as other:
        assert sorted(one.ids) == sorted(other.ids)
        assert one.unreadable == other.unreadable
        assert one.fingerprint == other.fingerprint
        assert one.features(sorted(one.ids)).tobytes() == other.features(sorted(one.ids)).tobytes()
        assert [len(np.load(cache / "features.npy")) for cache in (first, second)] == [len(one)] * 2
    listed = [json.loads((cache / "manifest.json").read_text()) for cache in (first, second)]
    for values in listed:  # rows are in the order in which batches were finished
        assert sorted(fields[0] for fields in values["images"].values()) == list(range(len(values["images"])))
        values["images"] = {name: fields[1:] for name, fields in values["images"].items()}
    assert listed[0] == listed[1]


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of one process."""
    cache = tmp_path_factory.mktemp("plain") / "cache"
    command = [sys.executable, "-m", "showtell", *words(folder, cache, "--skip-bad")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=PATIENCE).returncode == 1
    return cache


# Without Ray: what a worker does, and what is made of it


class Workers:
    """Encoders in other hands, each built from a record that was sent; batches arrive in an odd order."""

    def __call__(
        self, encoder: Encoder, wanted: Sequence[Wanted], *, size: int, workers: int
    ) -> Generator[Batch, None, None]:
        job = pickle.loads(pickle.dumps(EncodeJob(EncoderRecord.of(encoder), size, workers, 1)))
        team = [EncodeWorker(job, 0), EncodeWorker(job, 0)]
        chunks = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        for number, chunk in reversed(list(enumerate(chunks))):
            [batch] = team[number % 2].run(chunk)
            yield pickle.loads(pickle.dumps(batch))


def test_batches_of_others_in_any_order_give_the_same_cache(dataset: Dataset, tmp_path: Path) -> None:
    encoder = build_encoder(TINY)
    reports = [
        extract_features(dataset, encoder, tmp_path / name, batch_size=4, skip_bad=True, source=source)
        for name, source in (("here", compute_batches), ("there", Workers()))
    ]
    assert [(report.images, list(report.skipped)) for report in reports] == [(48, ["017.jpg", "030.jpg"])] * 2
    same_features(tmp_path / "here", tmp_path / "there")


def test_what_others_have_finished_is_kept(dataset: Dataset, tmp_path: Path) -> None:
    encoder = build_encoder(TINY)

    def dies(*arguments: object, **options: object) -> Generator[Batch, None, None]:
        for number, batch in enumerate(Workers()(*arguments, **options)):  # type: ignore[arg-type]
            if number == 3:
                raise CacheError("the cluster is gone")
            yield batch

    with pytest.raises(CacheError, match="the cluster is gone"):
        extract_features(dataset, encoder, tmp_path / "cache", batch_size=4, skip_bad=True, source=dies)
    report = extract_features(dataset, encoder, tmp_path / "cache", batch_size=4, skip_bad=True)
    assert (report.images, report.reused) == (38, 10)
    extract_features(dataset, encoder, tmp_path / "plain", batch_size=4, skip_bad=True)
    with FeatureCache.open(tmp_path / "cache") as one, FeatureCache.open(tmp_path / "plain") as other:
        assert sorted(one.ids) == sorted(other.ids)
        # A batch that was cut otherwise may round otherwise.
        received, expected = (cache.features(sorted(one.ids)).astype(np.float32) for cache in (one, other))
    np.testing.assert_allclose(received, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())


def test_a_member_that_resizes_as_another_does_is_built_alike() -> None:
    names = "test_resnet + test_efficientnet"
    encoder = build_encoder(replace(TINY, name=names))
    for member in encoder.members:
        assert EncoderRecord.of(member).build(threads=1).fingerprint == member.fingerprint


def test_a_machine_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("one", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        tensors = build_encoder(TINY, seed=seed).backbone.state_dict()
        safetensors.torch.save_file(tensors, tmp_path / name / "weights.safetensors")
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(tmp_path / "one"))
    record = EncoderRecord.of(build_encoder(replace(TINY, weights="weights.safetensors")))
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(tmp_path / "other"))
    EncodeWorker(EncodeJob(record, 4, 1, 1), 0)  # the folder is in the record
    (tmp_path / "one").rename(tmp_path / "elsewhere")
    message = (
        r"A worker on the machine .*: The encoder's weights were not found: weights\.safetensors with sha256"
    )
    with pytest.raises(EncoderError, match=message):
        EncodeWorker(EncodeJob(record, 4, 1, 1), 0)
    monkeypatch.setenv("SHOWTELL_WEIGHTS", str(tmp_path / "elsewhere"))
    EncodeWorker(EncodeJob(record, 4, 1, 1), 0)
    with pytest.raises(EncoderError, match=r"is another one here .*other weights, or other versions of timm"):
        EncodeWorker(EncodeJob(replace(record, fingerprint="0" * 64), 4, 1, 1), 0)


def test_options_of_ray_need_ray(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(words(folder, tmp_path / "cache", "--ray-workers", "2")) == 2
    assert "--ray-workers says how many encoders work on Ray. Give --ray" in capsys.readouterr().err


def test_features_without_ray_do_not_import_it(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from showtell.cli.main import main; main(sys.argv[1:]); "
        "sys.exit(bool({'ray', 'pyarrow', 'fsspec'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *words(folder, tmp_path / "cache", "--skip-bad")]
    assert subprocess.run(command, capture_output=True, timeout=PATIENCE).returncode == 0
    assert (tmp_path / "cache/manifest.json").exists()


def test_only_ray_is_kept_off_standard_output(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def extract(*given: Any, **more: Any) -> Any:
        print("something of a library")
        return extract_features(*given, **more)

    monkeypatch.setattr("showtell.encoders.extract_features", extract)
    assert main(words(folder, tmp_path / "cache", "--skip-bad")) in (0, 1)
    printed = capsys.readouterr().out.splitlines()
    assert (printed[0], json.loads(printed[1])["images"] > 0) == ("something of a library", True)


def test_without_ray_the_extra_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(words(folder, tmp_path / "cache", "--ray")) == 2
    assert 'pip install "showtell[ray]"' in capsys.readouterr().err


def test_an_address_where_no_ray_is(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(words(folder, tmp_path / "cache", "--ray-address", "127.0.0.1:1")) == 2
    assert "--ray-address 127.0.0.1:1: nobody answers there" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """What --threads sets is for the whole process: bits of other tests' sums depend on it."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# On Ray


@contextlib.contextmanager
def begun(folder: Path, cache: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """An extraction on Ray that has finished a batch and goes on."""
    with subprocess.Popen(
        [sys.executable, "-m", "showtell", *words(folder, cache, "--ray", "--ray-workers", "2", *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            journal = cache / "journal.jsonl"
            while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "it never finished a batch"
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def test_features_on_ray_are_those_of_one_process(plain: Path, folder: Path, tmp_path: Path) -> None:
    more = ("--ray", "--ray-workers", "2", "--skip-bad")
    command = [sys.executable, "-m", "showtell", *words(folder, tmp_path / "cache", *more)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 1, ended.stderr  # two images are bad
    report = json.loads(ended.stdout)
    assert (report["images"], report["reused"], report["skipped"]) == (48, 0, 2)
    assert "skipped 017.jpg: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "died" not in ended.stderr
    same_features(tmp_path / "cache", plain)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_kill_loses_and_doubles_nothing(victim: str, photographs: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    lines = ["image,caption,split"]
    for number in range(600):
        with Image.open(photographs[number % len(photographs)]) as image:
            image.resize((200, 150)).rotate(number / 2).save(folder / f"{number:03d}.jpg")
        lines.append(f"{number:03d}.jpg,a picture,train")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    with begun(folder, tmp_path / "cache") as process:
        while (
            len(workers := workers_of(process.pid, "EncodeWorker")) < 2
        ):  # the first may begin before the second
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        if victim == "driver":
            process.kill()
        else:
            workers[0].kill()
            out, said = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, said
            assert json.loads(out)["images"] == 600
            assert "1 worker died; the work was done again" in said
    if victim == "driver":
        with pytest.raises(CacheError, match="interrupted after"):
            FeatureCache.open(tmp_path / "cache")
        assert not psutil.wait_procs(family, timeout=150)[1]  # Ray's own agents wait for a minute
    for cache in ("cache", "plain"):
        assert main(words(folder, tmp_path / cache)) == 0
    if victim == "worker":
        same_features(tmp_path / "cache", tmp_path / "plain")
        return
    with FeatureCache.open(tmp_path / "cache") as one, FeatureCache.open(tmp_path / "plain") as other:
        assert sorted(one.ids) == sorted(other.ids)
        assert len(np.load(tmp_path / "cache/features.npy")) == 600
        # Batches of the second run were cut otherwise, and may round otherwise.
        received, expected = (cache.features(sorted(one.ids)).astype(np.float32) for cache in (one, other))
    np.testing.assert_allclose(received, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())
