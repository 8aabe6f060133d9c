"""Services as processes of their own: started, waited for, looked at from outside, and ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.sides import worker_environment

START_SECONDS = 180
END_SECONDS = 60
SHOWTELL = r"showtell: http://127\.0\.0\.1:(\d+) "  # how `showtell serve` announces its port
FLASK = r"Running on http://127\.0\.0\.1:(\d+)"
_SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Footprint:
    """What a service and its workers hold."""

    resident_mb: float  # megabytes
    descriptors: int
    threads: int
    processes: tuple[int, ...]  # their ids


@dataclass
class RunningService:
    """A service that runs."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> str:
        """Returns what a GET of this path answers; raises OSError."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=START_SECONDS) as answer:
            return str(answer.read().decode("utf-8"))

    def wait_until_ready(self) -> None:
        """Waits until /readyz answers 200; raises SystemExit if it never does."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                self.get("/readyz")
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(
            f"benchmarks: port {self.port} is not ready:\n{self.log.read_text(encoding='utf-8')}"
        )

    def look(self) -> Footprint:
        """Returns what it holds now."""
        parent = psutil.Process(self.process.pid)
        megabytes, descriptors, threads, found = 0.0, 0, 0, []
        for one in [parent, *parent.children(recursive=True)]:
            try:
                with one.oneshot():
                    megabytes += one.memory_info().rss / 1e6
                    descriptors += one.num_fds()
                    threads += one.num_threads()
                found.append(one.pid)
            except psutil.NoSuchProcess:  # it ended meanwhile
                pass
        return Footprint(round(megabytes, 2), descriptors, threads, tuple(sorted(found)))

    @contextmanager
    def watch_memory(self) -> Iterator[Peak]:
        """Watches resident memory while the block runs."""
        peak, over = Peak(), threading.Event()

        def watch() -> None:
            while True:
                peak.samples.append(self.look().resident_mb)
                if over.wait(_SAMPLE_SECONDS):
                    return

        thread = threading.Thread(target=watch, name="watch memory")
        thread.start()
        try:
            yield peak
        finally:
            over.set()
            thread.join()


@dataclass
class Peak:
    """Resident memory over time."""

    samples: list[float] = field(default_factory=list)  # megabytes

    @property
    def megabytes(self) -> float:
        """The most that was seen."""
        return max(self.samples, default=0.0)


@contextmanager
def running(words: Sequence[str], announced: str, *, threads: int, log: Path) -> Iterator[RunningService]:
    """Runs a service until the block ends.

    Args:
        words: for the Python that runs this, as "-m showtell serve".
        announced: the pattern of the line that tells its port.
        threads: of its networks.
        log: where what it says is written.

    Raises:
        SystemExit: it does not start; the message has its log.
    """
    environment = {**os.environ, **worker_environment(threads)}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *words], stdout=file, stderr=file, env=environment)
    try:
        end = time.monotonic() + START_SECONDS
        while not (found := re.search(announced, log.read_text(encoding="utf-8"))):
            if process.poll() is not None or time.monotonic() > end:
                said = log.read_text(encoding="utf-8")
                raise SystemExit(f"benchmarks: {' '.join(words)} did not start:\n{said}")
            time.sleep(0.1)
        yield RunningService(process, int(found[1]), log)
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
