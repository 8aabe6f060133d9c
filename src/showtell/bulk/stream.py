"""Many images, one after another: what is done is passed over, and what a killed run began goes on unchanged.

Captions can depend on the batch in which their image is (sums in another order differ in their last bits, and samples
on the position of the image), so a job goes on from where a batch began, and drops the results that it has already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, islice

from showtell.captioner import BATCH, CaptionedPicture, Captioner, start_of_batch
from showtell.decoding import DecodingSettings
from showtell.intake import Item


def caption_items(
    captioner: Captioner,
    items: Iterable[Item],
    settings: DecodingSettings,
    *,
    done: Callable[[Item], bool] = lambda _: False,
    min_confidence: float = 0.0,
    start: int = 0,
) -> Generator[tuple[Item, CaptionedPicture], None, None]:
    """Yields the items that are not done with their captions or errors, in their order, bit for bit as from one run.

    Args:
        captioner: writes the captions.
        items: may be endless.
        settings: of the search.
        done: whether the run that is gone on with has the result of an item; asked once for each.
        min_confidence: of `Captioner.caption`.
        start: the position of the first item in a larger job; a batch must begin there (`start_of_batch`).
    """
    remaining = iter(items)
    start, again, first = _pass_over(remaining, done, start)
    if first is None:
        return
    waiting: deque[Item] = deque()  # what the captioner has taken and not yet answered

    def sources() -> Iterator[object]:
        for item in chain(again, [first], (item for item in remaining if not done(item))):
            waiting.append(item)
            yield item.source

    results = captioner.caption(sources(), settings, start=start, min_confidence=min_confidence)  # type: ignore[arg-type]
    for picture in islice(results, len(again)):
        del picture
        waiting.popleft()
    for picture in results:
        yield waiting.popleft(), picture


def _pass_over(
    items: Iterator[Item], done: Callable[[Item], bool], position: int
) -> tuple[int, list[Item], Item | None]:
    """Returns the position of the batch to begin with, the items in it that are done, and the first that is not."""
    recent: deque[Item] = deque(maxlen=BATCH)
    for item in items:
        if not done(item):
            start = start_of_batch(position)
            return start, list(recent)[len(recent) - (position - start) :], item
        recent.append(item)
        position += 1
    return position, [], None
