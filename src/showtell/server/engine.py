"""From the bytes of a picture to its captions: the queue and its limit, threads that decode, the cache, the batcher."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from showtell.captioner import Captioner
from showtell.captioning import Caption
from showtell.decoding import DecodingSettings
from showtell.images import WebImage, open_image
from showtell.images.fetch import Fetcher, FetchLimits
from showtell.server.batcher import Batcher, Captioned, Job, OnWord, warm_up
from showtell.server.cache import CaptionCache
from showtell.server.metrics import Metrics
from showtell.server.problems import BUSY, NOT_READY, Problem
from showtell.server.settings import ServerSettings

_FORGET = 0.2  # the weight of the newest second in the measured speed
_SPEED = 10.0  # pictures a second, before anything was measured


class Engine:
    """Captions pictures for many clients at once.

    `admit` and `caption` belong to one event loop; the work is done on threads.

    Args:
        captioner: writes the captions.
        settings: of the service.
        metrics: counts and measures.
    """

    def __init__(self, captioner: Captioner, settings: ServerSettings, metrics: Metrics) -> None:
        self.captioner = captioner
        self.metrics = metrics
        self.cache = CaptionCache(settings.cache_bytes)
        self.ready = False
        self._settings = settings
        self._admitted = 0  # pictures
        self._speed = _SPEED  # pictures a second, lately
        self._decoders = ThreadPoolExecutor(settings.decoders, thread_name_prefix="decode")
        self._fetchers = ThreadPoolExecutor(settings.fetchers, thread_name_prefix="fetch")
        self._batcher = Batcher(
            captioner, size=settings.batch, wait=settings.batch_wait, metrics=metrics, done=self._keep
        )
        limits = settings.limits
        self._fetcher = Fetcher(
            FetchLimits(seconds=limits.fetch_seconds, bytes=limits.fetch_bytes),
            allow_private=settings.urls == "any",
        )

    def start(self) -> None:
        """Makes the captioner ready, which takes a moment, and starts the threads."""
        # One picture by itself, too: it has a network of its own (`PortableBackend.encode`).
        warm_up(self.captioner, (self._settings.batch, 1))
        self._batcher.start()
        self.ready = True

    def close(self) -> None:
        """Finishes what was accepted, and ends the threads."""
        self.ready = False
        self._fetchers.shutdown(wait=True)
        self._decoders.shutdown(wait=True)
        self._batcher.close()

    @property
    def hangs(self) -> bool:
        """Whether the batch in hand takes longer than anybody waits for it: the networks will not come back."""
        return self._batcher.seconds > self._settings.limits.seconds

    def check_room(self, images: int = 1) -> None:
        """Raises Problem (503, with the time after which to try again) if so many pictures more are too many now."""
        if not self.ready:
            raise Problem(NOT_READY, "The service is starting or ending. Try again soon.", retry_after=1)
        if self._admitted + images > self._settings.limits.queue:
            raise Problem(
                BUSY,
                f"{self._admitted} pictures wait already, and the queue takes {self._settings.limits.queue}. Try again "
                "after the seconds that the header Retry-After says.",
                retry_after=min(60.0, self._admitted / self._speed),
            )

    @contextlib.contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Keeps a place in the queue for so many pictures.

        Raises:
            Problem: there is no room for them.
        """
        self.check_room(images)
        self._admitted += images
        self.metrics.queue.inc(images)
        begin = time.monotonic()
        try:
            yield
        finally:
            # Pictures in the queue by how long they take: Little's law gives the speed.
            if (took := time.monotonic() - begin) > 0:
                self._speed += _FORGET * (self._admitted / took - self._speed)
            self._admitted -= images
            self.metrics.queue.dec(images)

    async def caption(
        self,
        source: bytes | str,
        settings: DecodingSettings,
        *,
        measure: bool = False,
        on_word: OnWord | None = None,
    ) -> Captioned:
        """Captions one picture, for which a place was admitted. Cancelled, it gives up what has not begun.

        Args:
            source: the bytes of a file, or a URL.
            settings: of the search.
            measure: whether the size of the picture is asked for.
            on_word: called on another thread with the number of the sample and the word, as words are decided.

        Raises:
            ImageError: the picture cannot be read; a FetchError if it cannot be fetched.
            ConfigError: the captioner cannot search so.
        """
        job = Job(settings, measure=measure, on_word=on_word)
        if isinstance(source, str):
            self._fetchers.submit(self._fetch, job, source)
        else:
            self._decode_soon(job, source)
        return await asyncio.wrap_future(job.result)

    def _fetch(self, job: Job, url: str) -> None:
        if job.result.cancelled():
            return
        begin = time.monotonic()
        try:
            content = WebImage(url, self._fetcher).read()
            job.seconds["fetch"] = time.monotonic() - begin
            self.metrics.stage("fetch", job.seconds["fetch"])
            # Waited for: what was fetched and not decoded is in memory, and no limit but this one counts it.
            self._decode_soon(job, content).result()
        except BaseException as error:
            job.fail(error)

    def _decode_soon(self, job: Job, content: bytes) -> Future[None]:
        self._batcher.expect()
        try:
            return self._decoders.submit(self._decode, job, content)
        except RuntimeError:  # the pool is shut down
            self._batcher.drop()
            raise Problem(NOT_READY, "The service is ending.", retry_after=1) from None

    def _decode(self, job: Job, content: bytes) -> None:
        added = False
        try:
            if job.result.cancelled():
                return
            begin = time.monotonic()
            job.digest = hashlib.sha256(content).digest()
            pixels = self._settings.limits.pixels
            if job.measure:
                job.size = open_image(content, max_pixels=pixels).size
            if (known := self.cache.get((job.digest, job.settings))) is not None:
                self._give_again(job, known)
                return
            job.pixels = self.captioner.backend.read(content, max_pixels=pixels)
            job.seconds["decode"] = time.monotonic() - begin
            self.metrics.stage("decode", job.seconds["decode"])
            self._batcher.add(job)
            added = True
        except BaseException as error:
            job.fail(error)
        finally:
            if not added:
                self._batcher.drop()

    def _give_again(self, job: Job, captions: tuple[Caption, ...]) -> None:
        if job.result.set_running_or_notify_cancel():
            if job.on_word is not None:
                for sample, caption in enumerate(captions):
                    for word in caption.words:
                        job.on_word(sample, word)
            job.result.set_result(Captioned(job.digest, captions, job.seconds, job.size))

    def _keep(self, job: Job, captions: tuple[Caption, ...]) -> None:
        self.cache.put((job.digest, job.settings), captions)
        self.metrics.cache.set(self.cache.size)
