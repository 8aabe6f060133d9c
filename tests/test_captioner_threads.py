"""One captioner for several threads, and generators that are left, closed or used in turns."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from showtell.captioner import CaptionedPicture, Captioner
from showtell.consensus import Arrays, Consensus, build_consensus
from showtell.decoding import DecodingSettings
from showtell.runtime import PortableBackend
from showtell.runtime.engine import Network

THREADS = 4
ROUNDS = 2
SAID = [["a dog runs on the grass", "a dog"], ["two men talk"], ["the grass", "a dog runs"], ["eine 犬"]]
SETTINGS = {
    "greedy": DecodingSettings(method="greedy", max_steps=6),
    "beam": DecodingSettings(method="beam", beam=3, count=3, max_steps=6),
    "long beam": DecodingSettings(method="beam", beam=5, max_steps=8, length_penalty=0.3, no_repeat_ngram=1),
    "samples": DecodingSettings(method="sample", count=4, seed=3, max_steps=6),
    "other samples": DecodingSettings(
        method="sample", count=4, seed=4, max_steps=6, temperature=1.3, top_k=5
    ),
    "must": DecodingSettings(method="beam", beam=3, max_steps=7, include=("two men", "dog|grass")),
    "must not": DecodingSettings(method="beam", beam=3, max_steps=6, exclude=("a", "runs on", "talk")),
    "neighbours": DecodingSettings(method="beam", beam=4, max_steps=6, consensus=3.0, neighbours=2),
}


@dataclass(frozen=True)
class Job:
    """What one thread asks for."""

    name: str
    pictures: tuple[np.ndarray, ...]
    settings: DecodingSettings

    def run(self, captioner: Captioner) -> list[CaptionedPicture]:
        return list(captioner.caption(list(self.pictures), self.settings))


def make_jobs() -> list[Job]:
    """A job for each kind of search, each with pictures of its own: one, few, and more than a batch."""
    whole = data.astronaut()
    tiles = [
        whole[top : top + 90, left : left + 120] for top in range(0, 400, 60) for left in range(0, 380, 60)
    ]
    counts = itertools.cycle([3, 1, 11, 5])
    rest = iter(tiles)
    return [
        Job(name, tuple(itertools.islice(rest, next(counts))), settings)
        for name, settings in SETTINGS.items()
    ]


@pytest.fixture(scope="module")
def places(tiny_bundle: Path, exported_model: str) -> dict[str, Path]:
    """The same captioner as a bundle and exported."""
    return {"torch": tiny_bundle, "openvino": Path(exported_model), "onnxruntime": Path(exported_model)}


@pytest.fixture
def two_cores() -> Iterator[None]:
    """Two threads of torch, whatever the environment says: with one it has nothing to share out."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def open_captioner(folder: Path, engine: str, said: Arrays | None = None) -> Captioner:
    """Opens the captioner; it knows what people said of some pictures."""
    captioner = Captioner.load(folder, engine=engine, threads=2)
    vocabulary = captioner.backend.vocabulary
    if said is None:
        features = captioner.encode([data.coffee(), data.chelsea(), data.rocket(), data.astronaut()])
        said = build_consensus(features, SAID, vocabulary)
    captioner.backend.consensus = Consensus(said, vocabulary)  # type: ignore[misc]
    return captioner


def assert_same(found: list[CaptionedPicture], alone: list[CaptionedPicture], name: str) -> None:
    assert found == alone, name
    for picture, expected in zip(found, alone, strict=True):
        for one, other in zip(picture.captions, expected.captions, strict=True):
            np.testing.assert_array_equal(one.attention, other.attention, name)


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
def test_threads_share_a_captioner(engine: str, places: dict[str, Path], two_cores: None) -> None:
    jobs = make_jobs()
    captioner = open_captioner(places[engine], engine)
    alone = [job.run(captioner) for job in jobs]
    assert len({tuple(picture.captions for picture in result) for result in alone}) == len(jobs)
    consensus = captioner.backend.consensus
    assert isinstance(consensus, Consensus)
    fresh = open_captioner(
        places[engine], engine, consensus.arrays
    )  # it has computed nothing before the threads begin
    together = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        together.wait(timeout=60)
        for number in range(ROUNDS * len(jobs)):
            place = (thread * 3 + number) % len(jobs)
            assert_same(jobs[place].run(fresh), alone[place], jobs[place].name)

    with ThreadPoolExecutor(THREADS) as pool:
        for ended in [pool.submit(work, thread) for thread in range(THREADS)]:
            ended.result(timeout=300)


def test_an_encoder_is_compiled_once_for_all_threads(places: dict[str, Path]) -> None:
    backend = Captioner.load(places["onnxruntime"], engine="onnxruntime", threads=2).backend
    assert isinstance(backend, PortableBackend)
    opened: list[tuple[int, ...] | None] = []
    engine = backend._engine

    class Watching:
        def open(self, graph: Path, *, precision: str, shape: tuple[int, ...] | None = None) -> Network:
            opened.append(shape)
            time.sleep(0.05)  # as a network of the usual size takes
            return engine.open(graph, precision=precision, shape=shape)

    backend._engine = Watching()  # type: ignore[assignment]
    pixels = np.stack([backend.read(data.chelsea()), backend.read(data.coffee())])
    together = threading.Barrier(THREADS)

    def encode(thread: int) -> np.ndarray:
        together.wait(timeout=60)
        return backend.encode(pixels[: 1 + thread % 2])

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(encode, range(THREADS)))
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    # One for single pictures and one for several, whichever came first.
    assert sorted(opened, key=str) == [(1, 64, 64, 3), None]


def test_every_thread_keeps_its_share_of_the_cores(places: dict[str, Path], two_cores: None) -> None:
    backend = Captioner.load(places["torch"]).backend
    pixels = np.stack([backend.read(picture) for picture in (data.chelsea(), data.coffee())] * 4)
    backend.encode(pixels)
    together = threading.Barrier(THREADS)

    def count(_: int) -> set[int]:
        together.wait(timeout=60)
        return {backend.encode(pixels) is None or torch.get_num_threads() for _ in range(10)}

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(count, range(THREADS))) == [{2}] * THREADS


# Generators


@pytest.fixture(scope="module")
def captioner(places: dict[str, Path]) -> Captioner:
    return Captioner.load(places["torch"])


def endless() -> Iterator[np.ndarray]:
    yield from itertools.cycle([data.chelsea(), data.coffee(), data.astronaut()])


def threads_of_ours() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(("read-ahead", "encode"))]


def test_generators_that_are_left_leave_no_threads(captioner: Captioner, two_cores: None) -> None:
    for picture in captioner.caption(endless()):
        assert picture.text
        break
    assert threads_of_ours() == []

    results = captioner.caption(endless())
    next(results)
    assert threads_of_ours() != []
    del results
    assert threads_of_ours() == []

    with contextlib.closing(captioner.caption(endless())) as closed:
        next(closed)
    assert threads_of_ours() == []

    never_begun = captioner.caption(endless())
    assert threads_of_ours() == []
    del never_begun

    features = captioner.encode(endless())
    next(features)
    del features
    assert threads_of_ours() == []


def test_an_error_in_the_loop_leaves_no_threads(captioner: Captioner) -> None:
    def use() -> None:
        for _ in captioner.caption(endless()):
            raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        use()
    assert threads_of_ours() == []


def test_generators_used_in_turns_do_not_disturb_each_other(captioner: Captioner) -> None:
    jobs = make_jobs()[2:5]
    alone = [job.run(captioner) for job in jobs]
    running = [captioner.caption(job.pictures, job.settings) for job in jobs]
    found: list[list[CaptionedPicture]] = [[] for _ in jobs]
    for turn in itertools.zip_longest(*running):
        for results, picture in zip(found, turn, strict=True):
            results.extend([] if picture is None else [picture])
    for job, results, expected in zip(jobs, found, alone, strict=True):
        assert_same(results, expected, job.name)


def test_one_generator_may_feed_another(captioner: Captioner) -> None:
    pictures = [data.chelsea(), data.coffee(), data.astronaut()] * 6
    texts = [picture.text for picture in captioner.caption(pictures)]

    def twice() -> Iterator[np.ndarray]:
        for picture, text in zip(captioner.caption(pictures), texts, strict=True):
            assert picture.text == text
            yield pictures[0]

    assert [picture.text for picture in captioner.caption(twice())] == [texts[0]] * len(pictures)
