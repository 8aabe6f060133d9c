"""Ctrl-C, and SIGTERM: looked at between two steps, put off to the end of one, or the one like the other."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
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
    """Lets Ctrl-C come only at the end, to whoever would have had it.

    A library in C++ that is being loaded takes a KeyboardInterrupt for a fault of its own, and reports that instead.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if in_main_thread else None
    if not callable(before):  # ignored, ends the process at once, or is not Python's
        yield
        return
    came = threading.Event()
    signal.signal(signal.SIGINT, lambda _number, _frame: came.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came.is_set():
            signal.raise_signal(signal.SIGINT)


@contextmanager
def termination_as_interruption() -> Iterator[Callable[[], None]]:
    """Lets SIGTERM, which systems send before they kill, do what Ctrl-C does.

    Gives a function that sees to it again, after a library has taken the signal for itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # signal handlers belong to the main thread
        return
    before = signal.getsignal(signal.SIGTERM)

    def take() -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    take()
    try:
        yield take
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
