"""Reading ahead: the next pictures are decoded on threads while the network works on those before.

Pillow gives up Python's lock while it decodes and resizes, so threads are enough. What waits is bounded and
counted in results, which are small (150 kB at 224 pixels); at full size there is at most one picture per thread.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from showtell.errors import ImageError, UsageError

Source = TypeVar("Source")
Result = TypeVar("Result")


def read_ahead(
    sources: Iterable[Source], read: Callable[[Source], Result], *, workers: int = 2, ahead: int = 32
) -> Generator[Result | ImageError, None, None]:
    """Yields `read(source)` of each source in order, computed on threads.

    Args:
        sources: may be endless; taken one by one on the caller's thread. If it raises, the results of the sources
            before come first.
        read: called on several threads at once. An ImageError of it is yielded in the result's place; any other
            error is raised there.
        workers: threads.
        ahead: how many sources are in work, or wait as results, while the caller works on the one that was yielded.

    Raises:
        UsageError: workers or ahead below 1.
    """
    if workers < 1 or ahead < 1:
        raise UsageError(f"workers and ahead must be at least 1. Received: workers={workers}, ahead={ahead}")

    def attempt(source: Source) -> Result | ImageError:
        try:
            return read(source)
        except ImageError as error:
            return error

    waiting: deque[Future[Result | ImageError]] = deque()
    remaining = iter(sources)
    exhausted, failure = False, None
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-ahead")
    try:
        while True:
            while not exhausted and len(waiting) <= ahead:
                try:
                    waiting.append(pool.submit(attempt, next(remaining)))
                except StopIteration:
                    exhausted = True
                except Exception as error:
                    exhausted, failure = True, error
            if not waiting:
                break
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_batches(
    sources: Iterable[Source],
    read: Callable[[Source], Result],
    *,
    size: int,
    first: int | None = None,
    workers: int = 2,
) -> Generator[list[Result | ImageError], None, None]:
    """Yields the results of `read_ahead` in batches; the next batch is read while the caller works on one.

    At most two batches exist at a time: the one that was yielded and the one that is read meanwhile.

    Args:
        sources: as for `read_ahead`.
        read: as for `read_ahead`.
        size: results per batch; the last may be smaller.
        first: the size of the first batch where it should be smaller, so that the work on it begins early.
        workers: as for `read_ahead`.

    Raises:
        UsageError: size, first or workers below 1.
    """
    limit = size if first is None else min(first, size)
    if limit < 1:
        raise UsageError(f"size and first must be at least 1. Received: size={size}, first={first}")
    batch: list[Result | ImageError] = []
    with contextlib.closing(read_ahead(sources, read, workers=workers, ahead=size)) as results:
        for result in results:
            batch.append(result)
            if len(batch) == limit:
                yield batch
                batch, limit = [], size
    if batch:
        yield batch
