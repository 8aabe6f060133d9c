"""Ctrl-C where it would come at a bad moment: looked at between two steps, or put off to the end of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible(*, second_is_final: bool = True) -> Iterator[threading.Event]:
    """Turns the first Ctrl-C (or SIGTERM) into an event that is looked at between two steps.

    Args:
        second_is_final: whether another one ends everything at once. Where torchrun passes on what the terminal has
            sent already, the second one says nothing new; torchrun itself kills what does not end.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # signal handlers belong to the main thread
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        if interrupted.is_set() and second_is_final:
            raise KeyboardInterrupt
        interrupted.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruption_put_off() -> Iterator[None]:
    """Lets Ctrl-C (or SIGTERM) come only at the end, as KeyboardInterrupt.

    A library in C++ that is being loaded takes it for a fault of its own, and reports that instead.
    """
    with interruptible(second_is_final=False) as interrupted:
        yield
    if interrupted.is_set():
        raise KeyboardInterrupt
