"""Ctrl-C at a bad moment: it waits for the end of what must not be broken off."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from showtell.interruption import interruptible, interruption_put_off


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_put_off_comes_at_the_end(number: int) -> None:
    before = signal.getsignal(number)
    done = []

    def load() -> None:
        with interruption_put_off():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            done.append("loaded")

    with pytest.raises(KeyboardInterrupt):
        load()
    assert done == ["loaded"]
    assert signal.getsignal(number) is before


def test_without_a_signal_nothing_comes_and_errors_pass() -> None:
    with interruption_put_off():
        pass
    with pytest.raises(ImportError, match="broken"), interruption_put_off():
        raise ImportError("broken")


def test_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def look() -> None:
        with interruptible() as interrupted:
            seen.append((signal.getsignal(signal.SIGINT), interrupted.is_set()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
