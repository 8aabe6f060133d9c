"""Words as they are decided, as server-sent events (text/event-stream).

::

    event: word     {"image": 0, "sample": 0, "word": "a"}        as soon as it is decided
    event: image    {"image": 0, ...}                             a whole `ImageAnswer`: captions, or an error
    event: done     {"request_id": ..., "model": ..., "timings": ...}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from showtell.server.batcher import OnWord
from showtell.server.bodies import Item

Event = tuple[str, dict[str, Any]]  # its name and its data
MEDIA_TYPE = "text/event-stream"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}  # the latter tells nginx to pass on at once


def write_event(name: str, data: Any) -> bytes:
    """Returns one event; JSON in ASCII has no line breaks."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode("ascii")


async def stream_images(
    items: Sequence[Item], answer: Callable[[Item, OnWord], Awaitable[dict[str, Any]]]
) -> AsyncGenerator[Event, None]:
    """Yields the words of all images as they are decided, and each image's answer when it is there.

    Args:
        items: the images.
        answer: captions one of them, and tells its words on another thread.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def tell(place: int) -> OnWord:
        def on_word(sample: int, word: str) -> None:
            event = ("word", {"image": place, "sample": sample, "word": word})
            loop.call_soon_threadsafe(events.put_nowait, event)

        return on_word

    async def work(place: int, item: Item) -> None:
        try:
            events.put_nowait(("image", {"image": place, **await answer(item, tell(place))}))
        except Exception as error:  # what nobody expected; raised where the events are read
            events.put_nowait(error)

    tasks = [asyncio.create_task(work(place, item)) for place, item in enumerate(items)]
    try:
        left = len(tasks)
        while left:
            event = await events.get()
            if isinstance(event, Exception):
                raise event
            left -= event[0] == "image"
            yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
