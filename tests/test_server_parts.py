"""The service's parts by themselves: keys, rates, cache, batches, settings."""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.captioner import Captioner
from showtell.captioning import Caption
from showtell.decoding import DecodingSettings
from showtell.errors import ConfigError
from showtell.server.batcher import Batcher, Job
from showtell.server.cache import CaptionCache
from showtell.server.keys import Bucket, KeyRing, read_keys
from showtell.server.metrics import Metrics
from showtell.server.settings import Limits, ServerSettings

GREEDY = DecodingSettings(method="greedy")


def test_keys_come_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# comment\n\nalice aaaaaaaaaaaaaaaa\nbob bbbbbbbbbbbbbbbb 30\n")
    keys = read_keys(file, {"SHOWTELL_API_KEYS": "carol cccccccccccccccc"})
    assert [(key.name, key.rate) for key in keys] == [("alice", None), ("bob", 30), ("carol", None)]
    assert "aaaa" not in repr(keys)
    assert "aaaa" not in repr(ServerSettings(models=("m",), keys=keys))
    ring = KeyRing(keys, rate=60)
    found = [ring.find(key) for key in ("aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "dddddddddddddddd", "")]
    assert [client.name if client else None for client in found] == ["alice", "bob", None, None]
    assert ring.find("\udcff") is None
    assert KeyRing(()).open
    assert not ring.open


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no key in it"),
        ("alice\n", "line 1: must be NAME KEY"),
        ("a\nb", "line 1"),
        ("alice aaaaaaaaaaaaaaaa x", "rate of 'alice'"),
        ("alice aaaaaaaaaaaaaaaa 0", "rate of 'alice'"),
        ("alice aaaaaaaaaaaaaaaa\nbob aaaaaaaaaaaaaaaa", "the key of 'bob' comes twice"),
        ("alice aaaaaaaaaaaaaaaa\nalice bbbbbbbbbbbbbbbb", "the name of 'alice' comes twice"),
    ],
)
def test_bad_key_files_are_refused_without_showing_keys(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_keys(tmp_path / "keys", {})
    assert expected in str(caught.value)
    assert "aaaa" not in str(caught.value)


@given(
    rate=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50)), max_size=60),
)
def test_a_bucket_never_gives_more_than_its_rate(rate: int, steps: list[tuple[float, int]]) -> None:
    now = 0.0
    bucket = Bucket(rate, clock=lambda: now)
    given_out, largest = 0, 0
    for pause, count in steps:
        now += pause
        wait = bucket.take(count)
        if wait == 0:
            given_out += count
            largest = max(largest, count)
        else:
            assert wait <= 60 * (count + largest) / rate + 1e-6
        # A full bucket, what flowed in since, and what the largest one overdrew.
        assert given_out <= rate + rate * now / 60 + largest + 1e-6


def caption(text: str) -> Caption:
    words = text.split()
    return Caption(text, -1.0, -1.0, (-0.5,) * len(words), np.zeros((len(words), 49), np.float32))


@given(
    limit=st.integers(0, 20_000),
    steps=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20), st.booleans()), max_size=60),
)
def test_the_cache_stays_within_its_limit_and_gives_back_what_it_got(
    limit: int, steps: list[tuple[int, int, bool]]
) -> None:
    cache = CaptionCache(limit)
    last: dict[bytes, Any] = {}
    for number, words, store in steps:
        digest = hashlib.sha256(bytes([number])).digest()
        if store:
            entry = (caption(" ".join(["word"] * words)),)
            cache.put((digest, GREEDY), entry)
            last[digest] = entry
        elif (found := cache.get((digest, GREEDY))) is not None:
            assert found == last[digest] or found[0].text  # a larger one may not have been kept
        assert 0 <= cache.size <= limit
    assert (cache.size == 0) == (len(cache) == 0)


def test_the_cache_forgets_what_was_used_least_recently() -> None:
    cache = CaptionCache(0)
    cache.put((b"a", GREEDY), (caption("a dog"),))
    assert cache.get((b"a", GREEDY)) is None
    cache = CaptionCache(3200)  # room for two
    for name in (b"a", b"b"):
        cache.put((name, GREEDY), (caption("a dog"),))
    assert cache.get((b"a", GREEDY))
    cache.put((b"c", GREEDY), (caption("a dog"),))
    assert [cache.get((name, GREEDY)) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    assert cache.get((b"a", DecodingSettings(method="beam"))) is None


@pytest.mark.parametrize(
    "wrong",
    [{"body_bytes": 0}, {"seconds": float("nan")}, {"queue": -1}, {"images": True}, {"pixels": float("inf")}],
)
def test_limits_must_be_positive(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Limits(**wrong)


def test_a_worker_that_idles_is_not_taken_for_one_that_hangs() -> None:
    with pytest.raises(ConfigError, match=r"hang_seconds must be at least 5: .*Received: 4\.9"):
        ServerSettings(models=("m",), hang_seconds=4.9)
    assert ServerSettings(models=("m",), hang_seconds=5.0).hang_seconds == 5.0


def test_only_this_machine_by_name_unless_told_otherwise() -> None:
    assert "localhost" in ServerSettings(models=("m",)).allowed_hosts
    assert ServerSettings(models=("m",), host="0.0.0.0").allowed_hosts == ()
    assert ServerSettings(models=("m",), hosts=("a.example",)).allowed_hosts == ("a.example",)


@pytest.fixture(scope="module")
def captioner(exported_model: str) -> Captioner:
    return Captioner.load(exported_model, engine="onnxruntime", threads=1)


def make_batcher(captioner: Captioner, size: int = 16, wait: float = 0.0) -> Batcher:
    return Batcher(captioner, size=size, wait=wait, metrics=Metrics(), done=lambda _job, _captions: None)


def test_different_options_share_a_batch_and_do_not_disturb_each_other(
    captioner: Captioner, photographs: list[Path]
) -> None:
    options = (
        GREEDY,
        DecodingSettings(beam=3, count=3),
        DecodingSettings(method="sample", count=2, seed=3),
        DecodingSettings(beam=3, include=("men",)),
        DecodingSettings(beam=3, include=("zebra",)),  # which the model does not know
    )
    words: list[tuple[int, str]] = []
    batcher = make_batcher(captioner)
    jobs = []
    for place, settings in enumerate(options * 3):
        job = Job(
            settings, on_word=(lambda sample, word: words.append((sample, word))) if place == 0 else None
        )
        job.pixels = captioner.backend.read(photographs[place % 6])
        batcher.expect()
        batcher.add(job)
        jobs.append(job)
    batcher.start()
    for place, job in enumerate(jobs):
        if job.settings.include == ("zebra",):
            with pytest.raises(ConfigError, match="zebra"):
                job.result.result(timeout=30)
            continue
        found = job.result.result(timeout=30)
        assert found.batch == 15
        [alone] = captioner.caption(photographs[place % 6], job.settings)
        assert [one.text for one in found.captions] == [one.text for one in alone.captions]
    assert " ".join(word for _, word in words) == jobs[0].result.result().captions[0].text
    batcher.close()


def test_a_cancelled_job_is_not_captioned_and_a_broken_one_stops_nobody(
    captioner: Captioner, photographs: list[Path]
) -> None:
    batcher = make_batcher(captioner, size=1)
    pixels = captioner.backend.read(photographs[0])
    cancelled, broken, sound = Job(GREEDY), Job(GREEDY), Job(GREEDY)
    cancelled.pixels, broken.pixels, sound.pixels = pixels, np.zeros((3, 3), np.uint8), pixels
    assert cancelled.result.cancel()
    for job in (cancelled, broken, sound):
        batcher.expect()
        batcher.add(job)
    batcher.start()
    assert sound.result.result(timeout=30).captions
    with pytest.raises(CancelledError):
        cancelled.result.result()
    with pytest.raises(Exception, match="pixels"):
        broken.result.result()
    batcher.close()


def test_a_picture_waits_for_others_only_while_some_are_being_decoded(
    captioner: Captioner, photographs: list[Path]
) -> None:
    pixels = captioner.backend.read(photographs[0])
    batcher = make_batcher(captioner, wait=30)
    batcher.start()

    def add() -> Job:
        job = Job(GREEDY)
        job.pixels = pixels
        batcher.add(job)
        return job

    batcher.expect()
    assert add().result.result(timeout=10).batch == 1  # alone: it does not wait 30 s
    batcher.expect()
    batcher.expect()
    first = add()
    time.sleep(0.2)
    assert not first.result.done()
    threading.Timer(0.1, add).start()
    assert first.result.result(timeout=10).batch == 2
    batcher.expect()
    batcher.expect()
    first = add()
    batcher.drop()  # the other one could not be read
    assert first.result.result(timeout=10).batch == 1
    batcher.close()
