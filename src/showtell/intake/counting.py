"""How many there are, where that is known without waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Counted(Generic[Thing]):
    """Goes once through an iterable, and knows its length if it is not longer than what is looked at ahead.

    Args:
        things: to go through.
        ahead: at most so many are taken, and held, before the first is needed; 0 where the source may be slow.
    """

    def __init__(self, things: Iterable[Thing], *, ahead: int) -> None:
        self._rest = iter(things)
        self._ahead = deque(islice(self._rest, ahead))
        self._known = len(self._ahead)
        self._ended = len(self._ahead) < ahead

    @property
    def total(self) -> int | None:
        """How many things there are; None as long as nobody knows."""
        return self._known if self._ended else None

    def __iter__(self) -> Iterator[Thing]:
        """Yields all of them; to be called once."""
        while self._ahead:
            yield self._ahead.popleft()
        for thing in self._rest:
            self._known += 1
            yield thing
        self._ended = True
