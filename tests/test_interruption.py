"""Ctrl-C at a bad moment: it waits for the end of what must not be broken off."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from showtell.interruption import interruptible, interruption_put_off, termination_as_interruption


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    """Ctrl-C's handler as Python has it, put back afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def load(done: list[str]) -> None:
    with interruption_put_off():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        done.append("loaded")


def test_what_is_put_off_comes_at_the_end(handler: Any) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        load(done)
    assert done == ["loaded"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_it_comes_to_whoever_would_have_had_it() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    load([])
    assert heard == [signal.SIGINT]


def test_an_ignored_one_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load([])
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_without_a_signal_nothing_comes_and_errors_pass() -> None:
    with interruption_put_off():
        pass
    with pytest.raises(ImportError, match="broken"), interruption_put_off():
        raise ImportError("broken")


def test_another_thread_leaves_signals_alone(handler: Any) -> None:
    seen = []

    def look() -> None:
        with interruption_put_off(), interruptible() as interrupted:
            seen.append((signal.getsignal(signal.SIGINT), interrupted.is_set()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(handler, False)]


def test_sigterm_does_what_ctrl_c_does_and_then_what_it_did_before() -> None:
    def be_terminated() -> None:
        with termination_as_interruption() as again:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a library takes it for itself
            again()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            be_terminated()
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_is_left_alone_in_another_thread() -> None:
    def enter() -> None:
        with termination_as_interruption() as again:
            again()
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[Any] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
