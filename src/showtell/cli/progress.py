"""The progress bars: on standard error, and only where somebody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from showtell.cli.output import log
from showtell.launch import read_launch

if TYPE_CHECKING:
    from tqdm import tqdm


@contextmanager
def show_progress(
    description: str, unit: str, *, hidden: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """Gives a function to call with (done, total) as work goes on; it draws a bar with speed and time left.

    A total that nobody knows yet is None: then there is no time left, only the speed. The bar stays silent where
    standard error is a file or a pipe, so that logs hold no control characters, and where it is to be hidden, because
    results come out on the same terminal.
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


class BarWatcher:
    """Shows the stages of a training run, one bar after another, and its notes as lines between them."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

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


def _open_bar(description: str, unit: str, *, total: int | None, hidden: bool = False) -> tqdm[Any]:
    from tqdm import tqdm

    # A terminal that does not say how large it is, as in some containers, would get an empty bar.
    size_known = not sys.stderr.isatty() or os.get_terminal_size(sys.stderr.fileno()).columns > 0
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        file=sys.stderr,
        disable=hidden or not read_launch().is_first or None,  # None is tqdm's word for "only on a terminal"
        ncols=None if size_known else 80,
        nrows=None if size_known else 24,
        dynamic_ncols=size_known,
    )
