"""How far the work is, on standard error: a bar where somebody watches, and a line now and then where nobody does."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from showtell.cli.output import log
from showtell.errors import count
from showtell.launch import read_launch

if TYPE_CHECKING:
    from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0


@contextmanager
def show_progress(
    description: str, unit: str, *, hidden: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """Gives a function to call with (done, total) as work goes on; it draws a bar with speed and time left.

    A total that nobody knows yet is None: then there is no time left, only the speed. Where standard error is a file or
    a pipe, a line a minute says the same, so that logs hold no control characters. No bar is drawn where it is to be
    hidden, because results come out on the same terminal.
    """
    bar = _open_bar(description, unit, total=None, hidden=hidden)
    began = False

    def update(done: int, total: int | None) -> None:
        nonlocal began
        if not began:  # what the first call reports was there before, and must not count as speed
            bar.initial = bar.n = done
            began = True
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        yield update


@contextmanager
def show_stages(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function to call with (stage, done, total); each stage has a bar of its own, with its own speed."""
    stages: dict[str, Callable[[int, int | None], None]] = {}
    with ExitStack() as shown:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                shown.close()
                stages[stage] = shown.enter_context(show_progress(stage, unit))
            stages[stage](done, total)

        yield update


class BarWatcher:
    """Shows the stages of a training run, one bar after another, and its notes as lines between them."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | _Lines | None = None

    def __enter__(self) -> BarWatcher:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the bar, so that what is printed next starts on its own line."""
        self._close()

    def stage(self, description: str, total: int, unit: str) -> None:
        """Opens a bar for a new stage."""
        self._close()
        self._bar = _open_bar(description, unit, total=total)

    def advance(self, amount: int, **values: float) -> None:
        """Moves the bar, and shows the values behind it."""
        if self._bar is not None:
            if values:
                self._bar.set_postfix({key: f"{value:.4g}" for key, value in values.items()}, refresh=False)
            self._bar.update(amount)

    def note(self, message: str) -> None:
        """Prints a line, also where there is no terminal: it belongs to the log."""
        if self._bar is not None:
            self._bar.clear()
        log(message)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """What a bar would show as lines of a log, the first one after a minute; has the part of tqdm that is used here."""

    def __init__(self, description: str, unit: str, total: int | None) -> None:
        self.total = total
        self.initial = self.n = 0.0
        self._description, self._unit = description, unit
        self._values = ""
        self._began = self._said = time.monotonic()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def set_postfix(self, values: dict[str, str], *, refresh: bool) -> None:
        self._values = "".join(f", {key} {value}" for key, value in values.items())

    def update(self, amount: float) -> None:
        self.n += amount
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self._say(now - self._began)

    def clear(self) -> None: ...

    def close(self) -> None: ...

    def _say(self, seconds: float) -> None:
        speed = (self.n - self.initial) / max(seconds, 1e-9)
        of = "" if self.total is None else f" of {self.total:,}"
        left = ""
        if self.total is not None and speed > 0:
            left = f", {_tell_duration((self.total - self.n) / speed)} left"
        rate = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        log(f"{self._description}: {self.n:,.0f}{of} {self._unit}, {rate}/s{left}{self._values}")


def _tell_duration(seconds: float) -> str:
    """Returns a duration in the largest unit of which there are two or more."""
    for size, noun in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return count(round(seconds / size), noun)
    return count(round(max(0, seconds)), "second")


def _open_bar(description: str, unit: str, *, total: int | None, hidden: bool = False) -> tqdm[Any] | _Lines:
    if not sys.stderr.isatty():
        return _Lines(description, unit, total)
    from tqdm import tqdm

    # A terminal that does not say how large it is, as in some containers, would get an empty bar.
    size_known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        file=sys.stderr,
        disable=hidden or not read_launch().is_first,
        ncols=None if size_known else 80,
        nrows=None if size_known else 24,
        dynamic_ncols=size_known,
    )
