"""The feature cache: extraction, resuming after a kill, full disks, and the caches that are refused."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.config import EncoderConfig
from showtell.data.records import CaptionedImage, Dataset
from showtell.encoders import Encoder, FeatureCache, build_encoder, extract_features
from showtell.encoders.cache_contents import HEADER_BYTES
from showtell.errors import CacheError, EncoderError, UsageError

TINY = EncoderConfig(name="test_resnet", weights="random", image_size=64, precision="float32")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(TINY, seed=0)


def make_dataset(folder: Path, count: int, *, seed: int = 0) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    images = []
    for number in range(count):
        path = folder / f"picture {number:04d}.png"
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(path)
        images.append(CaptionedImage(path.name, path, ("a picture",), "train"))
    return Dataset("drawn", "folder", tuple(images))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "images", 10)


def expected_features(encoder: Encoder, dataset: Dataset) -> np.ndarray:
    pixels = [encoder.preprocessing.resize(Image.open(image.path).convert("RGB")) for image in dataset.images]
    return np.concatenate([encoder.encode(picture[None]) for picture in pixels])


def assert_right(cache: FeatureCache, encoder: Encoder, dataset: Dataset) -> None:
    """Every image has its own features, read in an order other than that of the rows."""
    images = random.Random(1).sample(dataset.images, len(dataset.images))
    received = cache.features([image.id for image in images])
    expected = expected_features(encoder, replace(dataset, images=tuple(images)))
    assert received.dtype == np.float16
    np.testing.assert_allclose(received, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())


def ids(dataset: Dataset) -> list[str]:
    return [image.id for image in dataset.images]


@pytest.mark.parametrize("output", ["grid", "pooled"])
def test_extracting_and_reading(tmp_path: Path, dataset: Dataset, output: str) -> None:
    encoder = build_encoder(replace(TINY, output=output))
    seen: list[tuple[int, int]] = []
    report = extract_features(
        dataset,
        encoder,
        tmp_path / "cache",
        batch_size=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert (report.images, report.reused, report.skipped) == (10, 0, {})
    assert report.images_per_second == pytest.approx(10 / report.seconds)
    row_bytes = 2 * int(np.prod(encoder.shape))
    assert (tmp_path / "cache/features.npy").stat().st_size == HEADER_BYTES + 10 * row_bytes  # no padding
    assert report.bytes == sum(
        path.stat().st_size for path in (tmp_path / "cache").iterdir() if path.name != ".lock"
    )
    fingerprint = encoder.fingerprint
    with FeatureCache.open(tmp_path / "cache", encoder_fingerprint=fingerprint, dataset=dataset) as cache:
        assert cache.shape == encoder.shape
        assert cache.grid == encoder.grid
        assert len(cache) == 10
        assert cache.ids == ids(dataset)
        assert dataset.images[3].id in cache
        assert "other.png" not in cache
        assert_right(cache, encoder, dataset)
        twice = cache.features([cache.ids[2], cache.ids[2]])
        np.testing.assert_array_equal(twice[0], twice[1])
        assert cache.features([]).shape == (0, *encoder.shape)
        np.testing.assert_array_equal(cache.array[cache.row(cache.ids[7])], cache.features([cache.ids[7]])[0])
        np.testing.assert_array_equal(np.load(tmp_path / "cache/features.npy"), cache.array)
        with pytest.raises(CacheError, match=r"no features of image 'other\.png'"):
            cache.features(["other.png"])
    with pytest.raises(CacheError, match="the cache was closed"):
        cache.features(cache.ids)


def test_two_runs_of_the_same_give_the_same_bytes(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    extract_features(dataset, encoder, tmp_path / "one", batch_size=3, workers=1)
    extract_features(dataset, encoder, tmp_path / "two", batch_size=3, workers=4)
    for name in ("features.npy", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_finished_cache_is_extended_and_otherwise_left_alone(
    tmp_path: Path, dataset: Dataset, encoder: Encoder
) -> None:
    first = replace(dataset, images=dataset.images[2:6])
    extract_features(first, encoder, tmp_path / "cache")
    again = extract_features(first, encoder, tmp_path / "cache")
    assert (again.images, again.reused, again.images_per_second) == (0, 4, 0.0)
    more = extract_features(dataset, encoder, tmp_path / "cache", batch_size=4)
    assert (more.images, more.reused) == (6, 4)
    assert_right(FeatureCache.open(tmp_path / "cache", dataset=dataset), encoder, dataset)
    assert len(np.load(tmp_path / "cache/features.npy")) == 10


def test_a_changed_image_makes_the_cache_stale(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    extract_features(dataset, encoder, tmp_path / "cache")
    changed = dataset.images[4].path
    Image.effect_noise((80, 60), 90).save(changed)
    with pytest.raises(CacheError, match=r"stale .* 1 image files .*picture 0004\.png.*showtell features"):
        FeatureCache.open(tmp_path / "cache", dataset=dataset)
    assert FeatureCache.open(tmp_path / "cache").ids == ids(
        dataset
    )  # without the data set nothing is compared
    report = extract_features(dataset, encoder, tmp_path / "cache")
    assert (report.images, report.reused) == (1, 9)
    assert_right(FeatureCache.open(tmp_path / "cache", dataset=dataset), encoder, dataset)
    changed.unlink()
    with pytest.raises(CacheError, match=r"stale .*picture 0004\.png \(no file "):
        FeatureCache.open(tmp_path / "cache", dataset=dataset)


def test_a_copied_data_set_is_not_stale(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    extract_features(dataset, encoder, tmp_path / "cache")
    copies = []
    (tmp_path / "copy").mkdir()
    for image in dataset.images:
        shutil.copy(
            image.path, tmp_path / "copy" / image.path.name
        )  # another time of change, the same content
        copies.append(replace(image, path=tmp_path / "copy" / image.path.name))
    copied = replace(dataset, images=tuple(copies))
    assert len(FeatureCache.open(tmp_path / "cache", dataset=copied)) == 10
    assert extract_features(copied, encoder, tmp_path / "cache").reused == 10


def test_a_change_that_keeps_size_and_time_is_found_on_request(
    tmp_path: Path, dataset: Dataset, encoder: Encoder
) -> None:
    extract_features(dataset, encoder, tmp_path / "cache")
    path = dataset.images[0].path
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    FeatureCache.open(tmp_path / "cache", dataset=dataset)
    with pytest.raises(CacheError, match="stale"):
        FeatureCache.open(tmp_path / "cache", dataset=dataset, verify=True)


def test_a_foreign_cache_is_refused_and_can_be_rebuilt(
    tmp_path: Path, dataset: Dataset, encoder: Encoder
) -> None:
    extract_features(dataset, encoder, tmp_path / "cache")
    before = (tmp_path / "cache/features.npy").read_bytes()
    for other in (
        build_encoder(TINY, seed=1),
        build_encoder(replace(TINY, image_size=96)),
        build_encoder(replace(TINY, output="pooled")),
        build_encoder(replace(TINY, name="test_efficientnet")),
    ):
        with pytest.raises(
            CacheError, match=r"foreign: .* test_resnet, grid, weights random, 64x64"
        ) as caught:
            FeatureCache.open(tmp_path / "cache", encoder_fingerprint=other.fingerprint)
        assert other.fingerprint[:12] in str(caught.value)
        assert encoder.fingerprint[:12] in str(caught.value)
        with pytest.raises(CacheError, match=r"foreign: .*--rebuild"):
            extract_features(dataset, other, tmp_path / "cache")
    assert (tmp_path / "cache/features.npy").read_bytes() == before
    report = extract_features(dataset, other, tmp_path / "cache", rebuild=True)
    assert report.images == 10
    assert_right(FeatureCache.open(tmp_path / "cache", encoder_fingerprint=other.fingerprint), other, dataset)


def test_precisions_are_not_mixed(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    extract_features(replace(dataset, images=dataset.images[:3]), encoder, tmp_path / "cache")
    half = build_encoder(replace(TINY, precision="bf16"))
    with pytest.raises(CacheError, match=r"computed in float32, and the encoder now computes in bf16"):
        extract_features(dataset, half, tmp_path / "cache")
    FeatureCache.open(tmp_path / "cache", encoder_fingerprint=half.fingerprint)  # to train on them is fine


def test_an_incomplete_cache_is_refused(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    extract_features(replace(dataset, images=dataset.images[:7]), encoder, tmp_path / "cache")
    with pytest.raises(
        CacheError, match=r"incomplete .*3 of 10 images .*picture 0007\.png.*it adds what is missing"
    ):
        FeatureCache.open(tmp_path / "cache", dataset=dataset)


def test_unreadable_images_are_an_error_or_left_out(
    tmp_path: Path, dataset: Dataset, encoder: Encoder
) -> None:
    dataset.images[2].path.write_bytes(b"")
    dataset.images[5].path.unlink()
    whole = dataset.images[7].path.read_bytes()
    dataset.images[7].path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CacheError, match="3 of 10 images cannot be read") as caught:
        extract_features(dataset, encoder, tmp_path / "cache", batch_size=1)
    for text in (
        "picture 0002.png",
        "empty",
        "picture 0005.png",
        "No such file",
        "picture 0007.png",
        "--skip-bad",
    ):
        assert text in str(caught.value)
    with pytest.raises(CacheError, match=r"incomplete: extraction was interrupted after 7 images"):
        FeatureCache.open(tmp_path / "cache")
    report = extract_features(dataset, encoder, tmp_path / "cache", skip_bad=True)
    assert (report.images, report.reused) == (0, 7)
    assert set(report.skipped) == {"picture 0002.png", "picture 0005.png", "picture 0007.png"}
    with pytest.raises(
        CacheError, match=r"incomplete .*3 of them could not be read then, as picture 0002\.png"
    ):
        FeatureCache.open(tmp_path / "cache", dataset=dataset)
    cache = FeatureCache.open(tmp_path / "cache", dataset=dataset, allow_unreadable=True)
    sound = cache.without_unreadable(dataset)
    assert len(sound.images) == 7
    assert_right(cache, encoder, sound)
    dataset.images[7].path.write_bytes(whole)
    assert extract_features(dataset, encoder, tmp_path / "cache", skip_bad=True).images == 1
    assert "picture 0007.png" not in FeatureCache.open(tmp_path / "cache").unreadable


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    os.truncate(dataset.images[1].path, 1 << 40)  # sparse: nobody could read it
    report = extract_features(dataset, encoder, tmp_path / "cache", skip_bad=True)
    assert report.images == 9
    assert report.skipped == {
        dataset.images[1].id: f"{dataset.images[1].path}: the file is larger than 536,870,912 bytes"
    }


def test_features_beyond_float16_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    encoder = build_encoder(TINY)
    for parameter in list(encoder.parameters())[-2:]:
        parameter.data.fill_(1e6)
    with pytest.raises(
        EncoderError, match=r"features as large as .*; float16, .* ends at 65504\. Its weights are random: "
    ):
        extract_features(dataset, encoder, tmp_path / "cache")
    encoder.source = replace(encoder.source, kind="file")
    with pytest.raises(EncoderError, match=r"ends at 65504\. Its weights are damaged or need another"):
        extract_features(dataset, encoder, tmp_path / "cache")


def test_what_makes_no_sense(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    with pytest.raises(UsageError, match="batch_size=0"):
        extract_features(dataset, encoder, tmp_path / "cache", batch_size=0)
    trainable = build_encoder(replace(TINY, trainable=True))
    with pytest.raises(EncoderError, match=r"is trainable.*encoder\.trainable = false"):
        extract_features(dataset, trainable, tmp_path / "cache")
    with pytest.raises(CacheError, match="'drawn' has no images"):
        extract_features(replace(dataset, images=()), encoder, tmp_path / "cache")
    doubled = replace(dataset, images=dataset.images + dataset.images[:1])
    with pytest.raises(CacheError, match=r"two images with the id 'picture 0000\.png'"):
        extract_features(doubled, encoder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(CacheError, match=r"no feature cache here.*showtell features DATA"):
        FeatureCache.open(tmp_path / "cache")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="cannot be made"):
        extract_features(dataset, encoder, tmp_path / "file")
    with pytest.raises(CacheError, match=r"a feature cache is a folder|no feature cache here"):
        FeatureCache.open(tmp_path / "file")


def test_somebody_elses_files_are_left_alone(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    np.save(folder / "features.npy", np.arange(5))
    before = (folder / "features.npy").read_bytes()
    with pytest.raises(CacheError, match="not a feature cache of Showtell"):
        extract_features(dataset, encoder, folder)
    assert (folder / "features.npy").read_bytes() == before
    (folder / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(CacheError, match=r"manifest\.json: not a feature cache of Showtell"):
        extract_features(dataset, encoder, folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("manifest = '{'", r"manifest\.json: damaged"),
        ("manifest = '[]'", r"manifest\.json: damaged"),
        ("manifest['version'] = 99", "version 99; this Showtell reads up to 1"),
        ("del manifest['images']", r"manifest\.json: damaged"),
        ("manifest['images']['picture 0000.png'] = [0]", r"manifest\.json: damaged"),
        ("manifest['shape'] = [0, 4]", r"manifest\.json: damaged"),
        ("del manifest['encoder']['fingerprint']", r"manifest\.json: damaged"),
        ("data = data[:-1]", r"features\.npy: truncated: [\d,]+ bytes, and the manifest's 10 rows need"),
        ("data = None", r"features\.npy: cannot be read .*lists 10 images"),
    ],
)
def test_damaged_caches(
    tmp_path: Path, dataset: Dataset, encoder: Encoder, damage: str, message: str
) -> None:
    folder = tmp_path / "cache"
    extract_features(dataset, encoder, folder)
    names = {
        "manifest": json.loads((folder / "manifest.json").read_text()),
        "data": (folder / "features.npy").read_bytes(),
    }
    exec(damage, names)
    manifest, data = names["manifest"], names["data"]
    (folder / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    (folder / "features.npy").unlink()
    if data is not None:
        (folder / "features.npy").write_bytes(data)
    with pytest.raises(CacheError, match=message):
        FeatureCache.open(folder)
    with pytest.raises(CacheError):
        extract_features(dataset, encoder, folder)
    extract_features(dataset, encoder, folder, rebuild=True)
    assert_right(FeatureCache.open(folder, dataset=dataset), encoder, dataset)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    extract_features(dataset, encoder, tmp_path / "cache")
    cache = FeatureCache.open(tmp_path / "cache")
    os.truncate(tmp_path / "cache/features.npy", 1000)
    with pytest.raises(CacheError, match="truncated while in use: row 9"):
        cache.features([cache.ids[9]])


class _Interrupted(Exception):
    pass


def interrupt_after(count: int) -> object:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise _Interrupted

    return progress


@pytest.mark.parametrize("torn", ["", '{"picture 00', "\x00\x00", '{"picture 0009.png": [9, "ab'])
def test_an_interrupted_extraction_goes_on(
    tmp_path: Path, dataset: Dataset, encoder: Encoder, torn: str
) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(_Interrupted):
        extract_features(dataset, encoder, folder, batch_size=2, progress=interrupt_after(4))  # type: ignore[arg-type]
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write(torn)  # as a kill in the middle of a write leaves it
    with (folder / "features.npy").open("ab") as data:
        data.write(b"half a row")
    with pytest.raises(CacheError, match=r"interrupted after 4 images.*goes on where it stopped"):
        FeatureCache.open(folder)
    report = extract_features(dataset, encoder, folder, batch_size=2)
    assert (report.images, report.reused) == (6, 4)
    assert not (folder / "journal.jsonl").exists()
    assert_right(FeatureCache.open(folder, dataset=dataset), encoder, dataset)


def test_an_interrupted_extension_leaves_the_finished_cache_usable(
    tmp_path: Path, dataset: Dataset, encoder: Encoder
) -> None:
    first, folder = replace(dataset, images=dataset.images[:3]), tmp_path / "cache"
    extract_features(first, encoder, folder)
    with pytest.raises(_Interrupted):
        extract_features(dataset, encoder, folder, batch_size=2, progress=interrupt_after(5))  # type: ignore[arg-type]
    assert_right(FeatureCache.open(folder, dataset=first), encoder, first)
    report = extract_features(dataset, encoder, folder)
    assert (report.images, report.reused) == (5, 5)
    assert_right(FeatureCache.open(folder, dataset=dataset), encoder, dataset)


EXTRACT = """
import os, signal, sys, time
from pathlib import Path
from showtell.config import EncoderConfig
from showtell.data.records import CaptionedImage, Dataset
from showtell.encoders import build_encoder, extract_features
from showtell.errors import CacheError

folder, cache, action = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
paths = sorted(folder.iterdir())
dataset = Dataset("drawn", "folder", tuple(CaptionedImage(path.name, path, (), "train") for path in paths))
encoder = build_encoder(
    EncoderConfig(name="test_resnet", weights="random", image_size=64, precision="float32"), seed=0
)

def progress(done, total):
    print(done, flush=True)
    if action == "slow":
        time.sleep(0.05)
    if action == "hold" and done:
        time.sleep(60)
    if action.startswith("limit") and done == 0:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(action[5:]), int(action[5:])))
    if action.startswith("fill") and done == 4:
        block = os.open(cache.parent / "filler", os.O_CREAT | os.O_WRONLY)
        try:
            while True:
                os.write(block, bytes(4096))
        except OSError:
            os.close(block)

try:
    extract_features(dataset, encoder, cache, batch_size=2, progress=progress)
except CacheError as error:
    print("CacheError:", error, flush=True)
"""


@contextlib.contextmanager
def extraction(
    dataset: Dataset, cache: Path, action: str, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    folder = dataset.images[0].path.parent
    process = subprocess.Popen(
        [sys.executable, "-c", EXTRACT, str(folder), str(cache), action],
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_kill_9_loses_at_most_the_batch_in_flight(
    tmp_path: Path, encoder: Encoder, clean_environment: dict[str, str]
) -> None:
    dataset, cache = make_dataset(tmp_path / "images", 40), tmp_path / "cache"
    with extraction(dataset, cache, "slow", clean_environment) as process:
        assert process.stdout is not None
        reported = 0
        while reported < 12:
            reported = int(process.stdout.readline())
        time.sleep(0.03)
        process.send_signal(signal.SIGKILL)
        process.wait()
        reported = max([reported, *map(int, process.stdout.read().split())])
    with pytest.raises(CacheError, match="interrupted after"):
        FeatureCache.open(cache)
    report = extract_features(dataset, encoder, cache, batch_size=2)
    assert report.reused >= reported >= 12
    assert report.reused + report.images == 40
    assert report.images > 0
    assert_right(FeatureCache.open(cache, dataset=dataset), encoder, dataset)


def test_two_writers_do_not_meet(
    tmp_path: Path, dataset: Dataset, encoder: Encoder, clean_environment: dict[str, str]
) -> None:
    cache = tmp_path / "cache"
    with extraction(dataset, cache, "hold", clean_environment) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) == 0:
            pass
        with pytest.raises(CacheError, match="another process is extracting features into this cache"):
            extract_features(dataset, encoder, cache, batch_size=2)
    report = extract_features(dataset, encoder, cache, batch_size=2)  # the lock went with the killed process
    assert report.reused == 2
    assert_right(FeatureCache.open(cache, dataset=dataset), encoder, dataset)


def test_a_file_size_limit_keeps_what_is_finished(
    tmp_path: Path, dataset: Dataset, encoder: Encoder, clean_environment: dict[str, str]
) -> None:
    row_bytes = 2 * int(np.prod(encoder.shape))
    limit = HEADER_BYTES + 5 * row_bytes + 100  # in the middle of the third batch of two
    with extraction(dataset, tmp_path / "cache", f"limit{limit}", clean_environment) as process:
        output, errors = process.communicate(timeout=60)
    assert "CacheError" in output, errors
    assert "File too large" in output
    assert "4 images are finished and kept" in output
    assert (tmp_path / "cache/features.npy").stat().st_size == HEADER_BYTES + 4 * row_bytes
    report = extract_features(dataset, encoder, tmp_path / "cache")
    assert (report.images, report.reused) == (6, 4)
    assert_right(FeatureCache.open(tmp_path / "cache", dataset=dataset), encoder, dataset)


@pytest.mark.parametrize("small_disk", ["256k"], indirect=True)
def test_a_disk_that_fills_up_keeps_what_is_finished(
    small_disk: Path, dataset: Dataset, encoder: Encoder, clean_environment: dict[str, str]
) -> None:
    cache = small_disk / "cache"
    with extraction(dataset, cache, "fill", clean_environment) as process:
        output, errors = process.communicate(timeout=60)
    assert "CacheError" in output, errors
    assert "No space left on device" in output
    assert "4 images are finished and kept" in output
    (small_disk / "filler").unlink()
    report = extract_features(dataset, encoder, cache)
    assert (report.images, report.reused) == (6, 4)
    assert_right(FeatureCache.open(cache, dataset=dataset), encoder, dataset)


@pytest.mark.parametrize("small_disk", ["256k"], indirect=True)
def test_a_disk_that_is_too_small_is_refused_before_the_work(
    small_disk: Path, tmp_path: Path, dataset: Dataset
) -> None:
    encoder = build_encoder(replace(TINY, image_size=512))
    with pytest.raises(
        CacheError, match=r"disk is too full: the features need [\d.]+ MB, and 0\.\d MB are free"
    ):
        extract_features(dataset, encoder, small_disk / "cache")
    assert not (small_disk / "cache/features.npy").exists()


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, dataset: Dataset, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / ".lock").mkdir()  # nothing can be opened there, not even by root
    with pytest.raises(CacheError, match="the folder is not writable"):
        extract_features(dataset, encoder, folder)


def test_threads_read_their_own_rows(tmp_path: Path, dataset: Dataset, encoder: Encoder) -> None:
    extract_features(dataset, encoder, tmp_path / "cache")
    cache = FeatureCache.open(tmp_path / "cache")
    expected = {image_id: cache.features([image_id])[0] for image_id in cache.ids}
    wrong: list[str] = []

    def read(seed: int) -> None:
        for image_id in random.Random(seed).choices(cache.ids, k=300):
            if not np.array_equal(cache.features([image_id])[0], expected[image_id]):
                wrong.append(image_id)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_decoding_waits_for_the_network(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "images", 60)
    decoded, ahead = [0], []
    original = Image.Image.resize

    def counting(self: Image.Image, *arguments: object, **options: object) -> Image.Image:
        decoded[0] += 1
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", counting)

    def progress(done: int, total: int) -> None:
        time.sleep(0.02)
        ahead.append(decoded[0] - done)

    extract_features(dataset, encoder, tmp_path / "cache", batch_size=4, workers=3, progress=progress)
    assert max(ahead) <= 2 * 4 + 1  # bounded, however long the data set
    assert max(ahead) >= 4  # and yet it runs ahead


@pytest.mark.slow
def test_resident_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    program = EXTRACT.split("def progress")[0].replace("image_size=64", "image_size=224") + (
        "import resource\n"
        "import numpy as np\n"
        "from showtell.encoders import FeatureCache\n"
        "extract_features(dataset, encoder, cache, batch_size=32)\n"
        "opened = FeatureCache.open(cache, dataset=dataset)\n"
        "order = np.random.default_rng(0).permutation(opened.ids)\n"
        "for start in range(0, len(order), 32):\n"
        "    opened.features(list(order[start : start + 32]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    peaks = {}
    for count in (1000, 7000):
        dataset = make_dataset(tmp_path / f"images{count}", count)
        folders = [str(dataset.images[0].path.parent), str(tmp_path / f"cache{count}")]
        result = subprocess.run(
            [sys.executable, "-c", program, *folders, ""],
            env={**clean_environment, "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[count] = int(result.stdout)
    assert peaks[7000] - peaks[1000] < 40, peaks  # MB: the manifest; the features themselves are hundreds
