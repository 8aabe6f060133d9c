"""The thread that captions: pictures of all clients are encoded together, and searched per equal options.

Pictures come from the threads that decode them, without a detour over the event loop, so that the networks have the
next batch at hand when they are done with one. While they are busy, what arrives gathers by itself; when they are
idle, the first picture waits for others only if some are being decoded, and only `wait` seconds. A client that is
alone waits for nobody.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from showtell.captioner import Captioner
from showtell.captioning import Caption, caption_features, pick_images, stack_pictures
from showtell.decoding import DecodingSettings, IntArray
from showtell.server.metrics import Metrics
from showtell.text import SPECIAL

OnWord = Callable[[int, str], None]  # (number of the sample, word); called on the batcher's thread


@dataclass(frozen=True)
class Captioned:
    """What one picture gave."""

    digest: bytes  # SHA-256 of its file
    captions: tuple[Caption, ...]  # best first
    seconds: dict[str, float]  # per stage
    size: tuple[int, int] | None = None  # width and height of the upright picture, where asked for
    batch: int = 0  # pictures that were captioned together; 0: the captions were written before


@dataclass(eq=False)
class Job:
    """One picture on its way to its captions."""

    settings: DecodingSettings
    measure: bool = False  # whether the size is asked for
    on_word: OnWord | None = None
    digest: bytes = b""
    size: tuple[int, int] | None = None
    pixels: Any = None
    seconds: dict[str, float] = field(default_factory=dict)
    since: float = 0.0  # when it began to wait
    result: Future[Captioned] = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        """Gives the error to whoever waits, if anybody still does."""
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)


class Batcher:
    """Captions jobs in batches, on one thread of its own.

    Args:
        captioner: writes the captions.
        size: pictures in a batch, at most.
        wait: seconds that a picture waits for others, at most.
        metrics: counts batches and measures stages.
        done: called with each job that has captions, before they are given out; on the batcher's thread.
    """

    def __init__(
        self,
        captioner: Captioner,
        *,
        size: int,
        wait: float,
        metrics: Metrics,
        done: Callable[[Job, tuple[Caption, ...]], None],
    ) -> None:
        self._captioner = captioner
        self._size = size
        self._wait = wait
        self._metrics = metrics
        self._done = done
        self._waiting: deque[Job] = deque()
        self._expected = 0  # jobs that are being decoded
        self._closed = False
        self._since = math.inf  # when the batch in hand was begun
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    @property
    def seconds(self) -> float:
        """How long the batch in hand has taken so far; 0 or less where there is none."""
        return time.monotonic() - self._since

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def expect(self) -> None:
        """Says that a job is on its way; `add` or `drop` must follow."""
        with self._change:
            self._expected += 1

    def drop(self) -> None:
        """Says that an expected job will not come."""
        with self._change:
            self._expected -= 1
            self._change.notify()

    def add(self, job: Job) -> None:
        """Takes an expected job whose picture is decoded."""
        with self._change:
            self._expected -= 1
            job.since = time.monotonic()
            self._waiting.append(job)
            self._change.notify()

    def close(self) -> None:
        """Captions what waits, and ends the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._gather()) is not None:
            jobs = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if not jobs:
                continue
            self._since = time.monotonic()
            try:
                self._caption(jobs)
            except (
                BaseException
            ) as error:  # whatever it is, nobody must wait for ever, and the next batch goes on
                for job in jobs:
                    if not job.result.done():
                        job.result.set_exception(error)
            finally:
                self._since = math.inf

    def _gather(self) -> list[Job] | None:
        """Waits for the next batch; None: there will be none."""
        with self._change:
            while not self._waiting:
                if self._closed:
                    return None
                self._change.wait()
            end = self._waiting[0].since + self._wait
            while len(self._waiting) < self._size and self._expected and (left := end - time.monotonic()) > 0:
                self._change.wait(left)
            count = min(self._size, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]

    def _caption(self, jobs: list[Job]) -> None:
        begin = time.monotonic()
        features = self._captioner.backend.encode(stack_pictures([job.pixels for job in jobs]))
        encoded = time.monotonic()
        self._metrics.batch(len(jobs), encoded - begin)
        for job in jobs:
            job.pixels = None
            job.seconds |= {"wait": begin - job.since, "encode": encoded - begin}
            self._metrics.stage("wait", job.seconds["wait"])
        groups: dict[DecodingSettings, list[int]] = {}
        # Those whose words somebody watches come first: of them the first word is waited for.
        for place in sorted(range(len(jobs)), key=lambda place: jobs[place].on_word is None):
            groups.setdefault(jobs[place].settings, []).append(place)
        for settings, places in groups.items():
            chosen = (
                features if len(groups) == 1 and places == sorted(places) else pick_images(features, places)
            )
            self._search([jobs[place] for place in places], chosen, settings, len(jobs))

    def _search(self, jobs: list[Job], features: Any, settings: DecodingSettings, batch: int) -> None:
        begin = time.monotonic()
        try:
            found = caption_features(
                self._captioner.backend,
                features,
                settings,
                positions=[0]
                * len(jobs),  # samples depend on the seed and the image alone, not on its neighbours
                watch=self._tell(jobs, settings, begin),
            )
        except Exception as error:  # of these options only; the others of the batch go on
            for job in jobs:
                job.result.set_exception(error)
            return
        took = time.monotonic() - begin
        self._metrics.stage("search", took)
        for job, captions in zip(jobs, found, strict=True):
            job.seconds["search"] = took
            rated = tuple(map(self._captioner.rate, captions))
            self._done(job, rated)
            job.result.set_result(Captioned(job.digest, rated, job.seconds, job.size, batch))

    def _tell(
        self, jobs: list[Job], settings: DecodingSettings, begin: float
    ) -> Callable[[IntArray, IntArray], None] | None:
        """Returns what passes words on to those who watch; None where nobody does.

        Args:
            jobs: that are searched together.
            settings: of the search.
            begin: when it began; the seconds until the first word are noted.
        """
        watched = [job for job in jobs if job.on_word is not None]
        if not watched:
            return None
        word = self._captioner.backend.vocabulary.word
        rows = settings.count if settings.method == "sample" else 1

        def watch(slots: IntArray, tokens: IntArray) -> None:
            if "first_word" not in watched[0].seconds:
                took = time.monotonic() - begin
                self._metrics.stage("first_word", took)
                for job in watched:
                    job.seconds["first_word"] = took
            for slot, token in zip(slots.tolist(), tokens.tolist(), strict=True):
                on_word = jobs[slot // rows].on_word
                if on_word is not None and token != SPECIAL.end:
                    on_word(slot % rows, word(token))

        return watch


def warm_up(captioner: Captioner, sizes: Sequence[int]) -> None:
    """Captions grey pictures, so that the first real ones do not wait for what is made at first use."""
    pixels = captioner.backend.read(Image.new("RGB", (64, 64), (128, 128, 128)))
    for size in sizes:
        features = captioner.backend.encode(stack_pictures([pixels] * size))
        caption_features(captioner.backend, features, captioner.settings, positions=[0] * size)
