"""What every request shares: the engine, the limits, and how one request is answered from its images and options."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from showtell.captioner import Captioner
from showtell.decoding import DecodingSettings
from showtell.server.answers import explain_failure, milliseconds, name_model, write_failure, write_image
from showtell.server.batcher import OnWord
from showtell.server.bodies import BodyMemory, Item
from showtell.server.engine import Engine
from showtell.server.keys import Client, KeyRing
from showtell.server.metrics import Metrics
from showtell.server.problems import GONE, INVALID, LATE, TOO_MANY, Problem
from showtell.server.schemas import CaptionOptions
from showtell.server.settings import ServerSettings
from showtell.server.streams import Event, stream_images

Result = TypeVar("Result")


@dataclass
class Asked:
    """One request: what is logged of it, and when it must be over."""

    id: str
    begin: float  # time.monotonic() of its first byte
    client: Client | None = None
    images: int = 0
    body_seconds: float = 0.0


class Service:
    """The engine with everything around it."""

    def __init__(self, captioner: Captioner, settings: ServerSettings) -> None:
        self.settings = settings
        self.captioner = captioner
        self.metrics = Metrics()
        self.engine = Engine(captioner, settings, self.metrics)
        self.bodies = BodyMemory(settings.limits.memory_bytes, self.metrics)
        self.keys = KeyRing(settings.keys, rate=settings.rate, share=1 / settings.workers)
        self.open_requests = 0

    def charge(self, asked: Asked, images: int) -> None:
        """Counts pictures against the rate of the request's key; raises Problem (429) where it is used up."""
        bucket = asked.client.bucket if asked.client is not None else None
        if bucket is not None and (wait := bucket.take(images)) > 0:
            raise Problem(
                TOO_MANY,
                "This key has had its pictures of this minute. Try again after the seconds that the header "
                "Retry-After says.",
                retry_after=wait,
            )

    async def caption(
        self, asked: Asked, items: Sequence[Item], options: CaptionOptions, settings: DecodingSettings
    ) -> dict[str, Any]:
        """Returns `schemas.CaptionsAnswer`. A single image that fails is the whole request's problem.

        Raises:
            Problem: no room, too late, or the only image failed.
        """
        with self.engine.admit(len(items)):
            answer = functools.partial(self._caption_one, asked, options, settings, alone=len(items) == 1)
            tasks = [asyncio.create_task(answer(item)) for item in items]
            try:
                async with self._deadline(asked):
                    images = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
        return {
            "request_id": asked.id,
            "model": name_model(self.captioner),
            "images": images,
            **self._timings(asked),
        }

    async def stream(
        self, asked: Asked, items: Sequence[Item], options: CaptionOptions, settings: DecodingSettings
    ) -> AsyncGenerator[Event, None]:
        """Yields the events of a stream; what goes wrong with a single image before its first word is raised.

        Raises:
            Problem: as `caption`.
        """

        async def answer(item: Item, on_word: OnWord) -> dict[str, Any]:
            return await self._caption_one(
                asked, options, settings, item, alone=len(items) == 1, on_word=on_word
            )

        with self.engine.admit(len(items)):
            events = stream_images(items, answer)
            try:
                while True:
                    async with self._deadline(asked):
                        event = await anext(events, None)
                    if event is None:
                        break
                    yield event
            finally:
                await events.aclose()
        yield "done", {"request_id": asked.id, "model": name_model(self.captioner), **self._timings(asked)}

    async def _caption_one(
        self,
        asked: Asked,
        options: CaptionOptions,
        settings: DecodingSettings,
        item: Item,
        *,
        alone: bool,
        on_word: OnWord | None = None,
    ) -> dict[str, Any]:
        try:
            if isinstance(item.source, str) and self.settings.urls == "none":
                raise Problem(INVALID, "This service fetches no images from the web. Send the image itself.")
            found = await self.engine.caption(item.source, settings, measure=options.explain, on_word=on_word)
        except asyncio.CancelledError:
            self.metrics.images.labels("abandoned").inc()
            raise
        except Exception as error:
            problem = explain_failure(item, error)
            self.metrics.images.labels("failed" if problem is not None else "internal error").inc()
            if problem is None:
                raise
            if alone:
                raise problem from error
            return write_failure(item, problem, asked.id)
        self.metrics.images.labels("captioned" if found.batch else "cached").inc()
        return write_image(item, found, self.captioner, options)

    def _deadline(self, asked: Asked) -> _Deadline:
        return _Deadline(self.settings.limits.seconds, asked.begin)

    def _timings(self, asked: Asked) -> dict[str, Any]:
        took = time.monotonic() - asked.begin
        return {"timings": {"body": milliseconds(asked.body_seconds), "total": milliseconds(took)}}


class _Deadline:
    """Like `asyncio.timeout`, for the rest of the seconds, with a problem for an error."""

    def __init__(self, seconds: float, begin: float) -> None:
        self._timeout = asyncio.timeout(begin + seconds - time.monotonic())
        self._seconds = seconds

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._timeout.__aexit__(*error)
        except TimeoutError:
            raise Problem(
                LATE,
                f"The captions were not there within {self._seconds:g} s. Try again later.",
                retry_after=5,
            ) from None


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Returns what the work gives, and gives it up when the client leaves. The body must have been read.

    Raises:
        Problem: the client left.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.create_task(watch())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Problem(GONE, "The client left before its captions were there.")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
