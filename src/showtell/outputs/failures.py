"""What went wrong with which image, told at the end: all of it, or the first of it and where the rest is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from showtell.images import is_url
from showtell.images.addresses import show_url
from showtell.outputs.names import one_line
from showtell.outputs.record import Record

SHOWN = 20


class Failures:
    """Counts the images that failed and keeps the first of them.

    Args:
        kept_in: where structured output holds them all, or "" if nothing does; then each one beyond the first 20 is
            said as it comes.
        say: prints one line for people.
    """

    def __init__(self, kept_in: str, say: Callable[[str], object]) -> None:
        self.count = 0
        self._images = 0
        self._kept_in = kept_in
        self._say = say
        self._first: list[str] = []

    def add(self, record: Record) -> None:
        """Takes note of a record, whether or not it failed."""
        self._images += 1
        if record.failure:
            self.count += 1
            self._keep(record)

    def add_many(self, images: int, failed: int, first: Iterable[Record]) -> None:
        """Takes note of many images at once.

        Args:
            images: how many there are.
            failed: how many of them failed.
            first: the first of those; the others are known to be in what is kept.
        """
        self._images += images
        for record in first:
            self.count += 1
            failed -= 1
            self._keep(record)
        self.count += failed

    def _keep(self, record: Record) -> None:
        # An address may hold what only its owner should know, as a key behind the question mark.
        name = show_url(record.image) if is_url(record.image) else one_line(record.image)
        line = f"{name}: {record.failure.removeprefix(name).removeprefix(':').strip()}"
        if self.count <= SHOWN:
            self._first.append(line)
        elif not self._kept_in:
            self._say(f"error: {line}")

    def report(self) -> None:
        """Says how many failed, and which."""
        if not self.count:
            return
        noun = "image" if self._images == 1 else "images"
        self._say(f"error: {self.count:,} of {self._images:,} {noun} failed:")
        for line in self._first:
            self._say(f"  {line}")
        if self.count > SHOWN:
            where = f"all are in {self._kept_in}" if self._kept_in else "they are named above"
            self._say(f"  and {self.count - SHOWN:,} more; {where}")
